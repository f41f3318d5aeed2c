//! The `files` capability: reads below one granted directory, through a handle of that directory that no `..` and no link leads out of.

use std::io::{ErrorKind, Read as _};
use std::path::{Component, Path};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};

use super::{Capabilities, on_host};
use crate::grant::FilesGrant;
use crate::limit::{FILE_BYTES_MAX, FILE_PATH_BYTES_MAX, FILES_OPERATIONS_MAX, LIST_ENTRIES_MAX};
use crate::text::clipped;

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileEntry {
    pub(crate) name: String,
    pub(crate) is_directory: bool,
    pub(crate) size_bytes: u64,
}

/// Why nothing was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FilesError {
    Denied(String),
    NotFound(String),
    Invalid(String),
    Limit(String),
    Failed(String),
}

impl Capabilities {
    /// The bytes of a regular file.
    pub(crate) async fn files_read(&mut self, path: String) -> Result<Vec<u8>, FilesError> {
        let (grant, path) = self.files_operation(path, false)?;
        self.blocking(move || read(&grant, &path)).await
    }

    /// The entries of a directory.
    pub(crate) async fn files_list(&mut self, path: String) -> Result<Vec<FileEntry>, FilesError> {
        let (grant, path) = self.files_operation(path, true)?;
        self.blocking(move || list(&grant, &path)).await
    }

    fn files_operation(
        &mut self,
        path: String,
        may_be_empty: bool,
    ) -> Result<(FilesGrant, String), FilesError> {
        let Some(grant) = self.grants.files.clone() else {
            return Err(FilesError::Denied(
                "no directory is granted: add {\"capability\":\"files\",\"files\":{\"directory\":\"/...\"}} to spec.grants of the \
                 Plugin, and the directory to the ceiling of the host"
                    .to_owned(),
            ));
        };
        check(&path, may_be_empty)?;
        if self.files_operations >= FILES_OPERATIONS_MAX {
            return Err(FilesError::Limit(format!(
                "a call reads at most {FILES_OPERATIONS_MAX} files and directories"
            )));
        }
        self.files_operations = self.files_operations.saturating_add(1);
        Ok((grant, path))
    }

    /// Where waiting for a disk holds up nobody.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, FilesError> + Send + 'static,
    ) -> Result<T, FilesError> {
        let answer = on_host(&self.host, super::blocking(work)).await;
        answer
            .and_then(|ended| ended)
            .unwrap_or_else(|why| Err(FilesError::Failed(why)))
    }
}

fn check(path: &str, may_be_empty: bool) -> Result<(), FilesError> {
    if path.is_empty() && may_be_empty {
        return Ok(());
    }
    let is_plain = !path.is_empty()
        && path.len() <= FILE_PATH_BYTES_MAX
        && !path.contains('\0')
        && Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
    if is_plain {
        return Ok(());
    }
    Err(FilesError::Invalid(format!(
        "{:?} is not a relative path of plain names",
        clipped(path, 64)
    )))
}

/// The granted directory. Only the root is opened by a path of the host; from there on nothing leads out of it.
fn open(grant: &FilesGrant) -> Result<Dir, FilesError> {
    let unusable = |e: std::io::Error| {
        FilesError::Failed(format!(
            "the granted directory cannot be opened: {}",
            e.kind()
        ))
    };
    let root = Dir::open_ambient_dir(&grant.root, ambient_authority()).map_err(unusable)?;
    if grant.below.as_os_str().is_empty() {
        return Ok(root);
    }
    root.open_dir(&grant.below).map_err(unusable)
}

/// Says what happened in words that name no path of the host.
fn refused(path: &str, error: &std::io::Error) -> FilesError {
    let shown = clipped(path, 64);
    match error.kind() {
        ErrorKind::NotFound => FilesError::NotFound(format!("there is no {shown:?}")),
        // What leads out of the directory is refused so.
        ErrorKind::PermissionDenied => FilesError::Denied(format!(
            "{shown:?} leads out of the directory, or is not readable"
        )),
        kind => FilesError::Failed(format!("{shown:?} cannot be read: {kind}")),
    }
}

fn read(grant: &FilesGrant, path: &str) -> Result<Vec<u8>, FilesError> {
    let mut options = OpenOptions::new();
    // A pipe that nobody writes to must not hold a thread.
    options
        .read(true)
        .custom_flags(i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0));
    let file = open(grant)?
        .open_with(path, &options)
        .map_err(|e| refused(path, &e))?;
    let metadata = file.metadata().map_err(|e| refused(path, &e))?;
    if !metadata.is_file() {
        return Err(FilesError::Invalid(format!(
            "{:?} is not a regular file",
            clipped(path, 64)
        )));
    }
    let limit = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|e| refused(path, &e))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(FilesError::Limit(format!(
            "{:?} has more than {FILE_BYTES_MAX} bytes",
            clipped(path, 64)
        )));
    }
    Ok(bytes)
}

fn list(grant: &FilesGrant, path: &str) -> Result<Vec<FileEntry>, FilesError> {
    let mut dir = open(grant)?;
    if !path.is_empty() {
        dir = dir.open_dir(path).map_err(|e| refused(path, &e))?;
    }
    let mut entries = Vec::new();
    for entry in dir.entries().map_err(|e| refused(path, &e))? {
        let entry = entry.map_err(|e| refused(path, &e))?;
        if entries.len() >= LIST_ENTRIES_MAX {
            return Err(FilesError::Limit(format!(
                "the directory has more than {LIST_ENTRIES_MAX} entries"
            )));
        }
        // What has no name in UTF-8 cannot be asked for either.
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        // Of the entry itself, never of what a link leads to.
        let metadata = entry.metadata().map_err(|e| refused(path, &e))?;
        entries.push(FileEntry {
            name,
            is_directory: metadata.is_dir(),
            size_bytes: metadata.len(),
        });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}
