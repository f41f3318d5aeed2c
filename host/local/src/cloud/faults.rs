//! Faults by configuration: rules that make the cloud slow, failing or forgetful, reproducibly.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use super::answer::Refusal;
use super::records::{Fate, Tags};

/// What a rule applies to; all parts that are given must hold.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Match {
    /// Operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<String>,
    /// Part of the resource's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    name_contains: Option<String>,
    /// `key=value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    /// Only so many matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<u64>,
    /// 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    probability: Option<f64>,
    /// Seed of the draws.
    seed: u64,
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    tag = "type",
    deny_unknown_fields
)]
pub(crate) enum Effect {
    /// Slower.
    Delay { delay_ms: u64 },
    /// Stays pending.
    Never {},
    /// Fails.
    Fail {
        #[serde(default)]
        message: String,
    },
    /// Is gone after a while.
    Disappear {
        #[serde(default)]
        after_ms: u64,
    },
    /// Refused.
    Status {
        status: u16,
        #[serde(
            default,
            rename = "retryAfterS",
            skip_serializing_if = "Option::is_none"
        )]
        retry_after_s: Option<u64>,
    },
    /// Done, but not answered.
    LoseAnswer {},
    /// The kubelet falls silent.
    NodeNotReady {
        #[serde(default)]
        after_ms: u64,
    },
}

/// A rule.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Rule {
    #[serde(default)]
    name: String,
    #[serde(default, rename = "match")]
    matches: Match,
    effect: Effect,
}

/// All rules, as they are sent and kept.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rules {
    rules: Vec<Rule>,
}

/// What happens to one request.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Refuse it.
    pub(crate) refusal: Option<Refusal>,
    /// Answer later.
    pub(crate) delay_ms: u64,
    /// Do it, but do not answer.
    pub(crate) loses_answer: bool,
    /// For a new instance.
    pub(crate) fate: Fate,
}

struct Counter {
    matched: u64,
    draws: StdRng,
}

/// The rules with their counters.
pub(crate) struct Faults {
    rules: Rules,
    counters: Vec<Counter>,
}

impl Faults {
    /// The rules, with their counters at zero.
    pub(crate) fn new(rules: Rules) -> Self {
        let counters = rules
            .rules
            .iter()
            .map(|rule| Counter {
                matched: 0,
                draws: StdRng::seed_from_u64(rule.matches.seed),
            })
            .collect();
        Self { rules, counters }
    }

    /// Checks rules that a client sent.
    pub(crate) fn check(rules: &Rules, operations: &[&str]) -> Result<(), Refusal> {
        for (at, rule) in rules.rules.iter().enumerate() {
            let wrong = |what: String| Err(Refusal::invalid(format!("rules[{at}].{what}")));
            if let Some(operation) = rule
                .matches
                .operation
                .as_deref()
                .filter(|name| !operations.contains(name))
            {
                return wrong(format!(
                    "match.operation: there is no operation {operation:?}"
                ));
            }
            if rule
                .matches
                .tag
                .as_ref()
                .is_some_and(|tag| !tag.contains('='))
            {
                return wrong("match.tag: must be key=value".into());
            }
            if rule
                .matches
                .probability
                .is_some_and(|p| !(0.0..=1.0).contains(&p))
            {
                return wrong("match.probability: must be 0 to 1".into());
            }
            if let Effect::Status { status, .. } = rule.effect
                && !(status == 429 || (500..600).contains(&status))
            {
                return wrong("effect.status: must be 429 or 500 to 599".into());
            }
        }
        Ok(())
    }

    /// The rules.
    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What happens to this request: the first rule that matches and has an effect on the operation.
    pub(crate) fn judge(&mut self, operation: &str, name: &str, tags: &Tags) -> Verdict {
        let creates_instance = operation == "CreateInstance";
        for (rule, counter) in self.rules.rules.iter().zip(&mut self.counters) {
            let of_instance = matches!(
                rule.effect,
                Effect::Never {}
                    | Effect::Fail { .. }
                    | Effect::Disappear { .. }
                    | Effect::NodeNotReady { .. }
            );
            if (of_instance && !creates_instance) || !rule.matches.accepts(operation, name, tags) {
                continue;
            }
            if rule
                .matches
                .first
                .is_some_and(|first| counter.matched >= first)
            {
                continue;
            }
            if rule
                .matches
                .probability
                .is_some_and(|p| counter.draws.random::<f64>() >= p)
            {
                continue;
            }
            counter.matched = counter.matched.saturating_add(1);
            return rule.verdict(creates_instance);
        }
        Verdict::default()
    }
}

impl Match {
    fn accepts(&self, operation: &str, name: &str, tags: &Tags) -> bool {
        let tag = |wanted: &String| {
            wanted
                .split_once('=')
                .is_some_and(|(key, value)| tags.get(key).is_some_and(|found| found == value))
        };
        self.operation
            .as_ref()
            .is_none_or(|wanted| wanted == operation)
            && self
                .name_contains
                .as_ref()
                .is_none_or(|part| name.contains(part.as_str()))
            && self.tag.as_ref().is_none_or(tag)
    }
}

impl Rule {
    fn verdict(&self, creates_instance: bool) -> Verdict {
        let mut verdict = Verdict::default();
        match &self.effect {
            Effect::Delay { delay_ms } if creates_instance => verdict.fate.delay_ms = *delay_ms,
            Effect::Delay { delay_ms } => verdict.delay_ms = *delay_ms,
            Effect::Never {} => verdict.fate.never = true,
            Effect::Fail { message } => verdict.fate.fail = Some(message.clone()),
            Effect::Disappear { after_ms } => verdict.fate.disappear_after_ms = Some(*after_ms),
            Effect::Status {
                status,
                retry_after_s,
            } => {
                verdict.refusal = Some(Refusal::by_fault(*status, *retry_after_s, &self.name));
            }
            Effect::LoseAnswer {} => verdict.loses_answer = true,
            Effect::NodeNotReady { after_ms } => verdict.fate.silent_after_ms = Some(*after_ms),
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Faults {
        let rules: Rules = serde_json::from_str(text).unwrap();
        Faults::check(&rules, &["CreateInstance", "GetInstance"]).unwrap();
        Faults::new(rules)
    }

    #[test]
    fn the_first_matches_only_then_the_next_rule() {
        let mut faults = faults(
            r#"{"rules": [
                {"match": {"operation": "CreateInstance", "nameContains": "md", "first": 1}, "effect": {"type": "fail", "message": "no"}},
                {"match": {"tag": "a=b"}, "effect": {"type": "status", "status": 429}}]}"#,
        );
        let tags: Tags = [("a".to_owned(), "b".to_owned())].into();
        assert_eq!(
            faults
                .judge("CreateInstance", "x-md-1", &tags)
                .fate
                .fail
                .as_deref(),
            Some("no")
        );
        assert_eq!(
            faults
                .judge("CreateInstance", "x-md-1", &tags)
                .refusal
                .unwrap()
                .retry_after_s,
            Some(1)
        );
        assert!(
            faults
                .judge("GetInstance", "x", &Tags::new())
                .refusal
                .is_none()
        );
    }

    #[test]
    fn draws_are_reproducible() {
        let text = r#"{"rules": [{"match": {"probability": 0.5, "seed": 7}, "effect": {"type": "loseAnswer"}}]}"#;
        let draw = || {
            let mut faults = faults(text);
            (0..32)
                .map(|_| faults.judge("GetInstance", "x", &Tags::new()).loses_answer)
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(), draw());
        assert!(draw().contains(&true) && draw().contains(&false));
    }
}
