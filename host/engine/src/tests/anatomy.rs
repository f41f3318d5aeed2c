//! A component taken apart.

use bytes::Bytes;

use super::probe;
use crate::anatomy;

#[test]
fn a_component_is_taken_apart_packed_or_not() {
    let wasm = probe::wasm();
    let plain = anatomy(&wasm).unwrap();
    assert_eq!(plain.packing, "plain");
    let has = |names: &[String], wanted: &str| names.iter().any(|name| name.starts_with(wanted));
    assert!(has(&plain.exports, "capstan:plugin/manifest@0.1.0"));
    assert!(has(&plain.imports, "wasi:"));
    let total = u64::try_from(wasm.len()).unwrap();
    assert!(plain.code_bytes > total / 4 && plain.code_bytes < total);
    let crates = &plain.crates;
    assert!(
        crates.iter().any(|(name, _)| name == "serde_json"),
        "{crates:?}"
    );
    assert_eq!(plain.debug_bytes, 0);
    let packed = anatomy(&Bytes::from(zstd::encode_all(wasm.as_ref(), 1).unwrap())).unwrap();
    assert_eq!(packed.packing, "zstd");
    assert_eq!((packed.digest, packed.crates), (plain.digest, plain.crates));
    assert!(anatomy(&Bytes::from_static(b"text")).is_err());
}
