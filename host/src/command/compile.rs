//! `capstan compile`: the child process in which the engine has a component compiled.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::out;

/// What the engine passes.
#[derive(Debug, clap::Args)]
pub(super) struct CompileArgs {
    /// File to write the native code to.
    output: PathBuf,
}

/// Compiles standard input; standard error says what is wrong with it, in one line and nothing else.
pub(super) fn run(args: &CompileArgs) -> anyhow::Result<ExitCode> {
    Ok(match capstan_engine::compile_main(&args.output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            out::complaint(&why);
            ExitCode::FAILURE
        }
    })
}
