//! Infrastructure clusters.

use std::sync::Arc;

use capstan_api::name::ObjectKey;
use capstan_core::answer;
use capstan_core::call::infrastructure::ClusterInput;
use capstan_core::infrastructure::cluster::{self as core, Effect, Observed};
use capstan_core::infrastructure::{self, Step, template};
use capstan_core::lookup::Lookup;
use capstan_core::plan::{Failure, Outcome, Plan};
use capstan_engine::SecretTable;
use jiff::Timestamp;
use serde_json::Value;

use super::templates::{answered, of_template, templates_of};
use super::{Asked, CLUSTER_ROLE, Shell, Subject, owner_cluster};
use crate::access::{self, Access};
use crate::attempt;
use crate::controller::{Controller, Report, Source, Spec, Watch};
use crate::ctx::Ctx;
use crate::kinds;
use crate::kube_api::GroupKind;
use crate::object::{Locator, Object};
use crate::plugins::state_of;
use crate::store::Change;

/// The controller of infrastructure clusters.
pub struct InfraClusterController {
    shell: Shell,
    /// Which templates plugins have told of.
    told: Asked,
}

impl Default for InfraClusterController {
    fn default() -> Self {
        Self {
            shell: Shell::new("infra-cluster", &[CLUSTER_ROLE]),
            told: Asked::default(),
        }
    }
}

/// The infrastructure cluster of a Cluster that appeared.
fn of_cluster(_: &Ctx, change: &Change) -> Vec<Locator> {
    let (None, Some(cluster)) = (&change.old, &change.new) else {
        return Vec::new();
    };
    vec![infra_cluster_of(cluster)]
}

/// The infrastructure cluster that a Cluster names.
pub(super) fn infra_cluster_of(cluster: &Object) -> Locator {
    let text = |pointer: &str| cluster.text(pointer).unwrap_or_default().to_owned();
    Locator {
        kind: GroupKind {
            group: text("/spec/infrastructureRef/apiGroup"),
            kind: text("/spec/infrastructureRef/kind"),
        },
        key: ObjectKey {
            namespace: cluster.key.namespace.clone(),
            name: text("/spec/infrastructureRef/name"),
        },
    }
}

impl InfraClusterController {
    fn input(
        observed: &Observed,
        context: capstan_core::call::Context,
        object: &Object,
    ) -> ClusterInput {
        ClusterInput {
            context,
            cluster: observed
                .cluster
                .found()
                .map(|o| Value::clone(o))
                .unwrap_or_default(),
            infra_cluster: Value::clone(&observed.object),
            state: state_of(object),
            extra: template::told(&observed.templates).into_iter().collect(),
        }
    }

    async fn ensure(&self, ctx: &Ctx, observed: &Observed) -> Result<Effect, Failure> {
        let subject = Subject::of(ctx, &observed.object)?;
        let plugin = &subject.plugin;
        let context = plugin.context(ctx, &subject.object, "cluster", attempt::number());
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
        let patches = template::patches(&answer.extra, &observed.templates)
            .map_err(|violation| violation.failure(&plugin.name))?;
        let effect = self.shell.ensured(ctx, &subject, answer).await?;
        let writer = self.shell.writer();
        answered(ctx, &writer, &self.told, &observed.templates, patches).await?;
        Ok(effect)
    }

    async fn delete(&self, ctx: &Ctx, observed: &Observed) -> Result<Effect, Failure> {
        let subject = Subject::of(ctx, &observed.object)?;
        let plugin = &subject.plugin;
        let context = plugin.context(ctx, &subject.object, "cluster", attempt::number());
        let input = Self::input(observed, context, &subject.object);
        let env = plugin.env(ctx, &subject.resource, &subject.object, SecretTable::new());
        let answer = plugin.loaded.delete_cluster(env, input).await;
        self.shell.deleted(ctx, &subject, answer).await
    }
}

impl Controller for InfraClusterController {
    type Observed = Observed;
    type Step = Step;
    type Effect = Effect;

    fn spec(&self) -> &Spec {
        &self.shell.spec
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch {
                source: Source::Kind(&kinds::CLUSTER),
                map: of_cluster,
            },
            Watch {
                source: Source::External,
                map: of_template,
            },
        ]
    }

    fn access() -> Vec<Access> {
        vec![Access::to_group(
            access::INFRASTRUCTURE,
            &["list", "watch", "patch"],
        )]
    }

    fn cluster(&self, object: &Object) -> Option<ObjectKey> {
        owner_cluster(object).or_else(|| object.cluster())
    }

    /// Nothing is made for it before it belongs to a Cluster.
    fn finalizes(&self, object: &Object) -> bool {
        self.cluster(object).is_some()
    }

    async fn observe(&self, ctx: &Ctx, object: Arc<Object>) -> Result<Observed, Failure> {
        let cluster = self
            .cluster(&object)
            .and_then(|key| ctx.get(&kinds::CLUSTER, &key));
        let templates = cluster
            .as_ref()
            .map(|cluster| templates_of(ctx, &object, cluster))
            .unwrap_or_default();
        let now = ctx.now();
        let is_told = |template: &Arc<Object>| {
            let asked = self.told.at(template, now);
            matches!(asked, infrastructure::Asked::At(_))
        };
        Ok(Observed {
            owner: ctx.provider_of(&object.group_kind()),
            plugin: ctx
                .plugins
                .owner_of(&object.group_kind())
                .map(|p| p.name.clone()),
            asked: match templates.iter().all(is_told) {
                true => self.shell.asked.at(&object, now),
                false => infrastructure::Asked::Never,
            },
            templates: templates.iter().map(|t| t.value.clone()).collect(),
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
        core::report(observed, outcome).into()
    }
}
