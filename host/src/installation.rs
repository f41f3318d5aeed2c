//! What has to be in a cluster for the host to run there, as objects: its namespace, kinds and policies, its account with the rights that
//! controllers declare, and what runs it.

mod workload;

pub(crate) use self::workload::{PORT, is_free};

use capstan_api::{label, manifests};
use capstan_controllers::access::{self, Rules};
use capstan_controllers::{install, registry};
use serde_json::{Value, json};

/// Name of the account, and of whatever else there is one of.
pub(crate) const NAME: &str = "capstan";

/// An installation to be made.
pub(crate) struct Installation {
    /// The host's own namespace.
    pub(crate) namespace: String,
    /// Where its image is.
    pub(crate) image: String,
    /// How many hosts there are; one of them works.
    pub(crate) replicas: u32,
    /// What is done about plugins that nobody signed, if anything: `warn` or `require`.
    pub(crate) signatures: Option<&'static str>,
    /// What the file of `--ceiling` says, if there is one.
    pub(crate) ceiling: Option<String>,
    /// The claim whose volume has components, if there is one.
    pub(crate) plugin_claim: Option<String>,
    /// Who takes traces, if anybody.
    pub(crate) otlp_endpoint: Option<String>,
    /// Whether calls of plugins are recorded that ask for it.
    pub(crate) record: bool,
    /// What the host is told of keys that go from Machines to Nodes.
    pub(crate) node_sync: Vec<String>,
    /// Where snapshots of etcd are kept, if anywhere.
    pub(crate) snapshots: Option<Snapshots>,
    /// Where machines report failed bootstraps, if they may.
    pub(crate) reports: Option<Reports>,
}

/// Where snapshots of etcd are kept.
pub(crate) struct Snapshots {
    /// What the host is told.
    pub(crate) flags: Vec<String>,
    /// The volume of a directory.
    pub(crate) volume: Option<Claim>,
}

/// A claim to a volume that the hosts write to.
pub(crate) struct Claim {
    /// Its name.
    pub(crate) name: String,
    /// Where it is mounted.
    pub(crate) mount: String,
    /// Of the claim that is to be made; there is one already without it.
    pub(crate) size: Option<String>,
    /// Storage class of the claim that is to be made, where it is not the default.
    pub(crate) class: Option<String>,
}

/// Where machines report failed bootstraps.
pub(crate) struct Reports {
    /// What the host is told.
    pub(crate) flags: Vec<String>,
    /// Where it listens.
    pub(crate) port: u16,
    /// The port at which machines reach it.
    pub(crate) public_port: u16,
    /// Type of the Service between them.
    pub(crate) service: &'static str,
}

impl Installation {
    /// What a host needs wherever it runs, in the order in which it is applied.
    pub(crate) fn identity(&self) -> Vec<Value> {
        let mut documents = vec![self.own_namespace()];
        let kinds = manifests::documents().into_iter();
        // As the host would install them, so that it finds nothing to do.
        documents.extend(kinds.map(|document| install::stamped(document).0));
        documents.extend(self.rights());
        documents
    }

    /// Everything.
    pub(crate) fn documents(&self) -> Vec<Value> {
        let mut documents = self.identity();
        documents.extend(workload::documents(self));
        documents
    }

    fn own_namespace(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": self.namespace, "labels": {
                "pod-security.kubernetes.io/enforce": "restricted",
                "pod-security.kubernetes.io/warn": "restricted",
            }},
        })
    }

    /// Of cluster-wide things: theirs are found by the namespace, as clusterctl does.
    fn global(&self, name: &str) -> String {
        format!("{}-{name}", self.namespace)
    }

    fn rights(&self) -> Vec<Value> {
        const API: &str = "rbac.authorization.k8s.io/v1";
        let namespace = &self.namespace;
        let Rules {
            everywhere,
            own_namespace,
        } = access::rules(&registry::access());
        let (manager, providers) = (self.global("manager"), self.global("providers"));
        let subjects = json!([{"kind": "ServiceAccount", "namespace": namespace, "name": NAME}]);
        let bind = |role: &str| {
            json!({
                "apiVersion": API, "kind": "ClusterRoleBinding", "metadata": {"name": role},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": subjects,
            })
        };
        vec![
            json!({
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"namespace": namespace, "name": NAME},
                "automountServiceAccountToken": false,
            }),
            json!({
                "apiVersion": API, "kind": "ClusterRole",
                "metadata": {"name": manager}, "rules": everywhere,
            }),
            bind(&manager),
            // Providers whose kinds are in other groups give the host its rights on them by the label, as they do to Cluster API's.
            json!({
                "apiVersion": API, "kind": "ClusterRole", "metadata": {"name": providers},
                "aggregationRule": {"clusterRoleSelectors": [
                    {"matchLabels": {label::AGGREGATE_TO_MANAGER: "true"}},
                ]},
            }),
            bind(&providers),
            json!({
                "apiVersion": API, "kind": "Role",
                "metadata": {"namespace": namespace, "name": NAME}, "rules": own_namespace,
            }),
            json!({
                "apiVersion": API, "kind": "RoleBinding",
                "metadata": {"namespace": namespace, "name": NAME},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME},
                "subjects": subjects,
            }),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installation() -> Installation {
        Installation {
            namespace: "ns".to_owned(),
            image: "image".to_owned(),
            replicas: 2,
            signatures: None,
            ceiling: None,
            plugin_claim: None,
            otlp_endpoint: None,
            record: false,
            node_sync: Vec::new(),
            snapshots: None,
            reports: None,
        }
    }

    #[test]
    fn no_rule_is_for_everything() {
        let Rules {
            everywhere,
            own_namespace,
        } = access::rules(&registry::access());
        for rule in everywhere.iter().chain(&own_namespace) {
            let text = rule.to_string();
            let groups = rule["apiGroups"].to_string();
            assert!(
                !groups.contains('*') && !rule["verbs"].to_string().contains('*'),
                "{text}"
            );
            let is_of_providers = groups.contains(".cluster.x-k8s.io");
            assert!(
                is_of_providers || !rule["resources"].to_string().contains('*'),
                "{text}"
            );
            let verbs = rule["verbs"].to_string();
            for power in ["escalate", "impersonate", "bind", "deletecollection"] {
                assert!(!verbs.contains(power), "{text}");
            }
            assert!(!groups.contains("rbac."), "{text}");
        }
    }

    /// The one Deployment's Pod template.
    fn template(installation: &Installation) -> Value {
        let documents = installation.documents();
        let mut deployments = documents.iter().filter(|d| d["kind"] == "Deployment");
        deployments.next().unwrap()["spec"]["template"].clone()
    }

    #[test]
    fn the_ceiling_and_the_directory_of_plugins_are_where_the_host_looks_for_them() {
        let text = "grants:\n- capability: http\n";
        let given = Installation {
            ceiling: Some(text.to_owned()),
            plugin_claim: Some("components".to_owned()),
            ..installation()
        };
        let template = template(&given);
        let pod = &template["spec"];
        let container = &pod["containers"][0];
        let arg = |flag: &str| {
            let args = container["args"].as_array().unwrap().iter();
            let mut values = args.filter_map(|arg| arg.as_str()?.strip_prefix(flag));
            values.next().unwrap().to_owned()
        };
        let volume = |path: &str| {
            let mounts = container["volumeMounts"].as_array().unwrap().iter();
            let mut mounts = mounts.filter(|mount| mount["mountPath"] == path);
            let mount = mounts.next().unwrap();
            assert_eq!(mount["readOnly"], true, "{mount}");
            let volumes = pod["volumes"].as_array().unwrap().iter();
            let mut volumes = volumes.filter(|volume| volume["name"] == mount["name"]);
            volumes.next().unwrap().clone()
        };
        let claim = volume(&arg("--plugin-dir="))["persistentVolumeClaim"].clone();
        assert_eq!(claim, json!({"claimName": "components", "readOnly": true}));
        let file = arg("--ceiling=");
        let (directory, name) = file.rsplit_once('/').unwrap();
        let item = volume(directory)["downwardAPI"]["items"][0].clone();
        assert_eq!(item["path"], name);
        let field = item["fieldRef"]["fieldPath"].as_str().unwrap();
        let annotation = field.strip_prefix("metadata.annotations['");
        let annotation = annotation.and_then(|rest| rest.strip_suffix("']")).unwrap();
        assert_eq!(template["metadata"]["annotations"][annotation], text);
        // Neither is there when nobody asks for it.
        let plain = self::template(&installation()).to_string();
        for word in [
            "--ceiling",
            "--plugin-dir",
            "downwardAPI",
            "persistentVolumeClaim",
        ] {
            assert!(!plain.contains(word), "{word}");
        }
    }

    fn one<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
        let mut all = documents.iter().filter(|it| it["kind"] == kind);
        let (first, more) = (all.next(), all.next());
        assert!(more.is_none(), "{more:?}");
        first.unwrap_or_else(|| panic!("no {kind}"))
    }

    #[test]
    fn snapshots_have_a_volume_that_every_host_can_write_to() {
        let claimed = |replicas: u32, size: Option<&str>| Installation {
            replicas,
            snapshots: Some(Snapshots {
                flags: vec!["--etcd-snapshots=/snapshots".to_owned()],
                volume: Some(Claim {
                    name: "kept".to_owned(),
                    mount: "/snapshots".to_owned(),
                    size: size.map(str::to_owned),
                    class: Some("shared".to_owned()),
                }),
            }),
            ..installation()
        };
        for (replicas, mode, strategy) in [
            (2, "ReadWriteMany", Value::Null),
            (1, "ReadWriteOnce", json!({"type": "Recreate"})),
        ] {
            let documents = claimed(replicas, Some("20Gi")).documents();
            let claim = one(&documents, "PersistentVolumeClaim");
            assert_eq!(
                claim["metadata"],
                json!({"namespace": "ns", "name": "kept"})
            );
            let spec = json!({
                "accessModes": [mode], "storageClassName": "shared",
                "resources": {"requests": {"storage": "20Gi"}},
            });
            assert_eq!(claim["spec"], spec);
            let deployment = one(&documents, "Deployment");
            assert_eq!(deployment["spec"]["strategy"], strategy);
            let pod = &deployment["spec"]["template"]["spec"];
            let container = &pod["containers"][0];
            let args = container["args"].as_array().unwrap();
            assert!(args.contains(&json!("--etcd-snapshots=/snapshots")));
            let has = |list: &Value, one: Value| list.as_array().unwrap().contains(&one);
            assert!(has(
                &container["volumeMounts"],
                json!({"name": "etcd-snapshots", "mountPath": "/snapshots"})
            ));
            assert!(has(
                &pod["volumes"],
                json!({"name": "etcd-snapshots", "persistentVolumeClaim": {"claimName": "kept"}})
            ));
        }
        // One that is there already is not printed.
        let documents = claimed(2, None).documents();
        assert!(
            documents
                .iter()
                .all(|it| it["kind"] != "PersistentVolumeClaim")
        );
    }

    #[test]
    fn no_volume_is_mounted_over_another_one() {
        let is_free = |path: &str| is_free(std::path::Path::new(path));
        assert!(is_free("/snapshots") && is_free("/var/lib/capstan/etcd-snapshots"));
        for taken in [
            "snapshots",
            "/",
            "/var",
            "/var/cache/capstan/snapshots",
            "/var/lib/capstan/plugins",
            "/etc/capstan",
            "/a/../etc",
            "/a:b",
        ] {
            assert!(!is_free(taken), "{taken}");
        }
    }

    #[test]
    fn machines_reach_the_hosts_where_they_are_told() {
        let reported = |service: &'static str| Installation {
            reports: Some(Reports {
                flags: vec!["--bootstrap-report-listen=0.0.0.0:9443".to_owned()],
                port: 9443,
                public_port: 31443,
                service,
            }),
            ..installation()
        };
        let documents = reported("LoadBalancer").documents();
        let service = &one(&documents, "Service")["spec"];
        let deployment = one(&documents, "Deployment");
        let template = &deployment["spec"]["template"];
        assert_eq!(service["selector"], template["metadata"]["labels"]);
        assert_eq!(service["ports"][0]["port"], 31443);
        let container = &template["spec"]["containers"][0];
        let port = container["ports"].as_array().unwrap().iter();
        let mut port = port.filter(|port| port["name"] == service["ports"][0]["targetPort"]);
        assert_eq!(port.next().unwrap()["containerPort"], 9443);
        let args = container["args"].as_array().unwrap();
        assert!(args.contains(&json!("--bootstrap-report-listen=0.0.0.0:9443")));
        let policy = one(&documents, "NetworkPolicy");
        let let_in = policy["spec"]["ingress"][0]["ports"].as_array().unwrap();
        assert!(let_in.contains(&json!({"port": 9443, "protocol": "TCP"})));
        let documents = reported("NodePort").documents();
        let port = &one(&documents, "Service")["spec"]["ports"][0];
        assert_eq!(
            (&port["port"], &port["nodePort"]),
            (&json!(9443), &json!(31443))
        );
        let plain = installation().documents();
        assert!(plain.iter().all(|document| document["kind"] != "Service"));
    }

    #[test]
    fn the_host_reaches_no_service_that_tells_a_machine_its_credentials() {
        let documents = installation().documents();
        let policy = one(&documents, "NetworkPolicy");
        let to = policy["spec"]["egress"][1]["to"].as_array().unwrap();
        let except: Vec<&Value> = to
            .iter()
            .flat_map(|to| to["ipBlock"]["except"].as_array().unwrap())
            .collect();
        for never in [
            "169.254.0.0/16",
            "fe80::/10",
            "fd00:ec2::254/128",
            "fd00:ec2::23/128",
            "fd20:ce::254/128",
            "fd00:c1::a9fe:a9fe/128",
            "fd00:42::42/128",
        ] {
            assert!(except.contains(&&json!(never)), "{never} in {except:?}");
        }
    }

    #[test]
    fn the_deployment_runs_what_the_image_has() {
        let containerfile = include_str!("../Containerfile");
        let documents = installation().documents();
        let deployment = documents
            .iter()
            .find(|d| d["kind"] == "Deployment")
            .unwrap();
        let pod = &deployment["spec"]["template"]["spec"];
        let user = pod["securityContext"]["runAsUser"].to_string();
        assert!(
            containerfile.contains(&format!("USER {user}:{user}\n")),
            "{user}"
        );
        let program = pod["containers"][0]["command"].to_string();
        assert!(
            containerfile.contains(&format!("ENTRYPOINT {program}\n")),
            "{program}"
        );
        let toolchain = include_str!("../../rust-toolchain.toml");
        let version = containerfile
            .split("rust:")
            .nth(1)
            .and_then(|rest| rest.split('-').next());
        assert!(
            toolchain.contains(&format!("\"{}\"", version.unwrap())),
            "{version:?}"
        );
    }
}
