//! From a component to native code, in a process of its own: a compiler's memory is not given back, and what it is fed is foreign.

pub(crate) mod line;

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::cache::write_private;
use crate::error::LoadError;
use crate::limit::{
    COMPILE_ADDRESS_SPACE_BYTES, COMPILE_CPU, COMPILE_MESSAGE_BYTES_MAX, COMPILE_WALL,
    COMPILED_BYTES_MAX, COMPILER_BYTES_MIN, COMPONENT_BYTES_MAX,
};
use crate::memory::{limit_bytes, share_of_compiler};
use crate::runtime::code_config;
use crate::text::{chain_of, one_line};

/// How components are compiled.
#[derive(Clone, Debug)]
pub enum Compiler {
    /// Runs this program with these arguments and, as the last one, the path to write to. It must end in [`compile_main`]. The
    /// component comes on its standard input.
    Exe(PathBuf, Vec<OsString>),
    /// In this process, whose memory then stays as large as the compiler needed: for tests only.
    InProcessForTests,
}

/// How the compiling process begins what it says when the component is not to blame.
const HOST_TROUBLE: &str = "host: ";

/// Compiles and says how long it took. One compilation at a time is the caller's to see to.
pub(crate) async fn compile(
    compiler: &Compiler,
    wasm: bytes::Bytes,
    scratch: &Path,
) -> Result<Duration, LoadError> {
    let started = Instant::now();
    match compiler {
        Compiler::Exe(program, args) => {
            in_child(program, args, &wasm, scratch, COMPILE_WALL).await?
        }
        Compiler::InProcessForTests => {
            let scratch = scratch.to_owned();
            tokio::task::spawn_blocking(move || to_file(&wasm, &scratch))
                .await
                .map_err(|e| host(&e))?
                .map_err(|why| LoadError::CompileFailed { why })?;
        }
    }
    Ok(started.elapsed())
}

fn host(error: &dyn std::fmt::Display) -> LoadError {
    LoadError::Host {
        why: one_line(&error.to_string(), COMPILE_MESSAGE_BYTES_MAX),
    }
}

/// Compiles in a process of its own, which is gone when this ends.
pub(crate) async fn in_child(
    program: &Path,
    args: &[OsString],
    wasm: &[u8],
    scratch: &Path,
    wall: Duration,
) -> Result<(), LoadError> {
    let mut child = Command::new(program)
        .args(args)
        .arg(scratch)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| host(&format!("the compiler did not start: {e}")))?;
    let outcome = tokio::time::timeout(wall, converse(&mut child, wasm)).await;
    let (status, said) = match outcome {
        Ok(ended) => ended.map_err(|e| host(&e))?,
        Err(_) => {
            let _ = child.kill().await;
            return Err(LoadError::CompileTimeout { limit: wall });
        }
    };
    if status.success() {
        return Ok(());
    }
    if let Some(trouble) = said.strip_prefix(HOST_TROUBLE) {
        return Err(host(&trouble));
    }
    let why = if said.is_empty() {
        format!("the compiler ended with {status}")
    } else {
        said
    };
    Err(LoadError::CompileFailed { why })
}

/// Feeds the child, listens to it, waits for its end. A child that stops reading says why on standard error.
async fn converse(
    child: &mut Child,
    wasm: &[u8],
) -> std::io::Result<(std::process::ExitStatus, String)> {
    let stdin = child.stdin.take();
    let stderr = child.stderr.take();
    let feed = async move {
        if let Some(mut stdin) = stdin {
            let _ = stdin.write_all(wasm).await;
            let _ = stdin.shutdown().await;
        }
    };
    let listen = async move {
        let mut said = Vec::new();
        if let Some(stderr) = stderr {
            let limit = u64::try_from(COMPILE_MESSAGE_BYTES_MAX).unwrap_or(u64::MAX);
            let mut limited = stderr.take(limit);
            let _ = limited.read_to_end(&mut said).await;
            let _ = tokio::io::copy(&mut limited.into_inner(), &mut tokio::io::sink()).await;
        }
        one_line(&String::from_utf8_lossy(&said), COMPILE_MESSAGE_BYTES_MAX)
    };
    let (status, (), said) = tokio::join!(child.wait(), feed, listen);
    Ok((status?, said))
}

/// The whole of the compiling process: bounds itself, reads a component from standard input, writes native code to `output`.
/// The error is one line for standard error; the exit code should then not be 0.
pub fn compile_main(output: &Path) -> Result<(), String> {
    bound_this_process().map_err(|e| format!("{HOST_TROUBLE}cannot limit the compiler: {e}"))?;
    let limit = u64::try_from(COMPONENT_BYTES_MAX).unwrap_or(u64::MAX);
    let mut wasm = Vec::new();
    std::io::stdin()
        .lock()
        .take(limit.saturating_add(1))
        .read_to_end(&mut wasm)
        .map_err(|e| format!("{HOST_TROUBLE}cannot read the component: {e}"))?;
    if wasm.len() > COMPONENT_BYTES_MAX {
        return Err(format!(
            "the component has more than {COMPONENT_BYTES_MAX} bytes"
        ));
    }
    to_file(&wasm, output)
}

fn bound_this_process() -> rustix::io::Result<()> {
    let exactly = |value: u64| Rlimit {
        current: Some(value),
        maximum: Some(value),
    };
    // When memory gets short all the same, this process is the one to end. A kernel without the file has no such choice to make.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let memory = share_of_compiler(limit_bytes()).max(COMPILER_BYTES_MIN);
    setrlimit(
        Resource::Data,
        exactly(u64::try_from(memory).unwrap_or(u64::MAX)),
    )?;
    setrlimit(Resource::As, exactly(COMPILE_ADDRESS_SPACE_BYTES))?;
    setrlimit(Resource::Cpu, exactly(COMPILE_CPU.as_secs()))?;
    setrlimit(Resource::Fsize, exactly(COMPILED_BYTES_MAX))?;
    setrlimit(Resource::Core, exactly(0))
}

fn to_file(wasm: &[u8], output: &Path) -> Result<(), String> {
    let say = |e: &wasmtime::Error| chain_of(e, COMPILE_MESSAGE_BYTES_MAX);
    let engine = wasmtime::Engine::new(&code_config()).map_err(|e| say(&e))?;
    let compiled = engine.precompile_component(wasm).map_err(|e| say(&e))?;
    write_private(output, &compiled)
        .map_err(|e| format!("{HOST_TROUBLE}cannot write the compiled component: {e}"))
}
