//! Bootstrap plugin for machines that run k3s: one binary, one token for all, one config file.

use capstan_sdk::bootstrap::{Bootstrap, BootstrapAnswer, BootstrapInput, Role, SecretEncoding};
use capstan_sdk::schema::{Schema, list, object, string};
use capstan_sdk::{
    Failure, KindRole, Manifest, Material, NoStatus, OwnedKind, Plugin, Requirement,
};
use serde::Deserialize;
use serde_json::{Value, json};

const GROUP: &str = "bootstrap.cluster.x-k8s.io";
const TOKEN: &str = "k3s-token";
const DATASTORE: &str = "datastore";
const DIR: &str = "/etc/rancher/k3s";
const TLS: &str = "/var/lib/rancher/k3s/server/tls";
/// What fetches k3s and starts it as a service, unless the config names something else. A shell that reads from a pipe knows of no failed download.
const INSTALLER: &str = "file=$(mktemp) && curl -sfLo $file https://get.k3s.io && sh $file";

/// A Secret's key.
#[derive(Clone, Debug, Deserialize)]
pub struct SecretKey {
    /// Secret.
    pub name: String,
    /// Key.
    pub key: String,
}

/// `spec` of a K3sConfig.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct K3sSpec {
    /// Installs and starts k3s; gets `INSTALL_K3S_EXEC` and `INSTALL_K3S_VERSION`.
    pub installer: Option<String>,
    /// Lines of `config.yaml` as `key: value`, for servers and agents.
    pub config: Vec<String>,
    /// Commands before k3s.
    pub pre_commands: Vec<String>,
    /// Connection string of an external datastore; embedded etcd without it.
    pub datastore: Option<SecretKey>,
}

/// The plugin.
#[derive(Debug)]
pub struct K3s;

fn spec() -> Schema {
    let text = || string().length(1, 1024);
    let secret = object().required("name", text()).required("key", text());
    object()
        .field("installer", text().describe("Installs and starts k3s."))
        .field(
            "config",
            list(text())
                .items(1, 100)
                .describe("Lines of k3s's config.yaml."),
        )
        .field(
            "preCommands",
            list(text()).items(1, 100).describe("Commands before k3s."),
        )
        .field(
            "datastore",
            secret.describe("External datastore; embedded etcd when unset."),
        )
}

impl Plugin for K3s {
    fn manifest() -> Manifest {
        let kind = |role, name: &str| OwnedKind::new(role, GROUP, name).spec(spec());
        Manifest::new("bootstrap-k3s", env!("CARGO_PKG_VERSION"))
            .description("Makes servers and agents of k3s by cloud-config.")
            .kind(kind(KindRole::BootstrapConfig, "K3sConfig"))
            .kind(kind(KindRole::BootstrapConfigTemplate, "K3sConfigTemplate"))
    }
}

impl Bootstrap for K3s {
    type Spec = K3sSpec;
    type Status = NoStatus;

    fn requirements(input: BootstrapInput<Self>) -> Result<Vec<Requirement>, Failure> {
        let mut requirements = vec![Requirement::shared_secret(TOKEN, 32)];
        if input.role != Role::JoinWorker {
            requirements.push(Requirement::certificate_authority("ca", "kubernetes"));
            let datastore = input.config.spec.datastore;
            requirements
                .extend(datastore.map(|d| Requirement::secret_value(DATASTORE, d.name, d.key)));
        }
        Ok(requirements)
    }

    fn render(input: BootstrapInput<Self>, material: Material) -> Result<BootstrapAnswer, Failure> {
        let spec = &input.config.spec;
        let is_server = input.role != Role::JoinWorker;
        let endpoint = input.control_plane_endpoint.ok_or_else(|| {
            Failure::transient(
                "NoEndpoint",
                "the Cluster has no control plane endpoint yet",
            )
        })?;
        let mut config = vec![format!("token-file: {DIR}/token")];
        if input.role == Role::Init {
            config.extend(
                spec.datastore
                    .is_none()
                    .then(|| "cluster-init: true".to_owned()),
            );
        } else {
            config.push(format!("server: https://{endpoint}"));
        }
        if is_server {
            config.push(format!("tls-san: [{}]", json!(endpoint.host)));
            config.extend(networks(&input.cluster.raw));
        } else {
            config.push(
                "node-taint: [\"node.cluster.x-k8s.io/uninitialized=:NoSchedule\"]".to_owned(),
            );
        }
        config.extend(spec.config.iter().cloned());
        let mut answer = BootstrapAnswer::cloud_config().text("#cloud-config\nwrite_files:\n");
        let secret = |answer: BootstrapAnswer, path: &str, handle| {
            let head =
                format!("- path: {path}\n  permissions: '0600'\n  encoding: b64\n  content: ");
            answer
                .text(head)
                .secret(handle, SecretEncoding::Base64)
                .text("\n")
        };
        answer = secret(answer, &format!("{DIR}/token"), material.value(TOKEN)?);
        if is_server {
            // One authority for servers and clients: the host's kubeconfig is signed by it.
            for name in ["server-ca", "client-ca"] {
                answer = secret(answer, &format!("{TLS}/{name}.key"), material.key("ca")?);
                answer = answer.text(file(
                    &format!("{TLS}/{name}.crt"),
                    material.certificate("ca")?,
                ));
            }
            if spec.datastore.is_some() {
                let path = format!("{DIR}/config.yaml.d/datastore.yaml");
                answer = answer
                    .text(format!("- path: {path}\n  permissions: '0600'\n  content: |\n    datastore-endpoint: |2-\n"))
                    .secret(material.value(DATASTORE)?, SecretEncoding::Indent(6))
                    .text("\n");
            }
        }
        answer = answer.text(file(&format!("{DIR}/config.yaml"), &config.join("\n")));
        let installer = spec.installer.as_deref().unwrap_or(INSTALLER);
        let run = format!(
            "export INSTALL_K3S_EXEC={} INSTALL_K3S_VERSION={}; {installer} && mkdir -p /run/cluster-api && echo success > /run/cluster-api/bootstrap-success.complete",
            if is_server { "server" } else { "agent" },
            input.kubernetes_version,
        );
        let commands = spec.pre_commands.iter().chain([&run]);
        let lines = commands.map(|command| format!("- {}\n", json!(command)));
        Ok(answer.text(format!("runcmd:\n{}", lines.collect::<String>())))
    }
}

fn file(path: &str, content: &str) -> String {
    let lines = content.lines().map(|line| format!("    {line}\n"));
    format!(
        "- path: {path}\n  permissions: '0600'\n  content: |\n{}",
        lines.collect::<String>()
    )
}

/// The Cluster's networks in k3s's words.
fn networks(cluster: &Value) -> Vec<String> {
    let network = |field: &str| cluster.pointer(&format!("/spec/clusterNetwork/{field}"));
    let blocks = |key: &str, field: &str| {
        let blocks = network(field)?.as_array()?.iter().filter_map(Value::as_str);
        Some(format!(
            "{key}: {}",
            json!(blocks.collect::<Vec<_>>().join(","))
        ))
    };
    let domain = network("serviceDomain").map(|domain| format!("cluster-domain: {domain}"));
    let pods = blocks("cluster-cidr", "pods/cidrBlocks");
    [pods, blocks("service-cidr", "services/cidrBlocks"), domain]
        .into_iter()
        .flatten()
        .collect()
}

capstan_sdk::export_bootstrap!(K3s);

#[cfg(test)]
mod tests {
    use super::*;
    use capstan_sdk::MaterialValue;
    use capstan_sdk::testing::{bootstrap_input, secret};

    fn data(role: Role, spec: Value) -> String {
        let material = Material::default()
            .with(TOKEN, "value", MaterialValue::Secret(secret(7)))
            .with("ca", "key", MaterialValue::Secret(secret(8)))
            .with(
                "ca",
                "certificate",
                MaterialValue::Text("CERT\n".to_owned()),
            )
            .with(DATASTORE, "value", MaterialValue::Secret(secret(9)));
        K3s::render(bootstrap_input(role, spec).unwrap(), material)
            .unwrap()
            .preview()
    }

    #[test]
    fn the_first_server_begins_a_cluster_and_others_join_it() {
        let first = data(Role::Init, json!({"config": ["disable: [traefik]"]}));
        for part in [
            "cluster-init: true\n",
            "disable: [traefik]\n",
            "cluster-cidr: \"10.244.0.0/16\"\n",
            "server-ca.key\n  permissions: '0600'\n  encoding: b64\n  content: secret(8)\n",
            "INSTALL_K3S_EXEC=server INSTALL_K3S_VERSION=v1.36.0",
        ] {
            assert!(first.contains(part), "{part}: {first}");
        }
        let next = data(Role::JoinControlPlane, json!({}));
        assert!(
            next.contains("server: https://192.0.2.10:6443\n") && !next.contains("cluster-init"),
            "{next}"
        );
    }

    #[test]
    fn a_download_that_fails_is_no_success() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let first = data(Role::Init, json!({}));
        let line = first.lines().last().unwrap().trim_start_matches("- ");
        let success = dir.path().join("success");
        let run: String = serde_json::from_str(line).unwrap();
        let run = run
            .replace(
                "/run/cluster-api/bootstrap-success.complete",
                success.to_str().unwrap(),
            )
            .replace("/run/cluster-api", dir.path().to_str().unwrap());
        for (curl, code) in [
            ("exit 22", 22),
            ("echo 'exit 3' > $2", 3),
            ("echo 'test $INSTALL_K3S_EXEC = server' > $2", 0),
        ] {
            let program = dir.path().join("curl");
            std::fs::write(&program, format!("#!/bin/sh\n{curl}\n")).unwrap();
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&program, mode).unwrap();
            let path = std::env::var("PATH").unwrap();
            let ended = std::process::Command::new("sh")
                .args(["-c", &run])
                .env("PATH", format!("{}:{path}", dir.path().display()))
                .env("TMPDIR", dir.path())
                .status();
            assert_eq!(ended.unwrap().code(), Some(code), "{curl}");
            assert_eq!(success.exists(), code == 0, "{curl}");
        }
    }

    #[test]
    fn an_agent_gets_the_token_and_no_authority() {
        let agent = data(Role::JoinWorker, json!({}));
        assert!(
            agent.contains("content: secret(7)\n") && !agent.contains("secret(8)"),
            "{agent}"
        );
        assert!(
            agent.contains("uninitialized=:NoSchedule") && agent.contains("INSTALL_K3S_EXEC=agent"),
            "{agent}"
        );
        let input = bootstrap_input::<K3s>(Role::JoinWorker, json!({})).unwrap();
        assert_eq!(
            K3s::requirements(input).unwrap(),
            [Requirement::shared_secret(TOKEN, 32)]
        );
    }

    #[test]
    fn an_external_datastore_is_named_by_a_secret() {
        let spec = json!({"datastore": {"name": "db", "key": "url"}});
        let server = data(Role::Init, spec.clone());
        assert!(
            server.contains("datastore-endpoint: |2-\nsecret(9)\n")
                && !server.contains("cluster-init"),
            "{server}"
        );
        let input = bootstrap_input::<K3s>(Role::Init, spec).unwrap();
        let wanted = Requirement::secret_value(DATASTORE, "db", "url");
        assert!(K3s::requirements(input).unwrap().contains(&wanted));
    }
}
