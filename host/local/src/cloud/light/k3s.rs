//! k3s on a light machine: its config file and its token, in kubeadm's words.
//!
//! A light machine has one way to begin and to join a cluster. What k3s does otherwise it does by itself: its shared token is a
//! bootstrap token that never ends, what servers share through their datastore is there from the beginning, and the datastore is
//! nobody else's business.

use serde_json::{Value, json};

use super::object::{list_at, text_at};
use crate::cloud::userdata::{UserData, UserFile};

/// k3s's config file.
const CONFIG: &str = "/etc/rancher/k3s/config.yaml";
/// Its directory of certificates.
const TLS: &str = "/var/lib/rancher/k3s/server/tls";
/// Where the translation is kept.
pub(crate) const TRANSLATED: &str = "/run/light/k3s.yaml";
/// What servers find in their datastore and kubeadm's machines are given.
const SHARED: [&str; 4] = [
    "sa.key",
    "sa.pub",
    "front-proxy-ca.crt",
    "front-proxy-ca.key",
];

/// Whether a command starts k3s.
pub(crate) fn is_start(command: &str) -> bool {
    command.contains("INSTALL_K3S_EXEC=")
}

/// Whether k3s begins a cluster on this machine; it joins one otherwise.
pub(crate) fn begins(data: &UserData) -> bool {
    data.text(TRANSLATED)
        .is_some_and(|text| text.contains("kind: ClusterConfiguration"))
}

/// Adds the translation to the data of a machine that runs k3s.
pub(crate) fn translate(data: &mut UserData) -> Result<(), String> {
    let Some(text) = data.text(CONFIG) else {
        return Ok(());
    };
    let config: Value =
        serde_saphyr::from_str(text).map_err(|_| format!("{CONFIG} is not valid YAML"))?;
    let token_file = text_at(&config, "/token-file").to_owned();
    let token = data.text(&token_file).unwrap_or_default();
    let token = bootstrap_token(token.trim())
        .ok_or_else(|| format!("{CONFIG}: token-file {token_file} has no usable token"))?;
    let is_server = data.files.contains_key(&format!("{TLS}/server-ca.crt"));
    let server = text_at(&config, "/server")
        .trim_start_matches("https://")
        .to_owned();
    let documents = if server.is_empty() {
        let names = list_at(&config, "/tls-san");
        vec![
            json!({"kind": "ClusterConfiguration", "certificatesDir": TLS, "etcd": {"external": {}}, "apiServer": {"certSANs": names}}),
            json!({"kind": "InitConfiguration", "nodeRegistration": {"taints": []},
                "bootstrapTokens": [{"token": token, "ttl": "0s", "groups": ["system:bootstrappers:kubeadm:default-node-token"]}]}),
        ]
    } else {
        let taints: Vec<Value> = list_at(&config, "/node-taint")
            .iter()
            .filter_map(Value::as_str)
            .filter_map(taint)
            .collect();
        let mut join = json!({"kind": "JoinConfiguration", "nodeRegistration": {"taints": taints},
            "discovery": {"keepEndpoint": true, "bootstrapToken": {"token": token, "apiServerEndpoint": server, "unsafeSkipCAVerification": true}}});
        if is_server {
            super::object::as_object(&mut join).insert("controlPlane".into(), json!({}));
        }
        vec![join]
    };
    let mut text = String::new();
    for mut document in documents {
        let kind = text_at(&document, "/kind").to_owned();
        super::object::as_object(&mut document).remove("kind");
        text.push_str(&format!(
            "---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: {kind}\n"
        ));
        text.push_str(&serde_saphyr::to_string(&document).map_err(|error| error.to_string())?);
    }
    for (of, from) in [("ca.crt", "server-ca.crt"), ("ca.key", "server-ca.key")] {
        if let Some(file) = data.files.get(&format!("{TLS}/{from}")).cloned() {
            data.files.insert(format!("{TLS}/{of}"), file);
        }
    }
    for name in SHARED {
        add(data, &format!("{TLS}/{name}"), "shared by the servers");
    }
    add(data, TRANSLATED, &text);
    Ok(())
}

fn add(data: &mut UserData, path: &str, text: &str) {
    let file = UserFile {
        content: text.as_bytes().to_vec(),
        permissions: "0600".to_owned(),
        owner: "root:root".to_owned(),
        appends: false,
        deferred: false,
    };
    data.files.insert(path.to_owned(), file);
}

/// The shared token as kubeadm writes tokens.
fn bootstrap_token(token: &str) -> Option<String> {
    let is_usable = token
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let id = token.get(..6)?;
    let secret = token.get(6..22)?;
    is_usable.then(|| format!("{id}.{secret}"))
}

/// `key=value:effect`.
fn taint(text: &str) -> Option<Value> {
    let (head, effect) = text.rsplit_once(':')?;
    let (key, value) = head.split_once('=').unwrap_or((head, ""));
    Some(json!({"key": key, "value": value, "effect": effect}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::light::kubeadm::{Discovery, KubeadmConfig, NodeRegistration};

    fn data(config: &str, is_server: bool) -> UserData {
        let mut data = UserData::default();
        add(&mut data, CONFIG, config);
        add(&mut data, "/token", "0123456789abcdef0123456789abcdef");
        if is_server {
            add(&mut data, &format!("{TLS}/server-ca.crt"), "CA");
        }
        translate(&mut data).unwrap();
        data
    }

    fn translated(data: &UserData) -> KubeadmConfig {
        KubeadmConfig::parse(TRANSLATED, data.text(TRANSLATED).unwrap()).unwrap()
    }

    #[test]
    fn the_first_server_begins_a_cluster_with_its_token() {
        let data = data(
            "token-file: /token\ncluster-init: true\ntls-san: [\"10.0.0.1\"]",
            true,
        );
        assert!(begins(&data));
        let config = translated(&data);
        assert_eq!(
            text_at(&config.cluster, "/apiServer/certSANs/0"),
            "10.0.0.1"
        );
        let token = text_at(&config.init, "/bootstrapTokens/0/token");
        assert_eq!(token, "012345.6789abcdef012345");
        assert_eq!(data.text(&format!("{TLS}/ca.crt")), Some("CA"));
    }

    #[test]
    fn others_join_with_it() {
        let text =
            "token-file: /token\nserver: https://10.0.0.1:6443\nnode-taint: [\"a=:NoSchedule\"]";
        for is_server in [true, false] {
            let data = data(text, is_server);
            assert!(!begins(&data));
            let config = translated(&data);
            let discovery = Discovery::read(&config.join).unwrap();
            assert_eq!(
                (discovery.endpoint.as_str(), discovery.token_id.as_str()),
                ("10.0.0.1:6443", "012345")
            );
            assert_eq!(config.join.get("controlPlane").is_some(), is_server);
            let node = NodeRegistration::read(&config.join, "n");
            assert_eq!(node.taints.unwrap()[0]["key"], "a");
        }
    }

    #[test]
    fn other_machines_are_left_alone() {
        let mut data = UserData::default();
        translate(&mut data).unwrap();
        assert!(data.files.is_empty() && !is_start("kubeadm init --config /a"));
    }
}
