//! Infrastructure clusters.

use std::sync::Arc;

use capstan_api::name::ObjectKey;
use capstan_core::answer;
use capstan_core::call::infrastructure::ClusterInput;
use capstan_core::infrastructure::cluster::{self as core, Effect, Observed, Step};
use capstan_core::lookup::Lookup;
use capstan_core::plan::{Failure, Outcome, Plan};
use capstan_engine::SecretTable;
use jiff::Timestamp;

use super::{Asked, Subject, spec};
use crate::controller::{Controller, Report, Source, Spec, Watch};
use crate::ctx::{Ctx, Writer};
use crate::driver::cluster_by_name;
use crate::kinds;
use crate::kube_api::GroupKind;
use crate::object::{Locator, Object};
use crate::plugins::{encode_state, state_of};
use crate::store::Change;

/// The controller of infrastructure clusters.
pub struct InfraClusterController {
    spec: Spec,
    asked: Asked,
}

impl Default for InfraClusterController {
    fn default() -> Self {
        Self {
            spec: spec("infra-cluster", &["infra-cluster"]),
            asked: Asked::default(),
        }
    }
}

/// The infrastructure cluster of a Cluster that appeared.
fn of_cluster(_: &Ctx, change: &Change) -> Vec<Locator> {
    let (None, Some(cluster)) = (&change.old, &change.new) else {
        return Vec::new();
    };
    let text = |pointer: &str| cluster.text(pointer).unwrap_or_default().to_owned();
    vec![Locator {
        kind: GroupKind {
            group: text("/spec/infrastructureRef/apiGroup"),
            kind: text("/spec/infrastructureRef/kind"),
        },
        key: ObjectKey {
            namespace: cluster.key.namespace.clone(),
            name: text("/spec/infrastructureRef/name"),
        },
    }]
}

impl InfraClusterController {
    fn writer(&self) -> Writer {
        Writer {
            controller: self.spec.name,
            manager: self.spec.manager,
        }
    }

    fn input(
        observed: &Observed,
        context: capstan_core::call::Context,
        object: &Object,
    ) -> ClusterInput {
        ClusterInput {
            context,
            cluster: observed.cluster.found().cloned().unwrap_or_default(),
            infra_cluster: observed.object.clone(),
            state: state_of(object),
            extra: Vec::new(),
        }
    }

    async fn ensure(&self, ctx: &Ctx, observed: &Observed) -> Result<Effect, Failure> {
        let subject = Subject::of(ctx, &observed.object)?;
        let plugin = &subject.plugin;
        let context = plugin.context(ctx, &subject.object, "cluster", 1);
        let input = Self::input(observed, context, &subject.object);
        let env = plugin.env(ctx, &subject.resource, &subject.object, SecretTable::new());
        let answer = plugin
            .loaded
            .ensure_cluster(env, input)
            .await
            .map_err(|error| error.failure())?;
        answer::check_cluster(
            &answer,
            core::known_endpoint(&subject.object.value).as_ref(),
        )
        .map_err(|violation| violation.failure(&plugin.name))?;
        let state = answer.state.as_deref().map(encode_state);
        let patch = core::patch(&subject.object.value, &answer, state.as_deref());
        subject.write(ctx, &self.writer(), patch).await?;
        self.asked.now(&subject.object.uid, ctx.now());
        Ok(Effect::Cluster(answer))
    }

    async fn delete(&self, ctx: &Ctx, observed: &Observed) -> Result<Effect, Failure> {
        let subject = Subject::of(ctx, &observed.object)?;
        let plugin = &subject.plugin;
        let context = plugin.context(ctx, &subject.object, "cluster", 1);
        let input = Self::input(observed, context, &subject.object);
        let env = plugin.env(ctx, &subject.resource, &subject.object, SecretTable::new());
        let answer = plugin
            .loaded
            .delete_cluster(env, input)
            .await
            .map_err(|error| error.failure())?;
        answer::check_deletion(&answer).map_err(|violation| violation.failure(&plugin.name))?;
        subject.keep_state(ctx, &self.writer(), &answer).await?;
        Ok(Effect::Deletion(answer))
    }
}

impl Controller for InfraClusterController {
    type Observed = Observed;
    type Step = Step;
    type Effect = Effect;

    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch {
            source: Source::Kind(&kinds::CLUSTER),
            map: of_cluster,
        }]
    }

    fn cluster(&self, object: &Object) -> Option<ObjectKey> {
        let owner = object
            .owners()
            .find(|o| o.kind == "Cluster" && o.group == kinds::CLUSTER.group);
        owner
            .map(|owner| ObjectKey {
                namespace: object.key.namespace.clone(),
                name: owner.name.to_owned(),
            })
            .or_else(|| cluster_by_name(object))
    }

    async fn observe(&self, ctx: &Ctx, object: Arc<Object>) -> Result<Observed, Failure> {
        let cluster = self
            .cluster(&object)
            .and_then(|key| ctx.get(&kinds::CLUSTER, &key));
        Ok(Observed {
            owner: ctx.provider_of(&object.group_kind()),
            plugin: ctx
                .plugins
                .owner_of(&object.group_kind())
                .map(|p| p.name.clone()),
            asked: self.asked.at(&object.uid),
            cluster: cluster.map_or(Lookup::Missing, |c| Lookup::Found(c.value.clone())),
            object: object.value.clone(),
        })
    }

    fn decide(&self, observed: &Observed, now: Timestamp) -> Plan<Step> {
        core::decide(observed, now)
    }

    async fn perform(
        &self,
        ctx: &Ctx,
        observed: &Observed,
        step: &Step,
    ) -> Result<Effect, Failure> {
        match step {
            Step::Ensure => self.ensure(ctx, observed).await,
            Step::Delete => self.delete(ctx, observed).await,
        }
    }

    fn report(
        &self,
        observed: &Observed,
        _: &Plan<Step>,
        outcome: &Outcome<Step, Effect>,
        _: Timestamp,
    ) -> Report {
        let reported = core::report(observed, outcome);
        Report {
            status: reported.status,
            conditions: reported.conditions,
            next: reported.next,
            finished: reported.finished,
        }
    }
}
