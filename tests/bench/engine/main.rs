//! `just bench-engine`: what calls of plugins, compiled code and misbehaviour cost. Medians and ratios, beside what trial code cost on
//! the same class of machine.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a measuring program: what is not as expected ends it, and its output is its result"
)]

mod call;
mod child;
mod figure;
mod plugin;

use std::path::Path;

use figure::Figures;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [] => measure(Counts::USUAL),
        ["--few"] => measure(Counts::FEW),
        // What this program starts itself as.
        ["compile", output] => child::compile(Path::new(output)),
        ["load", directory] => child::load(Path::new(directory)),
        _ => println!(
            "usage: bench-engine [--few]\n  --few: only as much as shows that everything is measured. Plugins are those of `just plugins`."
        ),
    }
}

/// How much of everything.
#[derive(Clone, Copy)]
pub(crate) struct Counts {
    /// Calls of one measurement.
    pub(crate) calls: usize,
    /// Versions that take over from each other under load.
    pub(crate) swaps: u32,
    /// Compilations of each component.
    pub(crate) compilations: u32,
    /// Plugins of the cold starts.
    pub(crate) plugins: &'static [u8],
    /// Calls in flight while memory is measured.
    pub(crate) in_flight: u64,
}

impl Counts {
    const USUAL: Self = Self {
        calls: 500,
        swaps: 100,
        compilations: 5,
        plugins: &[20, 100],
        in_flight: 100,
    };
    const FEW: Self = Self {
        calls: 20,
        swaps: 4,
        compilations: 1,
        plugins: &[2],
        in_flight: 4,
    };
}

fn measure(counts: Counts) {
    let directory = tempfile::tempdir().unwrap();
    let mut figures = Figures::default();
    println!(
        "profile {}",
        if cfg!(debug_assertions) {
            "dev"
        } else {
            "release"
        }
    );
    child::measure(directory.path(), counts, &mut figures);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(call::measure(directory.path(), counts, &mut figures));
    println!("\n{figures}");
}
