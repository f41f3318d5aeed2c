//! The kinds that a workload API server of the `light` backend serves, as one table that routing, discovery and printing share.

/// One served resource.
#[derive(Debug)]
pub(crate) struct Resource {
    /// API group, empty for the core group.
    pub(crate) group: &'static str,
    /// Version, such as `v1`.
    pub(crate) version: &'static str,
    /// Plural, as in paths.
    pub(crate) plural: &'static str,
    /// Singular.
    pub(crate) singular: &'static str,
    /// Kind.
    pub(crate) kind: &'static str,
    /// Whether its objects live in namespaces.
    pub(crate) namespaced: bool,
    /// Short names that kubectl accepts.
    pub(crate) short: &'static [&'static str],
    /// Subresources, `status` first where there is one.
    pub(crate) subresources: &'static [&'static str],
    /// Whether kubectl's `all` includes it.
    pub(crate) in_all: bool,
}

impl Resource {
    /// `apiVersion` of its objects.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The name in error messages: `plural` or `plural.group`.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// Whether `status` is a subresource, so that writes to the object leave it alone.
    pub(crate) fn has_status(&self) -> bool {
        self.subresources.contains(&"status")
    }

    /// Whether it is this resource of this group.
    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }
}

macro_rules! resource {
    ($group:literal, $plural:literal, $singular:literal, $kind:literal, $namespaced:literal, $short:expr, $sub:expr, $all:literal) => {
        Resource {
            group: $group,
            version: "v1",
            plural: $plural,
            singular: $singular,
            kind: $kind,
            namespaced: $namespaced,
            short: &$short,
            subresources: &$sub,
            in_all: $all,
        }
    };
}

const RBAC: &str = "rbac.authorization.k8s.io";
const CERTIFICATES: &str = "certificates.k8s.io";

/// Every served resource. A resource's place in this table is its table's place in the store.
pub(crate) static RESOURCES: &[Resource] = &[
    resource!(
        "",
        "namespaces",
        "namespace",
        "Namespace",
        false,
        ["ns"],
        ["status", "finalize"],
        false
    ),
    resource!(
        "",
        "nodes",
        "node",
        "Node",
        false,
        ["no"],
        ["status"],
        false
    ),
    resource!(
        "",
        "pods",
        "pod",
        "Pod",
        true,
        ["po"],
        ["status", "binding", "eviction", "log", "portforward"],
        true
    ),
    resource!(
        "",
        "configmaps",
        "configmap",
        "ConfigMap",
        true,
        ["cm"],
        [],
        false
    ),
    resource!("", "secrets", "secret", "Secret", true, [], [], false),
    resource!(
        "",
        "services",
        "service",
        "Service",
        true,
        ["svc"],
        ["status"],
        true
    ),
    resource!(
        "",
        "endpoints",
        "endpoints",
        "Endpoints",
        true,
        ["ep"],
        [],
        false
    ),
    resource!(
        "",
        "serviceaccounts",
        "serviceaccount",
        "ServiceAccount",
        true,
        ["sa"],
        [],
        false
    ),
    resource!("", "events", "event", "Event", true, ["ev"], [], false),
    resource!(
        "",
        "persistentvolumes",
        "persistentvolume",
        "PersistentVolume",
        false,
        ["pv"],
        ["status"],
        false
    ),
    resource!(
        "",
        "persistentvolumeclaims",
        "persistentvolumeclaim",
        "PersistentVolumeClaim",
        true,
        ["pvc"],
        ["status"],
        false
    ),
    resource!(
        "apps",
        "daemonsets",
        "daemonset",
        "DaemonSet",
        true,
        ["ds"],
        ["status"],
        true
    ),
    resource!(
        "apps",
        "deployments",
        "deployment",
        "Deployment",
        true,
        ["deploy"],
        ["status"],
        true
    ),
    resource!(
        "apps",
        "replicasets",
        "replicaset",
        "ReplicaSet",
        true,
        ["rs"],
        ["status"],
        true
    ),
    resource!(
        "apps",
        "statefulsets",
        "statefulset",
        "StatefulSet",
        true,
        ["sts"],
        ["status"],
        true
    ),
    resource!("batch", "jobs", "job", "Job", true, [], ["status"], true),
    resource!(
        "certificates.k8s.io",
        "certificatesigningrequests",
        "certificatesigningrequest",
        "CertificateSigningRequest",
        false,
        ["csr"],
        ["status", "approval"],
        false
    ),
    resource!(
        "coordination.k8s.io",
        "leases",
        "lease",
        "Lease",
        true,
        [],
        [],
        false
    ),
    resource!(
        "policy",
        "poddisruptionbudgets",
        "poddisruptionbudget",
        "PodDisruptionBudget",
        true,
        ["pdb"],
        ["status"],
        false
    ),
    resource!(
        "rbac.authorization.k8s.io",
        "clusterroles",
        "clusterrole",
        "ClusterRole",
        false,
        [],
        [],
        false
    ),
    resource!(
        "rbac.authorization.k8s.io",
        "clusterrolebindings",
        "clusterrolebinding",
        "ClusterRoleBinding",
        false,
        [],
        [],
        false
    ),
    resource!(
        "rbac.authorization.k8s.io",
        "roles",
        "role",
        "Role",
        true,
        [],
        [],
        false
    ),
    resource!(
        "rbac.authorization.k8s.io",
        "rolebindings",
        "rolebinding",
        "RoleBinding",
        true,
        [],
        [],
        false
    ),
    resource!(
        "storage.k8s.io",
        "volumeattachments",
        "volumeattachment",
        "VolumeAttachment",
        false,
        [],
        ["status"],
        false
    ),
    resource!(
        "storage.k8s.io",
        "csidrivers",
        "csidriver",
        "CSIDriver",
        false,
        [],
        [],
        false
    ),
    resource!(
        "storage.k8s.io",
        "storageclasses",
        "storageclass",
        "StorageClass",
        false,
        ["sc"],
        [],
        false
    ),
];

/// The resource of a group and plural, with its place in the table.
pub(crate) fn find(group: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|resource| resource.is(group, plural))
}

/// The resource of an `apiVersion` and kind.
pub(crate) fn find_kind(api_version: &str, kind: &str) -> Option<&'static Resource> {
    RESOURCES
        .iter()
        .find(|resource| resource.kind == kind && resource.api_version() == api_version)
}

/// Where the resource's table is in the store.
pub(crate) fn place(resource: &Resource) -> usize {
    RESOURCES
        .iter()
        .position(|other| other.is(resource.group, resource.plural))
        .unwrap_or(usize::MAX)
}

/// The groups with at least one resource, in the table's order, without the core group.
pub(crate) fn groups() -> Vec<&'static str> {
    let mut groups: Vec<&'static str> = Vec::new();
    for resource in RESOURCES {
        if !resource.group.is_empty() && !groups.contains(&resource.group) {
            groups.push(resource.group);
        }
    }
    groups
}

macro_rules! known {
    ($name:ident, $group:expr, $plural:literal) => {
        #[doc = concat!("The `", $plural, "` resource.")]
        pub(crate) fn $name() -> &'static Resource {
            let found = find($group, $plural);
            debug_assert!(found.is_some(), "the table lists {}", $plural);
            found.unwrap_or(&RESOURCES_FALLBACK)
        }
    };
}

static RESOURCES_FALLBACK: Resource =
    resource!("", "unknown", "unknown", "Unknown", false, [], [], false);

known!(namespaces, "", "namespaces");
known!(nodes, "", "nodes");
known!(pods, "", "pods");
known!(config_maps, "", "configmaps");
known!(secrets, "", "secrets");
known!(signing_requests, CERTIFICATES, "certificatesigningrequests");
known!(leases, "coordination.k8s.io", "leases");
known!(disruption_budgets, "policy", "poddisruptionbudgets");
known!(cluster_roles, RBAC, "clusterroles");
known!(cluster_role_bindings, RBAC, "clusterrolebindings");
known!(roles, RBAC, "roles");
known!(role_bindings, RBAC, "rolebindings");
