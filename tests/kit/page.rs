//! Pages of documents, and what becomes of who follows them word for word.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::wasm;

/// A document of this repository.
///
/// # Panics
/// When it cannot be read.
pub fn document(path: &str) -> String {
    std::fs::read_to_string(wasm::root().join(path)).unwrap()
}

/// The section of a document whose heading begins so.
///
/// # Panics
/// When there is none.
pub fn section(document: &str, heading: &str) -> String {
    let mut sections = document.split("\n## ");
    let found = sections.find(|part| part.starts_with(heading));
    found.unwrap().to_owned()
}

/// The commands of a text, in order, each block as far to the left as it can be.
///
/// # Panics
/// When a block has no end.
pub fn commands(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(begin) = lines.find(|line| line.trim_start() == "```sh") {
        let indent = begin.len() - begin.trim_start().len();
        let block = lines.by_ref().take_while(|line| line.trim() != "```");
        let block = block.map(|line| format!("{}\n", line.get(indent..).unwrap_or_default()));
        blocks.push(block.collect());
    }
    blocks
}

/// Runs commands and answers what they printed.
///
/// # Panics
/// When one of them fails and the script does not go on.
pub async fn follow(script: &str, variables: &[(&str, &Path)]) -> String {
    let output = Command::new("bash")
        .args(["-c", script])
        .stdin(Stdio::null())
        .env_remove("CARGO_TARGET_DIR")
        .env("CARGO_NET_OFFLINE", "true")
        .env(
            "XDG_CACHE_HOME",
            wasm::target_dir().join("plugin-test-cache"),
        )
        .envs(variables.iter().copied())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complained}\n{said}");
    said
}
