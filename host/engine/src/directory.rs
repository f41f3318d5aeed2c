//! Components in a directory of the host: what is below it can be named, nothing outside of it.

use std::io::{ErrorKind, Read as _};
use std::path::{Component, Path};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, OpenOptions, OpenOptionsExt as _};

use crate::limit::SOURCE_BYTES_MAX;

/// Why there are no bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// There is no such file.
    #[error("there is no {0} below the plugin directory of this host")]
    NotFound(String),
    /// Not a path below the directory, or not a regular file, or too large.
    #[error("{0}")]
    Invalid(String),
    /// It could not be read.
    #[error("{0}")]
    Unreadable(String),
}

/// What changes when the file does: its time, its size, its identity. The content is not read.
///
/// # Errors
/// See [`FileError`].
pub fn file_version(directory: &Path, path: &str) -> Result<String, FileError> {
    use cap_std::fs::MetadataExt as _;
    let file = open(directory, path)?;
    let metadata = file.metadata().map_err(|e| refused(path, &e))?;
    let changed = metadata
        .modified()
        .map_err(|e| refused(path, &e))?
        .into_std()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos());
    Ok(format!("{changed}-{}-{}", metadata.len(), metadata.ino()))
}

/// The whole file.
///
/// # Errors
/// See [`FileError`].
pub fn file_bytes(directory: &Path, path: &str) -> Result<Bytes, FileError> {
    let limit = u64::try_from(SOURCE_BYTES_MAX).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    open(directory, path)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|e| refused(path, &e))?;
    if bytes.len() > SOURCE_BYTES_MAX {
        return Err(FileError::Invalid(format!(
            "{path} is larger than the limit of {SOURCE_BYTES_MAX} bytes"
        )));
    }
    Ok(Bytes::from(bytes))
}

fn open(directory: &Path, path: &str) -> Result<File, FileError> {
    let is_plain = !path.is_empty()
        && Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
    if !is_plain {
        return Err(FileError::Invalid(format!(
            "{path:?} is not a path below the plugin directory of this host"
        )));
    }
    let root = Dir::open_ambient_dir(directory, ambient_authority()).map_err(|e| {
        FileError::Unreadable(format!(
            "the plugin directory of this host cannot be opened: {e}"
        ))
    })?;
    let mut options = OpenOptions::new();
    // A pipe that nobody writes to must not hold a thread.
    options
        .read(true)
        .custom_flags(i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0));
    let file = root
        .open_with(path, &options)
        .map_err(|e| refused(path, &e))?;
    let metadata = file.metadata().map_err(|e| refused(path, &e))?;
    if metadata.is_file() {
        Ok(file)
    } else {
        Err(FileError::Invalid(format!("{path} is not a regular file")))
    }
}

fn refused(path: &str, error: &std::io::Error) -> FileError {
    match error.kind() {
        ErrorKind::NotFound => FileError::NotFound(path.to_owned()),
        ErrorKind::PermissionDenied => FileError::Invalid(format!(
            "{path} leads out of the plugin directory of this host, or is not readable"
        )),
        kind => FileError::Unreadable(format!("{path} cannot be read: {kind}")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_regular_files_below_the_directory_are_components() {
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("plugins");
        std::fs::create_dir_all(dir.join("sub")).unwrap();
        std::fs::write(outer.path().join("secret"), "hush").unwrap();
        std::fs::write(dir.join("sub/a.wasm"), "one").unwrap();
        symlink("../secret", dir.join("link.wasm")).unwrap();
        assert_eq!(file_bytes(&dir, "sub/a.wasm").unwrap(), "one");
        for wrong in ["link.wasm", "../secret", "/etc/hostname", "sub", ""] {
            assert!(
                matches!(file_bytes(&dir, wrong), Err(FileError::Invalid(_))),
                "{wrong}"
            );
        }
        assert!(matches!(
            file_version(&dir, "none.wasm"),
            Err(FileError::NotFound(_))
        ));
    }

    #[test]
    fn a_file_that_changes_has_another_version() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "one").unwrap();
        let first = file_version(dir.path(), "a").unwrap();
        assert_eq!(file_version(dir.path(), "a").unwrap(), first);
        // As tools replace files: another file takes the name.
        std::fs::write(dir.path().join("b"), "two").unwrap();
        std::fs::rename(dir.path().join("b"), dir.path().join("a")).unwrap();
        assert_ne!(file_version(dir.path(), "a").unwrap(), first);
    }
}
