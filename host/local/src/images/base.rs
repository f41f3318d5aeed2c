//! The Debian root file system that all machines share, made by mmdebstrap from the packages that this
//! computer's own apt is set up for.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::archive::architecture;
use super::step::Work;
use super::{Error, file};
use crate::progress::Progress;

/// Packages beside the essential ones: what kubelet, kubeadm, kube-proxy and the machines' own
/// set-up run, and a shell to look around with.
const PACKAGES: [&str; 17] = [
    "bash",
    "ca-certificates",
    "conntrack",
    "containernetworking-plugins",
    "ethtool",
    "hostname",
    "iproute2",
    "iptables",
    "iputils-ping",
    "kmod",
    "mount",
    "nftables",
    "passwd",
    "procps",
    "runc",
    "socat",
    "util-linux",
];
/// What nobody reads in a machine.
const LEFT_OUT: [&str; 4] = [
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
];
/// Run at the end with the new root as `$1`: network plugins where Kubernetes looks for them, and
/// nothing that belongs to one computer.
const FINISH: &str = r#"set -e
mkdir -p "$1/opt/cni/bin"
ln "$1"/usr/lib/cni/* "$1/opt/cni/bin/"
rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap" "$1/etc/hostname" "$1/etc/resolv.conf"
: >"$1/etc/machine-id""#;

/// Which base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavour {
    /// Machines execute their user data with the runner's own interpreter.
    Plain,
    /// With Debian's cloud-init, to compare with.
    CloudInit,
}

impl Flavour {
    /// The first part of its directory's name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "base",
            Self::CloudInit => "base-cloud-init",
        }
    }

    fn packages(self) -> Vec<&'static str> {
        let mut packages = PACKAGES.to_vec();
        if self == Self::CloudInit {
            packages.push("cloud-init");
        }
        packages
    }
}

const WHAT: &str = "the Debian root file system of the machines";

/// What the base is made from. Which versions of the packages apt has is not part of it: they get
/// security fixes only.
pub(super) fn inputs(flavour: Flavour) -> Vec<String> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let mut inputs = vec![
        field(&release, "ID").unwrap_or_default().to_owned(),
        field(&release, "VERSION_CODENAME")
            .unwrap_or_default()
            .to_owned(),
        architecture().to_owned(),
        FINISH.to_owned(),
    ];
    let lists = flavour.packages().into_iter().chain(LEFT_OUT);
    inputs.extend(lists.map(str::to_owned));
    inputs
}

/// A field of `/etc/os-release`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix('=')?;
        Some(value.trim_matches('"'))
    })
}

/// Makes the base in `place`.
pub(super) fn make(
    work: &Work,
    flavour: Flavour,
    place: &Path,
    progress: &Progress,
) -> Result<(), Error> {
    if !has("apt-get") {
        return Err(Error::Block {
            what: WHAT.to_owned(),
            why: "apt-get is not on this computer, so it is neither Debian nor Ubuntu".to_owned(),
            fix: format!(
                "build the images on one that is, and copy {} from there",
                place.parent().unwrap_or(place).display()
            ),
        });
    }
    let sources = sources(work, progress)?;
    if !has("mmdebstrap") {
        progress.say("installing mmdebstrap with apt-get: it makes the root file system");
        work.run(
            "installing mmdebstrap with apt-get (install it yourself if you like)",
            Command::new("apt-get")
                .args(["install", "--yes", "--no-install-recommends", "mmdebstrap"])
                .env("DEBIAN_FRONTEND", "noninteractive"),
        )?;
    }
    let settings = work.dir().join("apt.conf");
    fs::write(&settings, settings_of(work)?).map_err(|source| file(&settings, source))?;
    let fresh = work.dir().join("base");
    // In namespaces of its own, so that whatever it mounts or starts goes with it.
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["--propagation", "private", "--"])
        .args(arguments(flavour, &sources, &settings, &fresh))
        .current_dir("/");
    work.run("making a root file system with mmdebstrap", &mut command)?;
    work.place(&fresh, place)
}

/// The command line of mmdebstrap.
fn arguments(flavour: Flavour, sources: &Sources, settings: &Path, target: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = ["mmdebstrap", "--mode=root", "--variant=minbase"]
        .map(OsString::from)
        .into();
    words.push(format!("--include={}", flavour.packages().join(",")).into());
    words.extend(LEFT_OUT.map(|path| OsString::from(format!("--dpkgopt=path-exclude={path}"))));
    let mut option = OsString::from("--aptopt=");
    option.push(settings);
    words.push(option);
    words.push(format!("--customize-hook={FINISH}").into());
    words.push(sources.suite.clone().into());
    words.push(target.into());
    words.extend(sources.files.iter().map(OsString::from));
    words
}

/// The distribution that this computer's apt gets its own packages from.
#[derive(Debug, PartialEq, Eq)]
struct Sources {
    suite: String,
    /// The files of apt's configuration that name it.
    files: BTreeSet<PathBuf>,
}

impl Sources {
    /// From lines `origin|release|file:line`, one for each list of packages.
    fn parse(text: &str) -> Option<Self> {
        let mut suite: Option<&str> = None;
        let mut files = BTreeSet::new();
        for line in text.lines() {
            let mut fields = line.split('|');
            let (Some(origin), Some(release), Some(entry)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            if !matches!(origin, "Debian" | "Raspbian" | "Ubuntu") {
                continue;
            }
            // Updates and security fixes have the release's name with something behind it.
            let name = release.split('-').next().unwrap_or(release);
            suite = suite.or(Some(name));
            if suite == Some(name) {
                let path = entry.rsplit_once(':').map_or(entry, |(path, _)| path);
                files.insert(PathBuf::from(path));
            }
        }
        let suite = suite?.to_owned();
        Some(Self { suite, files })
    }
}

fn sources(work: &Work, progress: &Progress) -> Result<Sources, Error> {
    let ask = || -> Result<Option<Sources>, Error> {
        let text = work.read(
            "asking apt where packages come from",
            Command::new("apt-get")
                .args(["indextargets", "--format"])
                .args([
                    "$(ORIGIN)|$(RELEASE)|$(SOURCESENTRY)",
                    "Created-By: Packages",
                ]),
        )?;
        Ok(Sources::parse(&text))
    };
    if let Some(found) = ask()? {
        return Ok(found);
    }
    progress.say("reading apt's lists of packages with `apt-get update`");
    work.run(
        "reading lists of packages with `apt-get update`",
        Command::new("apt-get").arg("update"),
    )?;
    ask()?.ok_or_else(|| Error::Block {
        what: WHAT.to_owned(),
        why: "apt is not set up with the packages of Debian or Ubuntu".to_owned(),
        fix: "add them to /etc/apt/sources.list and run `apt-get update`".to_owned(),
    })
}

/// How this computer's apt reaches its sources, proxies among it.
fn settings_of(work: &Work) -> Result<String, Error> {
    let text = work.read(
        "asking apt for its settings",
        Command::new("apt-config").args(["dump", "Acquire"]),
    )?;
    Ok(settings(&text))
}

/// The settings that matter for a root of somebody else.
fn settings(text: &str) -> String {
    const KEPT: [&str; 5] = [
        "Acquire::http",
        "Acquire::https",
        "Acquire::Retries",
        "Acquire::Check-Valid-Until",
        "Acquire::Check-Date",
    ];
    let lines = text.lines().filter(|line| {
        let name = line.split([' ', '"']).next().unwrap_or_default();
        // A name without a value only opens a group.
        !line.ends_with(" \"\";") && KEPT.iter().any(|kept| name.starts_with(kept))
    });
    lines.fold(String::new(), |all, line| all + line + "\n")
}

/// Whether a program is on `PATH`.
fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_distributions_own_sources_are_taken() {
        let text = "Vendor|stable|/etc/apt/sources.list.d/vendor.list:1\n\
            Debian|bookworm|/etc/apt/sources.list.d/debian.sources:1\n\
            Debian|bookworm-updates|/etc/apt/sources.list.d/debian.sources:1\n\
            Debian|bookworm-security|/etc/apt/sources.list:3\n\
            Debian|sid|/etc/apt/sources.list.d/sid.list:1\n";
        let found = Sources::parse(text).unwrap();
        assert_eq!(found.suite, "bookworm");
        let files = [
            "/etc/apt/sources.list",
            "/etc/apt/sources.list.d/debian.sources",
        ];
        assert_eq!(found.files, files.map(PathBuf::from).into());
        assert_eq!(Sources::parse("Vendor|stable|/x:1\n"), None);
    }

    #[test]
    fn the_command_line_names_packages_suite_and_sources() {
        let sources = Sources {
            suite: "bookworm".to_owned(),
            files: [PathBuf::from("/etc/apt/sources.list")].into(),
        };
        let words = |flavour| -> Vec<String> {
            let conf = Path::new("/w/apt.conf");
            let words = arguments(flavour, &sources, conf, Path::new("/w/base")).into_iter();
            words.map(|word| word.into_string().unwrap()).collect()
        };
        let has_cloud_init =
            |words: &[String]| words.iter().any(|word| word.ends_with(",cloud-init"));
        assert!(has_cloud_init(&words(Flavour::CloudInit)));
        let words = words(Flavour::Plain);
        assert!(!has_cloud_init(&words));
        assert_eq!(words[0], "mmdebstrap");
        assert!(
            words
                .iter()
                .any(|word| word.starts_with("--include=") && word.contains("runc"))
        );
        assert!(words.contains(&"--aptopt=/w/apt.conf".to_owned()));
        assert_eq!(
            words[words.len() - 3..],
            ["bookworm", "/w/base", "/etc/apt/sources.list"]
        );
    }

    #[test]
    fn proxies_and_retries_are_kept_and_nothing_else() {
        let text = "Acquire \"\";\nAcquire::http \"\";\nAcquire::http::Proxy \"p:1\";\n\
            Acquire::Languages \"none\";\nAcquire::Retries \"3\";\n";
        assert_eq!(
            settings(text),
            "Acquire::http::Proxy \"p:1\";\nAcquire::Retries \"3\";\n"
        );
    }

    #[test]
    fn a_release_is_told_by_its_fields() {
        let text = "PRETTY_NAME=\"Debian\"\nID=debian\nVERSION_CODENAME=\"bookworm\"\n";
        assert_eq!(field(text, "ID"), Some("debian"));
        assert_eq!(field(text, "VERSION_CODENAME"), Some("bookworm"));
        assert_eq!(field(text, "VERSION"), None);
    }
}
