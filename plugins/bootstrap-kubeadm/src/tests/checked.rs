//! What is written, checked by the programs that read it: cloud-init, kubeadm, Ignition. `just validators` makes them; a test whose program
//! is not there says so and checks nothing, unless `CAPSTAN_VALIDATORS=required`, as in `just test`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::fields::{Case, cases};
use super::golden::{control_plane_spec, everything};
use super::report::REPORT;
use super::signer::two_authorities;
use super::*;

/// How deep below the cache of Capstan's tools a program may be.
const CACHE_DEPTH: usize = 2;

/// All programs of this name: in PATH, and below the cache where the local cloud keeps what it built.
fn programs(name: &str) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found: Vec<PathBuf> = std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .filter(|program| program.is_file())
        .collect();
    if let Some(cache) = cache() {
        search(&cache, name, CACHE_DEPTH, &mut found);
    }
    found
}

fn cache() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    Some(cache?.join("capstan"))
}

/// cloud-init: this computer's, or that of the machines' images, with everything that it needs from there.
fn cloud_init() -> Option<Checker> {
    if let Some(program) = programs("cloud-init").into_iter().next() {
        return Some(Checker::of(program, &["schema", "--config-file"]));
    }
    let images = std::fs::read_dir(cache()?.join("images")).ok()?.flatten();
    let mut bases: Vec<PathBuf> = images.map(|entry| entry.path()).collect();
    bases.sort();
    let base = bases
        .into_iter()
        .find(|base| base.join("usr/bin/cloud-init").is_file())?;
    let first = |directory: PathBuf, is: &dyn Fn(&str) -> bool| {
        let entries = std::fs::read_dir(directory).ok()?.flatten();
        let mut names = entries.map(|entry| entry.path());
        names.find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_str().is_some_and(is))
        })
    };
    let is_loader = |name: &str| name.starts_with("ld-linux");
    let is_architecture = |name: &str| name.ends_with("-linux-gnu");
    let is_python = |name: &str| {
        name.strip_prefix("python3.")
            .is_some_and(|minor| minor.parse::<u8>().is_ok())
    };
    let libraries = first(base.join("usr/lib"), &is_architecture)?;
    let loader = first(libraries.clone(), &is_loader)?;
    let python = first(base.join("usr/bin"), &is_python)?;
    let arguments = [
        OsString::from("--library-path"),
        libraries.into(),
        python.into(),
        base.join("usr/bin/cloud-init").into(),
        "schema".into(),
        "--config-file".into(),
    ];
    Some(Checker {
        program: loader,
        arguments: arguments.into(),
        environment: vec![
            ("PYTHONHOME", base.join("usr")),
            ("PYTHONPATH", base.join("usr/lib/python3/dist-packages")),
            // The image stays as it was made.
            ("PYTHONDONTWRITEBYTECODE", "1".into()),
        ],
    })
}

/// What comes to a config from outside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    Plain,
    /// The machine may report.
    Report,
    /// The cluster's authorities are rotated.
    TwoAuthorities,
}

/// What the programs are shown.
struct Shown {
    case: Case,
    given: Given,
}

impl Shown {
    fn is_ignition(&self) -> bool {
        self.case.spec["format"] == "ignition"
    }

    fn name(&self) -> String {
        format!("{}-{:?}", self.case.name, self.given)
    }

    fn text(&self, version: &str) -> Result<String, Refusal> {
        let cluster = cluster();
        let mut asked = question(&cluster, &self.case.spec, self.case.role, version);
        if self.given == Given::Report {
            asked.report = Some(REPORT);
        }
        let materials = match self.given {
            Given::TwoAuthorities => two_authorities(),
            Given::Plain | Given::Report => materials(),
        };
        Ok(joined(data(&asked, &materials)?.parts))
    }
}

/// Every field by itself, all of a format together, and each format with what is given from outside.
fn shown() -> Vec<Shown> {
    let plain = |case| Shown {
        case,
        given: Given::Plain,
    };
    let mut shown: Vec<Shown> = cases().into_iter().map(plain).collect();
    let mut for_ignition = serde_json::Map::new();
    for case in cases() {
        let fields = case
            .spec
            .as_object()
            .filter(|_| case.spec["format"] == "ignition" && case.role == Role::JoinWorker);
        for_ignition.extend(fields.cloned().unwrap_or_default());
    }
    let mut for_cloud_init = everything();
    // The cloud-init of some images warns about types that are no numbers.
    for_cloud_init["diskSetup"]["partitions"][1]["diskLayout"][0]["partitionType"] =
        json!("LinuxSwap");
    for (name, mut spec) in [
        ("whole-cloud-config", for_cloud_init),
        ("whole-ignition", Value::Object(for_ignition)),
    ] {
        let of = |role, spec: &Value, given| Shown {
            case: Case {
                name,
                role,
                version: "v1.36.3",
                spec: spec.clone(),
            },
            given,
        };
        shown.push(of(Role::JoinWorker, &spec, Given::Plain));
        shown.push(of(Role::JoinWorker, &spec, Given::Report));
        let mut control_plane = control_plane_spec();
        // Which gates there are depends on the version.
        control_plane["clusterConfiguration"]["featureGates"] =
            json!({"RootlessControlPlane": false});
        let control_plane = control_plane.as_object().unwrap().clone();
        spec.as_object_mut().unwrap().extend(control_plane);
        for role in [Role::Init, Role::JoinControlPlane] {
            shown.push(of(role, &spec, Given::Report));
            shown.push(of(role, &spec, Given::TwoAuthorities));
        }
    }
    shown
}

/// A program that takes a file.
struct Checker {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, PathBuf)>,
}

impl Checker {
    fn of(program: PathBuf, arguments: &[&str]) -> Self {
        Self {
            program,
            arguments: arguments.iter().map(OsString::from).collect(),
            environment: Vec::new(),
        }
    }

    /// What it says about the text; `None` when it is content.
    fn complaint(&self, name: &str, text: &str) -> Option<String> {
        let of = self.program.file_name().unwrap().to_str().unwrap();
        let file = std::env::temp_dir().join(format!("capstan-{}-{of}-{name}", std::process::id()));
        std::fs::write(&file, text).unwrap();
        let output = Command::new(&self.program)
            .args(&self.arguments)
            .arg(&file)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .output()
            .unwrap();
        std::fs::remove_file(&file).unwrap();
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (!output.status.success())
            .then(|| format!("{name}: {}{}", said(&output.stdout), said(&output.stderr)))
    }
}

fn search(directory: &Path, name: &str, depth: usize, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() && depth > 0 {
            search(&path, name, depth.saturating_sub(1), found);
        } else if path.is_file() && entry.file_name() == *name {
            found.push(path);
        }
    }
}

fn skipped(name: &str) {
    let is_required = std::env::var("CAPSTAN_VALIDATORS").is_ok_and(|value| value == "required");
    assert!(!is_required, "there is no {name}: just validators");
    println!("skipped: there is no {name}");
}

#[test]
fn cloud_init_finds_nothing_wrong() {
    let Some(checker) = cloud_init() else {
        // Not every computer can make the images of machines: it is asked for where those are.
        let is_asked_for = std::env::var("CAPSTAN_REAL_MACHINES").is_ok_and(|it| it == "required");
        assert!(!is_asked_for, "there is no cloud-init: just validators");
        println!("skipped: there is no cloud-init");
        return;
    };
    let mut complaints = Vec::new();
    let mut checked = 0;
    for shown in shown().iter().filter(|shown| !shown.is_ignition()) {
        let text = shown.text(shown.case.version).unwrap();
        // Older versions check the header before the template's.
        let text = text.strip_prefix("## template: jinja\n").unwrap();
        checked += 1;
        complaints.extend(checker.complaint(&shown.name(), text));
    }
    println!("cloud-init: {checked} configurations");
    assert!(checked > 20, "{checked}");
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    // It is one that complains.
    let wrong = checker.complaint("wrong", "#cloud-config\nruncmd: 7\n");
    assert!(wrong.is_some(), "it finds nothing wrong with anything");
}

#[test]
fn ignition_finds_nothing_wrong() {
    let programs = programs("ignition-validate");
    let Some(program) = programs.into_iter().next() else {
        return skipped("ignition-validate");
    };
    let checker = Checker::of(program, &[]);
    let mut complaints = Vec::new();
    let mut checked = 0;
    for shown in shown().iter().filter(|shown| shown.is_ignition()) {
        let text = shown.text(shown.case.version).unwrap();
        checked += 1;
        complaints.extend(checker.complaint(&shown.name(), &text));
    }
    println!("ignition: {checked} configurations");
    assert!(checked > 5, "{checked}");
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// `v1.36.3` of a program that says so.
fn version_of(kubeadm: &Path) -> String {
    let output = Command::new(kubeadm)
        .args(["version", "--output", "short"])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// kubeadm's configuration as the machine has it: with a name where a mark stands for it, and files where it says that they are.
fn on_machine(config: &Value, path: &str) -> String {
    const DISCOVERY: &str = "/etc/kubernetes/discovery.conf";
    let marks = [
        "{{ ds.meta_data[\"local_hostname\"] }}",
        "{{ ds.meta_data.local_hostname }}",
    ];
    let text = marks.iter().fold(content(config, path), |text, mark| {
        text.replace(mark, "node-1")
    });
    if !text.contains(DISCOVERY) {
        return text;
    }
    let file = std::env::temp_dir().join(format!("capstan-{}-discovery", std::process::id()));
    std::fs::write(&file, content(config, DISCOVERY)).unwrap();
    text.replace(DISCOVERY, file.to_str().unwrap())
}

#[test]
fn kubeadm_finds_nothing_wrong() {
    let programs = programs("kubeadm");
    if programs.is_empty() {
        return skipped("kubeadm");
    }
    let mut versions = Vec::new();
    for program in programs {
        let version = version_of(&program);
        let checker = Checker::of(program, &["config", "validate", "--config"]);
        let mut complaints = Vec::new();
        let mut checked = 0;
        for shown in shown() {
            let text = match shown.text(&version) {
                Ok(text) => text,
                Err(refusal) if refusal.reason == "FieldNeedsNewerVersion" => continue,
                Err(refusal) => panic!("{}: {refusal}", shown.name()),
            };
            if shown.is_ignition() {
                continue;
            }
            let path = match shown.case.role {
                Role::Init => "/run/kubeadm/kubeadm.yaml",
                _ => "/run/kubeadm/kubeadm-join-config.yaml",
            };
            let text = on_machine(&parsed(&text), path);
            checked += 1;
            complaints.extend(checker.complaint(&shown.name(), &text));
        }
        let discovery =
            std::env::temp_dir().join(format!("capstan-{}-discovery", std::process::id()));
        let _ = std::fs::remove_file(discovery);
        println!("kubeadm {version}: {checked} configurations");
        assert!(checked > 20, "{checked}");
        assert!(
            complaints.is_empty(),
            "kubeadm {version}:\n{}",
            complaints.join("\n")
        );
        versions.push(version);
    }
    for api in ["v1.30.", "v1.36."] {
        if !versions.iter().any(|version| version.starts_with(api)) {
            skipped(&format!("kubeadm {api}x"));
        }
    }
}
