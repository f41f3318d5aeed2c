//! What is found, listed and removed; a made image is checked where there is one.

use super::*;

fn library(root: &Path) -> Library {
    Library {
        dir: root.join("images"),
        search: Search {
            assets: None,
            path: Vec::new(),
            cache: Some(root.join("toolchain")),
        },
    }
}

/// Puts an image's directories there, as a build would.
fn lay(library: &Library, version: &str) -> Image {
    let recipe = recipe::find(version).unwrap();
    let dir = library.image_dir(recipe);
    fs::create_dir_all(dir.join("node")).unwrap();
    fs::create_dir_all(dir.join("store")).unwrap();
    fs::create_dir_all(library.base_dir(Flavour::Plain)).unwrap();
    let label = Label {
        version: version.to_owned(),
        containers: vec!["registry.example/pause:1".to_owned()],
        built_at: jiff::Timestamp::UNIX_EPOCH,
        bytes: 1,
    };
    fs::write(dir.join("image.json"), serde_json::to_vec(&label).unwrap()).unwrap();
    library.find(version).unwrap()
}

#[test]
fn versions_are_two_minor_versions_in_order() {
    let minor = |version: &str| -> u32 { version.split('.').nth(1).unwrap().parse().unwrap() };
    assert_eq!(VERSIONS[0], toolchain::KUBERNETES_VERSION);
    assert_eq!(minor(VERSIONS[0]), minor(VERSIONS[1]) + 1);
    assert_eq!(recipe::ALL.len(), VERSIONS.len());
}

#[test]
fn an_image_that_is_not_there_says_how_to_build_it() {
    let root = tempfile::tempdir().unwrap();
    let failure = library(root.path()).find(VERSIONS[1]).unwrap_err();
    let command = format!("capstan local images build --version {}", VERSIONS[1]);
    assert!(failure.to_string().contains(&command));
    let failure = library(root.path()).find("v1.2.3").unwrap_err();
    assert!(matches!(&failure, Error::UnknownVersion { asked } if asked == "v1.2.3"));
    assert!(failure.to_string().contains(VERSIONS[0]));
}

#[test]
fn an_image_is_found_listed_and_removed() {
    let root = tempfile::tempdir().unwrap();
    let library = library(root.path());
    let image = lay(&library, VERSIONS[0]);
    assert_eq!(image.lower.len(), 2);
    assert!(image.lower[0].ends_with("node"));
    assert_eq!(image.lower[1], library.base_dir(Flavour::Plain));
    let listed = library.list().unwrap();
    assert!(listed[0].image.is_some() && listed[1].image.is_none());
    fs::create_dir(library.dir.join("v1.30.0-000000000000")).unwrap();
    let quiet = Progress::default();
    assert_eq!(library.remove(true, &quiet).unwrap(), 1);
    assert_eq!(library.find(VERSIONS[0]).unwrap(), image);
    assert_eq!(library.remove(false, &quiet).unwrap(), 2);
    assert!(matches!(
        library.find(VERSIONS[0]),
        Err(Error::NotBuilt { .. })
    ));
}

#[test]
fn an_image_without_its_base_is_absent() {
    let root = tempfile::tempdir().unwrap();
    let library = library(root.path());
    lay(&library, VERSIONS[0]);
    fs::remove_dir(library.base_dir(Flavour::Plain)).unwrap();
    assert!(matches!(
        library.find(VERSIONS[0]),
        Err(Error::NotBuilt { .. })
    ));
}

#[test]
fn every_input_changes_the_name_of_what_is_made() {
    let name = |inputs: &[&str]| {
        let inputs: Vec<String> = inputs.iter().map(|text| (*text).to_owned()).collect();
        named("base", &inputs)
    };
    assert_ne!(name(&["a", "bc"]), name(&["ab", "c"]));
    assert_ne!(name(&["a"]), name(&["a", ""]));
    assert_eq!(name(&["a"]), name(&["a"]));
}

#[test]
fn a_file_with_two_names_counts_once() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("one"), vec![1; 100_000]).unwrap();
    let once = bytes_below(root.path()).unwrap();
    fs::hard_link(root.path().join("one"), root.path().join("two")).unwrap();
    assert_eq!(bytes_below(root.path()).unwrap(), once);
}

/// Images are built by hand or by the quickstart, never by this test.
#[test]
fn a_built_image_holds_what_machines_need() {
    for version in VERSIONS {
        let image = match find(version) {
            Ok(image) => image,
            Err(failure) => {
                eprintln!("skipped: {failure}");
                continue;
            }
        };
        for (lower, file) in [
            (0, "usr/bin/kubelet"),
            (0, "usr/bin/kubeadm"),
            (0, "usr/local/bin/containerd"),
            (0, "etc/containerd/config.toml"),
            (1, "usr/sbin/runc"),
            (1, "opt/cni/bin/bridge"),
            (1, "usr/bin/socat"),
            (1, "bin/bash"),
        ] {
            let path = image.lower[lower].join(file);
            assert!(path.exists(), "{} is missing", path.display());
        }
        let pause = image
            .containers
            .iter()
            .find(|name| name.contains("/pause:"))
            .unwrap();
        let config = fs::read_to_string(image.lower[0].join("etc/containerd/config.toml")).unwrap();
        assert!(config.contains(&format!("sandbox = \"{pause}\"")));
        // What kubeadm asks for, kube-proxy and CoreDNS of the other version, and the sample.
        assert_eq!(image.containers.len(), 10);
        for version in VERSIONS {
            let proxy = format!("/kube-proxy:{version}");
            let has = image.containers.iter().any(|name| name.ends_with(&proxy));
            assert!(has, "{proxy} is not in the store of {}", image.version);
        }
        assert!(
            image
                .store
                .join("io.containerd.metadata.v1.bolt/meta.db")
                .is_file()
        );
        let snapshots = image
            .store
            .join("io.containerd.snapshotter.v1.overlayfs/snapshots");
        assert_eq!(fs::read_dir(snapshots).unwrap().count(), 10);
    }
}
