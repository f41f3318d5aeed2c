//! The contract between the core and providers' objects: roles, versions, and where each fact is.
//!
//! Providers' objects are `serde_json::Value`; the views in the submodules read them, and the `patch`
//! functions make the merge patches that the host writes for plugins.

pub mod bootstrap_config;
pub mod control_plane;
pub mod infra_cluster;
pub mod infra_machine;
pub mod infra_machine_pool;
pub mod v1beta1;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Value, json};

pub use bootstrap_config::BootstrapConfig;
pub use control_plane::ControlPlane;
pub use infra_cluster::InfraCluster;
pub use infra_machine::InfraMachine;
pub use infra_machine_pool::InfraMachinePool;

use crate::label;
use crate::schema::string_enum;
use crate::v1beta2::ApiEndpoint;

string_enum! {
    /// What a provider's kind is for.
    pub enum Role {
        /// Infrastructure that a whole Cluster shares.
        InfraCluster = "infra-cluster",
        /// Template of it.
        InfraClusterTemplate = "infra-cluster-template",
        /// One host.
        InfraMachine = "infra-machine",
        /// Template of it.
        InfraMachineTemplate = "infra-machine-template",
        /// What makes the data that a host boots with.
        BootstrapConfig = "bootstrap-config",
        /// Template of it.
        BootstrapConfigTemplate = "bootstrap-config-template",
        /// What makes a control plane.
        ControlPlane = "control-plane",
        /// Template of it.
        ControlPlaneTemplate = "control-plane-template",
    }
}

impl Role {
    /// Whether objects of this role are only copied.
    pub fn is_template(self) -> bool {
        matches!(
            self,
            Self::InfraClusterTemplate
                | Self::InfraMachineTemplate
                | Self::BootstrapConfigTemplate
                | Self::ControlPlaneTemplate
        )
    }

    /// The role of a template's copies; the role itself if it is no template.
    pub fn of_copy(self) -> Self {
        match self {
            Self::InfraClusterTemplate => Self::InfraCluster,
            Self::InfraMachineTemplate => Self::InfraMachine,
            Self::BootstrapConfigTemplate => Self::BootstrapConfig,
            Self::ControlPlaneTemplate => Self::ControlPlane,
            other => other,
        }
    }
}

/// Group of the kinds of control planes, whoever brings them.
pub const CONTROL_PLANE_GROUP: &str = "controlplane.cluster.x-k8s.io";

/// Type of the Secrets that Cluster API makes.
pub const SECRET_TYPE: &str = "cluster.x-k8s.io/secret";

/// Key of a kubeconfig or of bootstrap data in its Secret.
pub const SECRET_VALUE_KEY: &str = "value";

/// Key of the format of bootstrap data in its Secret (`cloud-config`, `ignition`, ...).
pub const SECRET_FORMAT_KEY: &str = "format";

/// Key of a certificate in its Secret.
pub const SECRET_CERTIFICATE_KEY: &str = "tls.crt";

/// Key of a private key in its Secret.
pub const SECRET_PRIVATE_KEY_KEY: &str = "tls.key";

string_enum! {
    /// What a Secret of a Cluster is for; it is the last part of the Secret's name.
    pub enum SecretPurpose {
        /// The administrator's kubeconfig.
        Kubeconfig = "kubeconfig",
        /// The cluster's certificate authority.
        ClusterCa = "ca",
        /// The certificate authority of etcd.
        EtcdCa = "etcd",
        /// The certificate authority of the front proxy.
        FrontProxyCa = "proxy",
        /// The key pair that signs service account tokens.
        ServiceAccount = "sa",
        /// The client certificate for an external etcd.
        ApiServerEtcdClient = "apiserver-etcd-client",
    }
}

impl SecretPurpose {
    /// Name of a Cluster's Secret.
    pub fn secret_name(self, cluster: &str) -> String {
        format!("{cluster}-{self}")
    }
}

/// Which contract a kind follows; it decides where facts are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContractVersion {
    /// The older contract, which upstream accepts until its v1.16.
    V1Beta1,
    /// The current contract.
    V1Beta2,
}

/// What a CustomResourceDefinition's labels say about the kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The newest contract that the kind follows.
    pub contract: ContractVersion,
    /// The newest of the kind's versions that follow it; objects are read and written in it.
    pub version: String,
}

/// Finds contract and version of a kind in the labels of its CustomResourceDefinition; `None` if it
/// follows no contract, which makes a reference to it an error.
pub fn resolve(labels: &BTreeMap<String, String>) -> Option<Resolved> {
    [
        (label::CONTRACT_V1BETA2, ContractVersion::V1Beta2),
        (label::CONTRACT_V1BETA1, ContractVersion::V1Beta1),
    ]
    .into_iter()
    .find_map(|(key, contract)| {
        let versions = labels.get(key)?;
        let version = versions
            .split('_')
            .filter(|version| !version.is_empty())
            .max_by(|a, b| compare_api_versions(a, b))?;
        Some(Resolved {
            contract,
            version: version.to_owned(),
        })
    })
}

/// The contract that a kind's objects follow in one of its versions; `None` if the kind follows none. A version that no label names
/// is from before the contracts that the labels name: providers take old ones off.
pub fn of_version(labels: &BTreeMap<String, String>, version: &str) -> Option<ContractVersion> {
    resolve(labels)?;
    let current = labels.get(label::CONTRACT_V1BETA2);
    let mut current = current.into_iter().flat_map(|versions| versions.split('_'));
    Some(if current.any(|named| named == version) {
        ContractVersion::V1Beta2
    } else {
        ContractVersion::V1Beta1
    })
}

/// Kubernetes' order of API versions: stable over beta over alpha, then by number; other names last,
/// by the alphabet.
pub fn compare_api_versions(a: &str, b: &str) -> Ordering {
    match (api_version_rank(a), api_version_rank(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => b.cmp(a),
    }
}

/// Stability, major and minor number of `v1`, `v1beta2` or `v1alpha1`.
fn api_version_rank(version: &str) -> Option<(u8, u32, u32)> {
    let rest = version.strip_prefix('v')?;
    let (stability, major, minor) = if let Some((major, minor)) = rest.split_once("beta") {
        (1, major, minor)
    } else if let Some((major, minor)) = rest.split_once("alpha") {
        (0, major, minor)
    } else {
        (2, rest, "0")
    };
    Some((stability, major.parse().ok()?, minor.parse().ok()?))
}

/// Name of a kind's CustomResourceDefinition, `<plural>.<group>`, without asking the server.
pub fn crd_name(kind: &str, group: &str) -> String {
    format!("{}.{group}", plural(kind))
}

/// The plural that a kind's CustomResourceDefinition must have.
pub fn plural(kind: &str) -> String {
    let lower = kind.to_lowercase();
    let ends = |endings: &[&str]| endings.iter().any(|ending| lower.ends_with(ending));
    if let Some(stem) = lower.strip_suffix('y')
        && !ends(&["ay", "ey", "iy", "oy", "uy"])
    {
        return format!("{stem}ies");
    }
    if ends(&["s", "x", "z", "ch", "sh"]) {
        return format!("{lower}es");
    }
    format!("{lower}s")
}

/// Whether a kind is a template, and the kind of its copies.
pub fn kind_of_copy(template_kind: &str) -> Option<&str> {
    template_kind
        .strip_suffix("Template")
        .filter(|kind| !kind.is_empty())
}

/// `spec.controlPlaneEndpoint` if host and port are there.
fn endpoint(object: &Value) -> Option<ApiEndpoint> {
    let endpoint = object.pointer("/spec/controlPlaneEndpoint")?;
    let host = endpoint
        .get("host")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let port = endpoint
        .get("port")
        .and_then(Value::as_i64)
        .and_then(|port| i32::try_from(port).ok());
    let endpoint = ApiEndpoint {
        host: host.to_owned(),
        port: port.unwrap_or_default(),
    };
    endpoint.is_complete().then_some(endpoint)
}

/// Merge patch of `spec.controlPlaneEndpoint`.
pub fn endpoint_patch(endpoint: &ApiEndpoint) -> Value {
    json!({"spec": {"controlPlaneEndpoint": {"host": endpoint.host, "port": endpoint.port}}})
}

/// A text that is there and not empty.
fn text_at<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}

/// A truth value; `None` if it is not there.
fn flag_at(object: &Value, pointer: &str) -> Option<bool> {
    object.pointer(pointer).and_then(Value::as_bool)
}

/// A number that fits; `None` if it is not there.
fn count_at(object: &Value, pointer: &str) -> Option<i32> {
    object
        .pointer(pointer)
        .and_then(Value::as_i64)
        .and_then(|count| i32::try_from(count).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn newest_contract_and_newest_version_win() {
        let both = labels(&[
            (
                "cluster.x-k8s.io/v1beta2",
                "v1beta1_v1alpha9_v1beta10_v1beta2",
            ),
            ("cluster.x-k8s.io/v1beta1", "v1"),
        ]);
        assert_eq!(
            resolve(&both),
            Some(Resolved {
                contract: ContractVersion::V1Beta2,
                version: "v1beta10".to_owned()
            })
        );
        let old = labels(&[
            ("cluster.x-k8s.io/v1beta2", ""),
            ("cluster.x-k8s.io/v1beta1", "v1beta1_v1"),
        ]);
        assert_eq!(
            resolve(&old),
            Some(Resolved {
                contract: ContractVersion::V1Beta1,
                version: "v1".to_owned()
            })
        );
        assert_eq!(resolve(&labels(&[])), None);
    }

    #[test]
    fn what_an_object_says_is_of_the_contract_of_its_version() {
        let both = labels(&[
            ("cluster.x-k8s.io/v1beta2", "v1beta2_v1"),
            ("cluster.x-k8s.io/v1beta1", "v1beta1"),
        ]);
        for (version, contract) in [
            ("v1", ContractVersion::V1Beta2),
            ("v1beta2", ContractVersion::V1Beta2),
            ("v1beta1", ContractVersion::V1Beta1),
            ("v1alpha4", ContractVersion::V1Beta1),
        ] {
            assert_eq!(of_version(&both, version), Some(contract), "{version}");
        }
        assert_eq!(of_version(&labels(&[]), "v1"), None);
    }

    #[test]
    fn plurals_are_those_of_the_definitions() {
        assert_eq!(
            crd_name("LocalMachineTemplate", "x.io"),
            "localmachinetemplates.x.io"
        );
        assert_eq!(plural("IPAddress"), "ipaddresses");
        assert_eq!(plural("MachinePolicy"), "machinepolicies");
        assert_eq!(plural("Gateway"), "gateways");
    }

    #[test]
    fn views_read_what_the_contract_names() {
        let object = json!({
            "spec": {"providerID": "local://a", "controlPlaneEndpoint": {"host": "h", "port": 6443},
                     "replicas": 3, "version": "v1.36.0"},
            "status": {"initialization": {"provisioned": true, "dataSecretCreated": true},
                       "dataSecretName": "s", "failureDomain": "fd1",
                       "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Odd", "address": "x"}],
                       "failureDomains": [{"name": "b", "controlPlane": true}, {"name": "a"}],
                       "replicas": 3, "readyReplicas": 3, "availableReplicas": 3, "upToDateReplicas": 2,
                       "versions": [{"version": "v1.35.1", "replicas": 1}, {"version": "v1.36.0", "replicas": 2}]},
        });
        assert_eq!(InfraMachine(&object).provider_id(), Some("local://a"));
        assert_eq!(InfraMachine(&object).addresses().len(), 1);
        assert!(InfraCluster(&object).is_provisioned());
        let domains = InfraCluster(&object).failure_domains();
        assert_eq!(
            (domains[0].name.as_str(), domains[0].control_plane),
            ("a", Some(false))
        );
        let config = BootstrapConfig(&object);
        assert!(config.is_data_secret_created());
        assert_eq!(config.data_secret_name(), Some("s"));
        let control_plane = ControlPlane(&object);
        assert!(
            control_plane.is_upgrading()
                && control_plane.is_scaling()
                && !control_plane.is_provisioning()
        );
        assert_eq!(
            control_plane.endpoint().map(|endpoint| endpoint.port),
            Some(6443)
        );
        let mut settled = object.clone();
        settled["status"]["upToDateReplicas"] = json!(3);
        settled["status"]["versions"] = json!([{"version": "v1.36.0", "replicas": 3}]);
        let control_plane = ControlPlane(&settled);
        assert!(!control_plane.is_upgrading() && !control_plane.is_scaling());
        assert!(ControlPlane(&json!({"spec": object["spec"]})).is_provisioning());
        let hosted = json!({"spec": {"version": "v1.36.0"}, "status": object["status"]});
        assert!(!ControlPlane(&hosted).is_scaling(), "it has no replicas");
    }
}
