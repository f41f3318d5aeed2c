//! Hooks that an operator bound to Machines: whose turn it is, what an answer or a silence means, and what is said about it.
//!
//! Foreign hook annotations are looked at in [`super::deletion`]; both hold the same stages.

use std::collections::BTreeMap;
use std::time::Duration;

use capstan_api::condition::Report;
use capstan_api::machine_hook::{
    MachineHook, MachineHookOnClusterDeletion as OnClusterDeletion, MachineHookPhase as Phase,
    MachineHookPolicy as Policy,
};
use capstan_api::reason::condition_type::{
    PRE_DRAIN_HOOKS_SUCCEEDED, PRE_TERMINATE_HOOKS_SUCCEEDED,
};
use capstan_api::{annotation, reason};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::plan::{Failure, FailureKind};
use crate::rollout::count::name;
use crate::selector::selects;

/// How often a failure that may pass is tried before `onFailure: Proceed` goes on without the hook.
const TRIES: u32 = 3;

/// Between two questions after a failure: doubled from the first to the second.
const RETRY_MIN: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(300);

/// Between two questions when the hook says that it waits: its own wish, within these.
const CHECK_MIN: Duration = Duration::from_secs(1);
const CHECK_MAX: Duration = Duration::from_secs(600);

/// How soon a plugin that is busy with other Machines is asked again.
const BUSY_CHECK: Duration = Duration::from_secs(2);

/// How soon it is looked again whether a missing plugin is there.
const PLUGIN_CHECK: Duration = Duration::from_secs(5);

/// How far the clock of this host may be behind that of another which wrote something down.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);

/// What is shown of a plugin's words, in bytes.
const WORDS_BYTES_MAX: usize = 1024;

/// A hook that is bound to the Machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Name of the MachineHook.
    pub name: String,
    /// Name of the Plugin.
    pub plugin: String,
    /// When it is asked.
    pub phase: Phase,
    /// Its place in the phase.
    pub order: i32,
    /// How long a Machine may wait for it.
    pub timeout: Option<Duration>,
    /// What that means.
    pub on_timeout: Policy,
    /// What a failure means.
    pub on_failure: Policy,
    /// What the deletion of the Cluster means.
    pub on_cluster_deletion: OnClusterDeletion,
    /// The operator's settings.
    pub config: Value,
    /// Why the plugin cannot be asked; `None` when it can.
    pub unavailable: Option<String>,
    /// When the Machine's deletion began, by the API server's clock.
    pub begun: Option<Timestamp>,
    /// What was written down of it on this Machine.
    pub record: Option<Record>,
    /// What it said last, in this process.
    pub said: Option<Said>,
}

/// What is written down of a hook on a Machine, so that another host goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// When it was its turn.
    pub since: Timestamp,
    /// When it was done with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done: Option<Timestamp>,
    /// How.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// How a hook was done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It let the Machine go.
    Proceeded,
    /// Its time was over, and the operator lets go then.
    TimedOut,
    /// It failed, and the operator lets go then.
    Failed,
}

/// What a hook said last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// How often it was asked.
    pub attempts: u32,
    /// How often in a row it failed.
    pub failures: u32,
    /// When it is asked again.
    pub next: Timestamp,
    /// Its words.
    pub words: String,
}

/// What a hook answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The Machine may go on.
    Proceed,
    /// Not yet.
    Waiting {
        /// Its words.
        words: String,
        /// When it wants to be asked again.
        check_after: Duration,
    },
    /// It could not say.
    Failed(Failure),
    /// The plugin is not there.
    Unavailable(String),
    /// The plugin has no time for this Machine yet: it was not asked, which is no failure of its.
    Busy(String),
}

/// What follows from an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Name of the MachineHook.
    pub hook: String,
    /// What is written down.
    pub record: Record,
    /// What is remembered.
    pub said: Said,
    /// What is told in an event, if it is news.
    pub news: Option<News>,
}

/// An event: its reason, whether it is a warning, and its note.
pub type News = (&'static str, bool, String);

impl Hook {
    /// A hook as it is bound to a Machine; the rest is for the caller to find out.
    #[must_use]
    pub fn bound(hook: &MachineHook) -> Self {
        let spec = &hook.spec;
        let seconds = spec.timeout_seconds.and_then(|s| u64::try_from(s).ok());
        Self {
            name: name(&hook.metadata).to_owned(),
            plugin: spec.plugin.clone(),
            phase: spec.phase,
            order: spec.order,
            timeout: seconds.map(Duration::from_secs),
            on_timeout: spec.on_timeout,
            on_failure: spec.on_failure,
            on_cluster_deletion: spec.on_cluster_deletion,
            config: Value::Object(spec.config.clone()),
            unavailable: None,
            begun: None,
            record: None,
            said: None,
        }
    }

    /// Whether nothing waits for it any more.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.record.as_ref().is_some_and(|r| r.done.is_some())
    }

    /// Whether it is asked while the whole Cluster is being deleted.
    #[must_use]
    pub fn runs_on_cluster_deletion(&self) -> bool {
        match self.on_cluster_deletion {
            OnClusterDeletion::Run => true,
            OnClusterDeletion::Skip => false,
            OnClusterDeletion::Default => self.phase == Phase::PreTerminate,
        }
    }

    /// When it was its turn. Not before the deletion, also where this host's clock is behind the server's: what is written down would
    /// not count, and the hook be asked for ever.
    fn since(&self, now: Timestamp) -> Timestamp {
        let first = || self.begun.map_or(now, |begun| begun.max(now));
        self.record
            .as_ref()
            .map_or_else(first, |record| record.since)
    }

    /// When its time is over.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        let since = self.record.as_ref()?.since;
        since.checked_add(self.timeout?).ok()
    }

    fn is_late(&self, now: Timestamp) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// What is to be done when it is this hook's turn.
    #[must_use]
    pub fn next(&self, now: Timestamp) -> NextTurn {
        if self.record.is_none() {
            return NextTurn::Ask;
        }
        if self.is_late(now) && self.on_timeout == Policy::Proceed {
            let note = format!(
                "Hook {} did not let the Machine go in time; the deletion goes on (onTimeout: Proceed)",
                self.name
            );
            let news = ("HookTimedOut", true, note);
            return NextTurn::GiveUp(self.done(Outcome::TimedOut, news, now));
        }
        let due = self.said.as_ref().map_or(now, |said| said.next);
        if due <= now {
            return NextTurn::Ask;
        }
        // A deadline that has passed changes nothing any more.
        let deadline = self.deadline().filter(|deadline| *deadline > now);
        let until = deadline.map_or(due, |deadline| deadline.min(due));
        NextTurn::Wait(between(now, until))
    }

    /// What follows from its answer.
    #[must_use]
    pub fn answered(&self, answer: &Answer, now: Timestamp) -> Turn {
        let is_first = self.record.is_none();
        match answer {
            Answer::Proceed => {
                let (name, plugin) = (&self.name, &self.plugin);
                let note = format!("Hook {name} (plugin {plugin}) lets the Machine go");
                self.done(Outcome::Proceeded, ("HookProceeded", false, note), now)
            }
            Answer::Waiting { words, check_after } => {
                let words = format!("plugin {} says {:?}", self.plugin, cut(words));
                let news = is_first.then(|| {
                    let note = format!("Hook {} holds the Machine: {words}", self.name);
                    ("HookWaiting", false, note)
                });
                let after = (*check_after).clamp(CHECK_MIN, CHECK_MAX);
                self.waits(words, 0, after, news, now)
            }
            Answer::Unavailable(why) => {
                let news = is_first.then(|| {
                    let note = format!("Hook {} cannot be asked: {why}", self.name);
                    ("HookNotAvailable", true, note)
                });
                self.waits(why.clone(), 0, PLUGIN_CHECK, news, now)
            }
            Answer::Busy(why) => {
                let failures = self.said.as_ref().map_or(0, |said| said.failures);
                self.waits(why.clone(), failures, BUSY_CHECK, None, now)
            }
            Answer::Failed(failure) => self.failed(failure, now),
        }
    }

    fn failed(&self, failure: &Failure, now: Timestamp) -> Turn {
        let before = self.said.as_ref().map_or(0, |said| said.failures);
        let failures = before.saturating_add(1);
        let words = format!(
            "plugin {} failed with {}: {:?}",
            self.plugin,
            failure.reason,
            cut(&failure.message)
        );
        let is_final = failure.kind != FailureKind::Transient || failures >= TRIES;
        if self.on_failure == Policy::Proceed && is_final {
            let note = format!(
                "Hook {} failed; the deletion goes on (onFailure: Proceed): {words}",
                self.name
            );
            return self.done(Outcome::Failed, ("HookFailed", true, note), now);
        }
        let after = match (failure.retry_after, failure.kind) {
            (Some(after), _) => after.clamp(CHECK_MIN, CHECK_MAX),
            (None, FailureKind::Transient) => backoff(failures),
            (None, FailureKind::Terminal | FailureKind::Denied) => RETRY_MAX,
        };
        let news = (failures == 1).then(|| {
            let note = format!("Hook {} failed and holds the Machine: {words}", self.name);
            ("HookFailed", true, note)
        });
        self.waits(words, failures, after, news, now)
    }

    fn done(&self, outcome: Outcome, news: News, now: Timestamp) -> Turn {
        Turn {
            hook: self.name.clone(),
            record: Record {
                since: self.since(now),
                done: Some(now),
                outcome: Some(outcome),
            },
            said: self.said.clone().unwrap_or_else(|| Said::nothing(now)),
            news: Some(news),
        }
    }

    fn waits(
        &self,
        words: String,
        failures: u32,
        after: Duration,
        news: Option<News>,
        now: Timestamp,
    ) -> Turn {
        let before = self.said.as_ref().map_or(0, |said| said.attempts);
        Turn {
            hook: self.name.clone(),
            record: Record {
                since: self.since(now),
                done: None,
                outcome: None,
            },
            said: Said {
                attempts: before.saturating_add(1),
                failures,
                next: now.checked_add(after).unwrap_or(now),
                words,
            },
            news,
        }
    }

    /// One line about it.
    fn line(&self, is_its_turn: bool, now: Timestamp) -> String {
        let who = format!("* {} (plugin {})", self.name, self.plugin);
        let record = self.record.as_ref();
        match record.map(|record| (record, record.done, record.outcome)) {
            Some((_, Some(at), Some(Outcome::Proceeded))) => format!("{who}: proceeded at {at}"),
            Some((_, Some(at), Some(Outcome::TimedOut))) => {
                format!("{who}: gave no answer in time, passed over at {at}")
            }
            Some((_, Some(at), _)) => format!("{who}: failed, passed over at {at}"),
            Some((record, None, _)) => {
                let late = if self.is_late(now) {
                    "; its time is over, which blocks (onTimeout: Block)"
                } else {
                    ""
                };
                let words = self.said.as_ref().map(|said| said.words.as_str());
                let words = words.filter(|words| !words.is_empty());
                let words = words.map_or_else(String::new, |words| format!(": {words}"));
                format!("{who}: waits since {}{words}{late}", record.since)
            }
            None if is_its_turn => format!("{who}: is asked now"),
            None => format!("{who}: waits for its turn"),
        }
    }
}

impl Said {
    fn nothing(now: Timestamp) -> Self {
        Self {
            attempts: 0,
            failures: 0,
            next: now,
            words: String::new(),
        }
    }
}

/// What is to be done when it is a hook's turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextTurn {
    /// Ask it.
    Ask,
    /// Go on without it.
    GiveUp(Turn),
    /// Look again after this time.
    Wait(Duration),
}

fn between(now: Timestamp, until: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(now)).unwrap_or_default()
}

fn backoff(failures: u32) -> Duration {
    let factor = 2_u32.saturating_pow(failures.saturating_sub(1).min(6));
    RETRY_MIN.saturating_mul(factor).min(RETRY_MAX)
}

fn cut(words: &str) -> &str {
    words
        .get(..words.floor_char_boundary(WORDS_BYTES_MAX))
        .unwrap_or(words)
}

/// Whether a MachineHook is about a Machine with these labels, of a Cluster with those. A selector that cannot be read binds
/// nothing; the MachineHook says so.
#[must_use]
pub fn is_bound(
    hook: &MachineHook,
    namespace: &str,
    machine: &BTreeMap<String, String>,
    cluster: &BTreeMap<String, String>,
) -> bool {
    let spec = &hook.spec;
    let matches = |selector: &Option<_>, labels| {
        selector
            .as_ref()
            .is_none_or(|selector| selects(selector, labels).unwrap_or(false))
    };
    (spec.namespaces.is_empty() || spec.namespaces.iter().any(|n| n == namespace))
        && matches(&spec.machine_selector, machine)
        && matches(&spec.cluster_selector, cluster)
}

/// What was written down on a Machine, in the annotation's text, by name of the hook; what cannot be read counts as not written. So does
/// what is not of the deletion that began then, if one did: a template, or a backup of another Machine, answers for no hook.
#[must_use]
pub fn records(
    text: Option<&str>,
    begun: Option<Timestamp>,
    now: Timestamp,
) -> BTreeMap<String, Record> {
    let all: Option<BTreeMap<String, Record>> =
        text.and_then(|text| serde_json::from_str(text).ok());
    let (Some(begun), Some(mut all)) = (begun, all) else {
        return BTreeMap::new();
    };
    let latest = now.saturating_add(CLOCK_SKEW_MAX).unwrap_or(now).max(begun);
    all.retain(|_, record| (begun..=latest).contains(&record.since));
    all
}

/// The merge patch that writes down a turn beside what is written already; `None` when it is written already. Only of the
/// Machine as it was seen: the annotation is replaced whole.
#[must_use]
pub fn record_patch(
    text: Option<&str>,
    begun: Option<Timestamp>,
    now: Timestamp,
    resource_version: &str,
    turn: &Turn,
) -> Option<Value> {
    let mut all = records(text, begun, now);
    let mut record = turn.record.clone();
    // Written by an earlier turn whose answer was lost: the clock runs on from there, and what is over stays so.
    if let Some(written) = all.get(&turn.hook) {
        record.since = written.since;
        if written.done.is_some() || *written == record {
            return None;
        }
    }
    all.insert(turn.hook.clone(), record);
    Some(json!({"metadata": {
        "resourceVersion": resource_version,
        "annotations": {annotation::HOOKS: json!(all).to_string()},
    }}))
}

/// Hooks of a phase in their order.
pub fn in_order(hooks: &[Hook], phase: Phase) -> Vec<&Hook> {
    let mut of_phase: Vec<&Hook> = hooks.iter().filter(|hook| hook.phase == phase).collect();
    of_phase.sort_by_key(|hook| (hook.order, &hook.name));
    of_phase
}

/// The condition of a phase: `pending` are the hooks that the Machine waits for, whose turn it is first. `None` when no hook
/// of the phase has, or had, anything to say.
#[must_use]
pub fn report(hooks: &[Hook], phase: Phase, pending: &[&Hook], now: Timestamp) -> Option<Report> {
    let type_ = match phase {
        Phase::PreDrain => PRE_DRAIN_HOOKS_SUCCEEDED,
        Phase::PreTerminate => PRE_TERMINATE_HOOKS_SUCCEEDED,
    };
    let shown: Vec<&Hook> = in_order(hooks, phase)
        .into_iter()
        .filter(|hook| hook.record.is_some() || pending.iter().any(|p| p.name == hook.name))
        .collect();
    if shown.is_empty() {
        return None;
    }
    let current = pending.first();
    let lines: Vec<String> = shown
        .iter()
        .map(|hook| hook.line(current.is_some_and(|c| c.name == hook.name), now))
        .collect();
    let report = match current {
        None => Report::yes(type_, reason::machine::HOOKS_SUCCEEDED),
        Some(hook) if hook.is_late(now) => Report::no(type_, reason::machine::HOOK_TIMED_OUT),
        Some(hook) if hook.unavailable.is_some() => {
            Report::no(type_, reason::machine::HOOK_NOT_AVAILABLE)
        }
        Some(hook) if hook.said.as_ref().is_some_and(|said| said.failures > 0) => {
            Report::no(type_, reason::machine::HOOK_FAILED)
        }
        Some(_) => Report::no(type_, reason::machine::WAITING_FOR_HOOK),
    };
    Some(report.with_message(lines.join("\n")))
}

#[cfg(test)]
mod tests;
