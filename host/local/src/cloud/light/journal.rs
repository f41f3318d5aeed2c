//! A workload cluster's file on disk: a snapshot, and a log of the changes since.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cloud::disk;

/// Changes in the log, at least, before it is folded into a snapshot.
const COMPACT_AFTER: usize = 4000;

/// One line: an object as it is since this version, or its absence.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    /// Version of the change; 0 in a snapshot's first line.
    pub(crate) rv: u64,
    /// API group.
    pub(crate) group: String,
    /// Plural.
    pub(crate) plural: String,
    /// Namespace, empty for cluster-scoped objects.
    pub(crate) namespace: String,
    /// Name.
    pub(crate) name: String,
    /// The object; absent when it was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<Value>,
}

/// The open log. A line is handed to the kernel before the write is answered, so that it survives the death of the process.
pub(crate) struct Journal {
    dir: PathBuf,
    log: File,
    lines: usize,
    due_at: usize,
}

impl Journal {
    /// Opens or makes the journal; gives all entries in order and the newest version.
    pub(crate) fn open(dir: &Path) -> io::Result<(Self, Vec<Entry>, u64)> {
        fs::create_dir_all(dir)?;
        let mut entries = Vec::new();
        let mut last_rv = 0;
        for name in ["snapshot.jsonl", "log.jsonl"] {
            read_lines(&dir.join(name), &mut entries)?;
        }
        for entry in &entries {
            last_rv = last_rv.max(entry.rv);
        }
        let log = disk::private(OpenOptions::new().append(true).create(true))
            .open(dir.join("log.jsonl"))?;
        let lines = entries.len();
        Ok((
            Self {
                dir: dir.to_owned(),
                log,
                lines,
                due_at: lines.saturating_add(COMPACT_AFTER),
            },
            entries,
            last_rv,
        ))
    }

    /// Appends one change.
    pub(crate) fn append(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        self.log.write_all(&line)?;
        self.lines = self.lines.saturating_add(1);
        Ok(())
    }

    /// Whether the log is long enough to be folded.
    pub(crate) fn is_due(&self) -> bool {
        self.lines >= self.due_at
    }

    /// Replaces snapshot and log by this content. A crash between the two steps leaves a log whose entries the snapshot already has.
    pub(crate) fn compact(&mut self, entries: &[Entry], rv: u64) -> io::Result<()> {
        self.due_at = self.lines.saturating_add(COMPACT_AFTER);
        let marker = Entry {
            rv,
            group: String::new(),
            plural: String::new(),
            namespace: String::new(),
            name: String::new(),
            value: None,
        };
        let mut text = Vec::new();
        for entry in std::iter::once(&marker).chain(entries) {
            serde_json::to_writer(&mut text, entry)?;
            text.push(b'\n');
        }
        disk::replace(&self.dir.join("snapshot.jsonl"), &text)?;
        self.log.set_len(0)?;
        self.lines = entries.len();
        self.due_at = self.lines.saturating_mul(2).saturating_add(COMPACT_AFTER);
        Ok(())
    }
}

/// Reads a file's entries; a last line that was cut off by a crash is left out.
fn read_lines(path: &Path, entries: &mut Vec<Entry>) -> io::Result<()> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut sound = 0_u64;
    let mut reader = BufReader::new(file);
    let mut line = String::new();
    loop {
        line.clear();
        let length = reader.read_line(&mut line)?;
        if length == 0 {
            return Ok(());
        }
        match serde_json::from_str(&line) {
            Ok(entry) if line.ends_with('\n') => entries.push(entry),
            _ => break,
        }
        sound = sound.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
    }
    OpenOptions::new().write(true).open(path)?.set_len(sound)
}
