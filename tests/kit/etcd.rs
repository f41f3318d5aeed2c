//! The etcd of a cluster as the host's client sees it: of a cluster on the local cloud, or of real servers on this machine.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_api::name::ObjectKey;
use capstan_controllers::etcd::identity::client_config;
use capstan_controllers::etcd::{Client, Dial, PortForward};
use capstan_controllers::kube_api::Duplex;
use capstan_controllers::kube_api::real::RealApi;
use capstan_controllers::pki::{Pair, client_certificate};
use capstan_controllers::tasks::Tasks;
use capstan_core::control_plane::etcd::{Address, View};
use capstan_core::lookup::Lookup;
use capstan_local::pki::Authority;
use capstan_local::progress::Progress;
use capstan_local::{port, toolchain};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::net::TcpStream;

use crate::cluster::TestCluster;
use crate::kube_client::{Kube, MACHINE, SECRET};

/// Members of one etcd, and a client for them.
pub struct TestEtcd {
    /// The client.
    pub client: Client,
    /// Where the members answer.
    pub addresses: Vec<Address>,
}

impl TestEtcd {
    /// The etcd of a cluster on the local cloud, through its API server's port-forward.
    pub async fn of_cluster(kube: &Kube, cluster: &TestCluster) -> Self {
        let secret = format!("{}-etcd", cluster.name);
        let secret = kube.get(SECRET, &cluster.namespace, &secret).await.unwrap();
        let text = |key: &str| {
            let value = BASE64
                .decode(secret["data"][key].as_str().unwrap())
                .unwrap();
            String::from_utf8(value).unwrap()
        };
        let ca = Pair {
            public: text("tls.crt"),
            private: text("tls.key"),
        };
        let user = client_certificate(&ca, "test", "test", jiff::Timestamp::now()).unwrap();
        let workload = cluster.workload(kube).await;
        let dial = Arc::new(PortForward(Arc::new(RealApi::new(workload.client()))));
        let tls = client_config(&ca.public, Some(&user), &[b"h2"]).unwrap();
        let machines = kube.list(MACHINE, &cluster.namespace).await;
        let nodes = machines.iter().filter_map(|machine| {
            let is_control_plane =
                !machine["metadata"]["labels"]["cluster.x-k8s.io/control-plane"].is_null();
            machine["status"]["nodeRef"]["name"]
                .as_str()
                .filter(|_| is_control_plane)
        });
        let addresses = nodes.map(|node| Address {
            name: node.to_owned(),
            pod: ObjectKey::new("kube-system", format!("etcd-{node}")),
            port: 2379,
        });
        Self {
            addresses: addresses.collect(),
            client: Client::new(dial, tls, Tasks::default()),
        }
    }

    /// The address of a member.
    ///
    /// # Panics
    /// When there is none of this name.
    pub fn address(&self, name: &str) -> &Address {
        self.addresses.iter().find(|a| a.name == name).unwrap()
    }

    /// All addresses but one.
    pub fn others(&self, name: &str) -> Vec<Address> {
        let others = self.addresses.iter().filter(|a| a.name != name);
        others.cloned().collect()
    }

    /// What the members say.
    ///
    /// # Errors
    /// When none answers.
    pub async fn view(&self) -> Result<View, String> {
        match self.client.view(&self.addresses).await {
            Lookup::Found(view) => Ok(view),
            Lookup::Missing => Err("there is none".to_owned()),
            Lookup::Unknown(why) => Err(why),
        }
    }
}

/// Real etcd servers with TLS. Dropping it ends them.
pub struct RealEtcd {
    /// The members as the client sees them.
    pub etcd: TestEtcd,
    processes: Mutex<Vec<(String, Child)>>,
    _dir: tempfile::TempDir,
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

/// Connects to a member's port on this machine.
struct Loopback;

impl Dial for Loopback {
    fn dial<'a>(&'a self, member: &'a Address) -> BoxFuture<'a, Result<Box<dyn Duplex>, String>> {
        async move {
            let stream = TcpStream::connect(("127.0.0.1", member.port)).await;
            stream
                .map(|stream| Box::new(stream) as Box<dyn Duplex>)
                .map_err(|error| error.to_string())
        }
        .boxed()
    }
}

impl RealEtcd {
    /// Starts as many members.
    pub async fn start(count: usize) -> Self {
        let tools = toolchain::ensure(&Progress::default()).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
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
        let user = Pair {
            public: user.certificate_pem,
            private: user.key_pem,
        };
        let tls = client_config(&authority.certificate_pem(), Some(&user), &[b"h2"]).unwrap();
        let ports: Vec<(String, u16, u16)> = (1..=count)
            .map(|n| {
                (
                    format!("m{n}"),
                    port::free().unwrap(),
                    port::free().unwrap(),
                )
            })
            .collect();
        let peers: Vec<String> = ports
            .iter()
            .map(|(name, _, peer)| format!("{name}=http://127.0.0.1:{peer}"))
            .collect();
        let processes = ports.iter().map(|(name, client, peer)| {
            let process = command(&tools.etcd, dir.path(), name)
                .args(["--initial-cluster", &peers.join(",")])
                .args(["--listen-peer-urls", &format!("http://127.0.0.1:{peer}")])
                .args([
                    "--initial-advertise-peer-urls",
                    &format!("http://127.0.0.1:{peer}"),
                ])
                .args([
                    "--listen-client-urls",
                    &format!("https://127.0.0.1:{client}"),
                ])
                .args([
                    "--advertise-client-urls",
                    &format!("https://127.0.0.1:{client}"),
                ])
                .args([
                    Path::new("--cert-file"),
                    &cert,
                    Path::new("--key-file"),
                    &key,
                ])
                .args([Path::new("--trusted-ca-file"), &ca])
                .args(["--client-cert-auth", "--enable-grpc-gateway=false"])
                .spawn()
                .unwrap();
            (name.clone(), process)
        });
        Self {
            processes: Mutex::new(processes.collect()),
            etcd: TestEtcd {
                client: Client::new(Arc::new(Loopback), tls, Tasks::default()),
                addresses: ports
                    .iter()
                    .map(|(name, port, _)| Address {
                        name: name.clone(),
                        pod: ObjectKey::new("kube-system", format!("etcd-{name}")),
                        port: *port,
                    })
                    .collect(),
            },
            _dir: dir,
        }
    }

    /// Kills a member.
    pub fn kill(&self, name: &str) {
        let mut processes = self.processes.lock().unwrap();
        for (_, process) in processes.iter_mut().filter(|(of, _)| of == name) {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}

fn command(program: &PathBuf, dir: &Path, name: &str) -> Command {
    let mut command = Command::new(program);
    let log = std::fs::File::create(dir.join(format!("{name}.log"))).unwrap();
    command
        .args(["--name", name, "--initial-cluster-state", "new"])
        .arg("--data-dir")
        .arg(dir.join(name))
        .arg("--unsafe-no-fsync")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    command
}
