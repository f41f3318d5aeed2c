//! What a control plane would do with machines that others made: reads them, asks the control plane's plugin, and writes nothing.

use std::sync::Arc;
use std::time::Duration;

use capstan_api::name::ObjectKey;
use capstan_api::{contract, label};
use capstan_core::call::control_plane::{ControlPlaneInput, ControlPlaneMachineInput};
use capstan_core::call::material::Requirement;
use capstan_core::call::{Context, Mode};
use capstan_core::control_plane::adoption::{Foreign, Verdict, judge};
use capstan_core::material::{requirement_name, secret_key};
use capstan_core::plan::Failure;
use capstan_engine::{CallEnv, Engine, Loaded};
use serde::Serialize;
use serde_json::{Value, json};

use crate::control_plane::foreign_machine;
use crate::ctx::{Ctx, failure};
use crate::kinds;
use crate::kube_api::{ApiError, Resource, Selection};
use crate::object::Object;
use crate::rollout_plan::{get, list, load};

/// Version of the provider kinds that are looked at.
const VERSION: &str = "v1beta2";

/// How long the plugin may take for one question.
const DEADLINE: Duration = Duration::from_secs(10);

/// What would happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AdoptionPlan {
    /// Kind and name of the control plane.
    pub control_plane: String,
    /// Which machines, and what is in the way.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Machines that would be replaced once they are taken over.
    pub replaced: Vec<Replacement>,
}

/// A machine that is not what the control plane wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replacement {
    /// Name of the Machine.
    pub machine: String,
    /// Why.
    pub why: Vec<String>,
}

/// The plugin with what every question to it has.
struct Plugin {
    name: String,
    loaded: Arc<Loaded>,
    cluster: Value,
    object: Value,
}

impl Plugin {
    fn env(&self) -> CallEnv {
        CallEnv::new(self.name.clone(), text(&self.object, "/metadata/name"))
    }

    fn input(&self, ctx: &Ctx) -> ControlPlaneInput {
        ControlPlaneInput {
            context: Context {
                now_ms: u64::try_from(ctx.now().as_millisecond()).unwrap_or_default(),
                deadline: DEADLINE,
                attempt: 1,
                idempotency_key: "plan-adopt".to_owned(),
                mode: Mode::Plan,
                config: json!({}),
                extra: Vec::new(),
            },
            cluster: self.cluster.clone(),
            control_plane: self.object.clone(),
            extra: Vec::new(),
        }
    }
}

/// What a control plane, which need not exist yet, would do with the control-plane machines of a cluster.
///
/// # Errors
/// When something that is needed cannot be read, or the plugin refuses the object.
pub async fn plan(
    ctx: &Ctx,
    engine: &Arc<Engine>,
    cluster: &ObjectKey,
    object: Value,
) -> Result<AdoptionPlan, Failure> {
    let plugin = plugin(ctx, engine, cluster, object).await?;
    let desired = plugin.loaded.desired(plugin.env(), plugin.input(ctx)).await;
    let desired = desired.map_err(|error| error.failure())?;
    let missing = missing(ctx, &plugin, cluster).await?;
    let selection = Selection {
        namespace: Some(cluster.namespace.clone()),
        labels: Some(format!(
            "{}={},{}",
            label::CLUSTER_NAME,
            cluster.name,
            label::CONTROL_PLANE
        )),
        ..Selection::default()
    };
    let machines = list(ctx, &kinds::MACHINE, &selection).await?;
    let mut machines: Vec<Object> = machines.into_iter().filter_map(Object::new).collect();
    machines.sort_by(|a, b| a.key.cmp(&b.key));
    let foreign: Vec<Foreign> = machines.iter().map(foreign_machine).collect();
    let mut replaced = Vec::new();
    for machine in &machines {
        let mut why = Vec::new();
        let version = machine.text("/spec/version").unwrap_or_default();
        if version != desired.version {
            why.push(format!("version {version}, {} is wanted", desired.version));
        }
        why.extend(outdated(ctx, &plugin, machine).await?);
        if !why.is_empty() {
            let machine = machine.key.name.clone();
            replaced.push(Replacement { machine, why });
        }
    }
    Ok(AdoptionPlan {
        control_plane: format!(
            "{} {}",
            text(&plugin.object, "/kind"),
            text(&plugin.object, "/metadata/name")
        ),
        verdict: judge(&desired, &foreign, &missing),
        replaced,
    })
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The plugin that owns the kind of a control plane.
async fn plugin(
    ctx: &Ctx,
    engine: &Arc<Engine>,
    cluster: &ObjectKey,
    object: Value,
) -> Result<Plugin, Failure> {
    let (group, _) = text(&object, "/apiVersion")
        .split_once('/')
        .unwrap_or_default();
    let definition = contract::crd_name(text(&object, "/kind"), group);
    let definition = get(ctx, &kinds::CRD, &ObjectKey::new("", definition)).await?;
    let provider = definition.pointer("/metadata/labels");
    let provider = provider.and_then(|labels| labels.get(label::PROVIDER)?.as_str());
    let name = provider.unwrap_or_default().to_owned();
    let loaded = load(ctx, engine, &name, None).await?;
    let loaded = loaded.ok_or_else(|| {
        Failure::terminal(
            "PluginMissing",
            format!(
                "plugin {name} is not installed in namespace {}",
                ctx.namespace
            ),
        )
    })?;
    Ok(Plugin {
        name,
        loaded,
        cluster: get(ctx, &kinds::CLUSTER, cluster).await?,
        object,
    })
}

/// Secrets of the cluster that are needed and do not exist.
async fn missing(ctx: &Ctx, plugin: &Plugin, cluster: &ObjectKey) -> Result<Vec<String>, Failure> {
    let asked = plugin
        .loaded
        .control_plane_requirements(plugin.env(), plugin.input(ctx))
        .await;
    let mut missing = Vec::new();
    for requirement in asked.map_err(|error| error.failure())? {
        let is_kept = !matches!(
            requirement,
            Requirement::JoinToken { .. } | Requirement::SecretValue { .. }
        );
        let key = secret_key(cluster, requirement_name(&requirement));
        let found = ctx.secrets.get(&*ctx.api, &key).await;
        let found = found.map_err(|error| failure(&format!("reading Secret {key}"), &error))?;
        if is_kept && found.is_none() {
            missing.push(key.name);
        }
    }
    Ok(missing)
}

/// Why the plugin would have a machine replaced. One whose bootstrap config is not there is not.
async fn outdated(ctx: &Ctx, plugin: &Plugin, machine: &Object) -> Result<Vec<String>, Failure> {
    let reference = |field: &str| {
        let text = machine.text(&format!("/spec/bootstrap/configRef/{field}"));
        text.unwrap_or_default().to_owned()
    };
    let kind = reference("kind");
    let resource = Resource::namespaced(
        &reference("apiGroup"),
        VERSION,
        &kind,
        &contract::plural(&kind),
    );
    let key = ObjectKey::new(machine.key.namespace.clone(), reference("name"));
    let config = match ctx.api.get(&resource, &key).await {
        Ok(config) => config,
        Err(ApiError::NotFound(_)) => return Ok(Vec::new()),
        Err(error) => return Err(failure(&format!("reading {kind} {key}"), &error)),
    };
    let input = ControlPlaneMachineInput {
        control_plane: plugin.input(ctx),
        machine: machine.value.clone(),
        bootstrap_config: Some(config),
        infra_machine: None,
    };
    let outdated = plugin.loaded.outdated(plugin.env(), input).await;
    outdated.map_err(|error| error.failure())
}
