//! What a workload API server does with pods beyond storing them: binding and eviction.

use serde_json::{Value, json};

use super::object::{self, child, text_at};
use super::request::{Query, Target};
use super::resources;
use super::selectors::Selector;
use super::status::{self, Status};
use super::store::{Store, Write};
use super::verbs::{self, Deletion};

/// Binds a pod to a node, as the scheduler does.
pub(crate) fn bind(store: &Store, target: &Target, binding: &Value) -> Result<Value, Status> {
    let node = text_at(binding, "/target/name").to_owned();
    if node.is_empty() {
        return Err(Status::invalid(
            target.resource,
            &target.name,
            "target.name",
            "Required value",
        ));
    }
    store.write(target.resource, &target.namespace, &target.name, |old| {
        let Some(old) = old else {
            return Err(Status::not_found(target.resource, &target.name));
        };
        let present = text_at(&old.value, "/spec/nodeName");
        if !present.is_empty() {
            let why = format!(
                "pod {} is already assigned to node {present:?}",
                target.name
            );
            return Err(Status::conflict(target.resource, &target.name, &why));
        }
        let mut new = old.value.clone();
        child(&mut new, "spec").insert("nodeName".into(), json!(node));
        object::set_condition(&mut new, "PodScheduled", "True", "", "");
        Ok(Write::Update(new))
    })?;
    Ok(
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    )
}

fn is_healthy(pod: &Value) -> bool {
    object::condition_status(pod, "Ready") == "True" && !object::is_deleting(pod)
}

/// A number or a percentage of `total`, rounded up.
fn scaled(value: &Value, total: usize) -> usize {
    if let Some(number) = value.as_u64() {
        return usize::try_from(number).unwrap_or(usize::MAX);
    }
    let percent: usize = value
        .as_str()
        .and_then(|text| text.strip_suffix('%'))
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    total.saturating_mul(percent).div_ceil(100)
}

/// Evicts a pod: deletes it unless a PodDisruptionBudget says not now.
pub(crate) fn evict(
    store: &Store,
    target: &Target,
    eviction: &Value,
    query: &Query,
) -> Result<Value, Status> {
    let named = object::name(eviction);
    if !named.is_empty() && named != target.name {
        return Err(Status::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    let pod = verbs::get(store, target)?;
    let options = eviction
        .get("deleteOptions")
        .cloned()
        .unwrap_or(Value::Null);
    let how = Deletion::parse(&options, query)?;
    let is_counted = !matches!(
        text_at(&pod.value, "/status/phase"),
        "Succeeded" | "Failed" | "Pending"
    ) && !object::is_deleting(&pod.value);
    if is_counted {
        check_budgets(store, target, &pod.value)?;
    }
    verbs::delete(
        store,
        &Target {
            subresource: String::new(),
            ..target.clone()
        },
        &how,
    )?;
    Ok(status::success(
        target.resource,
        &target.name,
        object::uid(&pod.value),
    ))
}

fn check_budgets(store: &Store, target: &Target, pod: &Value) -> Result<(), Status> {
    let budgets = store.list(resources::disruption_budgets(), Some(&target.namespace));
    let covers = |budget: &Value, pod: &Value| {
        budget
            .pointer("/spec/selector")
            .is_some_and(|selector| Selector::from_object(selector).accepts(pod))
    };
    let mut mine = budgets
        .items
        .iter()
        .filter(|budget| covers(&budget.value, pod));
    let Some(budget) = mine.next() else {
        return Ok(());
    };
    if mine.next().is_some() {
        let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(Status::new(500, "InternalError", message));
    }
    let pods = store.list(resources::pods(), Some(&target.namespace));
    let covered: Vec<&Value> = pods
        .items
        .iter()
        .map(|pod| &pod.value)
        .filter(|pod| covers(&budget.value, pod))
        .collect();
    let healthy = covered.iter().filter(|pod| is_healthy(pod)).count();
    let spec = budget.value.get("spec").cloned().unwrap_or_default();
    let needed = match (spec.get("minAvailable"), spec.get("maxUnavailable")) {
        (Some(least), _) => scaled(least, covered.len()),
        (None, Some(most)) => covered.len().saturating_sub(scaled(most, covered.len())),
        (None, None) => 0,
    };
    if !is_healthy(pod)
        && healthy >= needed
        && text_at(&spec, "/unhealthyPodEvictionPolicy") != "IfHealthyBudget"
    {
        return Ok(());
    }
    if healthy > needed {
        return Ok(());
    }
    let mut refusal = Status::new(
        429,
        "TooManyRequests",
        "Cannot evict pod as it would violate the pod's disruption budget.",
    );
    refusal.details = json!({"retryAfterSeconds": 10, "causes": [{"reason": "DisruptionBudget", "message": format!(
        "The disruption budget {} needs {needed} healthy pods and has {healthy} currently", object::name(&budget.value))}]});
    Err(refusal)
}
