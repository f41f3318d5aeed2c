//! From the bytes of a source to a component that is safe to compile: unpacked within bounds, whole, of the right kind.

use std::collections::BTreeSet;
use std::io::Read;

use bytes::Bytes;
use capstan_core::call::manifest::PluginKind;
use sha2::{Digest, Sha256};
use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};

use crate::error::LoadError;
use crate::limit::{
    COMPONENT_BYTES_MAX, SOURCE_BYTES_MAX, TEXT_BYTES_MAX, UNPACK_RATIO_FREE_BYTES,
    UNPACK_RATIO_MAX, ZSTD_WINDOW_LOG_MAX,
};
use crate::text::one_line;

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const WASM_MAGIC: &[u8] = b"\0asm";

/// Our package in the names of imports and exports.
const PACKAGE: &str = "capstan:plugin/";
/// The version of [`PACKAGE`] that this host serves, without its patch level.
const VERSION: &str = "0.1.";
/// What a message says of [`VERSION`].
pub(crate) const SUPPORTED: &str = "capstan:plugin@0.1";

/// Interfaces of types only, which a component may import freely.
const TYPE_INTERFACES: [&str; 2] = ["types", "material"];

/// A component that has passed every check that needs no compiler.
#[derive(Clone, Debug)]
pub(crate) struct Verified {
    /// Unpacked.
    pub(crate) wasm: Bytes,
    /// `sha256:<hex>` of `wasm`.
    pub(crate) digest: String,
    /// Names of capabilities that the binary imports.
    pub(crate) imports: BTreeSet<String>,
    /// Plugin interfaces that it exports.
    pub(crate) kinds: BTreeSet<PluginKind>,
}

/// Unpacks and checks a source. Blocks for milliseconds; call it where that is allowed.
pub(crate) fn verify(source: &Bytes) -> Result<Verified, LoadError> {
    let wasm = unpack(source)?;
    check_layer(&wasm)?;
    let (imports, exports) = walk(&wasm)?;
    let imports = check_imports(&imports)?;
    let kinds = check_exports(&exports)?;
    let digest = digest_of(&wasm);
    Ok(Verified {
        wasm,
        digest,
        imports,
        kinds,
    })
}

/// Lower-case hexadecimal digits.
/// `sha256:<hex>` of these bytes.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// How a source is packed, by its first bytes.
pub(crate) fn packing(source: &[u8]) -> &'static str {
    if source.starts_with(GZIP_MAGIC) {
        "gzip"
    } else if source.starts_with(ZSTD_MAGIC) {
        "zstd"
    } else {
        "plain"
    }
}

/// Plain bytes of a source.
pub(crate) fn unpack(source: &Bytes) -> Result<Bytes, LoadError> {
    if source.len() > SOURCE_BYTES_MAX {
        return Err(LoadError::TooLarge {
            what: "source",
            limit: SOURCE_BYTES_MAX,
        });
    }
    if source.starts_with(GZIP_MAGIC) {
        return bounded(
            flate2::read::MultiGzDecoder::new(source.as_ref()),
            source.len(),
            "gzip",
        );
    }
    if source.starts_with(ZSTD_MAGIC) {
        let unusable = |e: std::io::Error| LoadError::Unpack {
            format: "zstd",
            why: e.to_string(),
        };
        let mut decoder = zstd::stream::read::Decoder::new(source.as_ref()).map_err(unusable)?;
        decoder
            .window_log_max(ZSTD_WINDOW_LOG_MAX)
            .map_err(unusable)?;
        return bounded(decoder, source.len(), "zstd");
    }
    Ok(source.clone())
}

fn bounded(decoder: impl Read, packed: usize, format: &'static str) -> Result<Bytes, LoadError> {
    let by_ratio = packed
        .saturating_mul(UNPACK_RATIO_MAX)
        .max(UNPACK_RATIO_FREE_BYTES);
    let limit = by_ratio.min(COMPONENT_BYTES_MAX);
    let mut unpacked = Vec::new();
    let mut limited = decoder.take(u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1));
    limited
        .read_to_end(&mut unpacked)
        .map_err(|e| LoadError::Unpack {
            format,
            why: one_line(&e.to_string(), TEXT_BYTES_MAX),
        })?;
    if unpacked.len() <= limit {
        return Ok(Bytes::from(unpacked));
    }
    Err(if limit < COMPONENT_BYTES_MAX {
        LoadError::Bomb {
            ratio: UNPACK_RATIO_MAX,
            packed,
        }
    } else {
        LoadError::TooLarge {
            what: "unpacked component",
            limit: COMPONENT_BYTES_MAX,
        }
    })
}

/// A component, and not one of the things that are mistaken for one.
pub(crate) fn check_layer(wasm: &[u8]) -> Result<(), LoadError> {
    if wasmtime::Engine::detect_precompiled(wasm).is_some() || wasm.starts_with(b"\x7fELF") {
        return Err(LoadError::Precompiled);
    }
    if !wasm.starts_with(WASM_MAGIC) {
        if !wasm.is_empty() && WASM_MAGIC.starts_with(wasm) {
            return Err(LoadError::Truncated { at: wasm.len() });
        }
        let begin = wasm.get(..wasm.len().min(16)).unwrap_or_default();
        let begins = if begin.is_empty() {
            "nothing".to_owned()
        } else {
            format!("\"{}\"", begin.escape_ascii())
        };
        return Err(LoadError::NotWasm { begins });
    }
    match wasm.get(4..8) {
        None => Err(LoadError::Truncated { at: wasm.len() }),
        Some([_, _, 0, 0]) => Err(LoadError::CoreModule),
        Some(_) => Ok(()),
    }
}

/// Reads and validates every section, nested ones too, and collects the names of the outermost imports and exports.
pub(crate) fn walk(wasm: &[u8]) -> Result<(Vec<String>, Vec<String>), LoadError> {
    let malformed = |e: &wasmparser::BinaryReaderError| {
        if e.message().contains("async feature") {
            return LoadError::InterfaceMismatch {
                interface: "asynchronous functions".to_owned(),
                why: "plugins have synchronous ones only: build it without the component model's async".to_owned(),
            };
        }
        if e.message().contains("unexpected end") {
            return LoadError::Truncated { at: wasm.len() };
        }
        LoadError::Malformed {
            at: e.offset(),
            why: one_line(e.message(), TEXT_BYTES_MAX),
        }
    };
    // What the engine does not have is named here, not by the compiler.
    let features = WasmFeatures::default().difference(WasmFeatures::CM_ASYNC);
    Validator::new_with_features(features)
        .validate_all(wasm)
        .map_err(|e| malformed(&e))?;
    let mut imports = Vec::new();
    let mut exports = Vec::new();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(|e| malformed(&e))? {
            Payload::Version {
                encoding: Encoding::Module,
                ..
            } if depth == 0 => {
                return Err(LoadError::CoreModule);
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                depth = depth.saturating_add(1);
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(import.map_err(|e| malformed(&e))?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export.map_err(|e| malformed(&e))?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}

/// `Some((interface, version))` when the name is of our package.
fn ours(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(PACKAGE)?.split_once('@')
}

fn check_imports(names: &[String]) -> Result<BTreeSet<String>, LoadError> {
    let mut capabilities = BTreeSet::new();
    for name in names {
        let unknown = || LoadError::UnknownImport {
            name: one_line(name, TEXT_BYTES_MAX),
        };
        if let Some((interface, version)) = ours(name) {
            if !version.starts_with(VERSION) {
                return Err(unsupported(name));
            }
            if crate::grant::CAPABILITIES.contains(&interface) {
                capabilities.insert(interface.to_owned());
            } else if !TYPE_INTERFACES.contains(&interface) {
                return Err(unknown());
            }
        } else if !is_emptied_wasi(name) {
            return Err(unknown());
        }
    }
    Ok(capabilities)
}

/// The interfaces of WASI that are linked, and emptied.
fn is_emptied_wasi(name: &str) -> bool {
    let Some((interface, version)) = name.split_once('@') else {
        return false;
    };
    let known = [
        "wasi:cli/",
        "wasi:clocks/",
        "wasi:filesystem/",
        "wasi:io/",
        "wasi:random/",
        "wasi:sockets/",
    ];
    version.starts_with("0.2.") && known.iter().any(|prefix| interface.starts_with(prefix))
}

fn unsupported(name: &str) -> LoadError {
    LoadError::AbiUnsupported {
        found: one_line(name, TEXT_BYTES_MAX),
        supported: SUPPORTED,
    }
}

fn check_exports(names: &[String]) -> Result<BTreeSet<PluginKind>, LoadError> {
    let mut kinds = BTreeSet::new();
    let mut manifest = false;
    for name in names {
        let Some((interface, version)) = ours(name) else {
            continue;
        };
        if !version.starts_with(VERSION) {
            return Err(unsupported(name));
        }
        manifest |= interface == "manifest";
        kinds.extend(
            PluginKind::ALL
                .into_iter()
                .filter(|kind| kind.as_str() == interface),
        );
    }
    match (kinds.is_empty(), manifest) {
        (true, _) => Err(LoadError::NoPluginInterface),
        (false, false) => Err(LoadError::MissingInterface {
            interface: "manifest",
        }),
        (false, true) => Ok(kinds),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::error::LoadCondition;

    /// The smallest component: a header.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    fn refused(bytes: impl Into<Vec<u8>>) -> LoadError {
        verify(&Bytes::from(bytes.into())).unwrap_err()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_is_no_wasm_is_named_by_how_it_begins() {
        let error = refused("#!/bin/sh\necho");
        assert_eq!(
            error,
            LoadError::NotWasm {
                begins: r##""#!/bin/sh\necho""##.to_owned()
            }
        );
        assert!(matches!(refused(""), LoadError::NotWasm { .. }));
    }

    #[test]
    fn a_core_module_is_not_a_component() {
        assert_eq!(refused(*b"\0asm\x01\0\0\0"), LoadError::CoreModule);
    }

    #[test]
    fn native_code_is_never_accepted() {
        assert_eq!(refused(*b"\x7fELF\x02\x01\x01rest"), LoadError::Precompiled);
    }

    #[test]
    fn asynchronous_functions_are_refused_with_what_to_do() {
        let mut functions = wasm_encoder::CanonicalFunctionSection::new();
        functions.task_return(None, []);
        let mut component = wasm_encoder::Component::new();
        component.section(&functions);
        let error = refused(component.finish());
        assert_eq!(error.condition().0, LoadCondition::Compatible);
        let said = error.to_string();
        assert!(
            said.contains("asynchronous") && said.contains("without"),
            "{said}"
        );
    }

    #[test]
    fn a_half_header_is_truncated() {
        assert_eq!(refused(*b"\0as"), LoadError::Truncated { at: 3 });
        assert_eq!(refused(*b"\0asm\x0d"), LoadError::Truncated { at: 5 });
    }

    #[test]
    fn a_component_of_nothing_is_no_plugin() {
        assert_eq!(refused(EMPTY), LoadError::NoPluginInterface);
        assert_eq!(refused(gzip(EMPTY)), LoadError::NoPluginInterface);
        assert_eq!(
            refused(zstd::encode_all(EMPTY, 3).unwrap()),
            LoadError::NoPluginInterface
        );
    }

    #[test]
    fn twenty_megabytes_are_too_large() {
        let error = refused(vec![0; 20 << 20]);
        assert_eq!(
            error,
            LoadError::TooLarge {
                what: "source",
                limit: SOURCE_BYTES_MAX
            }
        );
    }

    #[test]
    fn bombs_are_refused_before_they_fill_memory() {
        let zeros = vec![0; 64 << 20];
        assert!(matches!(refused(gzip(&zeros)), LoadError::Bomb { .. }));
        assert!(matches!(
            refused(zstd::encode_all(zeros.as_slice(), 3).unwrap()),
            LoadError::Bomb { .. }
        ));
    }

    #[test]
    fn damaged_packing_is_named() {
        let mut packed = gzip(&[7; 1000]);
        packed.truncate(packed.len() / 2);
        assert!(matches!(
            refused(packed),
            LoadError::Unpack { format: "gzip", .. }
        ));
    }

    #[test]
    fn garbage_after_the_header_is_malformed() {
        let bytes = [EMPTY, &[0x7f, 0x01, 0x00]].concat();
        assert!(matches!(refused(bytes), LoadError::Malformed { .. }));
    }

    #[test]
    fn names_decide_what_is_imported() {
        let check = |names: &[&str]| {
            check_imports(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())
        };
        let fine = check(&[
            "capstan:plugin/types@0.1.0",
            "capstan:plugin/http@0.1.3",
            "wasi:io/streams@0.2.6",
        ]);
        assert_eq!(fine.unwrap(), BTreeSet::from(["http".to_owned()]));
        for unknown in [
            "wasi:http/outgoing-handler@0.2.0",
            "env",
            "capstan:plugin/shell@0.1.0",
            "wasi:io/streams@0.3.0",
        ] {
            assert_eq!(
                check(&[unknown]),
                Err(LoadError::UnknownImport {
                    name: unknown.to_owned()
                })
            );
        }
        assert!(matches!(
            check(&["capstan:plugin/http@0.2.0"]),
            Err(LoadError::AbiUnsupported { .. })
        ));
    }

    #[test]
    fn a_plugin_has_a_kind_and_a_manifest() {
        let check = |names: &[&str]| {
            check_exports(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(
            check(&["capstan:plugin/manifest@0.1.0"]),
            Err(LoadError::NoPluginInterface)
        );
        assert_eq!(
            check(&["capstan:plugin/bootstrap@0.1.0"]),
            Err(LoadError::MissingInterface {
                interface: "manifest"
            })
        );
        assert!(matches!(
            check(&["capstan:plugin/bootstrap@1.0.0"]),
            Err(LoadError::AbiUnsupported { .. })
        ));
    }
}
