//! An archive is read back with the ordinary `tar`, and twice the same.

use std::process::{Command, Stdio};

use super::*;

fn image(dir: &std::path::Path) -> ContainerImage {
    let program = dir.join("program");
    std::fs::write(&program, vec![7; 700]).unwrap();
    let data = dir.join("data");
    std::fs::write(&data, "text").unwrap();
    let long = format!("/usr/lib/{}/module.so", "x".repeat(95));
    ContainerImage {
        name: "registry.example/thing:v1".to_owned(),
        entrypoint: Some("/usr/bin/program".to_owned()),
        user: Some("65532"),
        files: BTreeMap::from([
            ("/usr/bin/program".to_owned(), Content::Disk(program, true)),
            (
                "/usr/bin/other".to_owned(),
                Content::Link("program".to_owned()),
            ),
            (long, Content::Disk(data, false)),
        ]),
    }
}

fn untar(archive: &[u8], dir: &std::path::Path) {
    std::fs::create_dir(dir).unwrap();
    let mut tar = Command::new("tar")
        .args(["-x", "-p", "-C"])
        .arg(dir)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    tar.stdin.take().unwrap().write_all(archive).unwrap();
    assert!(tar.wait().unwrap().success());
}

fn json_of(dir: &std::path::Path, descriptor: &Value) -> Value {
    let digest = descriptor["digest"].as_str().unwrap();
    let digest = digest.strip_prefix("sha256:").unwrap();
    let bytes = std::fs::read(dir.join(blob(digest))).unwrap();
    assert_eq!(hex(&Sha256::digest(&bytes)), digest);
    assert_eq!(descriptor["size"], bytes.len());
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn an_archive_leads_from_its_index_to_every_file() {
    let root = tempfile::tempdir().unwrap();
    let mut archive = Vec::new();
    write(&[image(root.path())], &mut archive).unwrap();
    let dir = root.path().join("archive");
    untar(&archive, &dir);
    let index: Value =
        serde_json::from_slice(&std::fs::read(dir.join("index.json")).unwrap()).unwrap();
    let entry = &index["manifests"][0];
    assert_eq!(
        entry["annotations"]["io.containerd.image.name"],
        "registry.example/thing:v1"
    );
    let manifest = json_of(&dir, entry);
    let config = json_of(&dir, &manifest["config"]);
    assert_eq!(config["config"]["Entrypoint"][0], "/usr/bin/program");
    assert_eq!(config["config"]["User"], "65532");
    let layer = &manifest["layers"][0];
    assert_eq!(config["rootfs"]["diff_ids"][0], layer["digest"]);
    let digest = layer["digest"].as_str().unwrap();
    let bytes = std::fs::read(dir.join(blob(&digest["sha256:".len()..]))).unwrap();
    assert_eq!(format!("sha256:{}", hex(&Sha256::digest(&bytes))), digest);
    assert_eq!(layer["size"], bytes.len());
    let files = root.path().join("files");
    untar(&bytes, &files);
    assert_eq!(
        std::fs::read(files.join("usr/bin/program")).unwrap(),
        vec![7; 700]
    );
    let link = std::fs::read_link(files.join("usr/bin/other")).unwrap();
    assert_eq!(link.to_str(), Some("program"));
    let long = files.join(format!("usr/lib/{}/module.so", "x".repeat(95)));
    assert_eq!(std::fs::read_to_string(long).unwrap(), "text");
    let mode = |path: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        let metadata = std::fs::metadata(files.join(path)).unwrap();
        metadata.permissions().mode() & 0o7777
    };
    assert_eq!((mode("usr/bin/program"), mode("tmp")), (0o755, 0o1777));
}

#[test]
fn the_same_content_is_the_same_archive_and_shared_layers_are_in_it_once() {
    let root = tempfile::tempdir().unwrap();
    let first = image(root.path());
    let mut second = first.clone();
    second.name = "registry.example/other:v1".to_owned();
    let mut one = Vec::new();
    write(std::slice::from_ref(&first), &mut one).unwrap();
    let mut again = Vec::new();
    write(std::slice::from_ref(&first), &mut again).unwrap();
    assert_eq!(one, again);
    let mut both = Vec::new();
    write(&[first, second], &mut both).unwrap();
    assert!(
        both.len() < one.len() + 1024,
        "{} {}",
        both.len(),
        one.len()
    );
}

#[test]
fn a_path_that_fits_nowhere_is_refused() {
    assert_eq!(split("a/b").unwrap(), ("", "a/b"));
    let long = format!("{}/{}", "d".repeat(60), "f".repeat(60));
    assert_eq!(split(&long).unwrap().1, "f".repeat(60));
    assert!(split(&"x".repeat(101)).is_err());
}
