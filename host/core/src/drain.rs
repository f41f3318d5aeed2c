//! Which pods of a Node are evicted now, which are waited for, and which are left alone.
//!
//! Contract: upstream `core/reconcilers/machine/drain`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use capstan_api::label;
use capstan_api::v1beta2::{MachineDrainRule, MachineDrainRuleDrainBehavior as Behavior};
use jiff::Timestamp;
use serde_json::Value;

use crate::selector::{self, selects};

/// Between two looks at a drain that goes on: a quarter of the time that it has taken, within these (upstream: 20 s always).
const CHECK_MIN: Duration = Duration::from_secs(2);
const CHECK_MAX: Duration = Duration::from_secs(20);

/// When a drain, or a wait for volumes, that began at this time is looked at again.
#[must_use]
pub fn check_after(began: Option<Timestamp>, now: Timestamp) -> Duration {
    let took = began.map(|began| now.duration_since(began));
    let took = took.and_then(|took| Duration::try_from(took).ok());
    let quarter = took.unwrap_or_default().checked_div(4).unwrap_or_default();
    quarter.clamp(CHECK_MIN, CHECK_MAX)
}

/// A pod on the Node.
#[derive(Clone, Debug, PartialEq)]
pub struct PodSeen {
    /// The pod.
    pub pod: Value,
    /// Labels of its namespace; `None` when the namespace was not found.
    pub namespace_labels: Option<BTreeMap<String, String>>,
    /// The DaemonSet that controls it does not exist; false when it does, and for other pods.
    pub daemon_set_missing: bool,
}

/// What is done with a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Left alone: holds neither the drain nor, with its volumes, what comes after it.
    Skip,
    /// Was waited for and has completed: does not hold the drain. Its volumes are waited for like those of pods that went.
    Completed,
    /// Waited for, in this place of the order.
    WaitCompleted,
    /// Evicted, in this place of the order.
    Evict(i32),
}

/// What to do now. Names are `namespace/name`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drain {
    /// To be evicted now.
    pub evict: Vec<(String, String)>,
    /// Deleted already, and still on the Node.
    pub terminating: Vec<String>,
    /// Waited for until they complete.
    pub completing: Vec<String>,
    /// Evicted after those above are gone.
    pub later: Vec<String>,
    /// Waited for after those above are gone.
    pub completing_later: Vec<String>,
}

/// Why the server did not evict a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// A disruption budget forbids it; the server's words.
    Budget(String),
    /// The pod's namespace is going: its pods will be deleted by others.
    TerminatingNamespace,
    /// The server has too much to do; its words.
    Busy(String),
    /// The time of this turn was over.
    TurnOver,
    /// Something else; the server's words.
    Other(String),
}

impl Refusal {
    /// The refusal in the words of the condition (contract 3.3, drain details).
    #[must_use]
    pub fn text(&self) -> String {
        const BUDGET: &str = "cannot evict pod as it would violate the pod's disruption budget.";
        match self {
            Self::Budget(words) => {
                let rest = words.get(..BUDGET.len()).filter(|start| start.eq_ignore_ascii_case(BUDGET));
                let rest = rest.and_then(|_| words.get(BUDGET.len()..));
                format!("{BUDGET}{}", rest.unwrap_or(&format!(" {words}"))).trim_end().to_owned()
            }
            Self::TerminatingNamespace => "failed to evict Pod, Cannot evict pod from terminating namespace: unable to create eviction (kube-controller-manager should set deletionTimestamp)".to_owned(),
            Self::Busy(words) | Self::Other(words) => format!("failed to evict Pod, {words}"),
            Self::TurnOver => "failed to evict Pod, eviction timeout of 10s reached, eviction will be retried".to_owned(),
        }
    }
}

/// How long a drain may take before it is said what holds it, in seconds.
pub const LONG_DRAIN_S: i64 = 5 * 60;

/// `, delay likely due to …`, when the messages of drains say something of it; otherwise nothing.
#[must_use]
pub fn likely_due_to(messages: &str) -> String {
    match delays(messages).as_slice() {
        [] => String::new(),
        delays => format!(", delay likely due to {}", delays.join(", ")),
    }
}

/// What holds drains, in the words of the contract, as far as the conditions' messages say it.
fn delays(message: &str) -> Vec<&'static str> {
    const SAID: [(&str, &str); 4] = [
        (
            "cannot evict pod as it would violate the pod's disruption budget",
            "PodDisruptionBudgets",
        ),
        (
            "deletionTimestamp set, but still not removed from the Node",
            "Pods not terminating",
        ),
        ("failed to evict Pod", "Pod eviction errors"),
        ("waiting for completion", "Pods not completed yet"),
    ];
    let said = SAID.iter().filter(|(words, _)| message.contains(words));
    said.map(|(_, delay)| *delay).collect()
}

impl Drain {
    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        *self == Self::default()
    }
}

/// What is to be done with the pods of a Node.
///
/// # Errors
/// The rule whose selector is not valid, or the pod whose namespace is not known: nothing is evicted then.
pub fn plan(
    pods: &[PodSeen],
    rules: &[MachineDrainRule],
    machine: &BTreeMap<String, String>,
    cluster: &BTreeMap<String, String>,
    node_unreachable: bool,
    now: Timestamp,
) -> Result<Drain, String> {
    let rules = applicable(rules, machine, cluster)?;
    let mut judged: Vec<(&PodSeen, Verdict)> = Vec::new();
    for seen in pods {
        match verdict(seen, &rules, node_unreachable, now)? {
            Verdict::Skip | Verdict::Completed => {}
            verdict => judged.push((seen, verdict)),
        }
    }
    let order = |verdict: &Verdict| match verdict {
        Verdict::Evict(order) => *order,
        Verdict::WaitCompleted | Verdict::Skip | Verdict::Completed => 0,
    };
    let Some(first) = judged.iter().map(|(_, verdict)| order(verdict)).min() else {
        return Ok(Drain::default());
    };
    let mut drain = Drain::default();
    for (seen, verdict) in &judged {
        let (namespace, name) = key(&seen.pod);
        let full = format!("{namespace}/{name}");
        let is_later = order(verdict) > first;
        match verdict {
            Verdict::WaitCompleted if is_later => drain.completing_later.push(full),
            Verdict::WaitCompleted => drain.completing.push(full),
            _ if text(&seen.pod, "/metadata/deletionTimestamp").is_some() => {
                drain.terminating.push(full);
            }
            _ if is_later => drain.later.push(full),
            _ => drain.evict.push((namespace.to_owned(), name.to_owned())),
        }
    }
    for names in [
        &mut drain.terminating,
        &mut drain.completing,
        &mut drain.later,
        &mut drain.completing_later,
    ] {
        names.sort();
    }
    drain.evict.sort();
    Ok(drain)
}

/// Claims of the pods that a drain leaves alone, by namespace and name: their volumes are not waited for.
///
/// # Errors
/// As [`plan`].
pub fn claims_left_alone(
    pods: &[PodSeen],
    rules: &[MachineDrainRule],
    machine: &BTreeMap<String, String>,
    cluster: &BTreeMap<String, String>,
    node_unreachable: bool,
    now: Timestamp,
) -> Result<BTreeSet<(String, String)>, String> {
    let rules = applicable(rules, machine, cluster)?;
    let mut claims = BTreeSet::new();
    for seen in pods {
        if verdict(seen, &rules, node_unreachable, now)? == Verdict::Skip {
            claims.extend(claims_of(&seen.pod));
        }
    }
    Ok(claims)
}

/// The claims that a pod uses, those that are made for it included.
fn claims_of(pod: &Value) -> Vec<(String, String)> {
    let (namespace, name) = key(pod);
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array);
    let claims = volumes.into_iter().flatten().filter_map(|volume| {
        let claim = text(volume, "/persistentVolumeClaim/claimName").map(str::to_owned);
        claim.or_else(|| {
            volume.get("ephemeral")?;
            Some(format!("{name}-{}", text(volume, "/name")?))
        })
    });
    claims.map(|claim| (namespace.to_owned(), claim)).collect()
}

/// Whether the labels of pods' namespaces are needed to judge them.
#[must_use]
pub fn needs_namespaces(rules: &[MachineDrainRule]) -> bool {
    let entries = rules.iter().flat_map(|rule| &rule.spec.pods);
    entries
        .into_iter()
        .any(|entry| entry.namespace_selector.is_some())
}

/// Whether a rule can be read; what is wrong if it cannot.
fn check(rule: &MachineDrainRule) -> Result<(), String> {
    let of_machines = rule
        .spec
        .machines
        .iter()
        .flat_map(|entry| [&entry.selector, &entry.cluster_selector]);
    let of_pods = rule
        .spec
        .pods
        .iter()
        .flat_map(|entry| [&entry.selector, &entry.namespace_selector]);
    of_machines
        .chain(of_pods)
        .flatten()
        .try_for_each(selector::check)
}

/// Rules that apply to the Machine, by name.
fn applicable<'a>(
    rules: &'a [MachineDrainRule],
    machine: &BTreeMap<String, String>,
    cluster: &BTreeMap<String, String>,
) -> Result<Vec<&'a MachineDrainRule>, String> {
    let mut applicable = Vec::new();
    for rule in rules {
        let name = rule.metadata.name.as_deref().unwrap_or_default();
        let named = |why: String| format!("MachineDrainRule {name}: {why}");
        check(rule).map_err(named)?;
        let mut applies = rule.spec.machines.is_empty();
        for entry in &rule.spec.machines {
            let on_machine = entry
                .selector
                .as_ref()
                .map_or(Ok(true), |s| selects(s, machine));
            let on_cluster = entry
                .cluster_selector
                .as_ref()
                .map_or(Ok(true), |s| selects(s, cluster));
            applies |= on_machine.map_err(named)? && on_cluster.map_err(named)?;
        }
        if applies {
            applicable.push(rule);
        }
    }
    applicable.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    Ok(applicable)
}

fn verdict(
    seen: &PodSeen,
    rules: &[&MachineDrainRule],
    node_unreachable: bool,
    now: Timestamp,
) -> Result<Verdict, String> {
    let pod = &seen.pod;
    let labels = labels(pod);
    if node_unreachable
        && let Some(deleted) = text(pod, "/metadata/deletionTimestamp")
        && deleted
            .parse::<Timestamp>()
            .is_ok_and(|at| now.duration_since(at).as_secs() > 1)
    {
        // Its kubelet will not confirm the deletion: waiting for it would be waiting for ever.
        return Ok(Verdict::Skip);
    }
    if controller_kind(pod) == Some("DaemonSet") && !is_finished(pod) && !seen.daemon_set_missing {
        return Ok(Verdict::Skip);
    }
    let annotations = pod.pointer("/metadata/annotations");
    if annotations.is_some_and(|a| a.get("kubernetes.io/config.mirror").is_some()) {
        return Ok(Verdict::Skip);
    }
    match labels
        .get(label::DRAIN)
        .map(|value| value.to_ascii_lowercase())
        .as_deref()
    {
        Some("skip") => return Ok(Verdict::Skip),
        Some("wait-completed" | "waitcompleted") => return Ok(wait_for(pod)),
        _ => {}
    }
    for rule in rules {
        if is_for(rule, seen, &labels)? {
            return Ok(match rule.spec.drain.behavior {
                Behavior::Skip => Verdict::Skip,
                Behavior::WaitCompleted => wait_for(pod),
                Behavior::Drain => Verdict::Evict(rule.spec.drain.order.unwrap_or(0)),
            });
        }
    }
    Ok(Verdict::Evict(0))
}

fn is_finished(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), Some("Succeeded" | "Failed"))
}

/// A pod that has completed is not waited for.
fn wait_for(pod: &Value) -> Verdict {
    if is_finished(pod) {
        Verdict::Completed
    } else {
        Verdict::WaitCompleted
    }
}

fn is_for(
    rule: &MachineDrainRule,
    seen: &PodSeen,
    labels: &BTreeMap<String, String>,
) -> Result<bool, String> {
    if rule.spec.pods.is_empty() {
        return Ok(true);
    }
    let name = rule.metadata.name.as_deref().unwrap_or_default();
    for entry in &rule.spec.pods {
        let namespace = match (&entry.namespace_selector, &seen.namespace_labels) {
            (None, _) => true,
            (Some(selector), Some(labels)) => selects(selector, labels)
                .map_err(|why| format!("MachineDrainRule {name}: {why}"))?,
            (Some(_), None) => {
                let (namespace, pod) = key(&seen.pod);
                return Err(format!(
                    "the namespace of Pod {namespace}/{pod} was not found"
                ));
            }
        };
        let pod = entry
            .selector
            .as_ref()
            .map_or(Ok(true), |selector| selects(selector, labels));
        if namespace && pod.map_err(|why| format!("MachineDrainRule {name}: {why}"))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How many different refusals are shown.
const FAILURES_MAX: usize = 5;

/// What is left of a drain, in words; empty when it is complete. `refused` holds what the server said to evictions.
#[must_use]
pub fn describe(drain: &Drain, refused: &BTreeMap<Refusal, Vec<String>>) -> Vec<String> {
    let mut lines = Vec::new();
    // What was evicted in this turn is on its way like what was before.
    let refused_names: BTreeSet<&String> = refused.values().flatten().collect();
    let evicted = drain
        .evict
        .iter()
        .map(|(namespace, name)| format!("{namespace}/{name}"));
    let mut going = drain.terminating.clone();
    going.extend(evicted.filter(|name| !refused_names.contains(name)));
    going.sort();
    if !going.is_empty() {
        lines.push(format!(
            "* {}: deletionTimestamp set, but still not removed from the Node",
            pods(&going)
        ));
    }
    let mut by_text: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (why, names) in refused {
        by_text
            .entry(why.text())
            .or_default()
            .extend(names.iter().cloned());
    }
    for (why, names) in by_text.iter().take(FAILURES_MAX) {
        lines.push(format!("* {}: {why}", pods(names)));
    }
    let others: usize = by_text
        .iter()
        .skip(FAILURES_MAX)
        .map(|(_, names)| names.len())
        .sum();
    match others {
        0 => {}
        1 => lines.push("* 1 Pod with other issues".to_owned()),
        others => lines.push(format!("* {others} Pods with other issues")),
    }
    if !drain.completing.is_empty() {
        lines.push(format!(
            "* {}: waiting for completion",
            pods(&drain.completing)
        ));
    }
    if !drain.later.is_empty() {
        lines.push(format!(
            "After above Pods have been removed from the Node, the following Pods will be evicted: {}",
            names(&drain.later)
        ));
    }
    if !drain.completing_later.is_empty() {
        lines.push(format!(
            "After above Pods have been removed from the Node, waiting for the following Pods to complete without eviction: {}",
            names(&drain.completing_later)
        ));
    }
    lines
}

fn pods(all: &[String]) -> String {
    let noun = if all.len() == 1 { "Pod" } else { "Pods" };
    format!("{noun} {}", names(all))
}

fn names(all: &[String]) -> String {
    let shown: Vec<&str> = all.iter().take(3).map(String::as_str).collect();
    match all.len().checked_sub(3).filter(|more| *more > 0) {
        Some(more) => format!("{}, ... ({more} more)", shown.join(", ")),
        None => shown.join(", "),
    }
}

fn key(pod: &Value) -> (&str, &str) {
    (
        text(pod, "/metadata/namespace").unwrap_or_default(),
        text(pod, "/metadata/name").unwrap_or_default(),
    )
}

/// Whether the Node's kubelet does not answer: its Ready condition is Unknown.
#[must_use]
pub fn is_unreachable(node: &Value) -> bool {
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .any(|c| text(c, "/type") == Some("Ready") && text(c, "/status") == Some("Unknown"))
}

/// An object's labels.
#[must_use]
pub fn labels(object: &Value) -> BTreeMap<String, String> {
    let labels = object
        .pointer("/metadata/labels")
        .and_then(Value::as_object);
    labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

fn controller_kind(pod: &Value) -> Option<&str> {
    let owners = pod
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array)?;
    let controller = owners
        .iter()
        .find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true))?;
    text(controller, "/kind")
}

fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer).and_then(Value::as_str)
}

#[cfg(test)]
mod tests;
