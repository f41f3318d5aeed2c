//! The built plugins and guests, and what can be made of them: packed, cut short, patched.

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The plugins that a usual host has.
pub const PLUGINS: [&str; 5] = [
    "infrastructure-local",
    "bootstrap-kubeadm",
    "control-plane-kubeadm",
    "upgrade-rolling-update",
    "upgrade-on-delete",
];

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Where cargo builds.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A built plugin or guest, by the name of its package.
///
/// # Panics
/// When it has not been built.
pub fn component(package: &str) -> Vec<u8> {
    let file = format!("{}.wasm", package.replace('-', "_"));
    let path = target_dir().join("wasm32-wasip2/plugin").join(file);
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}\nrun `just plugins`", path.display()))
}

/// A component packed with gzip, as it goes into a ConfigMap.
pub fn gzip(component: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(component).unwrap();
    encoder.finish().unwrap()
}

/// A component packed with zstd.
pub fn zstd(component: &[u8]) -> Vec<u8> {
    zstd::encode_all(component, 3).unwrap()
}

/// A component with every occurrence of a text replaced by one of the same length.
///
/// # Panics
/// When the lengths differ or the text does not occur.
pub fn patched(component: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = component.to_vec();
    let places: Vec<usize> = (0..bytes.len())
        .filter(|at| bytes[*at..].starts_with(from.as_bytes()))
        .collect();
    assert!(!places.is_empty(), "the component does not contain {from}");
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}

/// The probe guest with another manifest (`tests/guests/engine-probe` lists them).
pub fn probe_with_manifest(mode: &str) -> Vec<u8> {
    let wanted = format!("{:.<24}", format!("capstan-manifest:{mode}"));
    patched(
        &component("engine-probe"),
        "capstan-manifest:plain..",
        &wanted,
    )
}

/// The probe guest as another version, which behaves otherwise (`tests/guests/engine-probe` lists the ways).
pub fn probe_that(behaves: &str) -> Vec<u8> {
    let wanted = format!("{:.<24}", format!("capstan-behaves:{behaves}"));
    patched(
        &component("engine-probe"),
        "capstan-behaves:plain...",
        &wanted,
    )
}

/// The program `capstan`, built with the profile of this test.
///
/// # Panics
/// When it has not been built.
pub fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    // target/<profile>/deps/<test>-<hash>
    let dir = own.parent().and_then(Path::parent).unwrap();
    let program = dir.join("capstan");
    assert!(
        program.is_file(),
        "{} is missing\nrun `just build`",
        program.display()
    );
    program
}
