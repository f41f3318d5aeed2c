//! `capstan plan`: what would happen. `plan rollout` asks the real strategy of a MachineDeployment about a simulated world, `plan object`
//! the controllers about the world as it is.

mod adopt;
mod object;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use capstan_api::name::ObjectKey;
use capstan_controllers::ctx::Ctx;
use capstan_controllers::kube_api::{KubeApi, management};
use capstan_controllers::rollout_plan::{self, Change, RolloutPlan};
use capstan_controllers::tasks::Tasks;
use capstan_core::rollout::forecast::{Ending, SetState};
use capstan_engine::Engine;
use serde_json::Value;

use crate::command::plugin::component;
use crate::command::run::{context, plain_engine};
use crate::input;
use crate::output::Output;
use crate::telemetry::{self, LogFormat};

/// The largest manifest that is read: objects of the API server, several times over.
const OBJECT_BYTES_MAX: u64 = 8 << 20;

/// What to plan.
#[derive(Debug, clap::Subcommand)]
pub(super) enum PlanCommand {
    /// The steps that an upgrade strategy would take for a change of a MachineDeployment.
    ///
    /// Reads the objects as they are, changes a copy, and lets the installed strategy plugin plan it to its end: machines come and
    /// go in two minutes each and never fail. Nothing is written.
    Rollout(RolloutArgs),
    /// What a control plane would do with control-plane machines that others made.
    ///
    /// Reads the machines, their configs and the cluster's Secrets, and asks the plugin of the control plane's kind. Nothing is written.
    Adopt(adopt::AdoptArgs),
    /// What controllers and plugins would do with one object now.
    ///
    /// Reads what the host reads, loads the installed plugins, and lets the controllers of the object's kind look at it once. Plugins are
    /// called in plan mode. What they would write or ask of a cloud is listed; nothing is done. The ceiling
    /// of the host is not known.
    Object(object::ObjectArgs),
}

/// Where plans are made, and how they are shown.
#[derive(Debug, clap::Args)]
struct Surroundings {
    /// Kubeconfig of the management cluster; without one, the cluster whose Pod this is.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<OsString>,
    /// Namespace of the host: plugins are looked for there.
    #[arg(long, default_value = "capstan-system", value_name = "NAMESPACE")]
    host_namespace: String,
    /// Directory for compiled plugins; capstan/compiled in the user's cache by default.
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// The directory that the host has as its --plugin-dir, for plugins from files.
    #[arg(long, value_name = "DIR")]
    plugin_dir: Option<PathBuf>,
    /// How the plan is printed.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

impl Surroundings {
    async fn api(&self) -> anyhow::Result<Arc<dyn KubeApi>> {
        let kubeconfig = self.kubeconfig.as_deref().filter(|list| !list.is_empty());
        let agent = concat!("capstan-plan/", env!("CARGO_PKG_VERSION"));
        Ok(management::connect(kubeconfig, agent).await?)
    }

    fn engine(&self) -> anyhow::Result<Arc<Engine>> {
        let mut options = plain_engine(self.cache_dir.as_deref())?;
        options.sources.directory.clone_from(&self.plugin_dir);
        Ok(Engine::new(options)?)
    }

    /// What a controller would have, without a host, and an engine for its plugins.
    async fn start(&self, tasks: &Tasks) -> anyhow::Result<(Arc<Ctx>, Arc<Engine>)> {
        let (api, engine) = (self.api().await?, self.engine()?);
        let ctx = context(&api, &self.host_namespace, None, None, tasks);
        Ok((ctx, engine))
    }
}

/// Which MachineDeployment, and what would change.
#[derive(Debug, clap::Args)]
pub(super) struct RolloutArgs {
    /// Name of the MachineDeployment; `machinedeployment/NAME` is understood as well.
    name: String,
    /// Its namespace.
    #[arg(long, short, default_value = "default")]
    namespace: String,
    /// The changed MachineDeployment as YAML or JSON, `-` for standard input; what it does not name stays as it is.
    #[arg(long, short, value_name = "FILE")]
    filename: Option<PathBuf>,
    /// Another Kubernetes version.
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Another upgrade strategy than the one it has.
    #[arg(long, value_name = "PLUGIN")]
    strategy: Option<String>,
    /// Other settings of the strategy than it has.
    #[arg(long, value_name = "JSON")]
    settings: Option<String>,
    /// A strategy's component, instead of the installed plugin.
    #[arg(long, value_name = "WASM")]
    plugin: Option<PathBuf>,
    #[command(flatten)]
    surroundings: Surroundings,
}

/// Runs a subcommand of `capstan plan`.
pub(super) fn run(command: PlanCommand) -> anyhow::Result<ExitCode> {
    telemetry::start(LogFormat::Text, "warn")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start threads")?;
    match command {
        PlanCommand::Rollout(args) => runtime.block_on(Box::pin(rollout(args))),
        PlanCommand::Adopt(args) => runtime.block_on(Box::pin(adopt::adopt(args))),
        PlanCommand::Object(args) => runtime.block_on(Box::pin(object::object(args))),
    }
}

/// Done and waiting are answers; a rollout that is blocked makes the exit code 2, so that scripts notice.
async fn rollout(args: RolloutArgs) -> anyhow::Result<ExitCode> {
    let change = change(&args)?;
    let tasks = Tasks::default();
    let (ctx, engine) = args.surroundings.start(&tasks).await?;
    let name = match args.name.split_once('/') {
        Some((kind, name)) if kind.to_ascii_lowercase().starts_with("machinedeployment") => name,
        Some((kind, _)) => {
            bail!("{kind}: only machinedeployments have rollouts that can be planned")
        }
        None => args.name.as_str(),
    };
    let key = ObjectKey::new(args.namespace.clone(), name);
    let planned = Box::pin(rollout_plan::plan(&ctx, &engine, &key, change)).await;
    tasks.stop();
    let plan = planned?;
    let shown = text(&plan)?;
    args.surroundings.output.print(&plan, || shown)?;
    Ok(match plan.ending {
        Ending::Done | Ending::Waits(_) => ExitCode::SUCCESS,
        Ending::Blocked(_) | Ending::TooLong => ExitCode::from(2),
    })
}

fn change(args: &RolloutArgs) -> anyhow::Result<Change> {
    let patch = args.filename.as_deref().map(manifest).transpose()?;
    let settings = args
        .settings
        .as_deref()
        .map(|text| serde_json::from_str::<Value>(text).context("--settings is not JSON"));
    let settings = settings.transpose()?;
    if settings
        .as_ref()
        .is_some_and(|settings| !settings.is_object())
    {
        bail!("--settings must be a JSON object");
    }
    let component = args.plugin.as_deref().map(component::read).transpose()?;
    Ok(Change {
        patch,
        version: args.version.clone(),
        strategy: args.strategy.clone(),
        settings,
        component,
    })
}

/// The MachineDeployment of a manifest, which may hold other objects beside it.
fn manifest(path: &Path) -> anyhow::Result<Value> {
    let text = input::text(path, OBJECT_BYTES_MAX)?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text)
        .with_context(|| format!("{} is not YAML", path.display()))?;
    let found = documents
        .into_iter()
        .find(|document| document.get("kind").and_then(Value::as_str) == Some("MachineDeployment"));
    found.with_context(|| format!("{} has no MachineDeployment", path.display()))
}

fn text(plan: &RolloutPlan) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    writeln!(
        text,
        "MachineDeployment {} with {}: {} replicas, at most {} machines, at least {} available",
        plan.machine_deployment,
        plan.strategy,
        plan.replicas,
        plan.machines_max,
        plan.available_min
    )?;
    for step in &plan.steps {
        let sets: Vec<String> = step.machine_sets.iter().map(set).collect();
        write!(text, "{:>8}  {}", span(step.after_seconds), sets.join(", "))?;
        if step.made > 0 {
            write!(text, "; makes {}", step.made)?;
        }
        if !step.deleted.is_empty() {
            write!(text, "; deletes {}", step.deleted.join(" "))?;
        }
        text.push('\n');
        if !step.message.is_empty() {
            writeln!(text, "{:>10}{}", "", step.message)?;
        }
        if let Some(what) = &step.waits_for {
            writeln!(text, "{:>10}waits for {what}", "")?;
        }
    }
    match &plan.ending {
        Ending::Done => writeln!(text, "done: all machines match")?,
        Ending::Waits(what) => writeln!(text, "goes no further by itself: waits for {what}")?,
        Ending::Blocked(why) => writeln!(text, "blocked: {why}")?,
        Ending::TooLong => writeln!(text, "does not end in the time that is simulated")?,
    }
    Ok(text)
}

fn set(set: &SetState) -> String {
    let mark = if set.current { "*" } else { "" };
    format!(
        "{}{mark} {} {}/{} available {}",
        set.name, set.version, set.machines, set.replicas, set.available
    )
}

/// `1h05m`, `5m`, `30s`.
fn span(seconds: u64) -> String {
    let minutes = seconds.div_euclid(60);
    let hours = minutes.div_euclid(60);
    match (hours, minutes.rem_euclid(60), seconds.rem_euclid(60)) {
        (0, 0, seconds) => format!("+{seconds}s"),
        (0, minutes, _) => format!("+{minutes}m"),
        (hours, minutes, _) => format!("+{hours}h{minutes:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use capstan_core::rollout::forecast::Step;

    #[test]
    fn times_are_short() {
        assert_eq!([span(5), span(300), span(3900)], ["+5s", "+5m", "+1h05m"]);
    }

    #[test]
    fn a_plan_reads_like_a_table() {
        let plan = RolloutPlan {
            machine_deployment: "ns/d".to_owned(),
            strategy: "upgrade-canary".to_owned(),
            replicas: 2,
            machines_max: 3,
            available_min: 2,
            steps: vec![Step {
                after_seconds: 120,
                machine_sets: vec![SetState {
                    name: "d-a".to_owned(),
                    version: "v1.36.0".to_owned(),
                    current: true,
                    replicas: 1,
                    machines: 1,
                    available: 0,
                }],
                made: 1,
                deleted: vec!["d-b-1".to_owned()],
                message: "step 1 of 2".to_owned(),
                waits_for: Some("a pause".to_owned()),
            }],
            ending: Ending::Waits("a gate".to_owned()),
        };
        let lines = text(&plan).unwrap();
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!(
            lines,
            [
                "MachineDeployment ns/d with upgrade-canary: 2 replicas, at most 3 machines, at least 2 available",
                "     +2m  d-a* v1.36.0 1/1 available 0; makes 1; deletes d-b-1",
                "          step 1 of 2",
                "          waits for a pause",
                "goes no further by itself: waits for a gate",
            ]
        );
        let json: Value =
            serde_json::from_str(&Output::Json.show(&plan, String::new).unwrap()).unwrap();
        assert_eq!(json["ending"], "waits");
        assert_eq!(json["steps"][0]["machineSets"][0]["name"], "d-a");
    }
}
