//! What happened, line by line, and a number that is the same only for the same history.

use std::time::Duration;

/// Lines that are kept: a world of an hour has some thousands.
const LINES_MAX: usize = 60_000;

/// The history of one world.
#[derive(Clone, Debug)]
pub struct Trace {
    lines: Vec<String>,
    left_out: usize,
    hash: u64,
}

impl Default for Trace {
    fn default() -> Self {
        Self {
            lines: Vec::new(),
            left_out: 0,
            hash: 0xcbf2_9ce4_8422_2325,
        }
    }
}

impl Trace {
    /// Something happened, so long after the beginning.
    pub fn note(&mut self, at: Duration, words: &str) {
        let line = format!("{:>10.3} {words}", at.as_secs_f64());
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.lines.len() < LINES_MAX {
            self.lines.push(line);
        } else {
            self.left_out += 1;
        }
    }

    /// FNV-1a of all lines, also those that were not kept.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The lines that were kept.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// How many lines there were.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len() + self.left_out
    }

    /// Whether nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
