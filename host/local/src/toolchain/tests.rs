//! The binaries are small scripts here; the real build is exercised by whoever needs it first.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

use super::*;

fn script(dir: &Path, name: &str, body: &str) {
    std::fs::create_dir_all(dir).unwrap();
    let path = dir.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn search(root: &Path) -> Search {
    Search {
        assets: Some(root.join("assets")),
        path: vec![root.join("bin")],
        cache: Some(root.join("cache")),
    }
}

fn recorder() -> (Progress, Arc<Mutex<Vec<String>>>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    (
        Progress::new(move |line| sink.lock().unwrap().push(line.to_owned())),
        lines,
    )
}

/// A `go` that writes a file where it is told to.
const GO: &str = r#"case "$1" in
version) echo "go version go1.26.0 linux/amd64";;
build) test -f go.mod && test -f go.sum && echo "$9" > "$8";;
esac"#;

/// Where a binary is built to.
fn built(root: &Path, tool: Tool) -> PathBuf {
    build::path(&search(root), &tool.binary()).unwrap()
}

#[test]
fn versions_are_found_in_what_programs_say() {
    assert_eq!(version("Kubernetes v1.36.3"), Some((1, 36)));
    assert_eq!(version("etcd Version: 3.6.16\nGit SHA: x"), Some((3, 6)));
    assert_eq!(version("Client Version: v1.32.4-dispatcher"), Some((1, 32)));
    assert_eq!(version("go version go1.26.0 linux/amd64"), Some((1, 26)));
    assert_eq!(version("nonsense"), None);
}

#[test]
fn prefers_the_assets_directory_to_path() {
    let root = tempfile::tempdir().unwrap();
    for dir in ["assets", "bin"] {
        script(&root.path().join(dir), "etcd", "echo etcd Version: 3.6.1");
    }
    let found = search(root.path())
        .one(Tool::Etcd, &Progress::default())
        .unwrap();
    assert_eq!(found, root.path().join("assets/etcd"));
}

#[test]
fn builds_both_kubernetes_binaries_when_the_assets_have_only_one() {
    let root = tempfile::tempdir().unwrap();
    script(
        &root.path().join("assets"),
        "etcd",
        "echo etcd Version: 3.6.1",
    );
    script(
        &root.path().join("assets"),
        "kube-apiserver",
        "echo Kubernetes v1.36.0",
    );
    script(&root.path().join("bin"), "go", GO);
    let (progress, lines) = recorder();
    let found = search(root.path()).toolchain(&progress).unwrap();
    assert_eq!(
        found.kube_apiserver,
        built(root.path(), Tool::KubeApiserver)
    );
    assert_eq!(
        found.kube_controller_manager,
        built(root.path(), Tool::KubeControllerManager)
    );
    assert!(
        lines
            .lock()
            .unwrap()
            .iter()
            .any(|line| line.contains("does not have both"))
    );
    assert!(!found.kube_apiserver.with_file_name("build").exists());
}

#[test]
fn passes_over_what_is_too_old_and_builds_once() {
    let root = tempfile::tempdir().unwrap();
    script(
        &root.path().join("bin"),
        "kubectl",
        "echo Client Version: v1.32.4",
    );
    script(&root.path().join("bin"), "go", GO);
    let (progress, lines) = recorder();
    let found = search(root.path()).one(Tool::Kubectl, &progress).unwrap();
    assert_eq!(
        std::fs::read_to_string(&found).unwrap(),
        "k8s.io/kubernetes/cmd/kubectl\n"
    );
    std::fs::remove_file(root.path().join("bin/go")).unwrap();
    assert_eq!(
        search(root.path()).one(Tool::Kubectl, &progress).unwrap(),
        found
    );
    let lines = lines.lock().unwrap();
    let expected = "building kubectl v1.36.3 from its Go module (about half a minute, once)";
    assert_eq!(lines.first().unwrap(), expected);
    assert!(
        lines
            .last()
            .unwrap()
            .starts_with("built kubectl v1.36.3 in ")
    );
    assert_eq!(lines.len(), 2);
}

#[test]
fn a_binary_made_from_another_module_is_not_taken() {
    let root = tempfile::tempdir().unwrap();
    let other = root.path().join("cache/kubernetes-v1.36.3-000000000000");
    script(&other, "etcd", "old");
    script(&root.path().join("bin"), "go", GO);
    let found = search(root.path())
        .one(Tool::Etcd, &Progress::default())
        .unwrap();
    assert_eq!(
        std::fs::read_to_string(found).unwrap(),
        "go.etcd.io/etcd/server/v3\n"
    );
}

#[test]
fn says_what_to_do_without_go_with_an_old_one_and_after_a_failed_build() {
    let root = tempfile::tempdir().unwrap();
    let ask = || {
        search(root.path())
            .one(Tool::Etcd, &Progress::default())
            .unwrap_err()
    };
    assert!(matches!(ask(), Error::GoMissing { tool: "etcd" }));
    script(
        &root.path().join("bin"),
        "go",
        "echo go version go1.20.1 linux/amd64",
    );
    assert!(
        ask()
            .to_string()
            .starts_with("go version go1.20.1 linux/amd64 is too old")
    );
    let failing =
        r#"test "$1" = version && echo go version go1.26.0 && exit; echo oops >&2; exit 3"#;
    script(&root.path().join("bin"), "go", failing);
    let text = ask().to_string();
    assert!(
        text.contains("exit code 3") && text.ends_with("oops"),
        "{text}"
    );
    let full = r#"test "$1" = version && echo go version go1.26.0 && exit
echo "write x: no space left on device" >&2; exit 1"#;
    script(&root.path().join("bin"), "go", full);
    assert!(matches!(ask(), Error::DiskFull { tool: "etcd", .. }));
}
