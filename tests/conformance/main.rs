//! Runs the tests that the table of rules names, and reports which rules of Cluster API hold: `./dev conformance`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a report is what this program is for"
)]

mod programs;
mod report;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result};

use crate::report::{Outcome, Verdict};
use crate::table::{Target, TestName};

fn main() -> Result<ExitCode> {
    let only: Vec<String> = std::env::args().skip(1).collect();
    let mut rules = table::rules()?;
    rules.retain(|rule| only.is_empty() || only.iter().any(|part| rule.id.starts_with(part)));
    let wanted: BTreeSet<TestName> = rules
        .iter()
        .flat_map(|rule| rule.tests.iter().cloned())
        .collect();
    let outcomes = run(&wanted)?;
    let verdicts: Vec<Verdict> = rules
        .into_iter()
        .map(|rule| Verdict::of(rule, &outcomes))
        .collect();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/conformance");
    std::fs::create_dir_all(&dir).context("making target/conformance")?;
    std::fs::write(dir.join("report.json"), report::json(&verdicts)?)
        .context("writing report.json")?;
    std::fs::write(dir.join("junit.xml"), report::junit(&verdicts)).context("writing junit.xml")?;
    print!("{}", report::text(&verdicts));
    Ok(if verdicts.iter().any(Verdict::is_failed) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Runs tests, one program for each target. A test that does not exist is not in the answer.
fn run(wanted: &BTreeSet<TestName>) -> Result<BTreeMap<TestName, Outcome>> {
    let programs = programs::built()?;
    let mut by_target: BTreeMap<Target, Vec<&TestName>> = BTreeMap::new();
    for test in wanted {
        by_target.entry(test.target).or_default().push(test);
    }
    let mut outcomes = BTreeMap::new();
    for (target, tests) in by_target {
        let program = programs
            .iter()
            .find(|program| program.is(target))
            .with_context(|| format!("cargo built no program with the tests of {target:?}"))?;
        eprintln!("conformance: {} tests of {target:?}", tests.len());
        let output = Command::new(&program.executable)
            .current_dir(&program.dir)
            .arg("--exact")
            .args(tests.iter().map(|test| &test.path))
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("running the tests of {target:?}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            eprint!("{text}");
        }
        let answers = report::answers(&text);
        for test in tests {
            if let Some(outcome) = answers.get(test.path.as_str()) {
                outcomes.insert(test.clone(), *outcome);
            }
        }
    }
    Ok(outcomes)
}
