//! What is written, checked by the programs that read it: cloud-init, kubeadm, Ignition. A test whose program is not installed says so
//! and checks nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::fields::cases;
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
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    if let Some(cache) = cache {
        search(&cache.join("capstan"), name, CACHE_DEPTH, &mut found);
    }
    found
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
    println!("skipped: {name} is not installed");
}

/// What the program says about the text; `None` when it is content.
fn complaint(program: &Path, arguments: &[&str], name: &str, text: &str) -> Option<String> {
    let of = program.file_name().unwrap().to_str().unwrap();
    let file = std::env::temp_dir().join(format!("capstan-{}-{of}-{name}", std::process::id()));
    std::fs::write(&file, text).unwrap();
    let output = Command::new(program)
        .args(arguments)
        .arg(&file)
        .output()
        .unwrap();
    std::fs::remove_file(&file).unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (!output.status.success())
        .then(|| format!("{name}: {}{}", said(&output.stdout), said(&output.stderr)))
}

#[test]
fn cloud_init_finds_nothing_wrong() {
    let programs = programs("cloud-init");
    let Some(program) = programs.first() else {
        return skipped("cloud-init");
    };
    let mut complaints = Vec::new();
    for case in cases()
        .iter()
        .filter(|case| case.spec["format"] != "ignition")
    {
        let text = rendered(&case.spec, case.role, case.version).unwrap();
        // Older versions check the header before the template's.
        let text = text.strip_prefix("## template: jinja\n").unwrap();
        complaints.extend(complaint(
            program,
            &["schema", "--config-file"],
            case.name,
            text,
        ));
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn ignition_finds_nothing_wrong() {
    let programs = programs("ignition-validate");
    let Some(program) = programs.first() else {
        return skipped("ignition-validate");
    };
    let mut complaints = Vec::new();
    for case in cases()
        .iter()
        .filter(|case| case.spec["format"] == "ignition")
    {
        let text = rendered(&case.spec, case.role, case.version).unwrap();
        complaints.extend(complaint(program, &[], case.name, &text));
    }
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
    let mark = "{{ ds.meta_data[\"local_hostname\"] }}";
    let text = content(config, path).replace(mark, "node-1");
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
    for program in programs {
        let version = version_of(&program);
        let mut complaints = Vec::new();
        let mut checked = 0;
        for case in cases() {
            let text = match rendered(&case.spec, case.role, &version) {
                Ok(text) => text,
                Err(refusal) if refusal.reason == "FieldNeedsNewerVersion" => continue,
                Err(refusal) => panic!("{}: {refusal}", case.name),
            };
            if case.spec["format"] == "ignition" {
                continue;
            }
            let path = match case.role {
                Role::Init => "/run/kubeadm/kubeadm.yaml",
                _ => "/run/kubeadm/kubeadm-join-config.yaml",
            };
            let text = on_machine(&parsed(&text), path);
            checked += 1;
            complaints.extend(complaint(
                &program,
                &["config", "validate", "--config"],
                case.name,
                &text,
            ));
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
    }
}
