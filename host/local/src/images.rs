//! Images of machines: a root file system and a store of container images for each version of
//! Kubernetes, made on this computer from Debian packages and Go modules, once, and kept in the
//! per-user cache under a digest of everything that they are made from.
//!
//! ```text
//! images/base-<digest>/              the Debian root file system, shared by all versions
//! images/base-cloud-init-<digest>/   the same with cloud-init, where somebody asked for it
//! images/<version>-<digest>/node/    what a version adds to it: an overlay's upper directory
//! images/<version>-<digest>/store/   a containerd root directory with the images that kubeadm asks for, and with
//!                                    kube-proxy and CoreDNS of the other versions
//! images/<version>-<digest>/image.json
//! ```
//!
//! A directory is complete or absent: it is made beside its place and renamed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::progress::Progress;
use crate::toolchain::{self, Search, build, catalog};

mod archive;
mod base;
mod container;
mod node;
mod recipe;
mod step;
mod store;

use base::Flavour;
use recipe::Recipe;
use step::{Steps, Work};

/// The Kubernetes versions that there are images of, newest first: two minor versions, so that
/// upgrades are real. The newest is the management cluster's own.
pub const VERSIONS: [&str; 2] = [catalog::NEWEST.version, catalog::BEFORE.version];

/// Less free space than this is not worth starting with, in MiB: a root file system of 300, two
/// stores of 1000, and Go's intermediate files.
const FREE_MIB_MIN: u64 = 6144;
/// Goes up when what is made changes without any of its inputs changing.
const FORMAT: &str = "1";

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such version.
    #[error("there are no machine images of Kubernetes {asked}, only of {known}; ask for one of these", known = VERSIONS.join(" and "))]
    UnknownVersion {
        /// What was asked for.
        asked: String,
    },
    /// It could be built.
    #[error(
        "the machine image of Kubernetes {version} is not on this computer; build it with `capstan \
         local images build --version {version}` (about 12 minutes, once)"
    )]
    NotBuilt {
        /// The version.
        version: String,
    },
    /// Not root.
    #[error(
        "machine images hold a Debian root file system with its owners and device files, which only \
         root can make; run this as root, or build them there first with `capstan local images build`"
    )]
    NotRoot,
    /// Something that they are made from cannot be had.
    #[error("could not get {what}: {why}; {fix}")]
    Block {
        /// What is missing.
        what: String,
        /// Why.
        why: String,
        /// What the reader can do.
        fix: String,
    },
    /// A program failed.
    #[error("{what} failed ({exit}); the last lines of its output:\n{log}")]
    Program {
        /// What it was to do.
        what: String,
        /// How it ended.
        exit: String,
        /// The end of what it printed.
        log: String,
    },
    /// The disk is too full to start.
    #[error(
        "there is too little disk space to build machine images: {free_mib} MiB free in {dir}, and \
         about 6 GiB are needed for a while; free some, or set XDG_CACHE_HOME and GOCACHE to a larger \
         disk",
        dir = dir.display()
    )]
    DiskFull {
        /// The cache.
        dir: PathBuf,
        /// What is left there, in MiB.
        free_mib: u64,
    },
    /// Machines run from the images that were to be removed.
    #[error(
        "process {pid} still runs from {dir}; stop the machines first (`capstan local down`)",
        dir = dir.display()
    )]
    InUse {
        /// One of the processes.
        pid: u32,
        /// The images.
        dir: PathBuf,
    },
    /// A binary is neither there nor built.
    #[error(transparent)]
    Toolchain(#[from] toolchain::Error),
    /// A file or a directory could not be used.
    #[error("could not use {path}", path = path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

fn file(path: &Path, source: io::Error) -> Error {
    Error::File {
        path: path.to_owned(),
        source,
    }
}

/// What machines of one Kubernetes version are made from. Nothing of it may be written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The Kubernetes version.
    pub version: String,
    /// The lower directories of a machine's root overlay, the topmost first.
    pub lower: Vec<PathBuf>,
    /// The same for a machine with Debian's cloud-init, where that was built.
    pub lower_cloud_init: Option<Vec<PathBuf>>,
    /// A containerd root directory that no containerd uses: the template of a machine's.
    pub store: PathBuf,
    /// The names of the container images in the store.
    pub containers: Vec<String>,
}

/// What is said beside an image on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Label {
    version: String,
    containers: Vec<String>,
    built_at: jiff::Timestamp,
    bytes: u64,
}

/// What is there of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The Kubernetes version.
    pub version: &'static str,
    /// The image, its size without what versions share, and when it was built.
    pub image: Option<(Image, u64, jiff::Timestamp)>,
}

/// The image of a version, if it is in the cache.
pub fn find(version: &str) -> Result<Image, Error> {
    Library::from_environment()?.find(version)
}

/// The image of a version, built when it is not in the cache, which takes minutes, once.
pub async fn ensure(version: &str, progress: &Progress) -> Result<Image, Error> {
    let (version, progress) = (version.to_owned(), progress.clone());
    toolchain::in_thread(move || Library::from_environment()?.ensure(&version, &progress)).await
}

/// Makes the root file system with cloud-init as well, if it is not there.
pub async fn ensure_cloud_init(progress: &Progress) -> Result<(), Error> {
    let progress = progress.clone();
    toolchain::in_thread(move || Library::from_environment()?.ensure_cloud_init(&progress)).await
}

/// What there is of each version.
pub fn list() -> Result<Vec<Listed>, Error> {
    Library::from_environment()?.list()
}

/// Removes all images, or only those that this program would not use; how many were removed.
/// Binaries, which the management cluster uses as well, stay.
pub fn remove(is_old_only: bool, progress: &Progress) -> Result<usize, Error> {
    Library::from_environment()?.remove(is_old_only, progress)
}

/// The images in one directory.
struct Library {
    dir: PathBuf,
    search: Search,
}

impl Library {
    fn from_environment() -> Result<Self, Error> {
        let dir = toolchain::cache_dir().ok_or(toolchain::Error::NoCache)?;
        Ok(Self {
            dir: dir.join("images"),
            search: Search::from_environment(),
        })
    }

    fn recipe(version: &str) -> Result<&'static Recipe, Error> {
        recipe::find(version).ok_or_else(|| Error::UnknownVersion {
            asked: version.to_owned(),
        })
    }

    fn base_dir(&self, flavour: Flavour) -> PathBuf {
        self.dir.join(named(flavour.name(), &base::inputs(flavour)))
    }

    fn image_dir(&self, recipe: &Recipe) -> PathBuf {
        let mut inputs = base::inputs(Flavour::Plain);
        inputs.extend(recipe.inputs());
        self.dir.join(named(recipe.kubernetes.version, &inputs))
    }

    fn find(&self, version: &str) -> Result<Image, Error> {
        let recipe = Self::recipe(version)?;
        match self.look(recipe)? {
            Some((image, _)) => Ok(image),
            None => Err(Error::NotBuilt {
                version: version.to_owned(),
            }),
        }
    }

    fn look(&self, recipe: &Recipe) -> Result<Option<(Image, Label)>, Error> {
        let (dir, base) = (self.image_dir(recipe), self.base_dir(Flavour::Plain));
        let path = dir.join("image.json");
        let label = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(file(&path, source)),
        };
        if !base.is_dir() {
            return Ok(None);
        }
        let label: Label =
            serde_json::from_slice(&label).map_err(|source| file(&path, source.into()))?;
        let image = Image {
            version: label.version.clone(),
            lower: vec![dir.join("node"), base],
            lower_cloud_init: Some(self.base_dir(Flavour::CloudInit))
                .filter(|base| base.is_dir())
                .map(|base| vec![dir.join("node"), base]),
            store: dir.join("store"),
            containers: label.containers.clone(),
        };
        Ok(Some((image, label)))
    }

    fn list(&self) -> Result<Vec<Listed>, Error> {
        let mut all = Vec::new();
        for version in VERSIONS {
            let found = self.look(Self::recipe(version)?)?;
            let image = found.map(|(image, label)| (image, label.bytes, label.built_at));
            all.push(Listed { version, image });
        }
        Ok(all)
    }

    fn ensure(&self, version: &str, progress: &Progress) -> Result<Image, Error> {
        let recipe = Self::recipe(version)?;
        if let Some((image, _)) = self.look(recipe)? {
            return Ok(image);
        }
        let lock = self.begin(progress)?;
        // Whoever held the lock may have built it.
        if let Some((image, _)) = self.look(recipe)? {
            return Ok(image);
        }
        let steps = Steps::new(progress);
        progress.say(format!("making the machine image of Kubernetes {version}"));
        let base = self.base(Flavour::Plain, &lock, &steps, progress)?;
        // All but the base may have been there.
        if let Some((image, _)) = self.look(recipe)? {
            return Ok(image);
        }
        let binaries = recipe.build(&self.search, progress)?;
        let dir = self.image_dir(recipe);
        let work = self.work(&lock)?;
        let fresh = work.dir().join("new");
        let wanted = container::wanted(&work, recipe, &binaries)?;
        steps.run("what machines of this version add to it", || {
            node::make(&fresh.join("node"), &binaries, wanted.pause()?)
        })?;
        let containers = steps.run("its container images", || {
            let images = container::images(&work, &wanted, &binaries, &base)?;
            store::make(&work, &binaries, &fresh.join("store"), &images)?;
            let names = images.into_iter().map(|image| image.name);
            Ok::<_, Error>(names.collect::<Vec<String>>())
        })?;
        let label = Label {
            version: version.to_owned(),
            containers,
            built_at: jiff::Timestamp::now(),
            bytes: bytes_below(&fresh).map_err(|source| file(&fresh, source))?,
        };
        let path = fresh.join("image.json");
        let text =
            serde_json::to_vec_pretty(&label).map_err(|source| file(&path, source.into()))?;
        fs::write(&path, text).map_err(|source| file(&path, source))?;
        work.place(&fresh, &dir)?;
        steps.finish(&format!("the machine image of Kubernetes {version}"));
        self.find(version)
    }

    fn ensure_cloud_init(&self, progress: &Progress) -> Result<(), Error> {
        if self.base_dir(Flavour::CloudInit).is_dir() {
            return Ok(());
        }
        let lock = self.begin(progress)?;
        let steps = Steps::new(progress);
        self.base(Flavour::CloudInit, &lock, &steps, progress)?;
        Ok(())
    }

    /// The base, made where it is not there.
    fn base(
        &self,
        flavour: Flavour,
        lock: &File,
        steps: &Steps<'_>,
        progress: &Progress,
    ) -> Result<PathBuf, Error> {
        let base = self.base_dir(flavour);
        if !base.is_dir() {
            steps.run("the Debian root file system that machines share", || {
                base::make(&self.work(lock)?, flavour, &base, progress)
            })?;
        }
        Ok(base)
    }

    /// What must be so before anything is built; keeps others away.
    fn begin(&self, progress: &Progress) -> Result<File, Error> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        let lock = self.lock(progress)?;
        let free_mib = build::free_mib(&self.dir);
        if free_mib < FREE_MIB_MIN {
            return Err(Error::DiskFull {
                dir: self.dir.clone(),
                free_mib,
            });
        }
        Ok(lock)
    }

    fn remove(&self, is_old_only: bool, progress: &Progress) -> Result<usize, Error> {
        if !self.dir.is_dir() {
            return Ok(0);
        }
        let _lock = self.lock(progress)?;
        let mut kept = BTreeSet::new();
        if is_old_only {
            kept.extend([Flavour::Plain, Flavour::CloudInit].map(|each| self.base_dir(each)));
            kept.extend(recipe::ALL.iter().map(|recipe| self.image_dir(recipe)));
        }
        let entries = fs::read_dir(&self.dir).map_err(|source| file(&self.dir, source))?;
        let mut removed: usize = 0;
        for entry in entries {
            let path = entry.map_err(|source| file(&self.dir, source))?.path();
            if !path.is_dir() || kept.contains(&path) {
                continue;
            }
            if let Some(pid) = user_of(&path) {
                return Err(Error::InUse { pid, dir: path });
            }
            fs::remove_dir_all(&path).map_err(|source| file(&path, source))?;
            removed = removed.saturating_add(1);
        }
        Ok(removed)
    }

    /// Waits for whoever else builds or removes images.
    fn lock(&self, progress: &Progress) -> Result<File, Error> {
        fs::create_dir_all(&self.dir).map_err(|source| file(&self.dir, source))?;
        let path = self.dir.join("lock");
        let acquire = || -> io::Result<File> {
            let lock = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)?;
            if lock.try_lock().is_err() {
                progress.say("waiting for another build of machine images");
                lock.lock()?;
            }
            Ok(lock)
        };
        acquire().map_err(|source| file(&path, source))
    }

    fn work(&self, lock: &File) -> Result<Work, Error> {
        Work::start(self.dir.join("work"), lock)
    }
}

/// The name of a directory that is made from these inputs.
fn named(name: &str, inputs: &[String]) -> String {
    let mut hash = Sha256::new();
    hash.update(FORMAT);
    for input in inputs {
        hash.update(input.len().to_le_bytes());
        hash.update(input);
    }
    let digest = catalog::hex(&hash.finalize());
    // 48 bits: nobody makes so many images that two of one name would collide.
    format!("{name}-{}", digest.get(..12).unwrap_or(&digest))
}

/// A process that has the directory mounted, below an overlay or otherwise.
fn user_of(dir: &Path) -> Option<u32> {
    let dir = dir.to_str()?;
    let processes = fs::read_dir("/proc").ok()?;
    let mut pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.find(|pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/mountinfo")).is_ok_and(|text| text.contains(dir))
    })
}

/// What the files below a directory take; a file with several names counts once.
fn bytes_below(dir: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;

    let mut seen = BTreeSet::new();
    let mut total: u64 = 0;
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                dirs.push(entry.path());
            } else if seen.insert((metadata.dev(), metadata.ino())) {
                total = total.saturating_add(metadata.blocks().saturating_mul(512));
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests;
