//! One runtime for all tests of a binary: what they share must outlive each of them.

use std::future::Future;
use std::sync::LazyLock;

use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    log_to_file();
    Builder::new_multi_thread()
        .worker_threads(4)
        .thread_name("kit")
        .enable_all()
        .build()
        .unwrap()
});

/// Runs a test to its end. The stack of the calling thread holds only the handle: a test's future may be large.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    RUNTIME.block_on(Box::pin(test))
}

/// Where this process logs what the hosts in it do.
pub fn log_path() -> std::path::PathBuf {
    let dir = crate::wasm::target_dir().join("test-logs");
    std::fs::create_dir_all(&dir).unwrap();
    dir.join("host-in-tests.log")
}

fn log_to_file() {
    let Ok(file) = std::fs::File::create(log_path()) else {
        return;
    };
    let filter = std::env::var("CAPSTAN_TEST_LOG");
    let filter = filter.unwrap_or_else(|_| "info,capstan_local=warn".to_owned());
    // Somebody else may have set a subscriber: then that one gets the lines.
    let _: Result<(), _> = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_ansi(false)
        .with_writer(std::sync::Mutex::new(file))
        .try_init();
}
