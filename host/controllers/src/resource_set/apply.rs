//! Objects in a workload cluster: created, changed, looked at and deleted, with errors by object.

use std::collections::BTreeMap;
use std::time::Duration;

use capstan_api::addons::ResourceRef;
use capstan_api::name::ObjectKey;
use capstan_core::addons::decide::Action;
use capstan_core::addons::{Item, ItemResult, ObjectRef, Sync, drift};
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::timeout;

use crate::kube_api::{ApiError, KubeApi, Patch, Preconditions, Resource};

/// Field manager in workload clusters.
const MANAGER: &str = "capi-clusterresourceset";

/// The namespace of objects that name none.
const DEFAULT_NAMESPACE: &str = "default";

/// The most sentences that are kept of one resource.
const LINES_MAX: usize = 10;

/// How long one object may take. A cluster that answers nothing for so long is left until its next turn: others wait for theirs in the same
/// look, which has two minutes.
const ANSWER: Duration = Duration::from_secs(15);

/// What a server serves, asked once for each group and version.
struct Discovery<'a> {
    api: &'a dyn KubeApi,
    known: BTreeMap<String, BTreeMap<String, Resource>>,
}

impl Discovery<'_> {
    async fn resource(&mut self, object: &ObjectRef) -> Result<Resource, String> {
        let version = &object.api_version;
        let is_known = |known: &BTreeMap<String, BTreeMap<String, Resource>>| {
            known
                .get(version)
                .and_then(|kinds| kinds.get(&object.kind).cloned())
        };
        if let Some(resource) = is_known(&self.known) {
            return Ok(resource);
        }
        let kinds = self.ask(version).await?;
        self.known.insert(version.clone(), kinds);
        is_known(&self.known)
            .ok_or_else(|| format!("{version} has no kind {} in this cluster", object.kind))
    }

    async fn ask(&self, version: &str) -> Result<BTreeMap<String, Resource>, String> {
        let path = if version.contains('/') {
            format!("/apis/{version}")
        } else {
            format!("/api/{version}")
        };
        let text = match self.api.get_raw(&path).await {
            Ok(text) => text,
            Err(ApiError::NotFound(_) | ApiError::NotServed(_)) => {
                return Err(format!("{version} is not served by this cluster"));
            }
            Err(error) => return Err(error.to_string()),
        };
        let list: Value = serde_json::from_str(&text)
            .map_err(|_| format!("{path} of this cluster is not JSON"))?;
        let (group, plain) = version.split_once('/').unwrap_or(("", version));
        let listed = list.get("resources").and_then(Value::as_array);
        let listed = listed.into_iter().flatten().filter_map(|entry| {
            let kind = entry.get("kind").and_then(Value::as_str)?;
            let plural = entry.get("name").and_then(Value::as_str)?;
            if plural.contains('/') {
                return None;
            }
            let is_namespaced = entry.get("namespaced").and_then(Value::as_bool) == Some(true);
            let make = if is_namespaced {
                Resource::namespaced
            } else {
                Resource::cluster_scoped
            };
            Some((kind.to_owned(), make(group, plain, kind, plural)))
        });
        Ok(listed.collect())
    }
}

fn key(resource: &Resource, object: &ObjectRef) -> ObjectKey {
    let namespace = match (resource.namespaced, object.namespace.as_str()) {
        (false, _) => "",
        (true, "") => DEFAULT_NAMESPACE,
        (true, named) => named,
    };
    ObjectKey::new(namespace, object.name.clone())
}

/// Brings a cluster to what the items say, in their order. What was not reached has no result.
pub(super) async fn sync(
    api: &dyn KubeApi,
    sync: &Sync,
    now: Timestamp,
) -> Vec<(ResourceRef, ItemResult)> {
    let mut discovery = Discovery {
        api,
        known: BTreeMap::new(),
    };
    let mut results = Vec::new();
    for item in &sync.items {
        let (result, answers) = one(&mut discovery, sync, item, now).await;
        let is_good = result.errors.is_empty() && result.not_ready.is_empty();
        results.push((item.reference.clone(), result));
        if !answers || (sync.waits && !is_good) {
            break;
        }
    }
    results
}

/// What became of an item, and whether the cluster answers.
async fn one(
    discovery: &mut Discovery<'_>,
    sync: &Sync,
    item: &Item,
    now: Timestamp,
) -> (ItemResult, bool) {
    let mut answers = true;
    let mut result = ItemResult {
        hash: item.hash.clone(),
        ..ItemResult::default()
    };
    for object in &*item.objects {
        let Some(reference) = ObjectRef::of(object) else {
            continue;
        };
        let looks = sync.waits || (sync.looks_for_drift && item.action == Action::Check);
        let put = put(discovery, &reference, object, item.action);
        let live = match timeout(ANSWER, put).await {
            Ok(Ok(live)) => live,
            Ok(Err(why)) => {
                result.errors.push(format!("{reference}: {why}"));
                continue;
            }
            Err(_) => {
                let seconds = ANSWER.as_secs();
                let why = format!("{reference}: the cluster did not answer within {seconds} s");
                result.errors.push(why);
                answers = false;
                break;
            }
        };
        if !looks {
            continue;
        }
        let Some(live) = live else {
            result.drift.push(format!("{reference} is gone"));
            continue;
        };
        if sync.waits
            && let Some(why) = drift::not_ready(&live)
        {
            result.not_ready.push(format!("{reference}: {why}"));
        }
        if sync.looks_for_drift && item.action == Action::Check {
            let differences = drift::differences(object, &live);
            if !differences.is_empty() {
                let fields = differences.join(", ");
                result.drift.push(format!("{reference}: {fields}"));
            }
        }
    }
    for lines in [&mut result.errors, &mut result.not_ready, &mut result.drift] {
        let more = lines.len().saturating_sub(LINES_MAX);
        lines.truncate(LINES_MAX);
        if more > 0 {
            lines.push(format!("{more} more"));
        }
    }
    if item.action != Action::Check {
        result.applied = Some(now);
    }
    (result, answers)
}

/// The object as it is then; `None` when it is only looked for and does not exist.
async fn put(
    discovery: &mut Discovery<'_>,
    reference: &ObjectRef,
    object: &Value,
    action: Action,
) -> Result<Option<Value>, String> {
    let api = discovery.api;
    let resource = discovery.resource(reference).await?;
    let key = key(&resource, reference);
    if action != Action::Create {
        match api.get(&resource, &key).await {
            Ok(live) if action == Action::Check => return Ok(Some(live)),
            Ok(_) => {
                let patch = Patch::Merge(object.clone());
                let answer = api.patch(&resource, &key, None, &patch, MANAGER).await;
                return answer.map(Some).map_err(|error| error.to_string());
            }
            Err(ApiError::NotFound(_)) if action == Action::Check => return Ok(None),
            Err(ApiError::NotFound(_)) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    match api.create(&resource, &key.namespace, object, MANAGER).await {
        Ok(live) => Ok(Some(live)),
        Err(ApiError::AlreadyExists(_)) => {
            let live = api.get(&resource, &key).await;
            live.map(Some).map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Deletes objects; what is gone already is success. Answers what could not be deleted.
pub(super) async fn prune(api: &dyn KubeApi, objects: &[ObjectRef]) -> Vec<String> {
    let mut discovery = Discovery {
        api,
        known: BTreeMap::new(),
    };
    let mut errors = Vec::new();
    // What was applied last goes first.
    for object in objects.iter().rev() {
        let delete = async {
            let resource = discovery.resource(object).await?;
            let key = key(&resource, object);
            match api.delete(&resource, &key, &Preconditions::default()).await {
                Ok(()) | Err(ApiError::NotFound(_)) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        };
        let Ok(deleted) = timeout(ANSWER, delete).await else {
            let seconds = ANSWER.as_secs();
            errors.push(format!(
                "deleting {object}: the cluster did not answer within {seconds} s"
            ));
            break;
        };
        if let Err(why) = deleted {
            errors.push(format!("deleting {object}: {why}"));
        }
    }
    errors.truncate(LINES_MAX);
    errors
}

#[cfg(test)]
mod tests {
    use capstan_api::addons::ResourceKind;
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;
    use crate::kube_api::staged::{Act, Staged};

    fn item(name: &str) -> Item {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        Item {
            reference: ResourceRef {
                kind: ResourceKind::ConfigMap,
                name: name.to_owned(),
            },
            hash: String::new(),
            objects: [object.clone(), object].into(),
            action: Action::Apply,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cluster_that_does_not_answer_is_left_after_one_object() {
        let api = Staged::new();
        api.act("", Act::Hang);
        let all = Sync {
            cluster: "c".to_owned(),
            items: vec![item("one"), item("two")],
            waits: false,
            looks_for_drift: false,
            prune: Vec::new(),
            inventory: None,
        };
        let began = Instant::now();
        let results = sync(&*api, &all, Timestamp::UNIX_EPOCH).await;
        assert_eq!(began.elapsed(), ANSWER);
        let [(reference, result)] = &results[..] else {
            panic!("{results:?}")
        };
        assert_eq!(reference.name, "one");
        assert_eq!(
            result.errors,
            ["ConfigMap one: the cluster did not answer within 15 s"]
        );
        let objects: Vec<ObjectRef> = all.items[0]
            .objects
            .iter()
            .filter_map(ObjectRef::of)
            .collect();
        let began = Instant::now();
        assert_eq!(prune(&*api, &objects).await.len(), 1);
        assert_eq!(began.elapsed(), ANSWER);
    }
}
