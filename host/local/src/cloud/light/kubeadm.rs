//! The kubeadm configuration files that a machine is given.

use serde_json::{Value, json};

use super::object::{list_at, text_at};

/// The documents of one kubeadm configuration file, by kind; null where there is none.
#[derive(Debug, Default)]
pub(crate) struct KubeadmConfig {
    /// `InitConfiguration`.
    pub(crate) init: Value,
    /// `ClusterConfiguration`.
    pub(crate) cluster: Value,
    /// `JoinConfiguration`.
    pub(crate) join: Value,
}

impl KubeadmConfig {
    /// Reads a file.
    pub(crate) fn parse(path: &str, text: &str) -> Result<Self, String> {
        let mut config = Self::default();
        for document in documents(text) {
            let value: Value = serde_saphyr::from_str(&document).map_err(|error| {
                let message = error.to_string();
                format!(
                    "{path} is not valid YAML: {}",
                    message.lines().next().unwrap_or_default()
                )
            })?;
            if value.is_null() {
                continue;
            }
            let api_version = text_at(&value, "/apiVersion");
            let kind = text_at(&value, "/kind").to_owned();
            if !api_version.starts_with("kubeadm.k8s.io/") {
                continue;
            }
            if !matches!(
                api_version,
                "kubeadm.k8s.io/v1beta3" | "kubeadm.k8s.io/v1beta4"
            ) {
                return Err(format!(
                    "{path}: {kind} has the apiVersion {api_version}, this kubeadm reads v1beta3 and v1beta4"
                ));
            }
            match kind.as_str() {
                "InitConfiguration" => config.init = value,
                "ClusterConfiguration" => config.cluster = value,
                "JoinConfiguration" => config.join = value,
                other => {
                    return Err(format!(
                        "{path}: the kind {other:?} is not one of kubeadm's"
                    ));
                }
            }
        }
        Ok(config)
    }
}

fn documents(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        if line.starts_with("---") {
            documents.push(String::new());
        } else if let Some(last) = documents.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    documents.retain(|document| !document.trim().is_empty());
    documents
}

/// `nodeRegistration` of an `InitConfiguration` or `JoinConfiguration`.
#[derive(Debug, Clone)]
pub(crate) struct NodeRegistration {
    /// Node name; the host name unless it is set.
    pub(crate) name: String,
    /// Taints; absent when the field is not there, which is not the same as an empty list.
    pub(crate) taints: Option<Vec<Value>>,
    arguments: Vec<(String, String)>,
}

impl NodeRegistration {
    /// Reads it, with the machine's host name as default.
    pub(crate) fn read(configuration: &Value, hostname: &str) -> Self {
        let registration = configuration
            .get("nodeRegistration")
            .cloned()
            .unwrap_or_default();
        let name = match text_at(&registration, "/name") {
            "" => hostname.to_lowercase(),
            name => name.to_lowercase(),
        };
        let taints = registration
            .get("taints")
            .and_then(Value::as_array)
            .cloned();
        let text = |value: &Value| {
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        };
        let arguments = match registration.get("kubeletExtraArgs") {
            Some(Value::Object(map)) => map
                .iter()
                .map(|(key, value)| (key.clone(), text(value)))
                .collect(),
            Some(Value::Array(list)) => list
                .iter()
                .map(|entry| {
                    (
                        text_at(entry, "/name").to_owned(),
                        entry.get("value").map(text).unwrap_or_default(),
                    )
                })
                .collect(),
            _ => Vec::new(),
        };
        Self {
            name,
            taints,
            arguments,
        }
    }

    /// A kubelet argument, or the empty string.
    pub(crate) fn argument(&self, name: &str) -> &str {
        self.arguments
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .unwrap_or_default()
    }

    /// The labels of the `node-labels` argument.
    pub(crate) fn labels(&self) -> Vec<(String, String)> {
        self.argument("node-labels")
            .split(',')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (key.trim().to_owned(), value.trim().to_owned())
            })
            .collect()
    }

    /// The taints of the `register-with-taints` argument (`key=value:effect`).
    pub(crate) fn argument_taints(&self) -> Vec<Value> {
        self.argument("register-with-taints")
            .split(',')
            .filter_map(|taint| {
                let (head, effect) = taint.rsplit_once(':')?;
                let (key, value) = head.split_once('=').unwrap_or((head, ""));
                let mut taint = json!({"key": key, "effect": effect});
                if !value.is_empty() {
                    super::object::as_object(&mut taint).insert("value".into(), json!(value));
                }
                Some(taint)
            })
            .collect()
    }
}

/// The bootstrap token of a `JoinConfiguration`'s discovery.
#[derive(Debug, Clone)]
pub(crate) struct Discovery {
    /// `host:port`.
    pub(crate) endpoint: String,
    /// Public part of the token.
    pub(crate) token_id: String,
    /// Secret part.
    pub(crate) token_secret: String,
    /// Pins of the CA's public key.
    pub(crate) pins: Vec<String>,
    /// Whether no pin is needed.
    pub(crate) unsafe_skip: bool,
}

impl Discovery {
    /// Reads it; the message names the field that is wrong.
    pub(crate) fn read(join: &Value) -> Result<Self, String> {
        let discovery = join
            .pointer("/discovery/bootstrapToken")
            .cloned()
            .unwrap_or_default();
        if discovery.is_null() {
            return Err("discovery.bootstrapToken: Required value: this machine can only discover by bootstrap token".into());
        }
        let token = text_at(&discovery, "/token");
        let is_part = |text: &str, length: usize| {
            text.len() == length
                && text
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        };
        let (token_id, token_secret) = token
            .split_once('.')
            .filter(|(id, secret)| is_part(id, 6) && is_part(secret, 16))
            .ok_or("discovery.bootstrapToken.token: Invalid value: the bootstrap token is not of the form \\A([a-z0-9]{6})\\.([a-z0-9]{16})\\z")?;
        let endpoint = text_at(&discovery, "/apiServerEndpoint").to_owned();
        if endpoint
            .rsplit_once(':')
            .is_none_or(|(_, port)| port.parse::<u16>().is_err())
        {
            return Err(format!(
                "discovery.bootstrapToken.apiServerEndpoint: Invalid value: {endpoint:?} is not host:port"
            ));
        }
        let pins: Vec<String> = list_at(&discovery, "/caCertHashes")
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        let unsafe_skip = discovery
            .get("unsafeSkipCAVerification")
            .and_then(Value::as_bool)
            == Some(true);
        if pins.is_empty() && !unsafe_skip {
            return Err("discovery.bootstrapToken: Invalid value: using token-based discovery without caCertHashes can be unsafe. Set unsafeSkipCAVerification to continue".into());
        }
        Ok(Self {
            endpoint,
            token_id: token_id.to_owned(),
            token_secret: token_secret.to_owned(),
            pins,
            unsafe_skip,
        })
    }
}

/// A duration such as `24h0m0s` in seconds; absent when it is none.
pub(crate) fn duration_s(text: &str) -> Option<i64> {
    let mut total = 0_i64;
    let mut digits = String::new();
    for c in text.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let number: i64 = digits.parse().ok()?;
        digits.clear();
        let scale = match c {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(scale)?)?;
    }
    if digits.is_empty() && !text.is_empty() {
        Some(total)
    } else {
        digits.parse().ok().filter(|zero| *zero == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_documents_of_both_versions() {
        let text = "---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nnodeRegistration:\n  kubeletExtraArgs:\n  - {name: node-labels, value: 'a=b,c='}\n---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nclusterName: x\n";
        let config = KubeadmConfig::parse("/f", text).unwrap();
        assert_eq!(text_at(&config.cluster, "/clusterName"), "x");
        let registration = NodeRegistration::read(&config.init, "Host");
        assert_eq!(registration.name, "host");
        assert_eq!(
            registration.labels(),
            [("a".into(), "b".into()), ("c".into(), String::new())]
        );
        let old = json!({"nodeRegistration": {"taints": [], "kubeletExtraArgs": {"provider-id": "x://y"}}});
        let registration = NodeRegistration::read(&old, "h");
        assert_eq!(
            (
                registration.argument("provider-id"),
                registration.taints.clone()
            ),
            ("x://y", Some(vec![]))
        );
        assert!(
            KubeadmConfig::parse(
                "/f",
                "apiVersion: kubeadm.k8s.io/v1beta1\nkind: InitConfiguration"
            )
            .is_err()
        );
    }

    #[test]
    fn reads_durations() {
        assert_eq!(duration_s("24h0m0s"), Some(86_400));
        assert_eq!(duration_s("0s"), Some(0));
        assert_eq!(duration_s("15m"), Some(900));
        assert_eq!(duration_s("soon"), None);
    }
}
