//! What `capstan local up` has started, as `state.json` in its directory: read by every later
//! command, under a lock on the directory, so that two commands never work in it at once.

use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::process::Record;
use crate::progress::Progress;

/// The file's name in the directory. Its presence marks the directory as one that may be removed.
pub const FILE_NAME: &str = "state.json";

/// Why the state could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory holds something else.
    #[error(
        "{dir} exists and was not made by `capstan local up`; choose another directory with --dir, \
         or empty this one",
        dir = dir.display()
    )]
    NotOurs {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory or the file could not be used.
    #[error("could not use {path}", path = path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file does not hold a state that this version understands.
    #[error(
        "{path} is not readable by this version of capstan; run `capstan local down` with the \
         version that made it, or stop its processes and remove the directory",
        path = path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// How far `up` has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// It has begun. Found at rest, it means that it was interrupted.
    Starting,
    /// Everything was ready once.
    Up,
}

/// Everything that is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct State {
    /// How far `up` has come.
    pub phase: Phase,
    /// The API server's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// etcd, kube-apiserver and kube-controller-manager, in starting order.
    #[serde(default)]
    pub control_plane: Vec<Record>,
    /// Everything else, in starting order: the cloud, the host.
    #[serde(default)]
    pub extras: Vec<Record>,
}

impl State {
    /// A start that has just begun.
    pub fn starting() -> Self {
        Self {
            phase: Phase::Starting,
            server: None,
            control_plane: Vec::new(),
            extras: Vec::new(),
        }
    }

    /// All processes in starting order.
    pub fn processes(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.control_plane.iter().chain(&self.extras)
    }
}

/// A directory of `capstan local up`, locked against other commands until dropped.
#[derive(Debug)]
pub struct Home {
    dir: PathBuf,
    lock: File,
}

impl Home {
    /// Locks `dir`, made when absent. Refuses a directory with content of somebody else's.
    pub fn create(dir: &Path, progress: &Progress) -> Result<Self, Error> {
        let dir = absolute(dir)?;
        loop {
            let make = std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&dir);
            make.map_err(|source| file(&dir, source))?;
            if let Some(home) = Self::lock(&dir, progress)? {
                return Ok(home);
            }
        }
    }

    /// Locks `dir` if it exists.
    pub fn open(dir: &Path, progress: &Progress) -> Result<Option<Self>, Error> {
        Self::lock(&absolute(dir)?, progress)
    }

    fn lock(dir: &Path, progress: &Progress) -> Result<Option<Self>, Error> {
        let acquire = || -> io::Result<Option<File>> {
            let lock = match File::open(dir) {
                Ok(lock) => lock,
                Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(other) => return Err(other),
            };
            if lock.try_lock().is_err() {
                progress.say(format!(
                    "waiting for another `capstan local` command in {}",
                    dir.display()
                ));
                lock.lock()?;
            }
            // Whoever held the lock may have removed the directory, and another made a new one.
            let locked = lock.metadata()?;
            let is_there = std::fs::metadata(dir)
                .is_ok_and(|found| (found.dev(), found.ino()) == (locked.dev(), locked.ino()));
            Ok(is_there.then_some(lock))
        };
        let Some(lock) = acquire().map_err(|source| file(dir, source))? else {
            return Ok(None);
        };
        let is_empty = std::fs::read_dir(dir)
            .map_err(|source| file(dir, source))?
            .next()
            .is_none();
        if !is_empty && !dir.join(FILE_NAME).is_file() {
            return Err(Error::NotOurs {
                dir: dir.to_owned(),
            });
        }
        Ok(Some(Self {
            dir: dir.to_owned(),
            lock,
        }))
    }

    /// The directory, absolute.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Another hold on the lock.
    pub fn share_lock(&self) -> Result<File, Error> {
        self.lock
            .try_clone()
            .map_err(|source| file(&self.dir, source))
    }

    /// What is recorded, if anything.
    pub fn load(&self) -> Result<Option<State>, Error> {
        let path = self.dir.join(FILE_NAME);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(file(&path, source)),
        };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|source| Error::Unreadable { path, source })
    }

    /// Records `state` in one step.
    pub fn save(&self, state: &State) -> Result<(), Error> {
        let path = self.dir.join(FILE_NAME);
        let text = serde_json::to_string_pretty(state).map_err(|source| Error::Unreadable {
            path: path.clone(),
            source,
        })?;
        crate::control_plane::write_private(&path, &(text + "\n"))
            .map_err(|source| file(&path, source))
    }

    /// Removes everything in the directory, the state last, so that an interrupted removal can be
    /// repeated.
    pub fn clear(&self) -> Result<(), Error> {
        let clear = || -> io::Result<()> {
            for entry in std::fs::read_dir(&self.dir)? {
                let entry = entry?;
                if entry.file_name() == FILE_NAME {
                    continue;
                }
                if entry.file_type()?.is_dir() {
                    std::fs::remove_dir_all(entry.path())?;
                } else {
                    std::fs::remove_file(entry.path())?;
                }
            }
            match std::fs::remove_file(self.dir.join(FILE_NAME)) {
                Err(failure) if failure.kind() != io::ErrorKind::NotFound => Err(failure),
                _ => Ok(()),
            }
        };
        clear().map_err(|source| file(&self.dir, source))
    }

    /// Removes the directory with everything in it.
    pub fn remove(self) -> Result<(), Error> {
        self.clear()?;
        std::fs::remove_dir(&self.dir).map_err(|source| file(&self.dir, source))
    }
}

fn absolute(dir: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(dir).map_err(|source| file(dir, source))
}

fn file(path: &Path, source: io::Error) -> Error {
    Error::File {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("dev");
        let quiet = Progress::default();
        assert!(Home::open(&dir, &quiet).unwrap().is_none());
        let home = Home::create(&dir, &quiet).unwrap();
        assert_eq!(home.load().unwrap(), None);
        home.save(&State::starting()).unwrap();
        assert_eq!(home.load().unwrap(), Some(State::starting()));
        std::fs::create_dir(dir.join("cloud")).unwrap();
        home.remove().unwrap();
        assert!(!dir.exists());
    }

    #[test]
    fn a_directory_of_somebody_elses_is_not_touched() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("thesis.txt"), "years of work").unwrap();
        let failure = Home::create(root.path(), &Progress::default()).unwrap_err();
        assert!(matches!(failure, Error::NotOurs { .. }));
        assert!(Home::open(root.path(), &Progress::default()).is_err());
    }
}
