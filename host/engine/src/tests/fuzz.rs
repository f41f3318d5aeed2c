//! What reads foreign bytes, fed with what nobody meant: sources, manifests, answers, references, made from good ones by chance. Each
//! round follows from a seed and its number.
//!
//! `just fuzz` lets each run for a time; as usual tests they are a few hundred rounds. `CAPSTAN_SEED` chooses the seed,
//! `CAPSTAN_FUZZ_ROUND` one round of it, which is how a failure is repeated.
#![expect(clippy::arithmetic_side_effects, reason = "counts of rounds")]

mod mutate;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::probe::{env, loaded, wasm};
use crate::abi::v0_1::fuzz::{Fate, fate_of};
use crate::limit::COMPONENT_BYTES_MAX;
use crate::{Function, Question, Reference};
use mutate::{mutated_bytes, mutated_json, mutated_text};

/// Rounds of a usual test.
const ROUNDS: u64 = 300;

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs rounds until it is time, counts what becomes of them, and says how to repeat the one that panics.
fn rounds<T: Ord + Debug>(name: &str, test: &str, mut round: impl FnMut(&mut StdRng) -> T) {
    let seed = setting("CAPSTAN_SEED").unwrap_or_else(rand::random);
    let only = setting("CAPSTAN_FUZZ_ROUND");
    let time = setting("CAPSTAN_FUZZ_S").map(Duration::from_secs);
    let started = Instant::now();
    let mut counts = BTreeMap::new();
    let mut number = only.unwrap_or(0);
    loop {
        let mut random = StdRng::seed_from_u64(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        match catch_unwind(AssertUnwindSafe(|| round(&mut random))) {
            Ok(fate) => *counts.entry(fate).or_insert(0_u64) += 1,
            Err(panic) => {
                println!(
                    "{name}: repeat it with CAPSTAN_SEED={seed} CAPSTAN_FUZZ_ROUND={number} cargo test -p capstan-engine --lib {test}"
                );
                resume_unwind(panic);
            }
        }
        number += 1;
        let is_over = time.map_or(number >= ROUNDS, |time| started.elapsed() >= time);
        if is_over || only.is_some() {
            break;
        }
    }
    println!("{name}: seed {seed}, {number} rounds: {counts:?}");
    if only.is_none() {
        assert!(
            counts.len() > 1,
            "{name}: all rounds ended alike, which tests nothing: {counts:?}"
        );
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn fuzz_sources() {
    // The smallest component, a module, native code, and what a plugin is made of, plain and packed.
    let small = b"\0asm\x0d\0\x01\0".to_vec();
    let module = b"\0asm\x01\0\0\0".to_vec();
    let probe = wasm().to_vec();
    let zeros = vec![0; 2 << 20];
    let corpus = [
        gzip(&small),
        zstd::encode_all(small.as_slice(), 1).unwrap(),
        gzip(&probe),
        zstd::encode_all(probe.as_slice(), 1).unwrap(),
        gzip(&zeros),
        zstd::encode_all(zeros.as_slice(), 1).unwrap(),
        b"\x7fELF and so on".to_vec(),
        small,
        module,
        probe,
    ];
    rounds("sources", "fuzz_sources", |random| {
        let whole = &corpus[random.random_range(0..corpus.len())];
        // Much of what is checked is the end of nothing: short beginnings find more than long files.
        let end = if random.random_bool(0.3) {
            random.random_range(0..=whole.len())
        } else {
            whole.len()
        };
        let source = Bytes::from(mutated_bytes(random, &whole[..end]));
        let _ = crate::anatomy(&source);
        match crate::source::verify(&source) {
            Ok(verified) => {
                assert!(verified.wasm.len() <= COMPONENT_BYTES_MAX);
                assert!(!verified.kinds.is_empty());
                "verified"
            }
            Err(error) => {
                let said = error.to_string();
                assert!(said.len() < 4096 && !said.contains('\n'), "{said}");
                error.condition().1
            }
        }
    });
}

#[test]
fn fuzz_references() {
    let corpus = [
        "registry.example.com/team/plugin:1.2.3",
        "registry.example.com:5000/plugin@sha256:0000000000000000000000000000000000000000000000000000000000000000",
        "https://*.example.com:8443",
        "http://[::ffff:127.0.0.1]:80",
    ];
    rounds("references", "fuzz_references", |random| {
        let good = corpus[random.random_range(0..corpus.len())];
        let text = mutated_text(random, good);
        let origin = text.parse::<crate::OriginPattern>();
        if let Ok(origin) = &origin {
            // What is shown is what is meant.
            assert_eq!(
                &origin.to_string().parse::<crate::OriginPattern>().unwrap(),
                origin
            );
        }
        let reference = Reference::parse(&text);
        (reference.is_ok(), origin.is_ok())
    });
}

/// Good answers of every function, by the probe itself.
fn answers() -> Vec<(Function, Value)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let loaded = loaded().await;
        let mut answers = Vec::new();
        for function in Function::ALL {
            let question = Question::completed(function, json!({})).unwrap();
            let mut env = env();
            env.secrets.add(b"data".to_vec());
            let tried = loaded.try_call(env, question).await.unwrap();
            let answer = tried.record.outcome.answer.unwrap();
            assert_eq!(
                fate_of(function, answer.clone()),
                Fate::Accepted,
                "{function:?} {answer}"
            );
            answers.push((function, answer));
        }
        answers
    })
}

#[test]
fn fuzz_answers() {
    let corpus = answers();
    let failure = json!({"Err": {
        "kind": "Transient", "reason": "ProbeFailed", "message": "no", "retry_after_ms": 1500,
    }});
    rounds("answers", "fuzz_answers", |random| {
        let (function, good) = &corpus[random.random_range(0..corpus.len())];
        let good = match *function {
            Function::Describe => good,
            _ if random.random_bool(0.1) => &failure,
            _ => good,
        };
        fate_of(*function, mutated_json(random, good))
    });
}

#[test]
fn fuzz_manifests() {
    let (function, manifest) = answers()
        .into_iter()
        .find(|(function, _)| *function == Function::Describe)
        .unwrap();
    rounds("manifests", "fuzz_manifests", |random| {
        fate_of(function, mutated_json(random, &manifest))
    });
}
