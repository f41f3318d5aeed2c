//! `capstan local quickstart`: from nothing to a cluster that is Available, saying what happens
//! meanwhile. Run again it says what is there and does only what is missing.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

mod backend;
mod kubectl;
mod plugins;
mod server;
mod show;
mod told;

use super::{DirArgs, Programs, UpArgs, extra, lifecycle};
use crate::cloud::BackendChoice;
use crate::out;
use crate::port;
use crate::process::{self, Record};
use crate::progress::Progress;
use kubectl::Kubectl;
use server::Server;
use told::Told;

/// The cluster that is made, in namespace `default`; `cluster.yaml` names it too.
const CLUSTER: &str = "quickstart";

/// How often the server is asked what is new.
const LOOK: Duration = Duration::from_millis(700);

/// How long the server may not answer before that is an error.
const SILENCE: Duration = Duration::from_secs(30);

/// What is used and where.
#[derive(Clone, Debug, Args)]
pub struct QuickstartArgs {
    /// Where everything is kept.
    #[command(flatten)]
    pub home: DirArgs,
    /// Directory with the plugins' components.
    #[arg(
        long,
        default_value = "target/wasm32-wasip2/plugin",
        value_name = "DIR"
    )]
    pub plugins: PathBuf,
    /// Directory with the cluster and the grants.
    #[arg(long, default_value = "examples/quickstart", value_name = "DIR")]
    pub example: PathBuf,
    /// What the machines are: real ones (machines), ones that exist only as far as their APIs show (light), or real ones where this host can run them.
    #[arg(long, value_enum, default_value_t)]
    pub backend: BackendChoice,
    /// Log every API request to control-plane/audit.log.
    #[arg(long)]
    pub audit: bool,
    /// How long nothing may change before it is given up, in seconds.
    #[arg(long, default_value_t = 300)]
    pub patience_s: u64,
}

/// Says one line with the time since the beginning.
#[derive(Clone, Copy)]
struct Story {
    begun: Instant,
}

impl Story {
    fn say(&self, line: impl AsRef<str>) {
        let elapsed_s = self.begun.elapsed().as_secs_f64();
        out::result(format!("{elapsed_s:>6.1}s  {}", line.as_ref()));
    }
}

/// Runs it.
pub(super) async fn run(args: QuickstartArgs, programs: Programs<'_>) -> anyhow::Result<()> {
    let story = Story {
        begun: Instant::now(),
    };
    let progress = &Progress::new(move |line| story.say(line));
    // What is missing is said before anything is started.
    let components = plugins::read(&args.plugins)?;
    let kubectl = Kubectl::find(&args.home.dir, progress).await?;
    let backend = Box::pin(backend::choose(
        args.backend,
        &args.home.dir,
        &args.example,
        &story,
        progress,
    ));
    let backend = tokio::select! {
        backend = backend => backend?,
        _ = tokio::signal::ctrl_c() => bail!("interrupted; nothing was started"),
    };
    let host = Box::pin(start(&args, backend, programs, &kubectl, &story, progress)).await?;
    let server = Server::of(&args.home.dir.join("kubeconfig"))?;
    let scene = Scene {
        args: &args,
        story: &story,
        backend,
        kubectl: &kubectl,
        server: &server,
        host: &host,
    };
    tokio::select! {
        done = Box::pin(play(&scene, &components)) => done,
        _ = tokio::signal::ctrl_c() => {
            bail!("interrupted; what was started is left running, `./dev down` stops it")
        }
    }
}

/// Everything after the start.
async fn play(scene: &Scene<'_>, components: &[plugins::Component]) -> anyhow::Result<()> {
    plugins::install(scene, components).await?;
    create(scene).await?;
    follow(scene).await?;
    show::finish(scene).await
}

/// What every part needs.
struct Scene<'a> {
    args: &'a QuickstartArgs,
    story: &'a Story,
    backend: BackendChoice,
    kubectl: &'a Kubectl,
    server: &'a Server,
    host: &'a Record,
}

impl Scene<'_> {
    /// Repeats `look` until it gives something, the host ends, the server is silent, or nothing has changed for too long.
    async fn until<T>(
        &self,
        told: &mut Told,
        mut look: impl AsyncFnMut(&mut Told) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let patience = Duration::from_secs(self.args.patience_s);
        let mut answered = Instant::now();
        loop {
            match look(told).await {
                Ok(Some(result)) => return Ok(result),
                Ok(None) => answered = Instant::now(),
                Err(error) if answered.elapsed() >= SILENCE => {
                    return Err(error.context("the API server does not answer any more"));
                }
                Err(_) => {}
            }
            for line in told.new_lines() {
                self.story.say(line);
            }
            if !process::is_alive(self.host) {
                bail!("the host ended; {}", self.host_log());
            }
            if told.unchanged_for() >= patience {
                bail!(
                    "nothing has changed for {} s; what is not done yet:\n{}\n{}\n\
                     everything is left running to be looked at; `./dev down` stops it",
                    patience.as_secs(),
                    told.unfinished(),
                    self.host_log()
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn host_log(&self) -> String {
        let log = &self.host.log;
        let tail = process::log_tail(log, 12);
        let lines: Vec<String> = tail
            .lines()
            .map(|line| line.chars().take(400).collect())
            .collect();
        format!("the last lines of {}:\n{}", log.display(), lines.join("\n"))
    }
}

/// Starts the management cluster, the cloud and the host. When the host does not start, what was started for it is stopped.
async fn start(
    args: &QuickstartArgs,
    backend: BackendChoice,
    programs: Programs<'_>,
    kubectl: &Kubectl,
    story: &Story,
    progress: &Progress,
) -> anyhow::Result<Record> {
    let up = UpArgs {
        home: args.home.clone(),
        port: None,
        audit: args.audit,
        backend,
        unsafe_no_fsync: false,
    };
    let (state, is_new) = Box::pin(lifecycle::bring_up(&up, programs, progress)).await?;
    let server = state.server.unwrap_or_default();
    story.say(if is_new {
        format!("management cluster and cloud are up: {server}")
    } else {
        format!("management cluster and cloud are there already: {server}")
    });
    let started = async {
        let items = (programs.installation)();
        let count = items.len();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        kubectl.apply(&list).await?;
        story.say(format!(
            "{count} objects of the host's installation are applied: kinds, policies, its account and rights"
        ));
        start_host(args, programs, story, progress).await
    };
    match Box::pin(started).await {
        Ok(host) => Ok(host),
        Err(failure) => {
            if is_new {
                lifecycle::down(&args.home.dir, progress)?;
            }
            Err(failure.context("the host did not start"))
        }
    }
}

async fn start_host(
    args: &QuickstartArgs,
    programs: Programs<'_>,
    story: &Story,
    progress: &Progress,
) -> anyhow::Result<Record> {
    let (home, mut state) = extra::open_up(&args.home.dir, progress)?;
    let port = port::free().context("no port is free")?;
    let extra = (programs.host)(programs.program, home.dir(), port);
    let (host, is_new) = extra::start_one(&home, &mut state, &extra).await?;
    let Record {
        pid, log, ports, ..
    } = &host;
    let admin: Vec<String> = ports
        .iter()
        .map(|port| format!("http://127.0.0.1:{port}/metrics"))
        .collect();
    let is = if is_new { "is up" } else { "is there already" };
    story.say(format!(
        "capstan {is}: pid {pid}, log {}, {}",
        log.display(),
        admin.join(" ")
    ));
    Ok(host)
}

const CLUSTERS: &str = "/apis/cluster.x-k8s.io/v1beta2/namespaces/default/clusters";

/// Creates the cluster, unless it is there.
async fn create(scene: &Scene<'_>) -> anyhow::Result<()> {
    let path = format!("{CLUSTERS}/{CLUSTER}");
    let mut present = scene.server.get(&path).await?;
    let is_deleting = |cluster: &Value| cluster.pointer("/metadata/deletionTimestamp").is_some();
    if present.as_ref().is_some_and(is_deleting) {
        scene.story.say(format!(
            "cluster {CLUSTER} is being deleted; waiting until it is gone"
        ));
        let mut told = Told::default();
        let gone = async |told: &mut Told| {
            objects(scene.server, told).await?;
            Ok(scene.server.get(&path).await?.is_none().then_some(()))
        };
        scene.until(&mut told, gone).await?;
        present = None;
    }
    if present.is_some() {
        // Not applied again: that would undo what a person has changed since.
        scene
            .story
            .say(format!("cluster {CLUSTER} is there already"));
        return Ok(());
    }
    let file = scene.args.example.join("cluster.yaml");
    let what = || format!("could not use {}", file.display());
    let text = std::fs::read_to_string(&file).with_context(what)?;
    let items = backend::documents(&text, Some(scene.backend)).with_context(what)?;
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    scene.kubectl.apply_new(&list).await.with_context(what)?;
    scene.story.say(format!(
        "cluster {CLUSTER} is created from {}",
        file.display()
    ));
    Ok(())
}

/// Says what happens until the cluster is Available.
async fn follow(scene: &Scene<'_>) -> anyhow::Result<()> {
    let mut told = Told::default();
    let look = async |told: &mut Told| objects(scene.server, told).await;
    scene.until(&mut told, look).await?;
    for line in told.new_lines() {
        scene.story.say(line);
    }
    Ok(())
}

/// Looks at everything of the cluster; something when it is Available.
async fn objects(server: &Server, told: &mut Told) -> anyhow::Result<Option<()>> {
    const ROOT: &str = "/apis/cluster.x-k8s.io/v1beta2/namespaces/default";
    let mut is_available = false;
    for (word, plural) in [
        ("cluster", "clusters"),
        ("machine deployment", "machinedeployments"),
        ("machine", "machines"),
    ] {
        let items = server.list(&format!("{ROOT}/{plural}")).await?;
        for object in &items {
            told.object(word, object);
            let name = object.pointer("/metadata/name").and_then(Value::as_str);
            if plural == "clusters" && name == Some(CLUSTER) {
                is_available = told::condition(object, "Available") == Some("True")
                    && told::is_counted(object);
            }
        }
        told.only(word, &items);
    }
    Ok(is_available.then_some(()))
}
