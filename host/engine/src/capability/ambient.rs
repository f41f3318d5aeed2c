//! The emptied world of WASI: no environment, arguments, files or sockets; the call's `now` as the only clock; randomness that
//! the call's inputs decide; standard error kept for the message of a panic.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx};

use crate::limit::{RANDOM_BYTES_MAX, STDERR_BYTES_MAX};
use crate::text::one_line;

/// The world of one call.
pub(crate) fn world(now_ms: u64, seed: &[u8], stderr: Stderr) -> WasiCtx {
    let now = Duration::from_millis(now_ms);
    let draw = |purpose: &[u8]| -> [u8; 32] {
        Sha256::new()
            .chain_update(purpose)
            .chain_update(seed)
            .finalize()
            .into()
    };
    let mut half = [0_u8; 16];
    for (to, from) in half.iter_mut().zip(draw(b"insecure-seed")) {
        *to = from;
    }
    WasiCtx::builder()
        .stderr(stderr)
        .wall_clock(StoppedClock(now))
        .monotonic_clock(StoppedClock(now))
        .secure_random(StdRng::from_seed(draw(b"random")))
        .insecure_random(StdRng::from_seed(draw(b"insecure")))
        .insecure_random_seed(u128::from_le_bytes(half))
        .max_random_size(RANDOM_BYTES_MAX)
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .build()
}

/// Shows one instant for the whole call.
struct StoppedClock(Duration);

impl HostWallClock for StoppedClock {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        self.0
    }
}

impl HostMonotonicClock for StoppedClock {
    fn resolution(&self) -> u64 {
        1_000_000
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The last bytes that a guest wrote to standard error; clones share them.
#[derive(Clone, Default)]
pub(crate) struct Stderr(Arc<Mutex<Vec<u8>>>);

impl Stderr {
    fn keep(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(bytes);
        let over = kept.len().saturating_sub(STDERR_BYTES_MAX);
        kept.drain(..over);
    }

    /// What was written, in one line; empty when nothing was.
    pub(crate) fn text(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        one_line(&String::from_utf8_lossy(&kept), STDERR_BYTES_MAX)
    }
}

impl IsTerminal for Stderr {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stderr {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Stderr {
    async fn ready(&mut self) {}
}

impl OutputStream for Stderr {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.keep(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(STDERR_BYTES_MAX)
    }
}
