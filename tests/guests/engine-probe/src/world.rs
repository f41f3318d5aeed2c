//! What the probe sees of the world without any capability, and of its own memory.

use serde_json::{Value, json};

/// What can be seen of the world without any capability.
pub(crate) fn ambient() -> Value {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map(|d| u64::try_from(d.as_millis()).unwrap_or(0))
        .unwrap_or(0);
    // The keys of a hash map are seeded from the world's randomness.
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(1_u8);
    json!({
        "now": now,
        "random": random.to_string(),
        "env": std::env::vars().count(),
        "args": std::env::args().count(),
        "files": std::fs::read_dir("/").is_ok() || std::fs::read("/etc/hostname").is_ok(),
        "sockets": std::net::TcpStream::connect("127.0.0.1:1").is_ok()
            || std::net::TcpListener::bind("127.0.0.1:0").is_ok()
            || std::net::UdpSocket::bind("127.0.0.1:0").is_ok(),
    })
}

/// How often bytes occur in all of the guest's memory. They come inverted, so that asking does not put them there.
pub(crate) fn occurrences(inverted: &[u8]) -> usize {
    let pages = core::arch::wasm32::memory_size(0);
    let start = core::ptr::without_provenance::<u8>(1);
    // SAFETY: all of the linear memory but its first byte exists, and nothing writes to it meanwhile.
    let memory = unsafe { core::slice::from_raw_parts(start, pages * 65_536 - 1) };
    let is_found = |window: &&[u8]| window.iter().zip(inverted).all(|(a, b)| *a == !*b);
    memory.windows(inverted.len()).filter(is_found).count()
}

/// Calls itself until something stops it.
#[inline(never)]
pub(crate) fn recurse(depth: u64) -> u64 {
    let deeper = core::hint::black_box(depth).wrapping_add(1);
    if deeper == 0 {
        return deeper;
    }
    recurse(deeper).wrapping_add(core::hint::black_box(depth))
}

/// Opens resource handles of WASI until something stops it, and gives none back.
pub(crate) fn leak_handles() -> Result<Value, crate::capstan::plugin::types::Failure> {
    #[link(wasm_import_module = "wasi:cli/stdout@0.2.6")]
    unsafe extern "C" {
        #[link_name = "get-stdout"]
        fn get_stdout() -> i32;
    }
    let mut opened = 0_u64;
    loop {
        // SAFETY: the function takes nothing and gives the number of a handle.
        core::hint::black_box(unsafe { get_stdout() });
        opened += 1;
        if opened > 1_000_000 {
            return Ok(json!(opened));
        }
    }
}

/// How often this was called in this memory.
pub(crate) fn remember() -> Value {
    use std::sync::atomic::{AtomicU64, Ordering};
    static CALLS: AtomicU64 = AtomicU64::new(0);
    json!(CALLS.fetch_add(1, Ordering::Relaxed) + 1)
}

/// How often a pattern is in fresh memory; afterwards 4 MiB are full of it.
pub(crate) fn look_back(config: &Value) -> Value {
    const BYTES: usize = 4 << 20;
    let inverted: Vec<u8> = serde_json::from_value(config["inverted"].clone()).unwrap_or_default();
    // Grown and never touched: what is in it comes from whoever had it before.
    core::arch::wasm32::memory_grow(0, BYTES / 65_536);
    let found = occurrences(&inverted);
    let pattern: Vec<u8> = inverted.iter().map(|byte| !byte).collect();
    let filled = pattern.repeat(BYTES / pattern.len().max(1));
    core::hint::black_box(&filled);
    core::mem::forget(filled);
    json!(found)
}

/// How much time passes while it computes and sleeps, by both clocks.
pub(crate) fn timer() -> Value {
    let (steady, wall) = (std::time::Instant::now(), std::time::SystemTime::now());
    let mut sum = 0_u64;
    for turn in 0..20_000_000_u64 {
        sum = core::hint::black_box(sum.wrapping_add(turn));
    }
    let passed = wall.elapsed().map_or(u128::MAX, |passed| passed.as_nanos());
    json!({"steady": steady.elapsed().as_nanos() as u64, "wall": passed as u64})
}
