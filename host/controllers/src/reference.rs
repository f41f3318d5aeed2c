//! Looking at what references name.

use std::sync::Arc;

use capstan_api::contract;
use capstan_api::name::ObjectKey;
use capstan_api::v1beta2::ContractVersionedObjectReference;
use capstan_core::lookup::Lookup;
use serde_json::Value;

use crate::ctx::Ctx;
use crate::kinds;
use crate::kube_api::{GroupKind, Resource, Selection};
use crate::object::Object;
use crate::store::Store;

/// The kind that a reference names.
#[must_use]
pub fn reference_kind(reference: &ContractVersionedObjectReference) -> GroupKind {
    GroupKind {
        group: reference.api_group.clone(),
        kind: reference.kind.clone(),
    }
}

/// The object that a reference names, in the words of the current contract. A kind that cannot be resolved makes it Unknown, not
/// Missing.
pub async fn lookup(ctx: &Ctx, kind: &GroupKind, key: &ObjectKey) -> Lookup<Arc<Object>> {
    let store = match ctx.external(kind).await {
        Ok(store) => store,
        Err(failure) => return Lookup::Unknown(failure.message),
    };
    let Some(object) = store.get(key) else {
        return Lookup::Missing;
    };
    let translated =
        contract::v1beta1::translated(&object.value).filter(|_| ctx.is_of_older_contract(&object));
    Lookup::Found(translated.and_then(Object::new).map_or(object, Arc::new))
}

/// What a reference in a namespace names. Where a kind is not served, there are no objects of it: nothing to wait for when who refers to it goes.
pub async fn referred(
    ctx: &Ctx,
    namespace: &str,
    reference: &ContractVersionedObjectReference,
    is_deleting: bool,
) -> Lookup<Arc<Value>> {
    let kind = reference_kind(reference);
    if is_deleting && ctx.is_not_installed(&kind).await {
        return Lookup::Missing;
    }
    let key = ObjectKey::new(namespace, reference.name.clone());
    let seen = lookup(ctx, &kind, &key).await;
    seen.map(|object| object.value.clone())
}

/// A kind that a reference names with its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    group: String,
    version: String,
    kind: String,
}

impl Pinned {
    /// Of an `apiVersion` and a kind.
    #[must_use]
    pub fn new(api_version: &str, kind: &str) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
        }
    }

    /// Of an object.
    #[must_use]
    pub fn of_object(object: &Value) -> Self {
        let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
        Self::new(text("apiVersion"), text("kind"))
    }

    /// The kind as it is served.
    #[must_use]
    pub fn resource(&self) -> Resource {
        let plural = contract::plural(&self.kind);
        Resource::namespaced(&self.group, &self.version, &self.kind, &plural)
    }
}

/// The objects of a kind that is looked for in one version.
pub enum Objects {
    /// They are watched.
    Watched(Arc<Store>),
    /// The kind is not installed: there are none.
    None,
    /// They cannot be seen; why.
    Unknown(String),
}

impl Objects {
    /// One of them.
    #[must_use]
    pub fn one(&self, key: &ObjectKey) -> Lookup<Arc<Object>> {
        match self {
            Self::Watched(store) => store.get(key).map_or(Lookup::Missing, Lookup::Found),
            Self::None => Lookup::Missing,
            Self::Unknown(why) => Lookup::Unknown(why.clone()),
        }
    }
}

/// The objects of a kind in the version that a reference names; watches them from now on. A kind is watched once, for all who look: a
/// version that the others do not use, which anybody can write into a reference, is watched for nobody.
pub async fn pinned(ctx: &Ctx, pinned: &Pinned) -> Objects {
    let resource = pinned.resource();
    let kind = resource.group_kind();
    if ctx.is_not_installed(&kind).await {
        return Objects::None;
    }
    let store = if kinds::is_known(&kind) {
        ctx.stores.get(&kind)
    } else {
        match ctx.resolve(&kind) {
            Ok(used) if used == resource => {
                Some(ctx.stores.ensure(&resource, Selection::default()))
            }
            Ok(used) => return Objects::Unknown(other_version(&resource, &used)),
            Err(failure) => return Objects::Unknown(failure.message),
        }
    };
    let Some(store) = store else {
        return Objects::Unknown(format!("the host does not look at objects of {kind}"));
    };
    if *store.resource() != resource {
        return Objects::Unknown(other_version(&resource, store.resource()));
    }
    match store.listed().await {
        Ok(()) => Objects::Watched(store),
        Err(why) => Objects::Unknown(why),
    }
}

fn other_version(named: &Resource, used: &Resource) -> String {
    format!(
        "{} are not looked at in version {}: name {}",
        named.plural,
        named.api_version(),
        used.api_version()
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::time::{Duration, Instant, advance, sleep};

    use super::*;
    use crate::ctx::SystemClock;
    use crate::kube_api::ApiError;
    use crate::kube_api::staged::{Act, Staged};
    use crate::tasks::Tasks;
    use crate::workloads::RealConnect;

    /// A host whose management cluster serves Things.
    async fn host() -> (Arc<Staged>, Ctx) {
        let api = Staged::new();
        api.hold(
            &kinds::CRD,
            json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": {
                    "name": "things.g.io", "uid": "crd",
                    "labels": {"cluster.x-k8s.io/v1beta2": "v1"},
                },
            }),
        );
        api.hold(
            &thing("v1").resource(),
            json!({
                "apiVersion": "g.io/v1", "kind": "Thing",
                "metadata": {"name": "a", "namespace": "ns", "uid": "a"},
            }),
        );
        let ctx = Ctx::new(
            Arc::clone(&api) as Arc<dyn crate::kube_api::KubeApi>,
            Arc::new(RealConnect::default()),
            Arc::new(SystemClock),
            Tasks::default(),
            "ns",
        );
        ctx.store(&kinds::CRD).synced().await;
        (api, ctx)
    }

    fn thing(version: &str) -> Pinned {
        Pinned::new(&format!("g.io/{version}"), "Thing")
    }

    async fn look(ctx: &Ctx) -> Lookup<Arc<Object>> {
        let kind = thing("v1").resource().group_kind();
        lookup(ctx, &kind, &ObjectKey::new("ns", "a")).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_version_that_is_not_served_spoils_nothing_for_who_names_the_kind_as_it_is() {
        let (api, ctx) = host().await;
        let refused = ApiError::NotFound("404 page not found".to_owned());
        api.act("list /apis/g.io/v9", Act::Refuse(refused));
        let Objects::Unknown(why) = pinned(&ctx, &thing("v9")).await else {
            panic!("it cannot be seen");
        };
        assert!(why.contains("name g.io/v1"), "{why}");
        assert!(look(&ctx).await.found().is_some());
        let named = pinned(&ctx, &thing("v1")).await;
        assert!(named.one(&ObjectKey::new("ns", "a")).found().is_some());
        assert!(api.asked("list /apis/g.io/v9").is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn kinds_that_the_host_knows_are_watched_for_nobody_a_second_time() {
        let (api, ctx) = host().await;
        let name = "machines.cluster.x-k8s.io";
        let definition = json!({"metadata": {"name": name, "uid": name}});
        api.give(&kinds::CRD, definition);
        sleep(Duration::from_millis(1)).await;
        let machines = Pinned::new("cluster.x-k8s.io/v9", "Machine");
        let seen = pinned(&ctx, &machines).await;
        assert!(matches!(seen, Objects::Unknown(_)));
        ctx.store(&kinds::MACHINE).synced().await;
        let seen = pinned(&ctx, &machines).await;
        assert!(matches!(seen, Objects::Unknown(_)));
        let machines = Pinned::new("cluster.x-k8s.io/v1beta2", "Machine");
        let seen = pinned(&ctx, &machines).await;
        assert!(matches!(seen, Objects::Watched(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_that_cannot_be_listed_is_unknown_and_holds_up_nobody_for_long() {
        let (api, ctx) = host().await;
        let list = "list /apis/g.io/v1/things";
        let refused = ApiError::Forbidden("things.g.io is forbidden".to_owned());
        api.act(list, Act::Refuse(refused));
        let begun = Instant::now();
        let Lookup::Unknown(why) = look(&ctx).await else {
            panic!("it cannot be seen");
        };
        assert!(why.contains("things.g.io is forbidden"), "{why}");
        assert!(begun.elapsed() <= Duration::from_secs(5));
        // From now on nobody waits.
        let begun = Instant::now();
        assert!(matches!(look(&ctx).await, Lookup::Unknown(_)));
        assert!(begun.elapsed().is_zero());
        // Until it can be listed.
        api.act(list, None);
        advance(Duration::from_secs(15)).await;
        sleep(Duration::from_millis(1)).await;
        assert!(look(&ctx).await.found().is_some());
    }

    /// Says in which versions Things follow which contract.
    fn label(api: &Staged, labels: &Value) {
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "things.g.io", "uid": "crd", "labels": labels},
        });
        api.give(&kinds::CRD, definition);
    }

    /// Lets everything happen that needs no time.
    async fn settle() {
        sleep(Duration::from_millis(1)).await;
    }

    fn is_provisioned(found: &Lookup<Arc<Object>>) -> Option<bool> {
        let found = found.found()?;
        found
            .value
            .pointer("/status/initialization/provisioned")?
            .as_bool()
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_goes_over_to_the_current_contract_is_read_in_the_version_that_it_names()
     {
        let (api, ctx) = host().await;
        label(&api, &json!({"cluster.x-k8s.io/v1beta1": "v1"}));
        let old = json!({
            "apiVersion": "g.io/v1", "kind": "Thing",
            "metadata": {"name": "a", "namespace": "ns", "uid": "a"}, "status": {"ready": true},
        });
        api.hold(&thing("v1").resource(), old);
        settle().await;
        assert_eq!(is_provisioned(&look(&ctx).await), Some(true));
        // The server has the object in both versions; the label of the older contract goes with the upgrade.
        let new = thing("v2").resource();
        let made = json!({
            "apiVersion": "g.io/v2", "kind": "Thing",
            "metadata": {"name": "a", "namespace": "ns", "uid": "a"},
            "status": {"initialization": {"provisioned": true}},
        });
        api.hold(&new, made);
        api.act("list /apis/g.io/v2", Act::Hang);
        label(&api, &json!({"cluster.x-k8s.io/v1beta2": "v2"}));
        settle().await;
        // Until it is listed in the new version, it is known as it was.
        let found = look(&ctx).await;
        assert_eq!(is_provisioned(&found), Some(true), "{found:?}");
        assert_eq!(
            ctx.stores
                .get(&new.group_kind())
                .unwrap()
                .resource()
                .version,
            "v1"
        );
        api.act("list /apis/g.io/v2", None);
        label(&api, &json!({"cluster.x-k8s.io/v1beta2": "v2_v1alpha1"}));
        settle().await;
        assert_eq!(is_provisioned(&look(&ctx).await), Some(true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_is_watched_in_one_version_only_when_the_other_has_taken_its_place() {
        let (api, ctx) = host().await;
        assert!(look(&ctx).await.found().is_some());
        let (old, new) = (thing("v1").resource(), thing("v2").resource());
        let made = json!({
            "apiVersion": "g.io/v2", "kind": "Thing",
            "metadata": {"name": "a", "namespace": "ns", "uid": "a"}, "status": {"ready": true},
        });
        api.hold(&new, made);
        label(&api, &json!({"cluster.x-k8s.io/v1beta2": "v2"}));
        settle().await;
        look(&ctx).await;
        settle().await;
        let found = look(&ctx).await;
        assert_eq!(found.found().unwrap().text("/apiVersion"), Some("g.io/v2"));
        assert_eq!(
            is_provisioned(&found),
            None,
            "it speaks of the current contract"
        );
        assert_eq!((api.watched(&old), api.watched(&new)), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_is_not_gone_because_its_version_is_not_served_any_more() {
        let (api, ctx) = host().await;
        let found = look(&ctx).await;
        let (thing, found) = (thing("v1").resource(), found.found().unwrap().clone());
        let path = "/apis/g.io/v1/namespaces/ns/things/a";
        let refused = ApiError::NotServed("404 page not found".to_owned());
        api.act(&format!("delete {path}"), Act::Refuse(refused.clone()));
        assert_eq!(ctx.delete(&thing, &found).await, Err(refused));
        assert!(look(&ctx).await.found().is_some());
        let missing = ApiError::NotFound("things.g.io a not found".to_owned());
        api.act(&format!("delete {path}"), Act::Refuse(missing));
        assert_eq!(ctx.delete(&thing, &found).await, Ok(()));
        assert!(look(&ctx).await.is_missing());
    }
}
