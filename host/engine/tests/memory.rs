//! Large components, packed or not, leave none of their bytes in the host's memory once they are loaded.

#![expect(
    unsafe_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    reason = "tests, with an allocator that counts"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use capstan_engine::{Engine, EngineOptions};

/// What each component has that is neither code nor data of its guest.
const PADDING_BYTES: usize = 8 << 20;

/// The system's allocator, and how many bytes are taken from it.
struct Counting;

static TAKEN: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: all of it is the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as our caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as our caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// A provider with so many bytes more that cannot be packed any smaller.
fn padded(number: u8, bytes: usize) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let path = target.join("wasm32-wasip2/plugin/minimal_infrastructure.wasm");
    let mut wasm = std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}\nrun `just plugins`", path.display()));
    // A custom section: its length, the length of its name, its name, its content.
    wasm.push(0);
    let mut length = bytes + 2;
    while length > 0x7f {
        wasm.push(0x80 | u8::try_from(length & 0x7f).unwrap());
        length >>= 7;
    }
    wasm.extend([u8::try_from(length).unwrap(), 1, b'n']);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(number);
    wasm.extend((0..bytes).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    }));
    wasm
}

fn gzip(wasm: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(wasm).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn the_bytes_of_large_sources_are_gone_when_they_are_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::new(EngineOptions::for_tests(dir.path().join("cache"))).unwrap();
    // What the first one of all leaves is the engine's.
    let first = engine.load(Bytes::from(padded(0, 0))).await.unwrap();
    let before = TAKEN.load(Ordering::Relaxed);
    let (plain, second, third) = (
        padded(1, PADDING_BYTES),
        padded(2, PADDING_BYTES),
        padded(3, PADDING_BYTES),
    );
    let packed = [
        plain,
        gzip(&second),
        zstd::encode_all(third.as_slice(), 1).unwrap(),
    ];
    drop((second, third));
    let mut all = vec![first];
    for source in packed {
        let loaded = engine.load(Bytes::from(source)).await.unwrap();
        assert!(loaded.source_bytes() > u64::try_from(PADDING_BYTES).unwrap());
        all.push(loaded);
    }
    let left = TAKEN.load(Ordering::Relaxed).saturating_sub(before);
    println!("{left} bytes for three components");
    assert!(
        left < PADDING_BYTES / 2,
        "{left} bytes are left of three sources"
    );
    // And not because they were dropped.
    assert!(
        all.iter()
            .all(|loaded| loaded.manifest().name == all[0].manifest().name)
    );
}
