//! What the plugin writes, compared with golden files and read back by a YAML parser.

use std::path::PathBuf;

use capstan_sdk::bootstrap::SecretEncoding;
use serde_json::{Value, json};

use crate::data::data;
use crate::needs::{Need, needs};
use crate::question::{Materials, Piece, Question, Role};
use crate::refusal::{Refusal, Remedy};
use crate::yaml::Part;

mod checked;
mod fields;
mod golden;
mod ignition;
mod refused;
mod report;
mod signer;

/// Secrets by handle, as the host would have them.
const SECRETS: [&str; 10] = [
    "",
    "-----BEGIN PRIVATE KEY-----\nca\n-----END PRIVATE KEY-----\n",
    "-----BEGIN PRIVATE KEY-----\netcd\n-----END PRIVATE KEY-----\n",
    "-----BEGIN PRIVATE KEY-----\nproxy\n-----END PRIVATE KEY-----\n",
    "-----BEGIN PRIVATE KEY-----\nsa\n-----END PRIVATE KEY-----\n",
    "123456.0123456789abcdef",
    "  indented: yes\nkey: 'it''s'\n\n# {{ not }} ours",
    "$6$salt$it's \"quoted\"\n",
    "-----BEGIN CERTIFICATE-----\nexternal\n-----END CERTIFICATE-----",
    "aW5kZW50ZWQ6IHllcwo=",
];

fn cluster() -> Value {
    json!({
        "metadata": {"name": "quickstart", "namespace": "default"},
        "spec": {"clusterNetwork": {
            "pods": {"cidrBlocks": ["10.244.0.0/16", "fd00:1::/48"]},
            "services": {"cidrBlocks": ["10.96.0.0/12"]},
            "serviceDomain": "cluster.local"
        }}
    })
}

fn materials() -> Materials {
    let certificate =
        |name: &str| format!("-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----\n");
    let mut list = vec![
        (
            "ca".into(),
            "hash".into(),
            Piece::Text("sha256:0ffee0".into()),
        ),
        (
            "sa".into(),
            "public-key".into(),
            Piece::Text("-----BEGIN PUBLIC KEY-----\n".into()),
        ),
        ("join".into(), "token".into(), Piece::Secret(5)),
        ("external-etcd-ca".into(), "value".into(), Piece::Secret(8)),
        (
            "external-etcd-certificate".into(),
            "value".into(),
            Piece::Secret(8),
        ),
        ("external-etcd-key".into(), "value".into(), Piece::Secret(4)),
    ];
    for (name, handle) in [("ca", 1), ("etcd", 2), ("proxy", 3), ("sa", 4)] {
        list.push((
            name.to_owned(),
            "certificate".to_owned(),
            Piece::Text(certificate(name)),
        ));
        list.push((name.to_owned(), "key".to_owned(), Piece::Secret(handle)));
    }
    for position in 0..8 {
        // The sixth file of Ignition's case is said to be base64.
        let handle = if position == 5 { 9 } else { 6 };
        list.push((
            format!("file-{position}"),
            "value".to_owned(),
            Piece::Secret(handle),
        ));
        list.push((
            format!("user-{position}"),
            "value".to_owned(),
            Piece::Secret(7),
        ));
    }
    Materials(list)
}

fn question<'a>(cluster: &'a Value, spec: &'a Value, role: Role, version: &'a str) -> Question<'a> {
    Question {
        cluster,
        spec,
        role,
        endpoint: Some("10.0.0.10:6443".to_owned()),
        kubernetes_version: version,
        control_plane_version: "v1.36.3",
        report: None,
    }
}

/// The data as the host would join it.
fn joined(parts: Vec<Part>) -> String {
    use base64::Engine as _;
    let piece = |part| match part {
        Part::Text(text) => text,
        Part::Secret { handle, encoding } => {
            let secret = SECRETS[usize::try_from(handle).unwrap()];
            let lines = secret.trim_end_matches('\n');
            match encoding {
                SecretEncoding::Plain => secret.to_owned(),
                SecretEncoding::Base64 => base64::engine::general_purpose::STANDARD.encode(secret),
                SecretEncoding::JsonString => {
                    let quoted = json!(lines).to_string();
                    let inside = quoted.strip_prefix('"').and_then(|q| q.strip_suffix('"'));
                    inside.unwrap().to_owned()
                }
                SecretEncoding::Percent => {
                    secret.bytes().map(|byte| format!("%{byte:02X}")).collect()
                }
                SecretEncoding::Indent(spaces) => {
                    let indent = " ".repeat(usize::try_from(spaces).unwrap());
                    let line = |line: &str| match line {
                        "" => String::new(),
                        line => format!("{indent}{line}"),
                    };
                    lines.split('\n').map(line).collect::<Vec<_>>().join("\n")
                }
            }
        }
    };
    parts.into_iter().map(piece).collect()
}

fn rendered(spec: &Value, role: Role, version: &str) -> Result<String, Refusal> {
    data(&question(&cluster(), spec, role, version), &materials()).map(|data| joined(data.parts))
}

fn parsed(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Content of a written file.
fn content(config: &Value, path: &str) -> String {
    let files = config["write_files"].as_array().unwrap();
    let file = files
        .iter()
        .find(|file| file["path"] == path)
        .unwrap_or_else(|| panic!("no {path}"));
    file["content"].as_str().unwrap().to_owned()
}

fn documents(config: &Value, path: &str) -> Vec<Value> {
    content(config, path).split("---\n").map(parsed).collect()
}

/// Compares with `tests/golden/<name>`; `UPDATE_GOLDEN=1` writes it.
fn check_golden(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        golden,
        text,
        "{} is not what is written: UPDATE_GOLDEN=1 rewrites it",
        path.display()
    );
}

#[test]
fn a_control_plane_needs_all_authorities_and_a_worker_one_and_a_token() {
    let spec = json!({"clusterConfiguration": {"encryptionAlgorithm": "ECDSA-P256", "caCertificateValidityPeriodDays": 100}});
    let cluster = cluster();
    let names = |role| {
        let list = needs(&question(&cluster, &spec, role, "v1.36.3"));
        list.iter()
            .map(|need| match need {
                Need::Authority {
                    name,
                    common_name,
                    algorithm,
                    validity_days,
                } => {
                    format!("{name} {common_name} {algorithm} {validity_days}")
                }
                Need::KeyPair { name, algorithm } => format!("{name} {algorithm}"),
                Need::JoinToken => "token".to_owned(),
                Need::SecretValue {
                    name, secret, key, ..
                } => format!("{name} {secret} {key}"),
            })
            .collect::<Vec<_>>()
    };
    let all = [
        "ca kubernetes ECDSA-P256 100",
        "etcd etcd-ca ECDSA-P256 100",
        "proxy front-proxy-ca ECDSA-P256 100",
        "sa ECDSA-P256",
    ];
    assert_eq!(names(Role::Init), all);
    assert_eq!(
        names(Role::JoinControlPlane),
        [all.as_slice(), &["token"]].concat()
    );
    assert_eq!(
        names(Role::JoinWorker),
        ["ca kubernetes ECDSA-P256 100", "token"]
    );
}

#[test]
fn secrets_that_the_config_names_are_needed() {
    let spec = json!({
        "files": [{"path": "/a"}, {"path": "/b", "contentFrom": {"secret": {"name": "s", "key": "k"}}}],
        "users": [{"name": "u", "passwdFrom": {"secret": {"name": "p", "key": "h"}}}],
        "joinConfiguration": {"discovery": {"bootstrapToken": {"token": "given"}}},
    });
    let cluster = cluster();
    let list = needs(&question(&cluster, &spec, Role::JoinWorker, "v1.36.3"));
    let value = |name: &str, secret: &str, key: &str| Need::SecretValue {
        name: name.to_owned(),
        secret: secret.to_owned(),
        key: key.to_owned(),
        is_template: false,
    };
    assert_eq!(
        list[1..],
        [value("file-1", "s", "k"), value("user-0", "p", "h")]
    );
}

mod plugin {
    //! The plugin as the host calls it.

    use capstan_sdk::bootstrap::{Bootstrap, Part, Role as SdkRole};
    use capstan_sdk::{FailureKind, Material, MaterialValue, Plugin, Requirement, testing};

    use super::*;
    use crate::Kubeadm;

    #[test]
    fn a_worker_asks_for_a_token_and_gets_it_by_handle() {
        let input = || testing::bootstrap_input::<Kubeadm>(SdkRole::JoinWorker, json!({})).unwrap();
        let requirements = Kubeadm::requirements(input()).unwrap();
        assert!(
            matches!(&requirements[1], Requirement::JoinToken { lifetime, .. } if lifetime.as_secs() == 900)
        );
        let text = |text: &str| MaterialValue::Text(text.to_owned());
        let material = Material::default()
            .with("ca", "certificate", text("CERT"))
            .with("ca", "key", MaterialValue::Secret(testing::secret(41)))
            .with("ca", "hash", text("sha256:0ffee0"))
            .with("join", "token", MaterialValue::Secret(testing::secret(42)));
        let answer = Kubeadm::render(input(), material).unwrap();
        assert_eq!(answer.format, "cloud-config");
        let secrets: Vec<&Part> = answer
            .parts
            .iter()
            .filter(|part| matches!(part, Part::Secret(..)))
            .collect();
        assert_eq!(
            secrets,
            [&Part::Secret(testing::secret(42), SecretEncoding::Plain)]
        );
        let Part::Text(first) = &answer.parts[0] else {
            panic!("a secret first")
        };
        assert!(
            first.contains("apiServerEndpoint: '192.0.2.10:6443'"),
            "{first}"
        );
    }

    #[test]
    fn a_template_in_a_secret_is_filled_in_by_the_host() {
        let spec = json!({"files": [{"path": "/a", "contentFormat": "Template", "contentFrom": {"secret": {"name": "s", "key": "k"}}}]});
        let mut input = testing::bootstrap_input::<Kubeadm>(SdkRole::JoinWorker, spec).unwrap();
        input.control_plane_version = "v1.36.3".to_owned();
        let requirements = Kubeadm::requirements(input).unwrap();
        let Some(Requirement::SecretValue { template, .. }) = requirements.last() else {
            panic!("{requirements:?}")
        };
        let version = (".controlPlane.version".to_owned(), "v1.36.3".to_owned());
        assert_eq!(template[..], [version]);
    }

    #[test]
    fn ignored_keys_are_in_a_condition() {
        let spec = json!({"format": "ignition", "ignition": {"containerLinuxConfig": {"additionalConfig": "systemdd: {}"}}});
        let input = testing::bootstrap_input::<Kubeadm>(SdkRole::JoinWorker, spec).unwrap();
        let material = Material::default()
            .with(
                "ca",
                "hash",
                MaterialValue::Text("sha256:0ffee0".to_owned()),
            )
            .with("join", "token", MaterialValue::Secret(testing::secret(42)));
        let answer = Kubeadm::render(input, material).unwrap();
        assert_eq!(answer.format, "ignition");
        assert!(answer.conditions[0].message.contains("systemdd"));
    }

    #[test]
    fn refusals_are_failures_of_their_kind() {
        let fails = |spec: Value| {
            let input = testing::bootstrap_input::<Kubeadm>(SdkRole::JoinWorker, spec).unwrap();
            Kubeadm::render(input, Material::default()).unwrap_err()
        };
        let old = json!({"format": "ignition", "bootCommands": ["x"]});
        assert_eq!(fails(old).kind, FailureKind::Terminal);
        let missing = fails(json!({}));
        assert_eq!(
            (missing.kind, missing.reason.as_str()),
            (FailureKind::Transient, "MaterialMissing")
        );
        let template =
            json!({"files": [{"path": "/a", "contentFormat": "Template", "content": "{{ .x }}"}]});
        assert_eq!(fails(template).kind, FailureKind::Terminal);
    }

    #[test]
    fn the_manifest_has_whole_schemas_and_asks_for_nothing() {
        let manifest = Kubeadm::manifest();
        assert!(manifest.capabilities.is_empty());
        for kind in &manifest.kinds {
            assert_eq!(
                kind.spec.to_json()["properties"]["files"]["maxItems"],
                200,
                "{}",
                kind.kind
            );
        }
    }
}
