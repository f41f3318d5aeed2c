//! What a machine printed: a file per instance, of which the last part is shown.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::disk;

/// How much of a console is shown, and kept when it is folded.
const SHOWN: u64 = 256 * 1024;

/// A machine's console. Cheap to clone; lines are appended one by one.
#[derive(Debug, Clone)]
pub(crate) struct Console {
    path: PathBuf,
}

impl Console {
    /// The console in this file.
    pub(crate) fn new(dir: &Path, instance: &str) -> Self {
        Self {
            path: dir.join(format!("{instance}.log")),
        }
    }

    /// The console in exactly this file.
    pub(crate) fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Prints a line, with the time before it. A console that cannot be written does not stop the machine.
    pub(crate) fn line(&self, text: impl AsRef<str>) {
        let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
        if let Err(error) = self.append(&format!("[{time}] {}\n", text.as_ref())) {
            tracing::warn!(%error, "a console could not be written");
        }
    }

    fn append(&self, text: &str) -> io::Result<()> {
        let mut file =
            disk::private(OpenOptions::new().append(true).create(true)).open(&self.path)?;
        file.write_all(text.as_bytes())?;
        if file.metadata()?.len() > SHOWN.saturating_mul(4) {
            fs::write(&self.path, self.read()?)?;
        }
        Ok(())
    }

    /// The last part of what was printed.
    pub(crate) fn read(&self) -> io::Result<String> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(SHOWN)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Removes the file.
    pub(crate) fn remove(&self) -> io::Result<()> {
        disk::remove(&self.path)
    }
}
