//! `capstan plugin new`: a crate of its own, made of the smallest example of its kind, that builds and passes its tests at once.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use super::EXIT_CODES;
use crate::out;

/// What to make.
#[derive(Debug, clap::Args)]
#[command(after_long_help = format!("\
Examples:
  capstan plugin new infrastructure acme
      A provider `infrastructure-acme` in the directory of that name, with the SDK of the checkout that this program is in.
  capstan plugin new upgrade-strategy careful --sdk ../capstan/sdk-guest
  capstan plugin new pre-delete-hook backup --sdk-git https://git.example.com/capstan --sdk-rev v0.1.0

Then: cd infrastructure-acme && cargo test && capstan plugin build

{EXIT_CODES}"))]
pub(in crate::command) struct NewArgs {
    /// What it will be.
    #[arg(value_enum)]
    kind: Kind,
    /// Its name, without the kind: lower-case letters, digits and dashes.
    name: String,
    /// Directory to make; `<kind>-<name>` by default.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The directory `sdk-guest` of a checkout; looked for around this program and the working directory by default.
    #[arg(long, value_name = "DIR", conflicts_with = "sdk_git")]
    sdk: Option<PathBuf>,
    /// Take the SDK from a git repository instead.
    #[arg(long, value_name = "URL")]
    sdk_git: Option<String>,
    /// Commit, tag or branch in that repository.
    #[arg(long, value_name = "REV", requires = "sdk_git")]
    sdk_rev: Option<String>,
}

/// Kinds of plugins, as their interfaces are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::command) enum Kind {
    /// Makes machines, and what clusters need around them.
    Infrastructure,
    /// Makes the data that a machine's first boot runs.
    Bootstrap,
    /// Answers the questions of the host's control-plane engine.
    ControlPlane,
    /// Says whether a machine may go on being deleted.
    PreDeleteHook,
    /// Says how many machines each MachineSet should have now.
    UpgradeStrategy,
}

/// The example that a kind begins with: its names are replaced.
struct Template {
    /// How names of plugins of this kind begin.
    prefix: &'static str,
    /// The whole file.
    source: &'static str,
    /// Name of the example's plugin.
    name: &'static str,
    /// Word of the example's types.
    word: &'static str,
    /// What else has the example's name in lower case.
    also: &'static [&'static str],
    about: &'static str,
}

impl Kind {
    fn template(self) -> Template {
        match self {
            Self::Infrastructure => Template {
                prefix: "infrastructure",
                source: include_str!("../../../../examples/minimal-infrastructure/src/lib.rs"),
                name: "rack",
                word: "Rack",
                also: &["rack://"],
                about: "An infrastructure provider: machines, and what clusters need around them.",
            },
            Self::Bootstrap => Template {
                prefix: "bootstrap",
                source: include_str!("../../../../examples/minimal-bootstrap/src/lib.rs"),
                name: "script",
                word: "Script",
                also: &["script-token"],
                about: "A bootstrap provider: the data that a machine's first boot runs.",
            },
            Self::ControlPlane => Template {
                prefix: "control-plane",
                source: include_str!("../../../../examples/minimal-control-plane/src/lib.rs"),
                name: "script",
                word: "Script",
                also: &[],
                about: "A control-plane provider: small answers for the host's control-plane engine.",
            },
            Self::PreDeleteHook => Template {
                prefix: "pre-delete",
                source: include_str!("../../../../examples/minimal-pre-delete-hook/src/lib.rs"),
                name: "rest",
                word: "Rest",
                also: &[],
                about: "A pre-delete hook: may this machine go on being deleted?",
            },
            Self::UpgradeStrategy => Template {
                prefix: "upgrade",
                source: include_str!("../../../../examples/minimal-upgrade-strategy/src/lib.rs"),
                name: "one-by-one",
                word: "OneByOne",
                also: &[],
                about: "An upgrade strategy: how many machines each MachineSet should have now.",
            },
        }
    }
}

pub(super) fn run(args: &NewArgs) -> anyhow::Result<ExitCode> {
    let template = args.kind.template();
    let name = args
        .name
        .strip_prefix(template.prefix)
        .and_then(|rest| rest.strip_prefix('-'))
        .unwrap_or(&args.name);
    let is_name = !name.is_empty()
        && name.len() <= 40
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && !name.contains("--")
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !is_name {
        bail!(
            "NAME {name:?}: use lower-case letters, digits and single dashes, beginning with a letter, at most 40 characters"
        );
    }
    let package = format!("{}-{name}", template.prefix);
    let dir = args.dir.clone().unwrap_or_else(|| PathBuf::from(&package));
    let is_empty = std::fs::read_dir(&dir).map_or(true, |mut entries| entries.next().is_none());
    if !is_empty {
        bail!(
            "{} is there already and not empty: name another with --dir",
            dir.display()
        );
    }
    let sdk = sdk(args)?;
    let files = files(&template, name, &package, &sdk);
    for (path, text) in &files {
        let path = dir.join(path);
        let parent = path.parent().unwrap_or(&dir);
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot make {}", parent.display()))?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    out::result(&format!(
        "{package} is in {0}. Next:\n  cd {0}\n  cargo test\n  capstan plugin build",
        dir.display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// The `capstan-sdk` line of the new Cargo.toml.
fn sdk(args: &NewArgs) -> anyhow::Result<String> {
    if let Some(url) = &args.sdk_git {
        let rev = args
            .sdk_rev
            .as_ref()
            .map(|rev| format!(", rev = {rev:?}"))
            .unwrap_or_default();
        return Ok(format!("{{ git = {url:?}{rev} }}"));
    }
    let found = match &args.sdk {
        Some(path) => path.clone(),
        None => around().context(
            "the SDK is not found: this program and the working directory are in no checkout of Capstan; name its directory \
             sdk-guest with --sdk, or a repository with --sdk-git",
        )?,
    };
    if !is_sdk(&found) {
        bail!(
            "--sdk {}: this is not the directory sdk-guest of a checkout",
            found.display()
        );
    }
    let found = found.canonicalize()?;
    let path = found.to_str().context("the path of the SDK is not text")?;
    Ok(format!("{{ path = {path:?} }}"))
}

fn is_sdk(dir: &Path) -> bool {
    std::fs::read_to_string(dir.join("Cargo.toml"))
        .is_ok_and(|text| text.contains("name = \"capstan-sdk\""))
}

/// `sdk-guest` in a directory above this program or above the working directory.
fn around() -> Option<PathBuf> {
    let program = std::env::current_exe().ok();
    let working = std::env::current_dir().ok();
    let starts = [program, working].into_iter().flatten();
    starts
        .flat_map(|start| {
            let all: Vec<PathBuf> = start.ancestors().map(|dir| dir.join("sdk-guest")).collect();
            all
        })
        .find(|dir| is_sdk(dir))
}

/// Everything that the crate has.
fn files(template: &Template, name: &str, package: &str, sdk: &str) -> Vec<(&'static str, String)> {
    let serde = if template.source.contains("use serde::") {
        "serde = { version = \"1\", features = [\"derive\"] }\n"
    } else {
        ""
    };
    let cargo = format!(
        "[package]
name = \"{package}\"
description = \"{}\"
version = \"0.1.0\"
edition = \"2024\"
publish = false

# A component for the host, and a library for tests.
[lib]
crate-type = [\"cdylib\", \"rlib\"]

[dependencies]
capstan-sdk = {sdk}
{serde}
# Small, without unwinding; the names of functions stay, so that backtraces can be read.
[profile.plugin]
inherits = \"release\"
opt-level = \"s\"
lto = true
codegen-units = 1
panic = \"abort\"
strip = \"debuginfo\"

# On its own, also below another workspace.
[workspace]
",
        template.about
    );
    let readme = format!(
        "# {package}

{}

```sh
cargo test
capstan plugin build
capstan plugin check target/wasm32-wasip2/plugin/{}.wasm
```

`capstan plugin manifest` prints what installs it; the SDK's README says what is where.
",
        template.about,
        package.replace('-', "_")
    );
    vec![
        ("Cargo.toml", cargo),
        (
            "rust-toolchain.toml",
            include_str!("../../../../rust-toolchain.toml").to_owned(),
        ),
        (".gitignore", "/target\n".to_owned()),
        ("README.md", readme),
        ("src/lib.rs", source(template, name)),
    ]
}

/// The example with its names replaced.
fn source(template: &Template, name: &str) -> String {
    let word = camel(name);
    let (_, rest) = template.source.split_once('\n').unwrap_or_default();
    let mut text = format!("//! {}\n{rest}", template.about);
    let quoted = |name: &str| format!("\"{}-{name}\"", template.prefix);
    text = text.replace(&quoted(template.name), &quoted(name));
    for also in template.also {
        text = text.replace(also, &also.replace(template.name, name));
    }
    replace_word(&text, template.word, &word)
}

/// `my-cloud` as `MyCloud`.
fn camel(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let mut letters = word.chars();
        let first = letters.next().map(|first| first.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    });
    words.collect()
}

/// Replaces a word of CamelCase where it begins a name and no small letter follows it: `Rest` in `Rest::run`, not in `Resting`.
fn replace_word(text: &str, from: &str, to: &str) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(from) {
        replaced.push_str(before);
        let begins = !replaced.ends_with(|c: char| c.is_ascii_alphanumeric());
        let ends = !after.starts_with(|c: char| c.is_ascii_lowercase());
        replaced.push_str(if begins && ends { to } else { from });
        rest = after;
    }
    replaced.push_str(rest);
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_example_stays_in_the_name() {
        for kind in <Kind as clap::ValueEnum>::value_variants() {
            let template = kind.template();
            let text = source(&template, "my-cloud");
            assert!(
                text.contains(&format!("\"{}-my-cloud\"", template.prefix)),
                "{kind:?}"
            );
            assert!(
                !text.contains(&format!("{}-{}", template.prefix, template.name)),
                "{kind:?}"
            );
            assert!(
                !text.contains(&format!("for {} {{", template.word)),
                "{kind:?}"
            );
            assert!(text.contains("for MyCloud"), "{kind:?}");
        }
    }

    #[test]
    fn words_are_replaced_whole() {
        assert_eq!(
            replace_word("Rest::run Resting aRest RestX", "Rest", "Go"),
            "Go::run Resting aRest GoX"
        );
        assert_eq!(camel("my-cloud2"), "MyCloud2");
    }
}
