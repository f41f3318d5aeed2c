//! What a component is made of, found without compiling it: its imports and exports by name, and where its bytes are.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use wasmparser::{Encoding, KnownCustom, Name, Parser, Payload, TypeRef};

use crate::error::LoadError;
use crate::source::{check_layer, hex, packing, unpack, walk};

/// Crates that are listed: what is behind them is small.
const CRATES_MAX: usize = 12;

/// Symbols are cut here before they are read: longer ones are generic code of a crate that their beginning names.
const SYMBOL_BYTES_MAX: usize = 4096;

/// The parts of a component.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Anatomy {
    /// `plain`, `gzip` or `zstd`.
    pub packing: &'static str,
    /// The unpacked component.
    pub wasm: Bytes,
    /// `sha256:<hex>` of the unpacked component.
    pub digest: String,
    /// Names of what it imports, as in the binary.
    pub imports: Vec<String>,
    /// Names of what it exports, as in the binary.
    pub exports: Vec<String>,
    /// Bytes of functions.
    pub code_bytes: u64,
    /// Bytes of constants and tables of constants.
    pub data_bytes: u64,
    /// Bytes of the names of functions, which make backtraces readable.
    pub name_bytes: u64,
    /// Bytes of debugging information, which nothing uses.
    pub debug_bytes: u64,
    /// Bytes of functions by the crate that they come from, the largest first. Empty without names.
    pub crates: Vec<(String, u64)>,
}

/// Takes a source apart: plain, gzip or zstd.
///
/// # Errors
/// When it is not a component, or not a valid one.
pub fn anatomy(source: &Bytes) -> Result<Anatomy, LoadError> {
    let wasm = unpack(source)?;
    check_layer(&wasm)?;
    let (imports, exports) = walk(&wasm)?;
    let mut found = Anatomy {
        packing: packing(source),
        digest: format!("sha256:{}", hex(&Sha256::digest(&wasm))),
        imports,
        exports,
        ..Anatomy::default()
    };
    let mut crates = BTreeMap::new();
    let mut module = Module::default();
    // It was validated above: what cannot be read any more is not counted.
    for payload in Parser::new(0).parse_all(&wasm).flatten() {
        match payload {
            Payload::Version {
                encoding: Encoding::Module,
                ..
            } => module = Module::default(),
            Payload::ImportSection(section) => {
                let imports = section.into_imports().flatten();
                let functions = imports.filter(|import| matches!(import.ty, TypeRef::Func(_)));
                module.imported = functions.count();
            }
            Payload::CodeSectionStart { range, .. } => add(&mut found.code_bytes, &range),
            Payload::CodeSectionEntry(body) => module.sizes.push(body.range().len()),
            Payload::DataSection(section) => add(&mut found.data_bytes, &section.range()),
            Payload::CustomSection(section) => match section.as_known() {
                KnownCustom::Name(names) => {
                    add(&mut found.name_bytes, &section.range());
                    for part in names.into_iter().flatten() {
                        if let Name::Function(map) = part {
                            for named in map.into_iter().flatten() {
                                module.count(named.index, named.name, &mut crates);
                            }
                        }
                    }
                }
                _ if section.name().starts_with(".debug") => {
                    add(&mut found.debug_bytes, &section.range());
                }
                _ => {}
            },
            _ => {}
        }
    }
    found.crates = crates.into_iter().collect();
    found
        .crates
        .sort_by(|(a, more), (b, less)| less.cmp(more).then_with(|| a.cmp(b)));
    found.crates.truncate(CRATES_MAX);
    found.wasm = wasm;
    Ok(found)
}

fn add(sum: &mut u64, range: &Range<usize>) {
    *sum = sum.saturating_add(u64::try_from(range.len()).unwrap_or(u64::MAX));
}

/// What is known of the core module that is being read.
#[derive(Default)]
struct Module {
    imported: usize,
    sizes: Vec<usize>,
}

impl Module {
    fn count(&self, index: u32, symbol: &str, crates: &mut BTreeMap<String, u64>) {
        let place = usize::try_from(index)
            .ok()
            .and_then(|index| index.checked_sub(self.imported));
        let Some(size) = place.and_then(|place| self.sizes.get(place)) else {
            return;
        };
        let sum = crates.entry(crate_of(symbol)).or_default();
        *sum = sum.saturating_add(u64::try_from(*size).unwrap_or(u64::MAX));
    }
}

/// The crate that a function comes from, by its symbol.
fn crate_of(symbol: &str) -> String {
    let cut = crate::text::clipped(symbol, SYMBOL_BYTES_MAX);
    let name = format!("{:#}", rustc_demangle::demangle(cut));
    let begin = name.trim_start_matches(['<', '&', '(', '[', '*']);
    let begin = begin.strip_prefix("dyn ").unwrap_or(begin);
    let begin = begin.strip_prefix("mut ").unwrap_or(begin);
    match begin.split_once("::") {
        Some((name, _))
            if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') =>
        {
            name.to_owned()
        }
        _ => "(other)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_name_their_crate() {
        let of = |symbol: &str| crate_of(symbol);
        assert_eq!(
            of("_ZN10serde_json2de10from_slice17h0123456789abcdefE"),
            "serde_json"
        );
        assert_eq!(of("_RNvCsd4VbVFsNKnl_7example4main"), "example");
        assert_eq!(of("memcpy"), "(other)");
        assert_eq!(of(""), "(other)");
        assert_eq!(of("<alloc::vec::Vec<T> as core::ops::Drop>::drop"), "alloc");
    }
}
