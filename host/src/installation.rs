//! What has to be in a cluster for the host to run there, as objects: its namespace, kinds and policies, its account with the rights that
//! controllers declare, and what runs it.

mod workload;

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
