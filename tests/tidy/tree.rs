//! The source tree: the files that git knows or would add.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

static FILES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(listed.status.success(), "git ls-files failed");
    let text = String::from_utf8(listed.stdout).unwrap();
    let mut files: Vec<String> = text.lines().map(str::to_owned).collect();
    // A file that was deleted and not yet committed is still listed.
    files.retain(|file| root().join(file).is_file());
    files.sort();
    files.dedup();
    files
});

/// All files, relative to the root.
pub(crate) fn files() -> &'static [String] {
    &FILES
}

/// Those with this ending.
pub(crate) fn ending(suffix: &str) -> Vec<&'static str> {
    let all = files().iter().map(String::as_str);
    all.filter(|file| file.ends_with(suffix)).collect()
}

/// A file's text; files that are not text are empty.
pub(crate) fn text(file: &str) -> String {
    let bytes = std::fs::read(root().join(file)).unwrap();
    String::from_utf8(bytes).unwrap_or_default()
}

/// Directories directly below this one that hold tracked files.
pub(crate) fn directories(below: &str) -> Vec<String> {
    let inside = files()
        .iter()
        .filter_map(|file| file.strip_prefix(below)?.strip_prefix('/'));
    let mut names: Vec<String> = inside
        .filter_map(|rest| Some(rest.split_once('/')?.0.to_owned()))
        .collect();
    names.dedup();
    names
}

/// Fails with all problems at once.
pub(crate) fn none(problems: &[String], rule: &str) {
    assert!(problems.is_empty(), "{rule}:\n  {}", problems.join("\n  "));
}
