//! A management cluster with a cloud of real machines, and what is needed to look at both.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_local::cloud::{self, BackendChoice, Options};
use capstan_local::control_plane::ControlPlane;
use capstan_local::images;
use capstan_local::progress::Progress;
use capstan_tests::cloud::TestCloud;
use capstan_tests::cluster::TestCluster;
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{MACHINE, name};
use capstan_tests::{eventually, wasm};
use serde_json::{Value, json};

use capstan_tests::kubectl::Kubectl;

/// The version of control planes, and of workers after their upgrade.
pub const NEW: &str = images::VERSIONS[0];

/// The version of workers before: a minor version behind.
pub const OLD: &str = images::VERSIONS[1];

/// Many times what two busy cores need for a cluster of 1+2.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// Where the cloud keeps its machines: always the same place, so that a run that was killed is cleaned up by the next one.
pub fn dir() -> PathBuf {
    wasm::target_dir().join("test-machines")
}

/// Waits for other runs in this directory, keeps them away as long as the answer lives, and removes what an earlier one left, whatever happened to it.
pub fn alone() -> File {
    let path = wasm::target_dir().join("test-machines.lock");
    let lock = File::create(path).unwrap();
    if lock.try_lock().is_err() {
        eprintln!("waiting for another run of these tests");
        lock.lock().unwrap();
    }
    let dir = dir();
    if dir.exists() {
        cloud::remove_machines(&dir).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }
    lock
}

/// Everything that the acts share. Dropping it removes all machines.
pub struct Lab {
    pub host: TestHost,
    kubectl: PathBuf,
}

impl Drop for Lab {
    fn drop(&mut self) {
        // With the cloud still running: what it would do about it no longer matters.
        if let Err(error) = cloud::remove_machines(&dir()) {
            eprintln!("machines are left in {}: {error}", dir().display());
        }
    }
}

impl Lab {
    /// Whether this host can run real machines, with images; builds them when it can.
    pub async fn is_possible() -> Result<(), String> {
        std::fs::create_dir_all(wasm::target_dir()).unwrap();
        cloud::can_run_machines(&wasm::target_dir()).map_err(|missing| missing.join("; "))?;
        let progress = Progress::new(|line| eprintln!("{line}"));
        for version in [NEW, OLD] {
            images::ensure(version, &progress)
                .await
                .map_err(|error| format!("there is no image of {version}: {error}"))?;
        }
        images::ensure_cloud_init(&progress)
            .await
            .map_err(|error| format!("there is no image with cloud-init: {error}"))
    }

    /// Starts everything.
    pub async fn start() -> Self {
        std::fs::create_dir_all(dir()).unwrap();
        let progress = Progress::new(|line| eprintln!("{line}"));
        let kubectl = capstan_local::toolchain::ensure_kubectl(&progress)
            .await
            .unwrap();
        let plane = ControlPlane::start_for_tests().await.unwrap();
        let mut options = Options::new(dir());
        options.backend = BackendChoice::Machines;
        // This process cannot be the first one of a machine.
        options.program = Some(wasm::program());
        let cloud = TestCloud::start_with(options).await;
        let mut host = TestHost::with(plane, cloud).await;
        host.run_in_process().await;
        host.plugins_ready().await;
        Self { host, kubectl }
    }

    /// A cluster whose control plane has the newest version, and whose workers have this one.
    pub fn cluster(&self, name: &str, workers: u32, version: &str) -> TestCluster {
        let mut cluster = TestCluster::new(name, name, workers);
        cluster.worker_version = version.to_owned();
        cluster.backend = Some("machines".to_owned());
        cluster
    }

    /// Waits until a cluster is Available with this many workers, and its Nodes are Ready.
    pub async fn available(&self, cluster: &TestCluster, workers: u32) {
        let what = format!("{} available with {workers} workers", cluster.name);
        let kube = self.host.kube();
        eventually(&what, PATIENCE, async || {
            cluster.is_available(kube, workers).await?;
            cluster.nodes_match(kube).await
        })
        .await;
    }

    /// kubectl for a workload cluster, with the kubeconfig that its owner would take.
    pub async fn kubectl(&self, cluster: &TestCluster) -> Kubectl {
        let text = cluster.kubeconfig(self.host.kube()).await;
        let path = dir().join(format!("{}.kubeconfig", cluster.name));
        std::fs::write(&path, text).unwrap();
        Kubectl::new(&self.kubectl, &path)
    }

    /// The Machines of a cluster that are control-plane machines, or those that are not.
    pub async fn machines(&self, cluster: &TestCluster, control_plane: bool) -> Vec<Value> {
        let mut all = self.host.kube().list(MACHINE, &cluster.namespace).await;
        let label = "cluster.x-k8s.io/control-plane";
        all.retain(|machine| machine["metadata"]["labels"][label].is_string() == control_plane);
        all
    }

    /// The instance of a machine.
    pub async fn instance(&self, machine: &str) -> Value {
        let path = format!("/v1/instances?name={machine}");
        let list = self.host.cloud.call("GET", &path, None).await.unwrap();
        let list: Value = serde_json::from_str(&list).unwrap();
        assert_eq!(
            list["items"].as_array().unwrap().len(),
            1,
            "{machine}: {list}"
        );
        list["items"][0].clone()
    }

    /// The ID of the instance of a machine.
    pub async fn id(&self, machine: &str) -> String {
        let instance = self.instance(machine).await;
        instance["id"].as_str().unwrap().to_owned()
    }

    /// Runs a script in an instance, and answers what it printed.
    pub async fn script(&self, id: &str, script: &str) -> String {
        let command = json!({"command": ["sh", "-ec", script]});
        let path = format!("/v1/instances/{id}/exec");
        let answer = self.host.cloud.call("POST", &path, Some(&command)).await;
        let answer: Value = serde_json::from_str(&answer.unwrap()).unwrap();
        assert_eq!(answer["exitCode"], 0, "{script}: {answer}");
        answer["stdout"].as_str().unwrap().to_owned()
    }

    /// The same with a script that may take longer than one call.
    pub async fn steps(&self, id: &str, script: &str) -> String {
        let script = BASE64.encode(script);
        let begin = format!(
            "rm -f /run/code; echo {script} | base64 -d > /run/steps\n\
             (if sh -e /run/steps > /run/said 2>&1 < /dev/null; then echo 0; else echo $?; fi > /run/code.new; \
             mv /run/code.new /run/code) > /dev/null 2>&1 &"
        );
        self.script(id, &begin).await;
        let code = eventually("the steps are done", PATIENCE, async || {
            let code = self.script(id, "cat /run/code || true").await;
            (!code.is_empty())
                .then_some(code)
                .ok_or_else(|| "no code yet".to_owned())
        })
        .await;
        let said = self.script(id, "cat /run/said").await;
        assert_eq!(code, "0\n", "{said}");
        said
    }

    /// What a machine has printed.
    pub async fn console(&self, machine: &Value) -> String {
        let id = self.instance(&name(machine)).await["id"].clone();
        let path = format!("/v1/instances/{}/console", id.as_str().unwrap());
        self.host.cloud.call("GET", &path, None).await.unwrap()
    }

    /// Does something to a machine.
    pub async fn act(&self, machine: &Value, action: &str) -> Result<(), String> {
        let id = self.instance(&name(machine)).await["id"].clone();
        let path = format!("/v1/instances/{}/actions/{action}", id.as_str().unwrap());
        self.host.cloud.call("POST", &path, None).await.map(|_| ())
    }

    /// Waits until there is neither a process nor a file of a machine.
    pub async fn nothing_is_left(&self) {
        eventually("nothing in the cloud", PATIENCE, async || {
            self.host.cloud.is_empty().await
        })
        .await;
        let processes = processes_with(&dir());
        assert!(processes.is_empty(), "processes are left: {processes:?}");
        for kind in ["instances", "networks"] {
            let left: Vec<_> = std::fs::read_dir(dir().join("machines").join(kind))
                .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
                .unwrap_or_default();
            assert!(left.is_empty(), "files are left: {left:?}");
        }
    }
}

/// Other processes whose command line names a directory.
pub fn processes_with(dir: &Path) -> Vec<String> {
    let dir = dir.display().to_string();
    let own = std::process::id().to_string();
    let entries = std::fs::read_dir("/proc").unwrap();
    let pids = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()) && *name != own);
    let lines = pids.filter_map(|pid| {
        // A process may end while it is looked at.
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some(format!(
            "{pid}: {}",
            String::from_utf8_lossy(&line).replace('\0', " ")
        ))
    });
    lines.filter(|line| line.contains(&dir)).collect()
}
