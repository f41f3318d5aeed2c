//! The program as people run it: side by side, killed, without rights.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use capstan_tests::wasm;
use serde_json::{Value, json};

use capstan_local::cloud::Access;
use capstan_local::progress::Progress;
use capstan_local::toolchain;
use capstan_tests::cloud::TestCloud;
use capstan_tests::eventually;

use crate::lab::{NEW, PATIENCE, processes_with};

/// Nobody in particular.
const USER: &str = "65534";

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// One run: a directory with what `capstan local up` started in it.
pub struct Run {
    dir: PathBuf,
}

impl Run {
    /// Starts a management cluster and a cloud of real machines, after removing what an earlier run left there.
    pub fn start(name: &str) -> Self {
        let dir = wasm::target_dir().join(name);
        let run = Self { dir };
        run.down();
        run.up();
        run
    }

    fn local(&self, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new(wasm::program());
        command
            .arg("local")
            .arg(words[0])
            .arg("--dir")
            .arg(&self.dir);
        let output = command.args(&words[1..]).output().unwrap();
        match output.status.success() {
            true => Ok(text(&output)),
            false => Err(text(&output)),
        }
    }

    fn up(&self) {
        self.local(&["up", "--backend", "machines"]).unwrap();
    }

    /// Removes everything.
    pub fn down(&self) {
        self.local(&["down"]).unwrap();
        assert!(!self.dir.exists());
        let left = processes_with(&self.dir);
        assert!(left.is_empty(), "processes are left: {left:?}");
    }

    fn cloud(&self) -> TestCloud {
        let access = fs::read(self.dir.join("cloud/cloud.json")).unwrap();
        let access: Access = serde_json::from_slice(&access).unwrap();
        TestCloud::connect(access)
    }

    /// Kills the cloud's process at once, and waits until it is gone: on a busy computer it is still there for a moment.
    async fn kill_cloud(&self) {
        let state = fs::read(self.dir.join("state.json")).unwrap();
        let state: Value = serde_json::from_slice(&state).unwrap();
        let extras = state["extras"].as_array().unwrap();
        let cloud = extras.iter().find(|extra| extra["name"] == "cloud");
        let pid = cloud.unwrap()["pid"].to_string();
        let killed = Command::new("kill").args(["-9", &pid]).status().unwrap();
        assert!(killed.success());
        let process = PathBuf::from(format!("/proc/{pid}"));
        eventually("the cloud's process is gone", PATIENCE, async || {
            (!process.exists()).then_some(()).ok_or(pid.clone())
        })
        .await;
    }

    /// Makes a machine that joins nothing, and waits until it runs.
    async fn machine(&self, name: &str) {
        let cloud = self.cloud();
        let network = cloud
            .call("POST", "/v1/networks", Some(&json!({"name": name})))
            .await
            .unwrap();
        let network: Value = serde_json::from_str(&network).unwrap();
        assert_eq!(network["backend"], "machines");
        let instance = json!({
            "name": name, "networkId": network["id"], "type": "small", "image": NEW,
        });
        eventually("an instance", PATIENCE, async || {
            cloud.call("POST", "/v1/instances", Some(&instance)).await
        })
        .await;
        eventually("the machine has booted", PATIENCE, async || {
            let list = cloud.call("GET", "/v1/instances", None).await?;
            let list: Value = serde_json::from_str(&list).unwrap();
            match &list["items"][0]["bootstrap"]["state"] {
                state if state == "done" => Ok(()),
                _ => Err(list.to_string()),
            }
        })
        .await;
    }

    /// What a command in a machine prints.
    fn exec(&self, name: &str, script: &str) -> Result<String, String> {
        self.local(&["exec", name, "--", "sh", "-c", script])
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.dir.exists()
            && let Err(error) = self.local(&["down"])
        {
            eprintln!("machines are left in {}: {error}", self.dir.display());
        }
    }
}

/// Two runs on one host leave each other alone, also when the cloud of one is killed, comes back, is killed again and is cleaned up.
pub async fn two_runs_and_a_killed_cloud() {
    let (one, other) = (Run::start("test-run-1"), Run::start("test-run-2"));
    for run in [&one, &other] {
        run.machine("twin").await;
        run.exec("twin", "echo here >/run/marker").unwrap();
    }
    let address = "hostname -I 2>/dev/null || ip -4 -o addr show eth0";
    assert_ne!(
        one.exec("twin", address).unwrap(),
        other.exec("twin", address).unwrap()
    );
    one.kill_cloud().await;
    // The machine has outlived its cloud, which finds it again: what is in its memory is still there.
    one.up();
    eventually("the machine answers again", PATIENCE, async || {
        one.exec("twin", "cat /run/marker")
    })
    .await;
    one.kill_cloud().await;
    one.down();
    assert_eq!(
        other.exec("twin", "cat /run/marker").as_deref(),
        Ok("here\n")
    );
    other.down();
}

/// A directory that everybody reaches, with the program in it.
struct Open {
    dir: PathBuf,
}

impl Open {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("capstan-test-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let open = Self { dir };
        open.give("bin", &wasm::program());
        open
    }

    /// Gives everybody a file, below a directory.
    fn give(&self, dir: &str, file: &Path) {
        let dir = self.dir.join(dir);
        fs::create_dir_all(&dir).unwrap();
        fs::copy(file, dir.join(file.file_name().unwrap())).unwrap();
    }

    /// A directory that belongs to the user.
    fn home(&self) -> PathBuf {
        let home = self.dir.join("home");
        if !home.exists() {
            fs::create_dir(&home).unwrap();
            fs::set_permissions(&home, fs::Permissions::from_mode(0o777)).unwrap();
        }
        home
    }

    /// `capstan local`, with what `setpriv` takes away.
    fn local(&self, rights: &[&str], words: &[&str]) -> (bool, String) {
        let home = self.home();
        let output = Command::new("setpriv")
            .args(rights)
            .arg(self.dir.join("bin/capstan"))
            .arg("local")
            .args(words)
            .current_dir(&home)
            .env("HOME", &home)
            .env_remove("XDG_CACHE_HOME")
            .env("KUBEBUILDER_ASSETS", self.dir.join("assets"))
            .output()
            .unwrap();
        (output.status.success(), text(&output))
    }

    fn as_user(&self, words: &[&str]) -> (bool, String) {
        let rights = ["--reuid", USER, "--regid", USER, "--clear-groups"];
        self.local(&rights, words)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("{} is left: {error}", self.dir.display());
        }
    }
}

/// Whoever lacks rights is told so in a sentence, and nothing has begun.
pub fn without_rights_it_is_refused_as_a_whole() {
    let open = Open::new();
    let (is_possible, said) = open.as_user(&["probe"]);
    assert!(
        !is_possible && said.contains("machines need root"),
        "{said}"
    );
    let (is_possible, said) = open.local(
        &["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"],
        &["probe"],
    );
    assert!(
        !is_possible && said.contains("root lacks capabilities here (SYS_ADMIN)"),
        "{said}"
    );
    let cloud = ["cloud", "--dir", "cloud", "--backend", "machines"];
    let (is_possible, said) = open.as_user(&cloud);
    assert!(
        !is_possible && said.contains("machines need root"),
        "{said}"
    );
    let kept: Vec<_> = fs::read_dir(open.home().join("cloud"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name == "machines" || name == "cloud.json")
        .collect();
    assert!(kept.is_empty(), "{kept:?}");
}

/// An ordinary user gets a cluster of light machines.
pub async fn the_quickstart_needs_no_rights_for_light_machines() {
    let open = Open::new();
    let progress = Progress::default();
    let tools = toolchain::ensure(&progress).await.unwrap();
    let kubectl = toolchain::ensure_kubectl(&progress).await.unwrap();
    for tool in [
        &tools.etcd,
        &tools.kube_apiserver,
        &tools.kube_controller_manager,
        &kubectl,
    ] {
        open.give("assets", tool);
    }
    for plugin in wasm::PLUGINS {
        let file = format!("{}.wasm", plugin.replace('-', "_"));
        let built = wasm::target_dir().join("wasm32-wasip2/plugin").join(file);
        open.give("plugins", &built);
    }
    let example = wasm::root().join("examples/quickstart");
    open.give("example", &example.join("cluster.yaml"));
    for grant in fs::read_dir(example.join("grants")).unwrap() {
        open.give("example/grants", &grant.unwrap().path());
    }
    let words = [
        "quickstart",
        "--backend",
        "light",
        "--plugins",
        "../plugins",
        "--example",
        "../example",
    ];
    let (is_done, said) = open.as_user(&words);
    let (is_down, down) = open.as_user(&["down"]);
    assert!(is_done, "{said}");
    assert!(said.contains("machines are light ones, as asked"), "{said}");
    assert!(is_down, "{down}");
}
