//! What the image of one Kubernetes version is made from.

use std::path::{Path, PathBuf};

use super::Error;
use super::{archive, container, node};
use crate::progress::Progress;
use crate::toolchain::catalog::{self, Binary, Kubernetes};
use crate::toolchain::{Search, build};

/// The parts of one version's image.
pub(super) struct Recipe {
    pub(super) kubernetes: Kubernetes,
    pub(super) etcd: Binary,
    pub(super) coredns: Binary,
}

/// In the order of [`super::VERSIONS`].
pub(super) static ALL: [Recipe; 2] = [
    Recipe {
        kubernetes: catalog::NEWEST,
        etcd: catalog::ETCD_OF_NEWEST,
        coredns: catalog::COREDNS_OF_NEWEST,
    },
    Recipe {
        kubernetes: catalog::BEFORE,
        etcd: catalog::ETCD_OF_BEFORE,
        coredns: catalog::COREDNS_OF_BEFORE,
    },
];

/// The recipe of a version.
pub(super) fn find(version: &str) -> Option<&'static Recipe> {
    ALL.iter()
        .find(|recipe| recipe.kubernetes.version == version)
}

impl Recipe {
    /// Everything that is built.
    pub(super) fn binaries(&self) -> Vec<Binary> {
        let mut all = self.kubernetes.all().to_vec();
        all.extend([
            self.etcd,
            catalog::ETCDCTL,
            catalog::ETCDUTL,
            self.coredns,
            catalog::CONTAINERD_DAEMON,
            catalog::CONTAINERD_SHIM,
            catalog::CONTAINERD_CLIENT,
            catalog::POD_PAUSE,
            catalog::SAMPLE_SERVER,
        ]);
        all
    }

    /// What other versions run on every machine, or on any: kube-proxy and CoreDNS have the version of their control plane, which need not be
    /// that of the machine.
    fn addons_of_others(&self) -> Vec<Binary> {
        let others = ALL
            .iter()
            .filter(|other| other.kubernetes.version != self.kubernetes.version);
        others
            .flat_map(|other| [other.kubernetes.proxy, other.coredns])
            .collect()
    }

    /// What the image depends on, beside the base.
    pub(super) fn inputs(&self) -> Vec<String> {
        let mut binaries = self.binaries();
        binaries.extend(self.addons_of_others());
        let mut inputs: Vec<String> = binaries
            .iter()
            .flat_map(|binary| [binary.title(), binary.module.digest()])
            .collect();
        inputs.extend(node::TEXTS.map(str::to_owned));
        inputs.extend(container::inputs());
        inputs.push(archive::architecture().to_owned());
        inputs
    }

    /// Builds what is missing.
    pub(super) fn build(&self, search: &Search, progress: &Progress) -> Result<Binaries, Error> {
        let mut built = Binaries::default();
        for binary in self.binaries() {
            let path = build::ensure(search, &binary, progress)?;
            built.own.push((binary.name, path));
        }
        for binary in self.addons_of_others() {
            let path = build::ensure(search, &binary, progress)?;
            built.addons.push((binary, path));
        }
        Ok(built)
    }
}

/// Where each binary of a recipe is.
#[derive(Default)]
pub(super) struct Binaries {
    /// Those of its own version, by name.
    pub(super) own: Vec<(&'static str, PathBuf)>,
    /// Addons of other versions.
    pub(super) addons: Vec<(Binary, PathBuf)>,
}

impl Binaries {
    /// The path of one that the recipe has.
    pub(super) fn path(&self, name: &str) -> Result<&Path, Error> {
        let found = self.own.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, path)| path.as_path())
            .ok_or_else(|| Error::Block {
                what: name.to_owned(),
                why: "nothing here knows how to build it".to_owned(),
                fix: "report this as a bug".to_owned(),
            })
    }
}
