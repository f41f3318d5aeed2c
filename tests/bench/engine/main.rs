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
        [] => measure(),
        // What this program starts itself as.
        ["compile", output] => child::compile(Path::new(output)),
        ["load", directory] => child::load(Path::new(directory)),
        _ => println!(
            "usage: bench-engine\n  Takes no arguments; plugins are those of `just plugins`."
        ),
    }
}

fn measure() {
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
    child::measure(directory.path(), &mut figures);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(call::measure(directory.path(), &mut figures));
    println!("\n{figures}");
}
