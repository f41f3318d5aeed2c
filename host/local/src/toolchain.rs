//! Finds the control plane's binaries, or builds them from their Go modules.
//!
//! In this order: the directory `KUBEBUILDER_ASSETS`, `PATH`, a per-user cache, a build into that
//! cache from the go.mod and go.sum that are part of this program. Binaries that the person already
//! has must be new enough, and kube-apiserver and kube-controller-manager must come from the same
//! place, because a controller manager may not be newer than its API server.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::progress::Progress;

pub(crate) mod build;
pub(crate) mod catalog;

use catalog::Binary;

/// The Kubernetes version that is built, as its module version.
pub const KUBERNETES_VERSION: &str = "v1.36.3";

/// The oldest Kubernetes that is used when found, as (major, minor): the first that serves mutating admission policies as `v1`.
const KUBERNETES_MIN: (u32, u32) = (1, 36);
/// The oldest kubectl: what is asked of it is older.
const KUBECTL_MIN: (u32, u32) = (1, 33);
/// The oldest etcd that is used when found.
const ETCD_MIN: (u32, u32) = (3, 5);

/// Why a binary is neither there nor built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No home directory and no `XDG_CACHE_HOME`.
    #[error(
        "neither HOME nor XDG_CACHE_HOME is set; set one, it says where built binaries are kept"
    )]
    NoCache,
    /// There is no Go to build with.
    #[error(
        "{tool} is not on this machine and Go is missing, so it cannot be built; install Go 1.21 or \
         newer (https://go.dev/dl), or set KUBEBUILDER_ASSETS to a directory with ready-made \
         binaries"
    )]
    GoMissing {
        /// What was needed.
        tool: &'static str,
    },
    /// Go is there but too old to fetch the Go that the build needs.
    #[error(
        "{found} is too old to build {tool}; install Go 1.21 or newer (https://go.dev/dl), or set \
         KUBEBUILDER_ASSETS to a directory with ready-made binaries"
    )]
    GoTooOld {
        /// What was needed.
        tool: &'static str,
        /// What `go version` says.
        found: String,
    },
    /// The build ran out of disk space, or would have.
    #[error(
        "there is too little disk space to build {tool}: {free_mib} MiB free in {dir}, and about 4 \
         GiB are needed for a while; free some, or set XDG_CACHE_HOME and GOCACHE to a larger disk",
        dir = dir.display()
    )]
    DiskFull {
        /// What was being built.
        tool: &'static str,
        /// The cache.
        dir: PathBuf,
        /// What is left there, in MiB.
        free_mib: u64,
    },
    /// The Go build failed.
    #[error(
        "building {tool} from its Go module failed ({exit}); the last lines of its output:\n{log}"
    )]
    Build {
        /// What was being built.
        tool: &'static str,
        /// How the build ended.
        exit: String,
        /// The end of what it printed.
        log: String,
    },
    /// A file or a directory of the cache could not be used.
    #[error("could not use {path}", path = path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The thread that looked for the binaries came to an end without an answer.
    #[error("the search for binaries was interrupted")]
    Interrupted,
}

/// One of the binaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    Etcd,
    KubeApiserver,
    KubeControllerManager,
    Kubectl,
}

impl Tool {
    /// The file's name.
    pub(crate) const fn name(self) -> &'static str {
        self.binary().name
    }

    /// What is built where it is not found.
    const fn binary(self) -> Binary {
        match self {
            Self::Etcd => catalog::ETCD,
            Self::KubeApiserver => catalog::NEWEST.apiserver,
            Self::KubeControllerManager => catalog::NEWEST.controller_manager,
            Self::Kubectl => catalog::NEWEST.kubectl,
        }
    }

    const fn version_arguments(self) -> &'static [&'static str] {
        match self {
            Self::Kubectl => &["version", "--client"],
            _ => &["--version"],
        }
    }

    const fn version_min(self) -> (u32, u32) {
        match self {
            Self::Etcd => ETCD_MIN,
            Self::Kubectl => KUBECTL_MIN,
            _ => KUBERNETES_MIN,
        }
    }
}

/// Where each binary is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// etcd.
    pub etcd: PathBuf,
    /// kube-apiserver.
    pub kube_apiserver: PathBuf,
    /// kube-controller-manager.
    pub kube_controller_manager: PathBuf,
}

/// Where to look, taken from the environment once.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    /// `KUBEBUILDER_ASSETS`.
    pub(crate) assets: Option<PathBuf>,
    /// `PATH`.
    pub(crate) path: Vec<PathBuf>,
    /// The directory of the per-user cache that holds one directory per Go module.
    pub(crate) cache: Option<PathBuf>,
}

/// An environment variable that is set to something.
fn set(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// This program's directory in the user's cache.
pub(crate) fn cache_dir() -> Option<PathBuf> {
    set("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute())
        .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .map(|dir| dir.join("capstan"))
}

impl Search {
    pub(crate) fn from_environment() -> Self {
        Self {
            assets: set("KUBEBUILDER_ASSETS").map(PathBuf::from),
            path: set("PATH")
                .map(|path| std::env::split_paths(&path).collect())
                .unwrap_or_default(),
            cache: cache_dir().map(|dir| dir.join("toolchain")),
        }
    }

    /// The binaries of a control plane, built where they are not found.
    pub(crate) fn toolchain(&self, progress: &Progress) -> Result<Toolchain, Error> {
        let etcd = self.one(Tool::Etcd, progress)?;
        let (kube_apiserver, kube_controller_manager) = self.kubernetes(progress)?;
        Ok(Toolchain {
            etcd,
            kube_apiserver,
            kube_controller_manager,
        })
    }

    /// One binary that need not match another.
    pub(crate) fn one(&self, tool: Tool, progress: &Progress) -> Result<PathBuf, Error> {
        for (dir, is_asked_for) in self.places() {
            match found(&dir, tool) {
                Found::Usable(path, _) => return Ok(path),
                Found::Unusable(why) if is_asked_for => progress.say(why),
                Found::Unusable(_) | Found::Nothing => {}
            }
        }
        build::ensure(self, &tool.binary(), progress)
    }

    /// kube-apiserver and kube-controller-manager of the same minor version from one place.
    fn kubernetes(&self, progress: &Progress) -> Result<(PathBuf, PathBuf), Error> {
        let (server, manager) = (Tool::KubeApiserver, Tool::KubeControllerManager);
        for (dir, is_asked_for) in self.places() {
            let why = match (found(&dir, server), found(&dir, manager)) {
                (Found::Usable(first, one), Found::Usable(second, other)) if one == other => {
                    return Ok((first, second));
                }
                (Found::Unusable(why), _) | (_, Found::Unusable(why)) => why,
                (Found::Usable(..), Found::Usable(..)) => format!(
                    "{} has kube-apiserver and kube-controller-manager of different versions; not \
                     using them",
                    dir.display()
                ),
                _ => format!(
                    "{} does not have both kube-apiserver and kube-controller-manager; not using it \
                     for them",
                    dir.display()
                ),
            };
            if is_asked_for {
                progress.say(why);
            }
        }
        Ok((
            build::ensure(self, &server.binary(), progress)?,
            build::ensure(self, &manager.binary(), progress)?,
        ))
    }

    /// Directories that the person provides, and whether they were named for this very purpose.
    fn places(&self) -> impl Iterator<Item = (PathBuf, bool)> {
        let assets = self.assets.iter().map(|dir| (dir.clone(), true));
        assets.chain(self.path.iter().map(|dir| (dir.clone(), false)))
    }
}

enum Found {
    /// The path and its (major, minor).
    Usable(PathBuf, (u32, u32)),
    /// It is there; why it is not used.
    Unusable(String),
    Nothing,
}

fn found(dir: &Path, tool: Tool) -> Found {
    let path = dir.join(tool.name());
    if !path.is_file() {
        return Found::Nothing;
    }
    let path = std::path::absolute(&path).unwrap_or(path);
    let output = Command::new(&path).args(tool.version_arguments()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    match text.ok().as_deref().and_then(version) {
        Some(version) if version >= tool.version_min() => Found::Usable(path, version),
        Some((major, minor)) => Found::Unusable(format!(
            "{} is version {major}.{minor}, older than {}.{}; not using it",
            path.display(),
            tool.version_min().0,
            tool.version_min().1
        )),
        None => Found::Unusable(format!("{} does not say its version", path.display())),
    }
}

/// The first `<major>.<minor>` in a text: `Kubernetes v1.36.3`, `etcd Version: 3.6.16`.
fn version(text: &str) -> Option<(u32, u32)> {
    text.split_whitespace().find_map(|word| {
        let word = word.trim_start_matches("go").trim_start_matches('v');
        let mut parts = word.split('.');
        let major = parts.next()?.parse().ok()?;
        let digits = |part: &str| {
            part.chars()
                .take_while(char::is_ascii_digit)
                .collect::<String>()
        };
        Some((major, digits(parts.next()?).parse().ok()?))
    })
}

/// The binaries of a control plane; builds what is missing, which takes minutes, once.
pub async fn ensure(progress: &Progress) -> Result<Toolchain, Error> {
    let progress = progress.clone();
    in_thread(move || Search::from_environment().toolchain(&progress)).await
}

/// kubectl, not older than the oldest usable server; built when missing.
pub async fn ensure_kubectl(progress: &Progress) -> Result<PathBuf, Error> {
    let progress = progress.clone();
    in_thread(move || Search::from_environment().one(Tool::Kubectl, &progress)).await
}

/// clusterctl of exactly the pinned version, so that tests mean the same everywhere; built when missing.
pub async fn ensure_clusterctl(progress: &Progress) -> Result<PathBuf, Error> {
    pinned(&catalog::CLUSTERCTL, progress).await
}

/// A registry of images, for tests of what is pulled from one; built when missing.
pub async fn ensure_registry(progress: &Progress) -> Result<PathBuf, Error> {
    pinned(&catalog::REGISTRY, progress).await
}

/// What restores snapshots of etcd, for tests of those that the host takes; built when missing.
pub async fn ensure_etcdutl(progress: &Progress) -> Result<PathBuf, Error> {
    pinned(&catalog::ETCDUTL, progress).await
}

/// A store that speaks S3, for tests of what is kept in one; built when missing.
pub async fn ensure_object_store(progress: &Progress) -> Result<PathBuf, Error> {
    pinned(&catalog::OBJECT_STORE, progress).await
}

/// What reads bootstrap data: kubeadm of the newest version and of old, and Ignition's validator; built when missing.
pub async fn ensure_validators(progress: &Progress) -> Result<Vec<PathBuf>, Error> {
    let all = [
        &catalog::NEWEST.kubeadm,
        &catalog::KUBEADM_OF_OLD,
        &catalog::IGNITION_VALIDATE,
    ];
    let mut places = Vec::with_capacity(all.len());
    for binary in all {
        places.push(pinned(binary, progress).await?);
    }
    Ok(places)
}

async fn pinned(binary: &'static catalog::Binary, progress: &Progress) -> Result<PathBuf, Error> {
    let progress = progress.clone();
    in_thread(move || build::ensure(&Search::from_environment(), binary, &progress)).await
}

/// Runs a search in a thread that nobody waits for at the end: an interrupted command ends at
/// once, and the build with it.
pub(crate) async fn in_thread<T: Send + 'static, E: From<Error> + Send + 'static>(
    search: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    let (answer, wait) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // Fails only when the asker is gone, and then nobody wants the answer.
        let _: Result<(), _> = answer.send(search());
    });
    wait.await.map_err(|_| E::from(Error::Interrupted))?
}

#[cfg(test)]
mod tests;
