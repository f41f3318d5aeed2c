//! A host under test: its management cluster, its cloud, its plugins, and the controllers in the test's process.

use std::net::Ipv4Addr;
use std::process::{Command, Output};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_controllers::bootstrap_report::{PublicUrl, Reports};
use capstan_controllers::ctx::{Clock, Ctx, SystemClock};
use capstan_controllers::etcd::SnapshotStore;
use capstan_controllers::kube_api::KubeApi;
use capstan_controllers::kube_api::real::RealApi;
use capstan_controllers::metrics::Metrics;
use capstan_controllers::tasks::Tasks;
use capstan_controllers::workloads::RealConnect;
use capstan_controllers::{install, registry};
use capstan_engine::{Engine, EngineOptions, SourceOptions};
use capstan_local::control_plane::ControlPlane;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::OnceCell;

use crate::cloud::TestCloud;
use crate::cluster::namespace;
use crate::eventually::{PATIENCE, eventually};
use crate::kube_client::{CONFIG_MAP, Kube, PLUGIN, SECRET, condition, conditions};
use crate::process::HostProcess;
use crate::wasm;

/// The host's namespace.
pub const NAMESPACE: &str = "capstan-system";
/// The host's user, by which the audit log knows its requests.
pub const USER: &str = "capstan-host";

/// Snapshots of etcd that the host keeps for each cluster.
pub const SNAPSHOTS_KEPT: usize = 2;

/// Who runs the controllers.
enum Running {
    InProcess(Tasks),
    Process(HostProcess),
    Nobody,
}

/// A management cluster with its cloud and its host. Dropping it ends all of it.
pub struct TestHost {
    /// The cloud.
    pub cloud: TestCloud,
    /// The management cluster.
    pub plane: ControlPlane,
    kube: Kube,
    running: Running,
}

impl Drop for TestHost {
    fn drop(&mut self) {
        if let Running::InProcess(tasks) = &self.running {
            tasks.stop();
        }
    }
}

impl TestHost {
    /// The host that tests share, with all plugins; take a namespace of your own.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<TestHost> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// A host of its own, in this process, with all plugins.
    pub async fn start() -> Self {
        let mut host = Self::without_host().await;
        host.run_in_process().await;
        host.plugins_ready().await;
        host
    }

    /// A host of its own, as a process, with all plugins.
    pub async fn start_process() -> Self {
        let mut host = Self::without_host().await;
        host.run_process();
        host.plugins_ready().await;
        host
    }

    /// Everything but a host: servers, kinds, cloud, and the plugins' ConfigMaps and grants.
    pub async fn without_host() -> Self {
        let plane = ControlPlane::start_for_tests().await.unwrap();
        // Beside the control plane's files, which go away even when this process is killed.
        let cloud = TestCloud::start(&plane.dir().join("cloud")).await;
        Self::with(plane, cloud).await
    }

    /// As [`TestHost::without_host`], on this control plane and with this cloud.
    pub async fn with(plane: ControlPlane, cloud: TestCloud) -> Self {
        let admin = plane.kubeconfig_text("admin", &["system:masters"]).unwrap();
        let kube = Kube::from_kubeconfig(&admin).await;
        let host = Self {
            cloud,
            plane,
            kube,
            running: Running::Nobody,
        };
        let api = RealApi::new(host.kube.client());
        install::host(&api).await.unwrap();
        namespace(&host.kube, NAMESPACE).await;
        install::core_provider(&api, NAMESPACE).await.unwrap();
        for name in wasm::PLUGINS {
            host.put_plugin(name, &wasm::gzip(&wasm::component(name)))
                .await;
        }
        host.grant_cloud().await;
        host.grant_workload_clusters().await;
        host
    }

    /// Where the host keeps snapshots of etcd.
    pub fn snapshots_dir(&self) -> std::path::PathBuf {
        self.plane.dir().join("etcd-snapshots")
    }

    /// A client that may do everything.
    pub fn kube(&self) -> &Kube {
        &self.kube
    }

    /// Puts bytes into the ConfigMap of a plugin.
    pub async fn put_plugin(&self, name: &str, bytes: &[u8]) {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"namespace": NAMESPACE, "name": name, "labels": {"capstan.dev/plugin": name}},
            "binaryData": {"plugin.wasm": BASE64.encode(bytes)},
        });
        self.kube.apply(CONFIG_MAP, &map).await;
    }

    /// Deletes the ConfigMap of a plugin.
    pub async fn remove_plugin(&self, name: &str) {
        self.kube.delete(CONFIG_MAP, NAMESPACE, name).await;
    }

    /// Lets infrastructure-local reach the cloud with its token.
    async fn grant_cloud(&self) {
        let access = self.cloud.access();
        let token = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"namespace": NAMESPACE, "name": "cloud-token"},
            "data": {"token": BASE64.encode(&access.token)},
        });
        self.kube.apply(SECRET, &token).await;
        let plugin = json!({
            "apiVersion": PLUGIN.api_version, "kind": "Plugin",
            "metadata": {"namespace": NAMESPACE, "name": "infrastructure-local"},
            "spec": {
                "source": {"configMap": {"name": "infrastructure-local"}},
                "config": {"endpoint": access.endpoint},
                "grants": [{
                    "capability": "http",
                    "http": {"origins": [{"origin": access.endpoint, "private": true}]},
                    "credentials": [{
                        "name": "cloud-token",
                        "secretRef": {"name": "cloud-token", "key": "token"},
                        "scheme": "Bearer",
                        "origins": [access.endpoint],
                    }],
                }],
            },
        });
        self.kube.apply(PLUGIN, &plugin).await;
    }

    /// Lets control-plane-kubeadm do in workload clusters what the quickstart's grant says.
    async fn grant_workload_clusters(&self) {
        let path = wasm::root().join("examples/quickstart/grants/control-plane-kubeadm.yaml");
        let text = std::fs::read_to_string(path).unwrap();
        let granted: Value = serde_saphyr::from_str(&text).unwrap();
        let plugin = json!({
            "apiVersion": PLUGIN.api_version, "kind": "Plugin",
            "metadata": {"namespace": NAMESPACE, "name": "control-plane-kubeadm"},
            "spec": {
                "source": {"configMap": {"name": "control-plane-kubeadm"}},
                "grants": granted["spec"]["grants"],
            },
        });
        self.kube.apply(PLUGIN, &plugin).await;
    }

    /// Waits until all plugins answer calls.
    pub async fn plugins_ready(&self) {
        for name in wasm::PLUGINS {
            self.plugin_ready(name).await;
        }
    }

    /// Waits until a plugin answers calls.
    pub async fn plugin_ready(&self, name: &str) {
        eventually(&format!("plugin {name} ready"), PATIENCE, async || {
            let plugin = self.kube.get(PLUGIN, NAMESPACE, name).await;
            let plugin = plugin.ok_or("there is no Plugin object")?;
            match condition(&plugin, "Ready").status.as_str() {
                "True" => Ok(()),
                _ => Err(conditions(&plugin)),
            }
        })
        .await;
    }

    /// Runs `capstan plan` with these arguments, as a person would.
    pub fn plan(&self, arguments: &[&str]) -> Output {
        let kubeconfig = self.plane.user_kubeconfig("planner", &["system:masters"]);
        Command::new(wasm::program())
            .arg("plan")
            .args(arguments)
            .args(["--host-namespace", NAMESPACE, "--kubeconfig"])
            .arg(kubeconfig.unwrap())
            .arg("--cache-dir")
            .arg(self.plane.dir().join("plan-cache"))
            .output()
            .unwrap()
    }

    /// Runs the controllers in this process.
    pub async fn run_in_process(&mut self) {
        self.run_with_sources(SourceOptions::default()).await;
    }

    /// The same with what an operator says about sources of plugins.
    pub async fn run_with_sources(&mut self, sources: SourceOptions) {
        let text = self
            .plane
            .kubeconfig_text(USER, &["system:masters"])
            .unwrap();
        let client = Kube::from_kubeconfig(&text).await.client();
        let api: Arc<dyn KubeApi> = Arc::new(RealApi::new(client));
        let tasks = Tasks::default();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = PublicUrl::of_address(listener.local_addr().unwrap());
        let reports = Reports::prepare(&*api, NAMESPACE, url, SystemClock.now()).await;
        let reports = Arc::new(reports.unwrap());
        let ctx = Arc::new(Ctx {
            snapshots: Some(SnapshotStore::new(self.snapshots_dir(), SNAPSHOTS_KEPT)),
            reports: Some(Arc::clone(&reports)),
            ..Ctx::new(
                api,
                Arc::new(RealConnect::default()),
                Arc::new(SystemClock),
                tasks.clone(),
                NAMESPACE,
            )
        });
        reports.serve(&ctx, listener).unwrap();
        registry::start(&ctx, &engine(sources), &Arc::new(Metrics::default()));
        self.running = Running::InProcess(tasks);
    }

    /// Runs the host as a process.
    pub fn run_process(&mut self) {
        self.running = Running::Process(HostProcess::start(&self.plane));
    }

    /// Starts the host as a process with these arguments, a name for its files, and the user that hosts in this process have.
    pub fn runs_with(&mut self, name: &str, more: &[&str]) {
        let kubeconfig = self.plane.user_kubeconfig(USER, &["system:masters"]);
        let args = ["run", "--namespace", NAMESPACE].iter().chain(more);
        let args: Vec<String> = args.map(|&argument| argument.to_owned()).collect();
        let program = wasm::program();
        let process =
            HostProcess::start_as(&program, &self.plane, name, &kubeconfig.unwrap(), &args);
        self.runs_as(process);
    }

    /// The metrics of a host that is a process.
    ///
    /// # Errors
    /// When it does not answer yet, or is none.
    pub fn metrics(&self) -> Result<String, String> {
        match &self.running {
            Running::Process(process) => process.metrics(),
            Running::InProcess(_) | Running::Nobody => Err("the host is no process".to_owned()),
        }
    }

    /// The host is this process from now on.
    pub fn runs_as(&mut self, process: HostProcess) {
        self.running = Running::Process(process);
    }

    /// Kills the host, as a machine that loses power would. One in this process is stopped wherever it waits for something.
    pub fn kill(&mut self) {
        match &mut self.running {
            Running::Process(process) => process.kill(),
            Running::InProcess(tasks) => tasks.stop(),
            Running::Nobody => {}
        }
        self.running = Running::Nobody;
    }
}

/// An engine with compiled code from earlier runs: each test would otherwise compile every plugin.
fn engine(sources: SourceOptions) -> Arc<Engine> {
    Engine::new(EngineOptions {
        sources,
        guest_threads: 2,
        ..EngineOptions::for_tests(wasm::target_dir().join("kit-plugin-cache"))
    })
    .unwrap()
}

/// The Plugin object of this name.
pub async fn plugin(kube: &Kube, name: &str) -> Option<Value> {
    kube.get(PLUGIN, NAMESPACE, name).await
}
