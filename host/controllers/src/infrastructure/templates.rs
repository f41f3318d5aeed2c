//! Machine templates of a cluster: which there are, and their statuses.

use std::collections::HashSet;
use std::sync::Arc;

use capstan_api::name::ObjectKey;
use capstan_core::infrastructure::template::TEMPLATES_MAX;
use capstan_core::plan::Failure;
use serde_json::Value;

use super::cluster::infra_cluster_of;
use super::{Asked, TEMPLATE_ROLE, owner_cluster};
use crate::ctx::{Ctx, Writer, failure};
use crate::kinds;
use crate::kube_api::{ApiError, Patch};
use crate::object::{Locator, Object};
use crate::store::Change;

/// The infrastructure cluster of a template that came, changed its spec or got its Cluster as an owner.
pub(super) fn of_template(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let Some(template) = &change.new else {
        return Vec::new();
    };
    if ctx.plugins.role_of(&template.group_kind()).as_deref() != Some(TEMPLATE_ROLE) {
        return Vec::new();
    }
    let Some(owner) = owner_cluster(template) else {
        return Vec::new();
    };
    let same = |old: &Arc<Object>| {
        old.generation() == template.generation() && owner_cluster(old).as_ref() == Some(&owner)
    };
    if change.old.as_ref().is_some_and(same) {
        return Vec::new();
    }
    let cluster = ctx.get(&kinds::CLUSTER, &owner);
    cluster
        .map(|cluster| infra_cluster_of(&cluster))
        .into_iter()
        .collect()
}

/// Kinds and names of the templates of a Cluster's groups of machines: what can grow from zero. A control plane cannot.
fn of_groups(ctx: &Ctx, cluster: &ObjectKey) -> HashSet<(String, String)> {
    let groups = [&*kinds::MACHINE_DEPLOYMENT, &*kinds::MACHINE_SET];
    groups
        .into_iter()
        .flat_map(|resource| ctx.store(resource).of_cluster(cluster))
        .filter_map(|group| {
            let text = |field: &str| {
                let pointer = format!("/spec/template/spec/infrastructureRef/{field}");
                group.text(&pointer).map(str::to_owned)
            };
            Some((text("kind")?, text("name")?))
        })
        .collect()
}

/// Templates of the Cluster's groups that the plugin of this infrastructure cluster owns, the newest first.
pub(super) fn templates_of(ctx: &Ctx, infra: &Object, cluster: &Object) -> Vec<Arc<Object>> {
    let owner = ctx
        .plugins
        .owner_of(&infra.group_kind())
        .map(|p| p.name.clone());
    let wanted = of_groups(ctx, &cluster.key);
    let mut found: Vec<Arc<Object>> = ctx
        .plugins
        .kinds_with(&[TEMPLATE_ROLE])
        .iter()
        .map(|resource| resource.group_kind())
        .filter(|kind| ctx.plugins.owner_of(kind).map(|p| p.name.clone()) == owner)
        .filter_map(|kind| ctx.stores.get(&kind))
        .flat_map(|store| store.owned_by(&cluster.uid))
        .filter(|template| {
            let (kind, name) = (template.kind().to_owned(), template.key.name.clone());
            !template.is_deleting() && wanted.contains(&(kind, name))
        })
        .collect();
    found.sort_by_cached_key(|template| {
        let made = template
            .text("/metadata/creationTimestamp")
            .map(str::to_owned);
        (std::cmp::Reverse(made), template.key.name.clone())
    });
    found.truncate(TEMPLATES_MAX);
    found
}

/// Writes what the plugin told of templates, and remembers in `asked` that it did.
pub(super) async fn answered(
    ctx: &Ctx,
    writer: &Writer,
    asked: &Asked,
    templates: &[Arc<Value>],
    patches: Vec<(usize, Value)>,
) -> Result<(), Failure> {
    let templates: Vec<Option<Object>> = templates
        .iter()
        .map(|value| Object::new(value.clone()))
        .collect();
    for (position, patch) in patches {
        let Some(Some(template)) = templates.get(position) else {
            continue;
        };
        let Some(store) = ctx.stores.get(&template.group_kind()) else {
            continue;
        };
        let resource = store.resource();
        let answer = ctx
            .patch_status(writer, resource, &template.key, &Patch::Merge(patch))
            .await;
        match answer {
            // Gone, or another one of the same name: that one is asked about when it is seen.
            Ok(_) | Err(ApiError::NotFound(_) | ApiError::Conflict(_)) => {}
            Err(error) => {
                let doing = format!("writing what {} {} has", resource.kind, template.key);
                return Err(failure(&doing, &error));
            }
        }
    }
    for template in templates.into_iter().flatten() {
        asked.now(&template.uid, ctx.now(), template.generation());
    }
    Ok(())
}
