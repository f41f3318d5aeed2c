//! Which pods of a Node are evicted now, which are waited for, and which are left alone.
//!
//! Contract: upstream `core/reconcilers/machine/drain`.

use std::collections::BTreeMap;

use capstan_api::label;
use capstan_api::v1beta2::{MachineDrainRule, MachineDrainRuleDrainBehavior as Behavior};
use jiff::Timestamp;
use serde_json::Value;

use crate::selector::selects;

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
    /// Left alone: does not hold the drain.
    Skip,
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
            Verdict::Skip => {}
            verdict => judged.push((seen, verdict)),
        }
    }
    let order = |verdict: &Verdict| match verdict {
        Verdict::Evict(order) => *order,
        Verdict::WaitCompleted | Verdict::Skip => 0,
    };
    let Some(first) = judged.iter().map(|(_, verdict)| order(verdict)).min() else {
        return Ok(Drain::default());
    };
    let mut drain = Drain::default();
    for (seen, verdict) in &judged {
        let (namespace, name) = key(&seen.pod);
        let full = format!("{namespace}/{name}");
        if text(&seen.pod, "/metadata/deletionTimestamp").is_some() {
            drain.terminating.push(full);
        } else if order(verdict) > first {
            drain.later.push(full);
        } else if *verdict == Verdict::WaitCompleted {
            drain.completing.push(full);
        } else {
            drain.evict.push((namespace.to_owned(), name.to_owned()));
        }
    }
    Ok(drain)
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
    if controller_kind(pod) == Some("DaemonSet") {
        let finished = matches!(text(pod, "/status/phase"), Some("Succeeded" | "Failed"));
        return Ok(if finished || seen.daemon_set_missing {
            Verdict::Evict(0)
        } else {
            Verdict::Skip
        });
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
        Some("wait-completed" | "waitcompleted") => return Ok(Verdict::WaitCompleted),
        _ => {}
    }
    for rule in rules {
        if is_for(rule, seen, &labels)? {
            return Ok(match rule.spec.drain.behavior {
                Behavior::Skip => Verdict::Skip,
                Behavior::WaitCompleted => Verdict::WaitCompleted,
                Behavior::Drain => Verdict::Evict(rule.spec.drain.order.unwrap_or(0)),
            });
        }
    }
    Ok(Verdict::Evict(0))
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

/// What is left of a drain, in words; empty when it is complete. `refused` holds what the server said to evictions.
#[must_use]
pub fn describe(drain: &Drain, refused: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut lines = Vec::new();
    if !drain.terminating.is_empty() {
        lines.push(format!(
            "* {}: deletionTimestamp set, but still not removed from the Node",
            pods(&drain.terminating)
        ));
    }
    for (why, names) in refused.iter().take(5) {
        lines.push(format!("* {}: {why}", pods(names)));
    }
    let others: usize = refused.iter().skip(5).map(|(_, names)| names.len()).sum();
    if others > 0 {
        lines.push(format!("* {others} Pods with other issues"));
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
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, change: Value) -> PodSeen {
        let mut pod = json!({"metadata": {"namespace": "ns", "name": name}});
        for (pointer, value) in change.as_object().into_iter().flatten() {
            pod["metadata"][pointer] = value.clone();
        }
        PodSeen {
            pod,
            namespace_labels: Some(BTreeMap::new()),
            daemon_set_missing: false,
        }
    }

    fn rule(name: &str, spec: Value) -> MachineDrainRule {
        serde_json::from_value(json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachineDrainRule",
            "metadata": {"name": name}, "spec": spec,
        }))
        .expect("a MachineDrainRule")
    }

    fn run(pods: &[PodSeen], rules: &[MachineDrainRule], unreachable: bool) -> Drain {
        let none = BTreeMap::new();
        let now = Timestamp::from_second(1_800_000_000).expect("in range");
        plan(pods, rules, &none, &none, unreachable, now).expect("a plan")
    }

    fn evicted(drain: &Drain) -> Vec<&str> {
        drain.evict.iter().map(|(_, name)| name.as_str()).collect()
    }

    #[test]
    fn daemon_set_and_mirror_and_labelled_pods_stay() {
        let owner = |kind: &str| json!([{"kind": kind, "controller": true}]);
        let mut orphan = pod("orphan", json!({"ownerReferences": owner("DaemonSet")}));
        orphan.daemon_set_missing = true;
        let pods = [
            pod("daemon", json!({"ownerReferences": owner("DaemonSet")})),
            orphan,
            pod(
                "mirror",
                json!({"annotations": {"kubernetes.io/config.mirror": "x"}}),
            ),
            pod(
                "labelled",
                json!({"labels": {"cluster.x-k8s.io/drain": "Skip"}}),
            ),
            pod(
                "waiting",
                json!({"labels": {"cluster.x-k8s.io/drain": "wait-completed"}}),
            ),
            pod("plain", json!({"ownerReferences": owner("ReplicaSet")})),
        ];
        let drain = run(&pods, &[], false);
        assert_eq!(evicted(&drain), ["orphan", "plain"]);
        assert_eq!(drain.completing, ["ns/waiting"]);
    }

    #[test]
    fn lower_orders_go_first_and_the_first_rule_by_name_counts() {
        let pods = [
            pod("db", json!({"labels": {"app": "db"}})),
            pod("web", json!({"labels": {"app": "web"}})),
        ];
        let rules = [
            rule(
                "b",
                json!({"drain": {"behavior": "Skip"}, "pods": [{"selector": {"matchLabels": {"app": "db"}}}]}),
            ),
            rule(
                "a",
                json!({"drain": {"behavior": "Drain", "order": 5}, "pods": [{"selector": {"matchLabels": {"app": "db"}}}]}),
            ),
        ];
        let drain = run(&pods, &rules, false);
        assert_eq!(evicted(&drain), ["web"]);
        assert_eq!(drain.later, ["ns/db"]);
        assert_eq!(evicted(&run(&pods[..1], &rules, false)), ["db"]);
    }

    #[test]
    fn terminating_pods_hold_the_drain_unless_their_node_is_unreachable() {
        let pods = [pod(
            "going",
            json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}),
        )];
        assert_eq!(run(&pods, &[], false).terminating, ["ns/going"]);
        assert!(run(&pods, &[], true).is_complete());
    }

    #[test]
    fn a_rule_that_cannot_be_read_stops_the_drain() {
        let selector = json!({"matchExpressions": [{"key": "a", "operator": "Near"}]});
        let rules = [rule(
            "bad",
            json!({"drain": {"behavior": "Skip"}, "machines": [{"selector": selector}]}),
        )];
        let none = BTreeMap::new();
        let error = plan(
            &[pod("a", json!({}))],
            &rules,
            &none,
            &none,
            false,
            Timestamp::UNIX_EPOCH,
        );
        assert!(error.expect_err("refused").contains("MachineDrainRule bad"));
    }

    #[test]
    fn what_is_left_is_said_in_a_few_lines() {
        let many: Vec<PodSeen> = (0..5)
            .map(|i| {
                pod(
                    &format!("p{i}"),
                    json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}),
                )
            })
            .collect();
        let lines = describe(&run(&many, &[], false), &BTreeMap::new());
        assert_eq!(
            lines,
            [
                "* Pods ns/p0, ns/p1, ns/p2, ... (2 more): deletionTimestamp set, but still not removed from the Node"
            ]
        );
    }
}
