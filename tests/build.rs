//! Asks the tool of the component model whether today's interfaces are what plugins of released versions are made for, and what it says
//! of changes. The tool is needed for nothing else, and the host's dependencies get no features by it; `tidy/wit.rs` reads the answers.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use wit_component::{DecodedWasm, decode, semver_check};
use wit_parser::{PackageId, Resolve, SourceMap};

/// Today's version of a package is checked under this patch level: two packages of one version are one.
const TODAY: &str = "999";

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let root = root.context("no directory above this one")?;
    let changes = root.join("tests/tidy/wit/changes.json");
    for input in [
        root.join("wit"),
        root.join("tests/plugin/fixtures"),
        changes.clone(),
    ] {
        println!("cargo::rerun-if-changed={}", input.display());
    }
    let mut versions = Vec::new();
    for version in directories(&root.join("tests/plugin/fixtures"))? {
        let frozen = root.join("tests/plugin/fixtures").join(&version);
        let frozen = fs::read(frozen.join("interfaces.wasm"))
            .with_context(|| format!("tests/plugin/fixtures/{version}/interfaces.wasm"))?;
        let today = root.join("wit").join(&version);
        let worlds = compare(&frozen, &today, None)?;
        versions.push(json!({"version": version, "worlds": worlds}));
    }
    let mut answers = Vec::new();
    let frozen = fs::read(root.join("tests/plugin/fixtures/v0.1/interfaces.wasm"))?;
    let changes: Value = serde_json::from_slice(&fs::read(&changes)?)?;
    for change in changes.as_array().context("changes.json is no list")? {
        let worlds = compare(&frozen, &root.join("wit/v0.1"), Some(change))?;
        answers.push(json!({"change": change, "worlds": worlds}));
    }
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("semver.json");
    let answers = json!({"versions": versions, "changes": answers});
    fs::write(out, serde_json::to_vec_pretty(&answers)?)?;
    Ok(())
}

fn directories(below: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(below)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// For each world of the released package: null when today's, after the change, is a successor of it, or why it is none.
fn compare(frozen: &[u8], today: &Path, change: Option<&Value>) -> Result<Value> {
    let DecodedWasm::WitPackage(mut resolve, before) = decode(frozen)? else {
        bail!("interfaces.wasm is no package of interfaces");
    };
    let after = match parse(&mut resolve, today, change) {
        Ok(after) => after,
        Err(error) => bail!("{}: {error:#}", today.display()),
    };
    let worlds = |package: PackageId| {
        resolve
            .packages
            .get(package)
            .map(|found| found.worlds.clone())
    };
    let (old, new) = (worlds(before), worlds(after));
    let (old, new) = (old.context("no package")?, new.context("no package")?);
    let mut answers = serde_json::Map::new();
    for (name, world) in old {
        let answer = match new.get(&name) {
            None => Some("there is no such world any more".to_owned()),
            Some(successor) => semver_check(resolve.clone(), world, *successor)
                .err()
                .map(|error| format!("{error:#}")),
        };
        answers.insert(name, json!(answer));
    }
    Ok(Value::Object(answers))
}

/// Adds today's interfaces, with one change or none.
fn parse(resolve: &mut Resolve, dir: &Path, change: Option<&Value>) -> Result<PackageId> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|file| file.extension().is_some_and(|kind| kind == "wit"));
    files.sort();
    let edits = change.and_then(|change| change["edits"].as_array());
    let mut sources = SourceMap::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let mut text = fs::read_to_string(&file)?;
        for edit in edits
            .into_iter()
            .flatten()
            .filter(|edit| edit["file"] == *name)
        {
            let field = |field: &str| {
                edit[field]
                    .as_str()
                    .context("an edit has file, from and to")
            };
            let (from, to) = (field("from")?, field("to")?);
            if text.matches(from).count() != 1 {
                bail!("{name} does not have {from:?} exactly once");
            }
            text = text.replacen(from, to, 1);
        }
        sources.push_str(&name, renumbered(&text)?);
    }
    let group = match sources.parse() {
        Ok(group) => group,
        Err((sources, error)) => bail!("{}", error.render(&sources)),
    };
    resolve
        .push_group(group)
        .map_err(|error| anyhow::anyhow!("{error}"))
}

/// The text with another patch level in its package's name.
fn renumbered(text: &str) -> Result<String> {
    let line = text.lines().find(|line| line.starts_with("package "));
    let line = line.context("a file without its package")?;
    let (kept, _) = line
        .rsplit_once('.')
        .context("a package without its version")?;
    Ok(text.replacen(line, &format!("{kept}.{TODAY};"), 1))
}
