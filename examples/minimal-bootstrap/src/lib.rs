//! The smallest bootstrap provider: every machine runs a script that knows the cluster's shared token.

use capstan_sdk::bootstrap::{Bootstrap, BootstrapAnswer, BootstrapInput, Role, SecretEncoding};
use capstan_sdk::schema::{object, string};
use capstan_sdk::{
    Failure, KindRole, Manifest, Material, NoStatus, OwnedKind, Plugin, Requirement,
};
use serde::Deserialize;

const GROUP: &str = "bootstrap.cluster.x-k8s.io";
const TOKEN: &str = "script-token";

/// `spec` of a ScriptConfig.
#[derive(Clone, Debug, Deserialize)]
pub struct ScriptSpec {
    /// Program in the image that makes a node of the machine.
    pub program: String,
}

/// The plugin.
pub struct Script;

impl Plugin for Script {
    fn manifest() -> Manifest {
        let spec = object().required(
            "program",
            string()
                .length(1, 256)
                .describe("Makes a node of the machine."),
        );
        let config = OwnedKind::new(KindRole::BootstrapConfig, GROUP, "ScriptConfig");
        let template = OwnedKind::new(
            KindRole::BootstrapConfigTemplate,
            GROUP,
            "ScriptConfigTemplate",
        );
        Manifest::new("bootstrap-script", env!("CARGO_PKG_VERSION"))
            .description("Machines that join by one program and one shared token.")
            .kind(config.spec(spec.clone()))
            .kind(template.spec(spec))
    }
}

impl Bootstrap for Script {
    type Spec = ScriptSpec;
    type Status = NoStatus;

    fn requirements(_: BootstrapInput<Self>) -> Result<Vec<Requirement>, Failure> {
        Ok(vec![Requirement::shared_secret(TOKEN, 32)])
    }

    fn render(input: BootstrapInput<Self>, material: Material) -> Result<BootstrapAnswer, Failure> {
        let endpoint = input.control_plane_endpoint.ok_or_else(|| {
            Failure::transient(
                "NoEndpoint",
                "the cluster has no control plane endpoint yet",
            )
        })?;
        let action = match input.role {
            Role::Init => "init",
            Role::JoinControlPlane => "join --control-plane",
            Role::JoinWorker => "join",
        };
        let program = &input.config.spec.program;
        Ok(BootstrapAnswer::cloud_config()
            .text("#cloud-config\nwrite_files:\n- path: /run/token\n  permissions: '0600'\n")
            .text("  encoding: b64\n  content: ")
            .secret(material.value(TOKEN)?, SecretEncoding::Base64)
            .text(format!(
                "\nruncmd:\n- {program} {action} --server={endpoint}\n"
            )))
    }
}

capstan_sdk::export_bootstrap!(Script);

#[cfg(test)]
mod tests {
    use super::*;
    use capstan_sdk::testing::{bootstrap_input, secret};
    use capstan_sdk::{MaterialValue, serde_json::json};

    #[test]
    fn a_worker_joins_with_the_token_that_the_host_puts_in() {
        let input = bootstrap_input(Role::JoinWorker, json!({"program": "node"})).unwrap();
        let material = Material::default().with(TOKEN, "value", MaterialValue::Secret(secret(7)));
        let data = Script::render(input, material).unwrap().preview();
        assert!(data.contains("content: secret(7)\n"), "{data}");
        assert!(
            data.ends_with("- node join --server=192.0.2.10:6443\n"),
            "{data}"
        );
    }

    #[test]
    fn names_the_field_that_is_missing() {
        let failure = bootstrap_input::<Script>(Role::Init, json!({})).unwrap_err();
        let expected = "BootstrapConfig default/test-1: spec: missing field `program`";
        assert_eq!(failure.message, expected);
    }
}
