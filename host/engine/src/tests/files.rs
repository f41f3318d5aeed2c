//! The `files` capability from the attacker's side: paths, links, pipes, sizes, and directories that are links themselves.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::probe::{engine_below, env, note, wasm};
use crate::{CallEnv, Ceiling, FilesGrant, Grants, Loaded};

/// A directory with something beside it that must not be read.
struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("granted/sub")).unwrap();
        std::fs::create_dir_all(at("granted-not")).unwrap();
        std::fs::write(at("granted/sub/file"), "fine").unwrap();
        std::fs::write(at("granted-not/secret"), "hush").unwrap();
        std::fs::write(at("granted/large"), vec![b'x'; (1 << 20) + 1]).unwrap();
        symlink("../granted-not/secret", at("granted/relative")).unwrap();
        symlink(at("granted-not/secret"), at("granted/absolute")).unwrap();
        symlink("../granted-not", at("granted/directory")).unwrap();
        symlink("sub/file", at("granted/inner")).unwrap();
        symlink("loop", at("granted/loop")).unwrap();
        symlink("granted-not", at("disguised")).unwrap();
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        let pipe = at("granted/pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }
}

async fn below(directories: &[&Path]) -> Arc<Loaded> {
    let ceiling = Ceiling {
        directories: directories.iter().map(|d| (*d).to_owned()).collect(),
        ..Ceiling::default()
    };
    engine_below(ceiling).load(wasm()).await.unwrap()
}

fn granted(directory: &Path) -> CallEnv {
    CallEnv {
        grants: Arc::new(Grants {
            http: env().grants.http.clone(),
            files: Some(FilesGrant::new(directory)),
            ..Grants::default()
        }),
        ..env()
    }
}

async fn read(loaded: &Loaded, env: &CallEnv, path: &str) -> Value {
    note(loaded, env.clone(), json!({"do": "files", "path": path})).await
}

#[tokio::test]
async fn no_path_and_no_link_leads_out_of_the_granted_directory() {
    let tree = Tree::new();
    let loaded = below(&[&tree.path("granted")]).await;
    let env = granted(&tree.path("granted"));
    assert_eq!(read(&loaded, &env, "sub/file").await["ok"], "fine");
    assert_eq!(read(&loaded, &env, "inner").await["ok"], "fine");
    for path in [
        "../granted-not/secret",
        "sub/../../granted-not/secret",
        "relative",
        "absolute",
        "directory/secret",
        "/etc/hostname",
        "sub/./../../x",
        "loop",
        "",
        "sub\0/file",
    ] {
        let answer = read(&loaded, &env, path).await;
        assert!(answer["error"].is_string(), "{path:?}: {answer}");
        let said = answer.to_string();
        let host_path = tree.dir.path().display().to_string();
        assert!(
            !said.contains(&host_path),
            "{said} names a path of the host"
        );
    }
}

#[tokio::test]
async fn a_directory_that_is_swapped_for_a_link_is_not_followed() {
    let tree = Tree::new();
    let loaded = below(&[&tree.path("granted")]).await;
    let env = granted(&tree.path("granted"));
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (sub, aside, stopped) = (
        tree.path("granted/sub"),
        tree.path("granted/aside"),
        stop.clone(),
    );
    let swapping = std::thread::spawn(move || {
        let mut swaps = 0_u32;
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            std::fs::rename(&sub, &aside).unwrap();
            symlink("../granted-not", &sub).unwrap();
            std::fs::remove_file(&sub).unwrap();
            std::fs::rename(&aside, &sub).unwrap();
            swaps += 1;
        }
        swaps
    });
    for _ in 0..40 {
        let answer = note(
            &loaded,
            env.clone(),
            json!({"do": "files", "path": "sub/secret", "times": 60}),
        )
        .await;
        assert!(answer["error"].is_string(), "{answer}");
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(swapping.join().unwrap() > 0);
}

#[tokio::test]
async fn only_regular_files_of_a_bounded_size_are_read() {
    let tree = Tree::new();
    let loaded = below(&[&tree.path("granted")]).await;
    let env = granted(&tree.path("granted"));
    for (path, words) in [
        ("large", "more than 1048576 bytes"),
        ("pipe", "not a regular file"),
        ("sub", "not a regular file"),
        ("none", "NotFound"),
    ] {
        let answer = read(&loaded, &env, path).await;
        let said = answer["error"].as_str().unwrap_or_default();
        assert!(said.contains(words), "{path}: {answer}");
    }
    let many = json!({"do": "files", "path": "sub/file", "times": 65});
    let last = note(&loaded, env.clone(), many).await;
    assert!(
        last["error"].as_str().unwrap().contains("at most 64"),
        "{last}"
    );
    let listed = note(
        &loaded,
        env,
        json!({"do": "files", "list": true, "path": "sub"}),
    )
    .await;
    assert_eq!(listed, json!(["file false 4"]));
}

#[tokio::test]
async fn a_directory_that_the_host_does_not_name_is_not_had() {
    let tree = Tree::new();
    let granted_only = below(&[]).await;
    let denied = read(&granted_only, &granted(&tree.path("granted")), "sub/file").await;
    assert!(
        denied["error"].as_str().unwrap().contains("Denied"),
        "{denied}"
    );
    // Below an allowed directory, a link in its place leads nowhere either.
    let loaded = below(&[&tree.path("granted")]).await;
    let through_link = granted(&tree.path("granted/directory"));
    let answer = read(&loaded, &through_link, "secret").await;
    assert!(answer["error"].is_string(), "{answer}");
    let beside = granted(&tree.path("disguised"));
    let answer = read(&loaded, &beside, "secret").await;
    assert!(
        answer["error"].as_str().unwrap().contains("Denied"),
        "{answer}"
    );
    let sub = granted(&tree.path("granted/sub"));
    assert_eq!(read(&loaded, &sub, "file").await["ok"], "fine");
}
