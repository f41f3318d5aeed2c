//! What can be built, and the pinned Go modules that it is built from.

use sha2::{Digest as _, Sha256};

use super::KUBERNETES_VERSION;

/// A Go module of our own that pins what is built in it: its files are part of this program.
#[derive(Debug)]
pub(crate) struct Module {
    /// Names its directory in the cache, with a part of its digest.
    pub(crate) name: &'static str,
    /// File names with their contents; go.mod among them, and go.sum where it has dependencies.
    pub(crate) files: &'static [(&'static str, &'static str)],
}

impl Module {
    /// Of everything that is built from.
    pub(crate) fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (name, content) in self.files {
            for part in [name, content] {
                hash.update(part.len().to_le_bytes());
                hash.update(part);
            }
        }
        hex(&hash.finalize())
    }

    /// The directory of the cache with what was built from exactly this.
    pub(crate) fn dir_name(&self) -> String {
        let digest = self.digest();
        // 48 bits: nobody makes so many modules that two of one name would collide.
        format!("{}-{}", self.name, digest.get(..12).unwrap_or(&digest))
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

macro_rules! module {
    ($name:literal, $dir:literal) => {
        Module {
            name: $name,
            files: &[
                (
                    "go.mod",
                    include_str!(concat!("../../toolchain/", $dir, "/go.mod")),
                ),
                (
                    "go.sum",
                    include_str!(concat!("../../toolchain/", $dir, "/go.sum")),
                ),
            ],
        }
    };
    ($name:literal, $dir:literal, main: $main:literal) => {
        Module {
            name: $name,
            files: &[
                (
                    "go.mod",
                    include_str!(concat!("../../toolchain/", $dir, "/go.mod")),
                ),
                (
                    "go.sum",
                    include_str!(concat!("../../toolchain/", $dir, "/go.sum")),
                ),
                (
                    "main.go",
                    include_str!(concat!("../../toolchain/", $main, "/main.go")),
                ),
            ],
        }
    };
    ($name:literal, own: $dir:literal) => {
        Module {
            name: $name,
            files: &[
                (
                    "go.mod",
                    include_str!(concat!("../../toolchain/", $dir, "/go.mod")),
                ),
                (
                    "main.go",
                    include_str!(concat!("../../toolchain/", $dir, "/main.go")),
                ),
            ],
        }
    };
}

/// Kubernetes of [`KUBERNETES_VERSION`], and the etcd of the management cluster.
pub(crate) static KUBERNETES_1_36: Module = module!("kubernetes-v1.36.3", "kubernetes-1.36");
/// Kubernetes of the minor version before.
pub(crate) static KUBERNETES_1_35: Module = module!("kubernetes-v1.35.8", "kubernetes-1.35");
/// Kubernetes with the kubeadm that reads its configuration of old, for tests of what is written for it.
static KUBERNETES_1_30: Module = module!("kubernetes-v1.30.14", "kubernetes-1.30");
static ETCD_3_6_8: Module = module!("etcd-v3.6.8", "etcd-3.6.8");
static ETCD_3_6_6: Module = module!("etcd-v3.6.6", "etcd-3.6.6");
static COREDNS_1_14_2: Module = module!("coredns-v1.14.2", "coredns-1.14.2", main: "coredns");
static COREDNS_1_13_1: Module = module!("coredns-v1.13.1", "coredns-1.13.1", main: "coredns");
static CONTAINERD: Module = module!("containerd-v2.2.9", "containerd");
static CLUSTERCTL_1_14: Module = module!("clusterctl-v1.14.2", "clusterctl");
static DISTRIBUTION: Module = module!("distribution-v3.1.2", "registry");
static ETCDCTL_3_6_8: Module = module!("etcdctl-v3.6.8", "etcdctl");
static ETCDUTL_3_6_8: Module = module!("etcdutl-v3.6.8", "etcdutl");
static IGNITION: Module = module!("ignition-v2.24.0", "ignition");
static VERSITYGW: Module = module!("versitygw-v1.8.0", "versitygw");
static PAUSE: Module = module!("capstan-pause", own: "pause");
static SAMPLE: Module = module!("capstan-sample", own: "sample");

/// What the linker writes into a binary, so that it knows its version.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stamp {
    /// It knows it anyway, or has none.
    None,
    /// Kubernetes' version: real clients refuse a server that does not know its own.
    Kubernetes(&'static str),
    /// A variable and its value.
    Variable(&'static str, &'static str),
}

/// One program that can be built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binary {
    /// The file's name.
    pub(crate) name: &'static str,
    /// Shown beside the name.
    pub(crate) version: &'static str,
    /// Its main package.
    pub(crate) package: &'static str,
    /// What it is built from.
    pub(crate) module: &'static Module,
    /// Go's build tags.
    pub(crate) tags: &'static str,
    /// What is linked in.
    pub(crate) stamp: Stamp,
    /// How long a cold build takes on two quiet cores, in order of building.
    pub(crate) time: &'static str,
}

impl Binary {
    /// Name and version.
    pub(crate) fn title(&self) -> String {
        format!("{} {}", self.name, self.version)
            .trim_end()
            .to_owned()
    }
}

const fn kubernetes(
    module: &'static Module,
    version: &'static str,
    name: &'static str,
    package: &'static str,
    time: &'static str,
) -> Binary {
    Binary {
        name,
        version,
        package,
        module,
        tags: "",
        stamp: Stamp::Kubernetes(version),
        time,
    }
}

const HALF: &str = "about half a minute";
const ONE: &str = "about 1 minute";
const MOMENT: &str = "a moment";

/// The programs of one version of Kubernetes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kubernetes {
    pub(crate) version: &'static str,
    pub(crate) apiserver: Binary,
    pub(crate) controller_manager: Binary,
    pub(crate) scheduler: Binary,
    pub(crate) proxy: Binary,
    pub(crate) kubelet: Binary,
    pub(crate) kubeadm: Binary,
    pub(crate) kubectl: Binary,
}

impl Kubernetes {
    const fn new(module: &'static Module, version: &'static str) -> Self {
        Self {
            version,
            apiserver: kubernetes(
                module,
                version,
                "kube-apiserver",
                "k8s.io/kubernetes/cmd/kube-apiserver",
                "about 4 minutes",
            ),
            controller_manager: kubernetes(
                module,
                version,
                "kube-controller-manager",
                "k8s.io/kubernetes/cmd/kube-controller-manager",
                ONE,
            ),
            scheduler: kubernetes(
                module,
                version,
                "kube-scheduler",
                "k8s.io/kubernetes/cmd/kube-scheduler",
                HALF,
            ),
            proxy: kubernetes(
                module,
                version,
                "kube-proxy",
                "k8s.io/kubernetes/cmd/kube-proxy",
                HALF,
            ),
            kubelet: kubernetes(
                module,
                version,
                "kubelet",
                "k8s.io/kubernetes/cmd/kubelet",
                ONE,
            ),
            kubeadm: kubernetes(
                module,
                version,
                "kubeadm",
                "k8s.io/kubernetes/cmd/kubeadm",
                HALF,
            ),
            kubectl: kubernetes(
                module,
                version,
                "kubectl",
                "k8s.io/kubernetes/cmd/kubectl",
                HALF,
            ),
        }
    }

    /// All of them, the most expensive first: what they share is compiled with it.
    pub(crate) const fn all(&self) -> [Binary; 7] {
        [
            self.apiserver,
            self.controller_manager,
            self.kubelet,
            self.scheduler,
            self.proxy,
            self.kubeadm,
            self.kubectl,
        ]
    }
}

/// The newest version, which the management cluster has as well.
pub(crate) const NEWEST: Kubernetes = Kubernetes::new(&KUBERNETES_1_36, KUBERNETES_VERSION);
/// The latest of the minor version before, so that upgrades can be played.
pub(crate) const BEFORE: Kubernetes = Kubernetes::new(&KUBERNETES_1_35, "v1.35.8");

/// The etcd of the management cluster.
pub(crate) const ETCD: Binary = etcd(&KUBERNETES_1_36, "");
/// The etcd that kubeadm of [`NEWEST`] asks for.
pub(crate) const ETCD_OF_NEWEST: Binary = etcd(&ETCD_3_6_8, "v3.6.8");
/// The etcd that kubeadm of [`BEFORE`] asks for.
pub(crate) const ETCD_OF_BEFORE: Binary = etcd(&ETCD_3_6_6, "v3.6.6");

const fn etcd(module: &'static Module, version: &'static str) -> Binary {
    Binary {
        name: "etcd",
        version,
        package: "go.etcd.io/etcd/server/v3",
        module,
        tags: "",
        stamp: Stamp::None,
        time: HALF,
    }
}

/// The CoreDNS that kubeadm of [`NEWEST`] asks for.
pub(crate) const COREDNS_OF_NEWEST: Binary = coredns(&COREDNS_1_14_2, "v1.14.2");
/// The CoreDNS that kubeadm of [`BEFORE`] asks for.
pub(crate) const COREDNS_OF_BEFORE: Binary = coredns(&COREDNS_1_13_1, "v1.13.1");

const fn coredns(module: &'static Module, version: &'static str) -> Binary {
    Binary {
        name: "coredns",
        version,
        package: ".",
        module,
        tags: "",
        stamp: Stamp::None,
        time: ONE,
    }
}

const CONTAINERD_VERSION: &str = "v2.2.9";

const fn containerd(name: &'static str, package: &'static str, time: &'static str) -> Binary {
    Binary {
        name,
        version: CONTAINERD_VERSION,
        package,
        module: &CONTAINERD,
        // Without cgo, and without snapshotters that nothing here uses.
        tags: "no_btrfs,no_devmapper,no_zfs",
        stamp: Stamp::Variable(
            "github.com/containerd/containerd/v2/version.Version",
            CONTAINERD_VERSION,
        ),
        time,
    }
}

/// The container runtime.
pub(crate) const CONTAINERD_DAEMON: Binary = containerd(
    "containerd",
    "github.com/containerd/containerd/v2/cmd/containerd",
    "about 2 minutes",
);
/// What the runtime starts for each pod.
pub(crate) const CONTAINERD_SHIM: Binary = containerd(
    "containerd-shim-runc-v2",
    "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
    MOMENT,
);
/// The runtime's client.
pub(crate) const CONTAINERD_CLIENT: Binary =
    containerd("ctr", "github.com/containerd/containerd/v2/cmd/ctr", MOMENT);

const CLUSTERCTL_VERSION: &str = "v1.14.2";

/// Cluster API's own client, for tests of what it sees.
pub(crate) const CLUSTERCTL: Binary = Binary {
    name: "clusterctl",
    version: CLUSTERCTL_VERSION,
    package: "sigs.k8s.io/cluster-api/cmd/clusterctl",
    module: &CLUSTERCTL_1_14,
    tags: "",
    stamp: Stamp::Variable(
        "sigs.k8s.io/cluster-api/version.gitVersion",
        CLUSTERCTL_VERSION,
    ),
    time: "about 2 minutes",
};

/// A registry of images, for tests of what is pulled from one.
pub(crate) const REGISTRY: Binary = Binary {
    name: "registry",
    version: "v3.1.2",
    package: "github.com/distribution/distribution/v3/cmd/registry",
    module: &DISTRIBUTION,
    tags: "",
    stamp: Stamp::None,
    time: "about 2 minutes",
};

/// What asks members of etcd: part of its image, as of the one that kubeadm asks for.
pub(crate) const ETCDCTL: Binary = Binary {
    name: "etcdctl",
    version: "v3.6.8",
    package: "go.etcd.io/etcd/etcdctl/v3",
    module: &ETCDCTL_3_6_8,
    tags: "",
    stamp: Stamp::None,
    time: ONE,
};

/// What restores snapshots of etcd: part of its image, as of the one that kubeadm asks for, and for tests of those that the host takes.
pub(crate) const ETCDUTL: Binary = Binary {
    name: "etcdutl",
    version: "v3.6.8",
    package: "go.etcd.io/etcd/etcdutl/v3",
    module: &ETCDUTL_3_6_8,
    tags: "",
    stamp: Stamp::None,
    time: ONE,
};

/// The last kubeadm whose configuration is `v1beta3`, for tests of what is written in it.
pub(crate) const KUBEADM_OF_OLD: Binary = kubernetes(
    &KUBERNETES_1_30,
    "v1.30.14",
    "kubeadm",
    "k8s.io/kubernetes/cmd/kubeadm",
    "about 2 minutes",
);

/// What reads Ignition's configurations before a machine does, for tests of those that are written.
pub(crate) const IGNITION_VALIDATE: Binary = Binary {
    name: "ignition-validate",
    version: "v2.24.0",
    package: "github.com/coreos/ignition/v2/validate",
    module: &IGNITION,
    tags: "",
    stamp: Stamp::None,
    time: MOMENT,
};

/// A store that speaks S3, for tests of what is kept in one.
pub(crate) const OBJECT_STORE: Binary = Binary {
    name: "versitygw",
    version: "v1.8.0",
    package: "github.com/versity/versitygw/cmd/versitygw",
    module: &VERSITYGW,
    tags: "",
    stamp: Stamp::None,
    time: "about 2 minutes",
};

const fn own(module: &'static Module, name: &'static str) -> Binary {
    Binary {
        name,
        version: "",
        package: ".",
        module,
        tags: "",
        stamp: Stamp::None,
        time: MOMENT,
    }
}

/// Holds a pod's namespaces.
pub(crate) const POD_PAUSE: Binary = own(&PAUSE, "pause");
/// A workload to prove a cluster with.
pub(crate) const SAMPLE_SERVER: Binary = own(&SAMPLE, "capstan-sample");

#[cfg(test)]
mod tests {
    use super::*;

    fn go_mod(module: &Module) -> &'static str {
        module
            .files
            .iter()
            .find(|(name, _)| *name == "go.mod")
            .unwrap()
            .1
    }

    #[test]
    fn modules_pin_the_versions_that_binaries_are_stamped_with() {
        for kubernetes in [NEWEST, BEFORE] {
            let text = go_mod(kubernetes.kubelet.module);
            assert!(text.contains(&format!("k8s.io/kubernetes {} ", kubernetes.version)));
            let staging = kubernetes.version.replacen("v1.", "v0.", 1);
            assert!(text.contains(&format!("k8s.io/kubelet => k8s.io/kubelet {staging}\n")));
            assert!(kubernetes.kubelet.module.name.ends_with(kubernetes.version));
        }
        let pinned = [
            (ETCD_OF_NEWEST, "go.etcd.io/etcd/server/v3"),
            (ETCD_OF_BEFORE, "go.etcd.io/etcd/server/v3"),
            (COREDNS_OF_NEWEST, "github.com/coredns/coredns"),
            (COREDNS_OF_BEFORE, "github.com/coredns/coredns"),
            (CONTAINERD_DAEMON, "github.com/containerd/containerd/v2"),
            (CLUSTERCTL, "sigs.k8s.io/cluster-api"),
            (REGISTRY, "github.com/distribution/distribution/v3"),
            (ETCDCTL, "go.etcd.io/etcd/etcdctl/v3"),
            (ETCDUTL, "go.etcd.io/etcd/etcdutl/v3"),
            (OBJECT_STORE, "github.com/versity/versitygw"),
            (IGNITION_VALIDATE, "github.com/coreos/ignition/v2"),
            (KUBEADM_OF_OLD, "k8s.io/kubernetes"),
        ];
        for (binary, path) in pinned {
            let line = format!("{path} {}", binary.version);
            assert!(go_mod(binary.module).contains(&line), "{line}");
            assert!(binary.module.name.ends_with(binary.version));
        }
    }

    #[test]
    fn another_content_is_another_directory() {
        let first = Module {
            name: "a",
            files: &[("go.mod", "x"), ("go.sum", "y")],
        };
        let second = Module {
            name: "a",
            files: &[("go.mod", "xy"), ("go.sum", "")],
        };
        assert_ne!(first.dir_name(), second.dir_name());
        assert_eq!(first.dir_name().len(), "a-".len() + 12);
    }
}
