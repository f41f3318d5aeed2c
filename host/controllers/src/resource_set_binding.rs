//! ClusterResourceSetBinding: goes when its Cluster does.

use std::sync::Arc;
use std::time::Duration;

use capstan_api::name::ObjectKey;
use capstan_core::plan::{Failure, Outcome, Plan};
use jiff::Timestamp;
use serde_json::Value;

use crate::access::Access;
use crate::controller::{Controller, Primary, Report, Source, Spec, Watch};
use crate::ctx::{Ctx, failure};
use crate::kinds;
use crate::object::{Locator, Object};
use crate::store::Change;

/// The ClusterResourceSetBinding controller.
pub struct ClusterResourceSetBindingController {
    spec: Spec,
}

impl Default for ClusterResourceSetBindingController {
    fn default() -> Self {
        Self {
            spec: Spec {
                name: "cluster-resource-set-binding",
                manager: "capi-clusterresourcesetbinding",
                primary: Primary::Kind(&kinds::CLUSTER_RESOURCE_SET_BINDING),
                finalizer: None,
                pausable: false,
                concurrency: 10,
                settle: Duration::from_millis(50),
                hold: Duration::ZERO,
            },
        }
    }
}

/// What is seen of a binding.
#[derive(Debug)]
pub struct Observed {
    binding: Arc<Object>,
    cluster_goes: bool,
}

/// The only step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Delete the binding.
    Delete,
}

fn of_cluster(ctx: &Ctx, change: &Change) -> Vec<Locator> {
    let Some(cluster) = change.object() else {
        return Vec::new();
    };
    if change.new.is_some() && !cluster.is_deleting() {
        return Vec::new();
    }
    let bindings = ctx
        .store(&kinds::CLUSTER_RESOURCE_SET_BINDING)
        .in_namespace(&cluster.key.namespace);
    let of_it = bindings
        .iter()
        .filter(|binding| binding.text("/spec/clusterName") == Some(&cluster.key.name));
    of_it
        .map(|binding| Locator::new(&kinds::CLUSTER_RESOURCE_SET_BINDING, &binding.key))
        .collect()
}

impl Controller for ClusterResourceSetBindingController {
    type Observed = Observed;
    type Step = Step;
    type Effect = ();

    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch {
            source: Source::Kind(&kinds::CLUSTER),
            map: of_cluster,
        }]
    }

    fn access() -> Vec<Access> {
        vec![Access::to(
            &kinds::CLUSTER_RESOURCE_SET_BINDING,
            &["delete"],
        )]
    }

    fn cluster(&self, _: &Object) -> Option<ObjectKey> {
        None
    }

    async fn observe(&self, ctx: &Ctx, object: Arc<Object>) -> Result<Observed, Failure> {
        let clusters = ctx.store(&kinds::CLUSTER);
        clusters.synced().await;
        let name = object.text("/spec/clusterName").unwrap_or_default();
        let key = ObjectKey::new(object.key.namespace.clone(), name);
        let cluster_goes = clusters
            .get(&key)
            .is_none_or(|cluster| cluster.is_deleting());
        Ok(Observed {
            binding: object,
            cluster_goes,
        })
    }

    fn decide(&self, observed: &Observed, _: Timestamp) -> Plan<Step> {
        if observed.cluster_goes && !observed.binding.is_deleting() {
            Plan::of(vec![Step::Delete])
        } else {
            Plan::settled()
        }
    }

    async fn perform(&self, ctx: &Ctx, observed: &Observed, _: &Step) -> Result<(), Failure> {
        let binding = &observed.binding;
        let answer = ctx.delete(&kinds::CLUSTER_RESOURCE_SET_BINDING, binding);
        let doing = format!("deleting ClusterResourceSetBinding {}", binding.key);
        answer.await.map_err(|error| failure(&doing, &error))
    }

    fn report(&self, _: &Observed, _: &Plan<Step>, _: &Outcome<Step>, _: Timestamp) -> Report {
        // The kind has no status.
        Report {
            status: Value::Null,
            ..Report::default()
        }
    }
}
