//! What a control plane would do with machines that others made: reads them, asks the control plane's plugin, and writes nothing.

use std::sync::Arc;
use std::time::Duration;

use capstan_api::name::ObjectKey;
use capstan_api::{contract, label};
use capstan_core::call::control_plane::{ControlPlaneInput, ControlPlaneMachineInput};
use capstan_core::call::material::Requirement;
use capstan_core::call::{Context, Mode};
use capstan_core::control_plane::adoption::{Foreign, Verdict, judge};
use capstan_core::control_plane::{MaterialState, Member, outdated};
use capstan_core::lookup::Lookup;
use capstan_core::material::{requirement_name, secret_key};
use capstan_core::plan::Failure;
use capstan_engine::{CallEnv, Engine, Loaded};
use serde::Serialize;
use serde_json::{Value, json};

use crate::control_plane::{faults, foreign_machine};
use crate::ctx::{Ctx, failure};
use crate::kinds;
use crate::kube_api::{ApiError, Resource, Selection};
use crate::object::Object;
use crate::rollout_plan::{get, list, load};
use crate::secrets::{ensure, kubeconfig};

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
    let mut desired = desired.map_err(|error| error.failure())?;
    if !desired.version.starts_with('v') {
        desired.version.insert(0, 'v');
    }
    let material = material(ctx, &plugin, cluster).await?;
    let typed = serde_json::from_value(plugin.cluster.clone())
        .map_err(|error| unreadable("Cluster", &cluster.name, &error))?;
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
    let kind = text(&plugin.object, "/kind");
    let mut replaced = Vec::new();
    for machine in &machines {
        let member = member(ctx, &plugin, machine).await?;
        let why = match &member.outdated {
            Ok(_) => outdated(kind, &desired, Some(&typed), &member, ctx.now()),
            Err(failure) => return Err(failure.clone()),
        };
        if !why.is_empty() {
            let machine = machine.key.name.clone();
            replaced.push(Replacement { machine, why });
        }
    }
    Ok(AdoptionPlan {
        control_plane: format!("{kind} {}", text(&plugin.object, "/metadata/name")),
        verdict: judge(&desired, &foreign, &material),
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

fn unreadable(kind: &str, name: &str, error: &serde_json::Error) -> Failure {
    Failure::terminal("Unreadable", format!("{kind} {name}: {error}"))
}

/// What there is of the cluster's Secrets.
async fn material(
    ctx: &Ctx,
    plugin: &Plugin,
    cluster: &ObjectKey,
) -> Result<MaterialState, Failure> {
    let asked = plugin
        .loaded
        .control_plane_requirements(plugin.env(), plugin.input(ctx))
        .await;
    let requirements = asked.map_err(|error| error.failure())?;
    let found = ensure::look_up(ctx, cluster, &requirements, ensure::Age::None).await?;
    let is_missing = |requirement: &&Requirement| {
        !matches!(
            requirement,
            Requirement::JoinToken { .. } | Requirement::SecretValue { .. }
        ) && !found.contains_key(requirement_name(requirement))
    };
    let missing = requirements.iter().filter(is_missing);
    Ok(MaterialState {
        missing: missing
            .map(|requirement| secret_key(cluster, requirement_name(requirement)).name)
            .collect(),
        unusable: faults(ctx, cluster, &requirements, &found).await?,
        other_authority: kubeconfig::other_authority(ctx, cluster).await?,
        ..MaterialState::default()
    })
}

/// A machine as the control plane would see it.
async fn member(ctx: &Ctx, plugin: &Plugin, machine: &Object) -> Result<Member, Failure> {
    let config = referenced(ctx, machine, "/spec/bootstrap/configRef").await?;
    let infra = referenced(ctx, machine, "/spec/infrastructureRef").await?;
    let input = ControlPlaneMachineInput {
        control_plane: plugin.input(ctx),
        machine: Value::clone(&machine.value),
        bootstrap_config: config.clone(),
        infra_machine: infra.clone(),
    };
    let own = plugin.loaded.outdated(plugin.env(), input).await;
    let lookup =
        |object: Option<Value>| object.map_or(Lookup::Missing, |o| Lookup::Found(Arc::new(o)));
    Ok(Member {
        machine: machine
            .typed()
            .map_err(|error| unreadable("Machine", &machine.key.name, &error))?,
        config: lookup(config),
        infra: lookup(infra),
        node: Lookup::Missing,
        components: Vec::new(),
        datastore: None,
        etcd: None,
        expiry: Lookup::Missing,
        outdated: own.map_err(|error| error.failure()),
        unseen: None,
    })
}

/// The object that a Machine refers to, if it is there.
async fn referenced(ctx: &Ctx, machine: &Object, pointer: &str) -> Result<Option<Value>, Failure> {
    let reference = |field: &str| {
        let text = machine.text(&format!("{pointer}/{field}"));
        text.unwrap_or_default()
    };
    let (group, kind) = (reference("apiGroup"), reference("kind"));
    if kind.is_empty() {
        return Ok(None);
    }
    let missing = |error: &ApiError| matches!(error, ApiError::NotFound(_));
    let definition = ObjectKey::new("", contract::crd_name(kind, group));
    let definition = match ctx.api.get(&kinds::CRD, &definition).await {
        Ok(definition) => definition,
        Err(error) if missing(&error) => return Ok(None),
        Err(error) => {
            return Err(failure(
                &format!("reading the definition of {kind}"),
                &error,
            ));
        }
    };
    let version = served(&definition).unwrap_or_default();
    let resource = Resource::namespaced(group, version, kind, &contract::plural(kind));
    let key = ObjectKey::new(machine.key.namespace.clone(), reference("name"));
    match ctx.api.get(&resource, &key).await {
        Ok(object) => Ok(Some(object)),
        Err(error) if missing(&error) => Ok(None),
        Err(error) => Err(failure(&format!("reading {kind} {key}"), &error)),
    }
}

/// The version in which a kind is stored, which is also served.
fn served(definition: &Value) -> Option<&str> {
    let versions = definition.pointer("/spec/versions")?.as_array()?;
    let stored = versions
        .iter()
        .find(|version| version.get("storage") == Some(&json!(true)))?;
    stored.get("name")?.as_str()
}
