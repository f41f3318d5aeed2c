//! Real etcd servers on this machine: new ones, or one that begins with a snapshot.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_api::name::ObjectKey;
use capstan_controllers::etcd::Client;
use capstan_controllers::etcd::identity::client_config;
use capstan_controllers::pki::Pair;
use capstan_controllers::tasks::Tasks;
use capstan_core::control_plane::etcd::Address;
use capstan_local::pki::Authority;
use capstan_local::progress::Progress;
use capstan_local::{port, toolchain};
use serde_json::{Value, json};

use super::{Direct, TestEtcd};
use crate::eventually::{PATIENCE, eventually};
use crate::{plain_http, process};

/// Real etcd servers with TLS. Dropping it ends them.
pub struct RealEtcd {
    /// The members as the client sees them.
    pub etcd: TestEtcd,
    members: Vec<Member>,
    /// One that nobody has started.
    newcomer: Member,
    tls: Arc<rustls::ClientConfig>,
    processes: Mutex<Vec<(String, Child)>>,
    files: Files,
}

/// What all members are started with.
struct Files {
    program: PathBuf,
    dir: tempfile::TempDir,
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
    client_cert: PathBuf,
    client_key: PathBuf,
}

impl Drop for RealEtcd {
    fn drop(&mut self) {
        for (_, process) in self.processes.lock().unwrap().iter_mut() {
            // One that has ended already cannot be killed.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

struct Member {
    name: String,
    /// With TLS, for who has a certificate.
    client: u16,
    /// Without, for the test itself.
    plain: u16,
    peer: u16,
}

impl Member {
    fn numbered(number: usize) -> Self {
        Self {
            name: format!("m{number}"),
            client: port::free().unwrap(),
            plain: port::free().unwrap(),
            peer: port::free().unwrap(),
        }
    }

    fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer)
    }

    fn as_peer(&self) -> String {
        format!("{}={}", self.name, self.peer_url())
    }

    fn address(&self) -> Address {
        Address {
            name: self.name.clone(),
            pod: ObjectKey::new("kube-system", format!("etcd-{}", self.name)),
            port: self.client,
        }
    }
}

impl Files {
    /// Starts a member of a cluster of these, with these arguments besides its own.
    fn start(
        &self,
        member: &Member,
        all: &[&Member],
        state: &str,
        arguments: &[&str],
    ) -> (String, Child) {
        let secure = format!("https://127.0.0.1:{}", member.client);
        let plain = format!("http://127.0.0.1:{}", member.plain);
        let peers: Vec<String> = all.iter().map(|member| member.as_peer()).collect();
        let dir = self.dir.path();
        let log = std::fs::File::create(dir.join(format!("{}.log", member.name))).unwrap();
        let process = Command::new(&self.program)
            .args(["--name", &member.name, "--initial-cluster-state", state])
            .arg("--data-dir")
            .arg(dir.join(&member.name))
            .arg("--unsafe-no-fsync")
            .args(["--initial-cluster", &peers.join(",")])
            .args(["--listen-peer-urls", &member.peer_url()])
            .args(["--initial-advertise-peer-urls", &member.peer_url()])
            .args(["--listen-client-urls", &format!("{secure},{plain}")])
            .args(["--advertise-client-urls", &secure])
            .args([Path::new("--cert-file"), &self.cert])
            .args([Path::new("--key-file"), &self.key])
            .args([Path::new("--trusted-ca-file"), &self.ca])
            .args([Path::new("--client-cert-file"), &self.client_cert])
            .args([Path::new("--client-key-file"), &self.client_key])
            .arg("--client-cert-auth")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        (member.name.clone(), process)
    }
}

impl RealEtcd {
    /// Starts as many members.
    pub async fn start(count: usize) -> Self {
        let members = (1..=count).map(Member::numbered).collect();
        Self::run(tempfile::tempdir().unwrap(), members).await
    }

    /// Starts one member that begins with a snapshot, restored by etcd's own tool as an operator would.
    pub async fn restored(snapshot: &Path) -> Self {
        let etcdutl = toolchain::ensure_etcdutl(&Progress::default())
            .await
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let member = Member::numbered(1);
        let restored = Command::new(etcdutl)
            .args(["snapshot", "restore"])
            .arg(snapshot)
            // As for Kubernetes: whoever watched does not see time go back.
            .args(["--bump-revision", "1000000000", "--mark-compacted"])
            .args(["--name", &member.name])
            .args(["--initial-cluster", &member.as_peer()])
            .args(["--initial-advertise-peer-urls", &member.peer_url()])
            .arg("--data-dir")
            .arg(dir.path().join(&member.name))
            .output()
            .unwrap();
        assert!(
            restored.status.success(),
            "{}",
            String::from_utf8_lossy(&restored.stderr)
        );
        Self::run(dir, vec![member]).await
    }

    async fn run(dir: tempfile::TempDir, members: Vec<Member>) -> Self {
        let tools = toolchain::ensure(&Progress::default()).await.unwrap();
        let authority = Authority::new("etcd-ca").unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let ca = write("ca.crt", &authority.certificate_pem());
        let server = authority
            .server("etcd", &["127.0.0.1", "localhost"])
            .unwrap();
        let (cert, key) = (
            write("server.crt", &server.certificate_pem),
            write("server.key", &server.key_pem),
        );
        let user = authority.client("test", &[]).unwrap();
        // What is asked without TLS goes on to whichever of its listeners the member names first, which may be the one that asks for this.
        let (client_cert, client_key) = (
            write("client.crt", &user.certificate_pem),
            write("client.key", &user.key_pem),
        );
        let user = Pair {
            public: user.certificate_pem,
            private: user.key_pem,
        };
        let tls = client_config(&authority.certificate_pem(), Some(&user), &[b"h2"]).unwrap();
        let files = Files {
            program: tools.etcd.clone(),
            dir,
            ca,
            cert,
            key,
            client_cert,
            client_key,
        };
        let all: Vec<&Member> = members.iter().collect();
        let processes = members.iter().map(|m| files.start(m, &all, "new", &[]));
        let newcomer = Member::numbered(members.len() + 1);
        Self {
            processes: Mutex::new(processes.collect()),
            etcd: TestEtcd {
                client: client(u64::MAX, &tls),
                addresses: members.iter().map(Member::address).collect(),
            },
            members,
            newcomer,
            tls,
            files,
        }
    }

    /// Starts a member on the data that it has, with these arguments besides its own.
    ///
    /// # Panics
    /// When there is none of this name.
    pub fn again(&self, name: &str, arguments: &[&str]) {
        let all: Vec<&Member> = self.members.iter().collect();
        let member = all.iter().find(|member| member.name == name).unwrap();
        let process = self.files.start(member, &all, "new", arguments);
        self.processes.lock().unwrap().push(process);
    }

    /// A client whose connections break when so many bytes came.
    pub fn breaking_after(&self, bytes: u64) -> Client {
        client(bytes, &self.tls)
    }

    /// Where the others would find the next member.
    pub fn newcomer(&self) -> (Address, String) {
        (self.newcomer.address(), self.newcomer.peer_url())
    }

    /// Starts the next member, which was added before.
    pub fn start_newcomer(&self) {
        let members = self.members.iter().chain([&self.newcomer]);
        let all: Vec<&Member> = members.collect();
        let process = self.files.start(&self.newcomer, &all, "existing", &[]);
        self.processes.lock().unwrap().push(process);
    }

    /// Kills a member.
    pub fn kill(&self, name: &str) {
        let mut processes = self.processes.lock().unwrap();
        processes.retain_mut(|(of, process)| {
            let stays = of != name;
            if !stays {
                process.kill().unwrap();
                process.wait().unwrap();
            }
            stays
        });
    }

    /// Sends a member a signal, such as `STOP`.
    pub fn signal(&self, name: &str, signal: &str) {
        let processes = self.processes.lock().unwrap();
        for (_, process) in processes.iter().filter(|(of, _)| of == name) {
            process::signal(process.id(), signal);
        }
    }

    /// Asks the first member that runs.
    async fn ask(&self, path: &str, body: Value) -> Value {
        let runs = |member: &&Member| {
            let processes = self.processes.lock().unwrap();
            processes.iter().any(|(of, _)| *of == member.name)
        };
        let member = self.members.iter().find(runs).unwrap();
        let url = format!("http://127.0.0.1:{}{path}", member.plain);
        let answer = eventually("etcd answers", PATIENCE, async || {
            plain_http::send("POST", &url, None, Some(&body)).await
        })
        .await;
        serde_json::from_str(&answer).unwrap()
    }

    /// Puts a value under a key.
    pub async fn put(&self, key: &str, value: &[u8]) {
        let body = json!({"key": BASE64.encode(key), "value": BASE64.encode(value)});
        self.ask("/v3/kv/put", body).await;
    }

    /// The value under a key.
    pub async fn value(&self, key: &str) -> Option<Vec<u8>> {
        let answer = self
            .ask("/v3/kv/range", json!({"key": BASE64.encode(key)}))
            .await;
        let value = answer["kvs"][0]["value"].as_str()?;
        Some(BASE64.decode(value).unwrap())
    }
}

fn client(breaks_after: u64, tls: &Arc<rustls::ClientConfig>) -> Client {
    let at = |_: &Address| "127.0.0.1".to_owned();
    let dial = Arc::new(Direct { at, breaks_after });
    Client::new(dial, Arc::clone(tls), Tasks::default())
}
