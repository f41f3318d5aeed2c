//! During a rotation of the authorities: two certificates in a file, one of which signs.

use super::*;

/// What the host gives while the cluster has two authorities.
pub(super) fn two_authorities() -> Materials {
    let mut materials = materials();
    for (name, part, piece) in &mut materials.0 {
        if (name.as_str(), part.as_str()) == ("ca", "certificate") {
            let certificate = |name: &str| {
                format!("-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----\n")
            };
            *piece = Piece::Text(format!("{}{}", certificate("signs"), certificate("other")));
        }
    }
    materials
}

fn with_two(spec: &Value, role: Role) -> Value {
    let data = data(
        &question(&cluster(), spec, role, "v1.36.3"),
        &two_authorities(),
    );
    parsed(&joined(data.unwrap().parts))
}

const PATCH: &str = "kube-controller-manager-signer+json.json";

#[test]
fn the_controller_manager_gets_the_certificate_that_signs_by_itself() {
    for (role, path, kind) in [
        (Role::Init, "/run/kubeadm/kubeadm.yaml", "InitConfiguration"),
        (
            Role::JoinControlPlane,
            "/run/kubeadm/kubeadm-join-config.yaml",
            "JoinConfiguration",
        ),
    ] {
        let config = with_two(&json!({}), role);
        assert_eq!(
            content(&config, "/etc/kubernetes/pki/ca.crt")
                .matches("BEGIN CERTIFICATE")
                .count(),
            2
        );
        let signer = content(&config, "/etc/kubernetes/pki/ca-signer.crt");
        assert_eq!(
            signer,
            "-----BEGIN CERTIFICATE-----\nsigns\n-----END CERTIFICATE-----\n"
        );
        let patch: Value = serde_json::from_str(&content(
            &config,
            &format!("/etc/kubernetes/patches/{PATCH}"),
        ))
        .unwrap();
        assert_eq!(patch[0]["path"], "/spec/containers/0/command/-");
        assert_eq!(
            patch[0]["value"],
            "--cluster-signing-cert-file=/etc/kubernetes/pki/ca-signer.crt"
        );
        let documents = documents(&config, path);
        let document = documents
            .iter()
            .find(|document| document["kind"] == kind)
            .unwrap();
        assert_eq!(document["patches"]["directory"], "/etc/kubernetes/patches");
    }
}

#[test]
fn kubeadm_joins_with_an_administrator_that_trusts_both() {
    let config = with_two(
        &json!({"preKubeadmCommands": ["first"]}),
        Role::JoinControlPlane,
    );
    let script = content(&config, "/etc/kubernetes/admin-trust.sh");
    for part in [
        "kubeadm init phase kubeconfig admin --cert-dir /etc/kubernetes/pki --control-plane-endpoint 10.0.0.10:6443 --kubernetes-version v1.36.3\n",
        "$(base64 -w 0 /etc/kubernetes/pki/ca.crt)",
    ] {
        assert!(script.contains(part), "{script}");
    }
    assert_eq!(config["runcmd"][0], "first");
    assert_eq!(config["runcmd"][1], "sh /etc/kubernetes/admin-trust.sh");
    assert!(
        config["runcmd"][2]
            .as_str()
            .unwrap()
            .starts_with("kubeadm join")
    );
    // The first machine of a control plane has nobody to join.
    assert!(
        !with_two(&json!({}), Role::Init)
            .to_string()
            .contains("admin-trust")
    );
}

#[test]
fn patches_of_the_users_stay_and_so_does_a_signing_file_of_theirs() {
    let own = json!({"joinConfiguration": {"patches": {"directory": "/etc/own"}}});
    let config = with_two(&own, Role::JoinControlPlane);
    assert!(content(&config, &format!("/etc/own/{PATCH}")).contains("ca-signer.crt"));
    let named = json!({"clusterConfiguration": {"controllerManager": {"extraArgs": [{"name": "cluster-signing-cert-file", "value": "/own.crt"}]}}});
    let config = with_two(&named, Role::Init);
    let files = config["write_files"].as_array().unwrap();
    assert!(
        !files
            .iter()
            .any(|file| file["path"].as_str().unwrap().contains("signer"))
    );
}

#[test]
fn workers_and_machines_with_one_certificate_get_nothing_besides() {
    let worker = with_two(&json!({}), Role::JoinWorker);
    let text = worker.to_string();
    assert!(
        !text.contains("signer") && !text.contains("patches"),
        "{text}"
    );
    let text = rendered(&json!({}), Role::Init, "v1.36.3").unwrap();
    assert!(
        !text.contains("signer") && !text.contains("patches"),
        "{text}"
    );
}
