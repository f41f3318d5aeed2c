//! The WebAssembly engine and what it runs on: settings, instance pool, epoch ticker, threads for guests, counters.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::cache::Cache;
use crate::call::CallState;
use crate::compile::Compiler;
use crate::compile::line::Line;
use crate::error::EngineError;
use crate::grant::Ceiling;
use crate::limit::{
    BACKTRACE_FRAMES_MAX, CALLS_MAX, Limits, MEMORY_BYTES_CEILING, POOL_COMPONENT_INSTANCES,
    POOL_CORE_INSTANCES, POOL_CORE_INSTANCES_PER_COMPONENT, POOL_MEMORIES,
    POOL_MEMORY_RESIDENT_BYTES, POOL_TABLE_RESIDENT_BYTES, POOL_TABLES, POOL_WARM_SLOTS,
    TABLE_ELEMENTS_MAX, TICK,
};
use crate::memory::Budget;
use crate::share::{Places, Turns};
use crate::stats::{CodeCounters, Counters, EngineStats};
use crate::trace::CallIds;
use crate::trust::SignaturePolicy;

/// How an engine is set up.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Where compiled components are kept; made when missing, and made private.
    pub cache_dir: PathBuf,
    /// How components are compiled.
    pub compiler: Compiler,
    /// The most that any call gets, whatever its Plugin object says.
    pub ceilings: Limits,
    /// The most that any plugin is allowed, whatever its Plugin object says.
    pub ceiling: Ceiling,
    /// Where components may come from besides the API server, and whose signatures count.
    pub sources: SourceOptions,
    /// Bytes that guests may use together, all calls in flight.
    pub guest_memory_bytes: usize,
    /// Threads that guests run on, apart from all others; at least 1.
    pub guest_threads: usize,
}

impl EngineOptions {
    /// What tests take: the compiler is in their process, nothing is forbidden, one thread and 1 GiB for guests.
    #[must_use]
    pub fn for_tests(cache_dir: PathBuf) -> Self {
        Self {
            cache_dir,
            compiler: Compiler::InProcessForTests,
            ceilings: Limits::ceilings(),
            ceiling: Ceiling::default(),
            sources: SourceOptions::default(),
            guest_memory_bytes: 1 << 30,
            guest_threads: 1,
        }
    }
}

/// What the host's operator says about sources of components.
#[derive(Clone, Debug, Default)]
pub struct SourceOptions {
    /// Directory with components that Plugin objects may name.
    pub directory: Option<PathBuf>,
    /// What is done about components without a good signature.
    pub policy: SignaturePolicy,
}

/// Loads and runs plugins. One for the process.
pub struct Engine {
    pub(crate) wasm: wasmtime::Engine,
    pub(crate) linker: Linker<CallState>,
    pub(crate) cache: Cache,
    pub(crate) options: EngineOptions,
    pub(crate) places: Arc<Places>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) turns: Arc<Turns>,
    pub(crate) compiling: Arc<Line>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) code_counters: CodeCounters,
    pub(crate) activity: Arc<Activity>,
    pub(crate) call_ids: CallIds,
    pooling: bool,
    guests: Option<tokio::runtime::Runtime>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("pooling", &self.pooling)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Starts the engine with its threads.
    pub fn new(options: EngineOptions) -> Result<Arc<Self>, EngineError> {
        let (wasm, pooling) = wasm_engine()?;
        let cache = Cache::open(&options.cache_dir, &wasm)?;
        let mut linker = Linker::new(&wasm);
        crate::abi::link(&mut linker).map_err(|e| EngineError::Wasm(e.to_string()))?;
        let threads = options.guest_threads.max(1);
        let guests = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("capstan-guest")
            .enable_all()
            .build()
            .map_err(EngineError::Threads)?;
        let budget = Budget::new(options.guest_memory_bytes);
        let activity = Arc::new(Activity::default());
        start_ticker(&wasm, activity.clone())?;
        Ok(Arc::new(Self {
            wasm,
            linker,
            cache,
            options,
            places: Places::new(CALLS_MAX),
            budget,
            turns: Turns::new(threads),
            compiling: Arc::default(),
            counters: Arc::new(Counters::default()),
            code_counters: CodeCounters::default(),
            activity,
            call_ids: CallIds::default(),
            pooling,
            guests: Some(guests),
        }))
    }

    /// What the operator says about sources of components.
    #[must_use]
    pub fn sources(&self) -> &SourceOptions {
        &self.options.sources
    }

    /// Counters of all calls of all plugins since the start.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        EngineStats {
            pooling: self.pooling,
            calls_active: self.activity.calls.load(Ordering::Relaxed),
            guest_memory_bytes: self.budget.used(),
            guest_memory_bytes_max: self.budget.bytes(),
            calls: self.counters.read(),
            code: self.code_counters.read(),
        }
    }

    /// Where guests run.
    pub(crate) fn guests(&self) -> Option<&tokio::runtime::Handle> {
        self.guests.as_ref().map(tokio::runtime::Runtime::handle)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(guests) = self.guests.take() {
            guests.shutdown_background();
        }
        self.activity.closing.store(true, Ordering::SeqCst);
        self.activity.wake();
    }
}

/// What compiled code depends on: the same for the engine that compiles and the one that runs. Threads and garbage collection are
/// not even built in.
pub(crate) fn code_config() -> Config {
    let mut config = Config::new();
    config
        .concurrency_support(false)
        .epoch_interruption(true)
        .consume_fuel(false)
        .memory_init_cow(true)
        .wasm_backtrace_max_frames(NonZeroUsize::new(BACKTRACE_FRAMES_MAX))
        .wasm_memory64(false);
    config
}

fn pooling_config() -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(POOL_COMPONENT_INSTANCES)
        .total_core_instances(POOL_CORE_INSTANCES)
        .max_core_instances_per_component(POOL_CORE_INSTANCES_PER_COMPONENT)
        .total_memories(POOL_MEMORIES)
        .total_tables(POOL_TABLES)
        .table_elements(TABLE_ELEMENTS_MAX)
        .total_stacks(POOL_COMPONENT_INSTANCES)
        .max_memory_size(MEMORY_BYTES_CEILING)
        .max_unused_warm_slots(POOL_WARM_SLOTS);
    if let Some((memory, table)) = resident(PoolingAllocationConfig::is_pagemap_scan_available()) {
        pool.linear_memory_keep_resident(memory)
            .table_keep_resident(table)
            .pagemap_scan(Enabled::Yes);
    }
    let mut config = code_config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// Bytes of each memory and each table that stay resident for the next instance. Only where the kernel tells which of them were written:
/// where all have to be cleared, giving them back costs less than half as much.
fn resident(tells_what_was_written: bool) -> Option<(usize, usize)> {
    tells_what_was_written.then_some((POOL_MEMORY_RESIDENT_BYTES, POOL_TABLE_RESIDENT_BYTES))
}

/// The smallest component.
const PROBE: &[u8] = b"\0asm\x0d\0\x01\0";

/// An engine with a pool, or one without where the pool's address space is not to be had (limits on address space, strict
/// overcommit, small virtual addresses).
fn wasm_engine() -> Result<(wasmtime::Engine, bool), EngineError> {
    let pooled = wasmtime::Engine::new(&pooling_config())
        .and_then(|engine| Component::from_binary(&engine, PROBE).map(|_| engine));
    match pooled {
        Ok(engine) => Ok((engine, true)),
        Err(error) => {
            tracing::warn!(%error, "no instance pool: plugin calls will be slower");
            wasmtime::Engine::new(&code_config())
                .map(|engine| (engine, false))
                .map_err(|e| EngineError::Wasm(e.to_string()))
        }
    }
}

/// Calls in flight, so that the ticker sleeps when there are none.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    calls: AtomicUsize,
    closing: AtomicBool,
    ticker: OnceLock<Thread>,
}

impl Activity {
    /// Counts one call until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> ActiveCall {
        if self.calls.fetch_add(1, Ordering::SeqCst) == 0 {
            self.wake();
        }
        ActiveCall(self.clone())
    }

    fn wake(&self) {
        if let Some(ticker) = self.ticker.get() {
            ticker.unpark();
        }
    }
}

/// One call in flight.
pub(crate) struct ActiveCall(Arc<Activity>);

impl Drop for ActiveCall {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One thread of the operating system for the engine, which ends with it: a task would be starved by what it is there to stop.
fn start_ticker(engine: &wasmtime::Engine, activity: Arc<Activity>) -> Result<(), EngineError> {
    let weak = engine.weak();
    let seen = activity.clone();
    let ticker = std::thread::Builder::new()
        .name("capstan-epoch".to_owned())
        .spawn(move || {
            while let Some(engine) = weak.upgrade() {
                if seen.closing.load(Ordering::SeqCst) {
                    return;
                }
                engine.increment_epoch();
                drop(engine);
                if seen.calls.load(Ordering::SeqCst) == 0 {
                    std::thread::park();
                } else {
                    std::thread::sleep(TICK);
                }
            }
        })
        .map_err(EngineError::Threads)?;
    let _ = activity.ticker.set(ticker.thread().clone());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_stays_resident_only_where_the_kernel_tells_what_was_written() {
        assert_eq!(resident(false), None);
        let (memory, table) = resident(true).unwrap();
        assert!(memory > 0 && table > 0);
        // Either way there is a pool.
        assert!(wasmtime::Engine::new(&pooling_config()).is_ok());
    }
}
