//! The host's image, as far as it can be made without a registry of base images: what its Containerfile collects around the program is all
//! that the program needs, for somebody without rights on a file system with nothing else.

use std::path::Path;
use std::process::Command;

use capstan_tests::wasm;

/// The commands of the Containerfile that come after the build, for another program and another directory.
fn collecting(program: &Path, image: &Path) -> String {
    let text = std::fs::read_to_string(wasm::root().join("host/Containerfile")).unwrap();
    let text = text.replace("\\\n", " ");
    let run = text
        .lines()
        .find_map(|line| line.strip_prefix("RUN "))
        .unwrap();
    let (build, rest) = run.split_once("&&").unwrap();
    assert!(
        build.contains("--locked") && build.contains("-p capstan --bin capstan"),
        "{build}"
    );
    assert!(rest.contains("target/release/capstan "), "{rest}");
    rest.replace(
        "target/release/capstan ",
        &format!("{} ", program.display()),
    )
    .replace("/image", image.to_str().unwrap())
}

#[test]
fn the_image_has_all_that_the_program_needs_and_nothing_else() {
    let own = tempfile::tempdir().unwrap();
    let image = own.path().join("image");
    let script = format!("set -e\n{}", collecting(&wasm::program(), &image));
    let made = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(
        made.status.success(),
        "{script}\n{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let linked = Command::new("ldd").arg(wasm::program()).output().unwrap();
    let linked = String::from_utf8(linked.stdout).unwrap();
    let mut wanted: Vec<&str> = linked
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .collect();
    assert!(!wanted.is_empty(), "{linked}");
    wanted.push("/capstan");
    for path in &wanted {
        assert!(image.join(path.trim_start_matches('/')).is_file(), "{path}");
    }
    let files = Command::new("find")
        .arg(&image)
        .args(["-type", "f"])
        .output()
        .unwrap();
    let files = String::from_utf8(files.stdout).unwrap();
    assert_eq!(files.lines().count(), wanted.len(), "{files}");

    // As the user of the image; where that is not allowed, as whoever this is.
    let is_root = std::fs::read_to_string("/proc/self/status")
        .unwrap()
        .contains("Uid:\t0\t");
    let mut program = if is_root {
        let mut program = Command::new("chroot");
        program.args(["--userspec", "65532:65532"]);
        program
    } else {
        let mut program = Command::new("unshare");
        program.args(["--user", "--map-root-user", "chroot"]);
        program
    };
    let readable = ["-R", "a+rX"];
    let opened = Command::new("chmod")
        .args(readable)
        .arg(own.path())
        .status()
        .unwrap();
    assert!(opened.success());
    let said = program
        .arg(&image)
        .args(["/capstan", "version"])
        .output()
        .unwrap();
    let (text, trouble) = (
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr),
    );
    assert!(
        said.status.success() && text.contains("0.1.0"),
        "{text} {trouble}"
    );
}

#[test]
fn what_is_built_from_is_not_ignored() {
    let ignored =
        std::fs::read_to_string(wasm::root().join("host/Containerfile.dockerignore")).unwrap();
    let ignored: Vec<&str> = ignored.lines().map(|line| line.trim_matches('/')).collect();
    assert!(ignored.contains(&"target"), "{ignored:?}");
    for needed in [
        "Cargo.toml",
        "Cargo.lock",
        "host",
        "sdk-guest",
        "wit",
        "plugins",
        "examples",
        "tests",
    ] {
        assert!(!ignored.contains(&needed), "the workspace needs {needed}");
    }
}
