//! What a rollout would do: reads a MachineDeployment and what belongs to it, asks its real strategy about a simulated world, and
//! writes nothing.

use std::sync::Arc;

use bytes::Bytes;
use capstan_api::name::ObjectKey;
use capstan_api::plugin::Plugin;
use capstan_api::v1beta2::Cluster;
use capstan_api::{annotation, label};
use capstan_core::machine_deployment::{Observed, StrategyAnswer, needs_plan};
use capstan_core::plan::Failure;
use capstan_core::rollout::facts::facts;
use capstan_core::rollout::forecast::{Ending, Forecast, Step};
use capstan_core::rollout::limits;
use capstan_core::rollout::simulation::{Simulation, merge};
use capstan_engine::{CallEnv, Engine, Loaded};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::ctx::{Ctx, failure};
use crate::kinds;
use crate::kube_api::{ApiError, PAGE, Resource, Selection, list_all};

/// The change that is looked at.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// What differs, as a merge patch of the MachineDeployment: a changed manifest.
    pub patch: Option<Value>,
    /// `spec.template.spec.version`.
    pub version: Option<String>,
    /// Another strategy than the one it has.
    pub strategy: Option<String>,
    /// Other settings than it has, a JSON object.
    pub settings: Option<Value>,
    /// Bytes of the strategy's component, instead of the installed plugin's.
    pub component: Option<Bytes>,
}

/// What would happen.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutPlan {
    /// `namespace/name` of the MachineDeployment.
    pub machine_deployment: String,
    /// The strategy.
    pub strategy: String,
    /// Wanted machines.
    pub replicas: u32,
    /// The most machines there may be.
    pub machines_max: u32,
    /// The fewest machines that stay available.
    pub available_min: u32,
    /// One after another.
    pub steps: Vec<Step>,
    /// How it ends.
    #[serde(flatten)]
    pub ending: Ending,
}

/// Asks the strategy of a MachineDeployment what it would do for a change.
///
/// # Errors
/// When something that is needed cannot be read, or the change is not one of a MachineDeployment.
pub async fn plan(
    ctx: &Ctx,
    engine: &Arc<Engine>,
    key: &ObjectKey,
    change: Change,
) -> Result<RolloutPlan, Failure> {
    let mut simulation = world(ctx, key).await?;
    if let Some(deployment) = simulation.deployment_mut() {
        apply(deployment, &change);
    }
    let broken = |error: &dyn std::error::Error| {
        let cause = error.source().map(|cause| format!(": {cause}"));
        Failure::terminal(
            "NotAMachineDeployment",
            format!("{error}{}", cause.unwrap_or_default()),
        )
    };
    let observed = simulation.observe().map_err(|error| broken(&error))?;
    let Some(first) = observed else {
        return Err(Failure::terminal(
            "Gone",
            format!("MachineDeployment {key} is gone"),
        ));
    };
    let name = first.strategy.name.clone();
    let loaded = load(ctx, engine, &name, change.component).await?;
    let limits = limits::of(&first.deployment);
    let mut forecast = Forecast::new(simulation);
    let ending = loop {
        let observed = forecast.simulation().observe();
        let Some(mut observed) = observed.map_err(|error| broken(&error))? else {
            break Ending::Done;
        };
        let now = forecast.simulation().now();
        if needs_plan(&observed, now) {
            observed.strategy.answer = ask(loaded.as_deref(), &name, &observed, now).await;
        }
        let ended = forecast.turn(&observed).map_err(|error| broken(&error))?;
        if let Some(ending) = ended {
            break ending;
        }
    };
    Ok(RolloutPlan {
        machine_deployment: key.to_string(),
        strategy: name,
        replicas: limits.replicas,
        machines_max: limits.ceiling(),
        available_min: limits.floor(),
        steps: forecast.steps().to_vec(),
        ending,
    })
}

/// The deployment's world as it is.
async fn world(ctx: &Ctx, key: &ObjectKey) -> Result<Simulation, Failure> {
    let deployment = get(ctx, &kinds::MACHINE_DEPLOYMENT, key).await?;
    let named = deployment
        .pointer("/spec/clusterName")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let cluster = ObjectKey::new(key.namespace.clone(), named);
    let mut cluster = get(ctx, &kinds::CLUSTER, &cluster).await?;
    // Preflight checks look at the control plane; a plan is about the strategy.
    if let Some(spec) = cluster.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("controlPlaneRef");
        spec.remove("topology");
    }
    let cluster: Cluster = serde_json::from_value(cluster)
        .map_err(|error| Failure::terminal("Unreadable", format!("Cluster {named}: {error}")))?;
    let namespace = get(
        ctx,
        &kinds::NAMESPACE,
        &ObjectKey::new("", key.namespace.clone()),
    )
    .await?;
    let selection = Selection {
        namespace: Some(key.namespace.clone()),
        labels: Some(format!("{}={}", label::DEPLOYMENT_NAME, key.name)),
        ..Selection::default()
    };
    let sets = list(ctx, &kinds::MACHINE_SET, &selection).await?;
    let machines = list(ctx, &kinds::MACHINE, &selection).await?;
    let metadata = namespace.get("metadata").cloned().unwrap_or_default();
    let metadata = serde_json::from_value(metadata)
        .map_err(|error| Failure::terminal("Unreadable", format!("Namespace: {error}")))?;
    Ok(Simulation::new(deployment, cluster, ctx.now())
        .in_namespace(metadata)
        .with(sets, machines))
}

/// Makes the change.
fn apply(deployment: &mut Value, change: &Change) {
    if let Some(patch) = &change.patch {
        let kept = ["metadata", "spec"].into_iter();
        let wanted: Map<String, Value> = kept
            .filter_map(|part| Some((part.to_owned(), patch.get(part)?.clone())))
            .collect();
        merge(deployment, &Value::Object(wanted));
    }
    if let Some(version) = &change.version {
        let patch = json!({"spec": {"template": {"spec": {"version": version}}}});
        merge(deployment, &patch);
    }
    let mut annotations = Map::new();
    if let Some(strategy) = &change.strategy {
        annotations.insert(annotation::STRATEGY.to_owned(), json!(strategy));
    }
    if let Some(settings) = &change.settings {
        let text = json!(settings.to_string());
        annotations.insert(annotation::STRATEGY_SETTINGS.to_owned(), text);
    }
    merge(
        deployment,
        &json!({"metadata": {"annotations": annotations}}),
    );
}

/// The component of the strategy; `None` when no such plugin is installed, which the plan then says.
pub(crate) async fn load(
    ctx: &Ctx,
    engine: &Arc<Engine>,
    name: &str,
    component: Option<Bytes>,
) -> Result<Option<Arc<Loaded>>, Failure> {
    let bytes = match component {
        Some(bytes) => bytes,
        None => {
            let key = ObjectKey::new(ctx.namespace.clone(), name);
            let plugin = match ctx.api.get(&kinds::PLUGIN, &key).await {
                Ok(plugin) => plugin,
                Err(ApiError::NotFound(_)) => return Ok(None),
                Err(error) => return Err(failure(&format!("reading Plugin {key}"), &error)),
            };
            let plugin: Plugin = serde_json::from_value(plugin).map_err(|error| {
                Failure::terminal("Unreadable", format!("Plugin {key}: {error}"))
            })?;
            let fetched = crate::plugin::component(ctx, engine.sources(), &plugin).await?;
            fetched.map_err(|problem| Failure::terminal(problem.reason, problem.message))?
        }
    };
    let loaded = engine.load(bytes).await;
    loaded
        .map(Some)
        .map_err(|error| Failure::terminal("NotLoaded", format!("plugin {name}: {error}")))
}

async fn ask(
    loaded: Option<&Loaded>,
    name: &str,
    observed: &Observed,
    now: Timestamp,
) -> StrategyAnswer {
    let Some(loaded) = loaded else {
        return StrategyAnswer::Missing;
    };
    let facts = facts(observed, now);
    let env = CallEnv::new(name, format!("MachineDeployment {}", facts.deployment));
    match loaded.plan_upgrade(env, facts).await {
        Ok(answer) => StrategyAnswer::Answer(Box::new(answer)),
        Err(error) => StrategyAnswer::Failed(error.failure()),
    }
}

pub(crate) async fn get(ctx: &Ctx, resource: &Resource, key: &ObjectKey) -> Result<Value, Failure> {
    let answer = ctx.api.get(resource, key).await;
    answer.map_err(|error| failure(&format!("reading {} {key}", resource.kind), &error))
}

pub(crate) async fn list(
    ctx: &Ctx,
    resource: &Resource,
    selection: &Selection,
) -> Result<Vec<Value>, Failure> {
    let answer = list_all(&*ctx.api, resource, selection, PAGE, None).await;
    answer.map_err(|error| failure(&format!("listing {}", resource.plural), &error))
}
