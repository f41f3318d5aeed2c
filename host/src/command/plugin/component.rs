//! Files of components: read within bounds, measured, and loaded into an engine of the command's own.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use capstan_engine::{Anatomy, Engine, LoadError, Loaded};
use flate2::Compression;
use flate2::read::GzEncoder;

use crate::command::run::plain_engine;
use crate::input;

/// The largest source that the host takes, and a byte more so that the engine can say that it is too large.
const FILE_BYTES_MAX: u64 = (16 << 20) + 1;

/// How hard zstd works for what is stored many times: its highest level that needs no more memory to unpack than the host gives.
const ZSTD_LEVEL: i32 = 19;

/// Where native code is kept, for every command that compiles.
#[derive(Debug, Default, clap::Args)]
pub(super) struct EngineArgs {
    /// Directory for compiled plugins; capstan/compiled in the user's cache by default.
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
}

impl EngineArgs {
    pub(super) fn start(&self) -> anyhow::Result<Arc<Engine>> {
        Ok(Engine::new(plain_engine(self.cache_dir.as_deref())?)?)
    }

    /// The component of a file, as the host would load it.
    pub(super) async fn load(&self, path: &Path) -> anyhow::Result<Arc<Loaded>> {
        let loaded = self.start()?.load(read(path)?).await;
        loaded.with_context(|| format!("{} is refused", path.display()))
    }

    /// The same, where a refusal is an answer.
    pub(super) async fn try_load(
        &self,
        source: &Bytes,
    ) -> anyhow::Result<Result<Arc<Loaded>, LoadError>> {
        Ok(self.start()?.load(source.clone()).await)
    }
}

/// The bytes of a component's file, `-` for standard input.
pub(in crate::command) fn read(path: &Path) -> anyhow::Result<Bytes> {
    Ok(Bytes::from(input::beginning(path, FILE_BYTES_MAX)?))
}

/// Bytes of a component, as it is and packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) raw: usize,
    pub(super) gzip: usize,
    pub(super) zstd: usize,
}

impl Sizes {
    pub(super) fn of(anatomy: &Anatomy) -> anyhow::Result<Self> {
        Ok(Self {
            raw: anatomy.wasm.len(),
            gzip: gzip(&anatomy.wasm)?.len(),
            zstd: zstd(&anatomy.wasm)?.len(),
        })
    }

    pub(super) fn text(self) -> String {
        format!(
            "{} ({} with gzip, {} with zstd)",
            kib(self.raw),
            kib(self.gzip),
            kib(self.zstd)
        )
    }
}

/// Packed with gzip as tightly as it goes.
pub(super) fn gzip(wasm: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut packed = Vec::new();
    GzEncoder::new(wasm, Compression::best()).read_to_end(&mut packed)?;
    Ok(packed)
}

/// Packed with zstd as tightly as the host unpacks it.
pub(super) fn zstd(wasm: &[u8]) -> anyhow::Result<Vec<u8>> {
    Ok(zstd::encode_all(wasm, ZSTD_LEVEL)?)
}

/// `181 KiB`.
pub(super) fn kib(bytes: impl TryInto<u64>) -> String {
    let bytes = bytes.try_into().unwrap_or(u64::MAX);
    format!("{} KiB", bytes.div_ceil(1024))
}
