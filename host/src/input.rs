//! Files that people name on the command line, read within bounds; `-` is standard input.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};

/// The first bytes of a file, as many as are asked for.
pub(crate) fn beginning(path: &Path, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().take(bytes_max).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(bytes_max).read_to_end(&mut bytes))
    };
    read.with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes)
}

/// All of a text, which must not be longer than it may be.
pub(crate) fn text(path: &Path, bytes_max: u64) -> anyhow::Result<String> {
    let bytes = beginning(path, bytes_max.saturating_add(1))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > bytes_max {
        bail!("{} has more than {bytes_max} bytes", path.display());
    }
    String::from_utf8(bytes).with_context(|| format!("{} is not text", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(text(&path, 5).unwrap(), "12345");
        assert!(
            text(&path, 4)
                .unwrap_err()
                .to_string()
                .contains("more than 4")
        );
        assert_eq!(beginning(&path, 4).unwrap(), b"1234");
        std::fs::write(&path, [0xff]).unwrap();
        assert!(text(&path, 5).unwrap_err().to_string().contains("not text"));
        assert!(text(&dir.path().join("none"), 5).is_err());
    }
}
