//! The control plane is real here: what starts must serve, and what stops must be gone.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use capstan_local::cloud::BackendChoice;
use capstan_local::command::{
    self, DirArgs, Extra, LocalCommand, Programs, Ready, StartArgs, StopArgs, UpArgs,
};
use capstan_local::control_plane::{Client, ControlPlane, Error, Options, shared};
use capstan_local::process::{Record, is_alive};
use capstan_local::state::State;
use http::Method;

/// Runs a command with a program in the cloud's place that only waits: these tests are about the books.
async fn run(command: LocalCommand) -> anyhow::Result<ExitCode> {
    fn waiting() -> Extra {
        Extra {
            name: "cloud".into(),
            argv: vec!["sleep".into(), "1000".into()],
            ready: Ready::Started,
            patience: Duration::from_secs(10),
        }
    }
    let programs = Programs {
        cloud: |_, _, _| waiting(),
        host: |_, _, _| waiting(),
        installation: Vec::new,
        program: Path::new("sleep"),
    };
    command::run(command, programs).await
}

/// Asks again until the answer is yes. A hang shows as the test runner's own time limit.
async fn until(what: &str, answer: impl AsyncFn() -> bool) {
    while !answer().await {
        tracing::trace!(what, "not yet");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn send(client: &Client, method: Method, path: &str, body: Option<&str>) -> u16 {
    let answer = client
        .send(method, path, body.map(str::to_owned))
        .await
        .unwrap();
    answer.0.as_u16()
}

fn namespace(name: &str) -> String {
    format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{name}"}}}}"#)
}

async fn all_gone(records: &[Record], dir: &Path) {
    until("processes end", async || !records.iter().any(is_alive)).await;
    until("the directory is removed", async || !dir.exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stand_side_by_side_and_the_dropped_one_is_gone() {
    let (first, second) = tokio::try_join!(shared(), ControlPlane::start_for_tests()).unwrap();
    assert_ne!(first.port(), second.port());
    let admin = |plane: &ControlPlane| plane.client("admin", &["system:masters"]).unwrap();
    let (one, two) = (admin(first), admin(&second));
    let path = "/api/v1/namespaces/only-in-the-first";
    let body = namespace("only-in-the-first");
    assert_eq!(
        send(&one, Method::POST, "/api/v1/namespaces", Some(&body)).await,
        201
    );
    assert_eq!(send(&two, Method::GET, path, None).await, 404);

    let records = second.processes().to_vec();
    let dir = second.dir().to_owned();
    let names: Vec<&str> = records.iter().map(|record| record.name.as_str()).collect();
    assert_eq!(names, ["etcd", "kube-apiserver", "kube-controller-manager"]);
    assert!(records.iter().all(is_alive) && dir.is_dir());
    drop(second);
    assert!(!records.iter().any(is_alive) && !dir.exists());

    // The namespace controller works: without it a namespace never goes away.
    assert_eq!(send(&one, Method::DELETE, path, None).await, 200);
    until("the namespace goes", async || {
        send(&one, Method::GET, path, None).await == 404
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_exactly_the_requests_that_a_user_made() {
    let plane = shared().await.unwrap();
    let user = plane.client("somebody", &["team-a"]).unwrap();
    let admin = plane.client("admin", &["system:masters"]).unwrap();
    let path = "/api/v1/namespaces/default/configmaps";
    assert_eq!(send(&user, Method::GET, path, None).await, 403);

    let role = r#"{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"RoleBinding",
        "metadata":{"name":"team-a"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io",
        "kind":"ClusterRole","name":"edit"},"subjects":[{"kind":"Group","name":"team-a",
        "apiGroup":"rbac.authorization.k8s.io"}]}"#;
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    assert_eq!(send(&admin, Method::POST, bindings, Some(role)).await, 201);
    until("RBAC sees it", async || {
        send(&user, Method::GET, path, None).await == 200
    })
    .await;

    let log = plane.audit().unwrap();
    let mark = log.mark().unwrap();
    for name in ["a", "b", "c"] {
        let body = format!(r#"{{"metadata":{{"name":"{name}"}}}}"#);
        assert_eq!(send(&user, Method::POST, path, Some(&body)).await, 201);
    }
    assert_eq!(send(&user, Method::GET, path, None).await, 200);
    assert_eq!(
        send(&user, Method::GET, &format!("{path}/nope"), None).await,
        404
    );
    assert_eq!(
        send(&user, Method::DELETE, &format!("{path}/a"), None).await,
        200
    );

    let counts = log.counts_since(mark).unwrap();
    let of = |verb: &str, code: u16| {
        counts.count(|request| {
            request.user == "somebody"
                && request.verb == verb
                && request.resource == "configmaps"
                && request.code == code
        })
    };
    let found = [
        of("create", 201),
        of("list", 200),
        of("get", 404),
        of("delete", 200),
    ];
    assert_eq!(found, [3, 1, 1, 1], "{counts}");
    assert_eq!(
        (counts.of_user("somebody"), counts.writes_of("somebody")),
        (6, 4),
        "{counts}"
    );
    assert_eq!(log.counts_since(counts.end).unwrap().of_user("somebody"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named_and_nothing_is_left() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("plane");
    let options = Options {
        dir: Some(dir.clone()),
        port: Some(port),
        ..Options::default()
    };
    let failure = ControlPlane::start(options).await.unwrap_err();
    assert!(
        matches!(failure, Error::PortTaken { port: named } if named == port),
        "{failure}"
    );
    assert!(!dir.exists());
}

/// Runs one of this binary's tests in a process of its own, with `ROLE` naming a directory.
fn in_another_process(test: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("ROLE", dir)
        .stdout(Stdio::piped())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The directory that a process started by `in_another_process` is to use.
fn role() -> Option<PathBuf> {
    std::env::var_os("ROLE").map(PathBuf::from)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_owner_takes_its_control_plane_along() {
    if let Some(dir) = role() {
        let options = Options {
            dir: Some(dir),
            ..Options::default()
        };
        let plane = ControlPlane::start(options).await.unwrap();
        println!(
            "\nREADY {}",
            serde_json::to_string(plane.processes()).unwrap()
        );
        // Until the parent kills this process.
        std::io::stdin().read_line(&mut String::new()).unwrap();
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("plane");
    let mut owner = in_another_process("a_killed_owner_takes_its_control_plane_along", &dir);
    let output = BufReader::new(owner.stdout.take().unwrap());
    let ready = output
        .lines()
        .find_map(|line| line.unwrap().strip_prefix("READY ").map(str::to_owned));
    let records: Vec<Record> = serde_json::from_str(&ready.unwrap()).unwrap();
    assert!(records.len() == 3 && records.iter().all(is_alive));
    owner.kill().unwrap();
    owner.wait().unwrap();
    all_gone(&records, &dir).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_up_that_is_killed_half_way_leaves_nothing() {
    if let Some(dir) = role() {
        run(up(&dir)).await.unwrap();
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("dev");
    let mut owner = in_another_process("an_up_that_is_killed_half_way_leaves_nothing", &dir);
    // etcd's data is there, the state is not complete: the middle of a start.
    until("etcd runs", async || {
        dir.join("control-plane/etcd").exists()
    })
    .await;
    owner.kill().unwrap();
    owner.wait().unwrap();
    until("the directory is removed", async || !dir.exists()).await;
}

fn home(dir: &Path) -> DirArgs {
    DirArgs {
        dir: dir.to_owned(),
    }
}

fn up(dir: &Path) -> LocalCommand {
    LocalCommand::Up(UpArgs {
        backend: BackendChoice::Light,
        home: home(dir),
        port: None,
        audit: false,
        unsafe_no_fsync: true,
    })
}

fn start(dir: &Path, name: &str, script: &str) -> LocalCommand {
    LocalCommand::Start(StartArgs {
        home: home(dir),
        ready_file: Some(dir.join("ready")),
        ready_http: None,
        timeout_s: 60,
        name: name.to_owned(),
        argv: ["sh", "-c", script].map(str::to_owned).into(),
    })
}

fn recorded(dir: &Path) -> State {
    serde_json::from_str(&std::fs::read_to_string(dir.join("state.json")).unwrap()).unwrap()
}

/// `ExitCode` has no comparison of its own.
fn shown(code: ExitCode) -> String {
    format!("{code:?}")
}

#[tokio::test(flavor = "multi_thread")]
async fn up_start_stop_and_down_keep_the_books() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("dev");
    let status = || LocalCommand::Status(home(&dir));
    let failure = run(start(&dir, "early", "true")).await.unwrap_err();
    assert!(
        failure.to_string().contains("run `capstan local up` first"),
        "{failure}"
    );

    run(up(&dir)).await.unwrap();
    let first = recorded(&dir);
    run(up(&dir)).await.unwrap();
    assert_eq!(recorded(&dir), first, "the second `up` must change nothing");
    assert_eq!(
        shown(run(status()).await.unwrap()),
        shown(ExitCode::SUCCESS)
    );

    let failure = run(start(&dir, "bad", "echo no luck; exit 3"))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        failure.contains("exit code 3") && failure.ends_with("no luck"),
        "{failure}"
    );
    assert_eq!(recorded(&dir), first);

    let script = format!("touch {}; exec sleep 1000", dir.join("ready").display());
    run(start(&dir, "host", &script)).await.unwrap();
    run(start(&dir, "other", &script)).await.unwrap();
    let extras = recorded(&dir).extras;
    assert!(extras.len() == 3 && extras.iter().all(is_alive));
    run(LocalCommand::Stop(StopArgs {
        home: home(&dir),
        name: "host".into(),
    }))
    .await
    .unwrap();
    let alive: Vec<bool> = extras.iter().map(is_alive).collect();
    assert_eq!(
        (alive, recorded(&dir).extras.len()),
        (vec![true, false, true], 2)
    );

    let records: Vec<Record> = recorded(&dir).processes().cloned().collect();
    run(LocalCommand::Down(home(&dir))).await.unwrap();
    assert!(!records.iter().any(is_alive) && !dir.exists());
    assert_eq!(
        shown(run(status()).await.unwrap()),
        shown(ExitCode::FAILURE)
    );
    run(LocalCommand::Down(home(&dir))).await.unwrap();
}
