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
            self.coredns,
            catalog::CONTAINERD_DAEMON,
            catalog::CONTAINERD_SHIM,
            catalog::CONTAINERD_CLIENT,
            catalog::POD_PAUSE,
            catalog::SAMPLE_SERVER,
        ]);
        all
    }

    /// What the image depends on, beside the base.
    pub(super) fn inputs(&self) -> Vec<String> {
        let mut inputs: Vec<String> = self
            .binaries()
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
        let mut built = Vec::new();
        for binary in self.binaries() {
            built.push((binary.name, build::ensure(search, &binary, progress)?));
        }
        Ok(Binaries(built))
    }
}

/// Where each binary of a recipe is, by name.
pub(super) struct Binaries(pub(super) Vec<(&'static str, PathBuf)>);

impl Binaries {
    /// The path of one that the recipe has.
    pub(super) fn path(&self, name: &str) -> Result<&Path, Error> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, path)| path.as_path())
            .ok_or_else(|| Error::Block {
                what: name.to_owned(),
                why: "nothing here knows how to build it".to_owned(),
                fix: "report this as a bug".to_owned(),
            })
    }
}
