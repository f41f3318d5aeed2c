//! What became of each rule, as text, JSON and JUnit.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use serde_json::json;

use crate::table::{Rule, TestName};

/// What became of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It passed.
    Passed,
    /// It failed, or was not run.
    Failed,
}

/// A rule with what became of it.
pub(crate) struct Verdict {
    rule: Rule,
    /// Tests that did not pass, each with what became of it.
    failures: Vec<String>,
}

impl Verdict {
    /// A rule holds when all its tests passed.
    pub(crate) fn of(rule: Rule, outcomes: &BTreeMap<TestName, Outcome>) -> Self {
        let failures = rule
            .tests
            .iter()
            .filter_map(|test| match outcomes.get(test) {
                Some(Outcome::Passed) => None,
                Some(Outcome::Failed) => Some(format!("{} failed", test.path)),
                None => Some(format!("{} was not run", test.path)),
            })
            .collect();
        Self { rule, failures }
    }

    /// Whether a test of it did not pass.
    pub(crate) fn is_failed(&self) -> bool {
        !self.failures.is_empty()
    }

    fn word(&self) -> &'static str {
        match (&self.rule.left_out, self.is_failed()) {
            (Some(_), _) => "left out",
            (None, true) => "failed",
            (None, false) => "passed",
        }
    }

    /// Why it did not pass.
    fn why(&self) -> String {
        match &self.rule.left_out {
            Some(reason) => reason.clone(),
            None => self.failures.join(", "),
        }
    }
}

/// What the test harness said of each test.
pub(crate) fn answers(text: &str) -> BTreeMap<&str, Outcome> {
    let lines = text.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ")?;
        let outcome = if rest.trim_end() == "ok" {
            Outcome::Passed
        } else {
            Outcome::Failed
        };
        Some((name, outcome))
    });
    lines.collect()
}

fn count(verdicts: &[Verdict], word: &str) -> usize {
    verdicts.iter().filter(|v| v.word() == word).count()
}

/// For people: a line for each rule, and a line of counts at the end.
pub(crate) fn text(verdicts: &[Verdict]) -> String {
    let mut text = String::new();
    for verdict in verdicts {
        let Rule { id, rule, .. } = &verdict.rule;
        let _ = writeln!(text, "{:<8} {id:<28} {rule}", verdict.word());
        let why = verdict.why();
        if !why.is_empty() {
            let _ = writeln!(text, "{:<8} {:<28} - {why}", "", "");
        }
    }
    let _ = writeln!(
        text,
        "conformance: {} passed, {} failed, {} left out",
        count(verdicts, "passed"),
        count(verdicts, "failed"),
        count(verdicts, "left out")
    );
    text
}

/// For programs.
///
/// # Errors
/// Never in practice.
pub(crate) fn json(verdicts: &[Verdict]) -> Result<String> {
    let rules: Vec<_> = verdicts
        .iter()
        .map(|verdict| {
            let tests: Vec<&str> = verdict.rule.tests.iter().map(|t| t.path.as_str()).collect();
            json!({
                "id": verdict.rule.id, "rule": verdict.rule.rule, "outcome": verdict.word(),
                "tests": tests, "why": verdict.why(),
            })
        })
        .collect();
    let report = json!({
        "rules": rules,
        "passed": count(verdicts, "passed"),
        "failed": count(verdicts, "failed"),
        "leftOut": count(verdicts, "left out"),
    });
    Ok(serde_json::to_string_pretty(&report)?)
}

/// For CI.
pub(crate) fn junit(verdicts: &[Verdict]) -> String {
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"conformance\" tests=\"{}\" failures=\"{}\" skipped=\"{}\">\n",
        verdicts.len(),
        count(verdicts, "failed"),
        count(verdicts, "left out")
    );
    for verdict in verdicts {
        let name = escaped(&verdict.rule.rule);
        let class = escaped(&verdict.rule.id);
        let why = escaped(&verdict.why());
        let _ = match verdict.word() {
            "failed" => writeln!(
                xml,
                "<testcase classname=\"{class}\" name=\"{name}\"><failure message=\"{why}\"/></testcase>"
            ),
            "left out" => writeln!(
                xml,
                "<testcase classname=\"{class}\" name=\"{name}\"><skipped message=\"{why}\"/></testcase>"
            ),
            _ => writeln!(xml, "<testcase classname=\"{class}\" name=\"{name}\"/>"),
        };
    }
    xml.push_str("</testsuite>\n");
    xml
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
