//! Whose a kind is: of the plugin that owned it first, also when that does not answer calls now, or not yet after a start.

use capstan_api::plugin::Plugin;
use capstan_engine::Loaded;
use jiff::Timestamp;
use serde_json::Value;

use super::{key_of, kinds_of};
use crate::ctx::Ctx;
use crate::kinds;
use crate::kube_api::GroupKind;
use crate::object::Object;

/// Kinds of a component that another Plugin already has, and that one.
pub(super) fn conflicts(ctx: &Ctx, plugin: &Plugin, loaded: &Loaded) -> Vec<(String, String)> {
    let key = key_of(plugin);
    let others: Vec<_> = ctx
        .store(&kinds::PLUGIN)
        .in_namespace(&ctx.namespace)
        .into_iter()
        .filter(|other| {
            // What answers calls now says itself what it owns; its status follows.
            let active = ctx.plugins.get(&other.key.name);
            other.key != key && active.is_none_or(|active| active.key != other.key)
        })
        .collect();
    let manifest = loaded.manifest();
    let owned = manifest.kinds.iter().filter_map(|owned| {
        let kind = GroupKind {
            group: owned.group.clone(),
            kind: owned.kind.clone(),
        };
        let active = ctx.plugins.owner_of(&kind);
        let active = active.filter(|owner| owner.key != key);
        let active = active.map(|owner| owner.name.clone());
        let owner = active.or_else(|| {
            let mut others = others.iter().map(|other| &**other);
            others
                .find(|other| comes_first(other, plugin, &kind))
                .map(|other| other.key.name.clone())
        })?;
        Some((kind.to_string(), format!("plugin {owner}")))
    });
    owned.collect()
}

/// Whether another Plugin has owned the kind, and before this one. A status names the kinds of what answered calls last, so that two can
/// name the same only when both did; then the older one has it.
fn comes_first(other: &Object, plugin: &Plugin, kind: &GroupKind) -> bool {
    let listed = other.value.pointer("/status/kinds");
    let mut listed = listed.and_then(Value::as_array).into_iter().flatten();
    let claims = listed.any(|entry| {
        entry.get("group").and_then(Value::as_str) == Some(&kind.group)
            && entry.get("kind").and_then(Value::as_str) == Some(&kind.kind)
    });
    let mut own = kinds_of(plugin).iter();
    let is_own = own.any(|owned| owned.group == kind.group && owned.kind == kind.kind);
    claims && (!is_own || age_of(other) < age(plugin))
}

/// What tells which of two is older.
fn age(plugin: &Plugin) -> (Option<Timestamp>, String) {
    let made = plugin.metadata.creation_timestamp.as_ref();
    let uid = plugin.metadata.uid.clone();
    (made.map(|made| made.0), uid.unwrap_or_default())
}

fn age_of(object: &Object) -> (Option<Timestamp>, String) {
    let made = object.text("/metadata/creationTimestamp");
    let made = made.and_then(|made| made.parse().ok());
    (made, object.uid.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(uid: &str, made: &str, kinds: &[&str]) -> Value {
        let entry = |kind: &&str| {
            json!({
                "role": "infra-machine", "group": "example.com", "version": "v1", "kind": kind, "plural": "things",
            })
        };
        let kinds: Vec<Value> = kinds.iter().map(entry).collect();
        json!({
            "apiVersion": "capstan.dev/v1alpha1", "kind": "Plugin",
            "metadata": {"namespace": "ns", "name": uid, "uid": uid, "creationTimestamp": made, "resourceVersion": "1"},
            "spec": {"source": {"configMap": {"name": "p"}}},
            "status": {"kinds": kinds},
        })
    }

    #[test]
    fn a_kind_is_of_who_owned_it_first_and_of_two_that_did_of_the_older() {
        let kind = GroupKind {
            group: "example.com".to_owned(),
            kind: "Machine".to_owned(),
        };
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let first = |other: Value, own: Value| {
            let other = Object::new(other).unwrap();
            comes_first(&other, &serde_json::from_value(own).unwrap(), &kind)
        };
        // However young: who has owned it comes before who has not.
        assert!(first(object("a", new, &["Machine"]), object("b", old, &[])));
        assert!(!first(
            object("a", old, &["Cluster"]),
            object("b", new, &[])
        ));
        assert!(!first(
            object("a", old, &[]),
            object("b", new, &["Machine"])
        ));
        let both = &["Machine"];
        assert!(first(object("a", old, both), object("b", new, both)));
        assert!(!first(object("b", new, both), object("a", old, both)));
        assert!(first(object("a", old, both), object("b", old, both)));
        assert!(!first(object("b", old, both), object("a", old, both)));
    }
}
