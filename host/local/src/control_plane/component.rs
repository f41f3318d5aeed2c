//! How etcd, kube-apiserver and kube-controller-manager are invoked, and the files they read.
//!
//! etcd listens on Unix sockets in the control plane's own directory (0700), named relative to it
//! because a socket's whole path may not be longer than about 100 bytes: no port, and no other
//! user of the machine can reach it.

use std::io;
use std::path::Path;

use crate::control_plane::kubeconfig::{render, write_private};
use crate::pki::{Authority, SigningKey};
use crate::process::Spec;
use crate::toolchain::Toolchain;

/// etcd's client socket, relative to the directory; etcd insists on something like host:port.
const CLIENT_SOCKET: &str = "client:1";
/// etcd's socket for its peers, of which there are none.
const PEER_SOCKET: &str = "peer:1";

/// Metadata of every request, once, when it has been answered (and when a watch has begun).
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
";

/// What the command lines are made from.
pub(crate) struct Layout<'a> {
    /// The control plane's directory, absolute.
    pub(crate) dir: &'a Path,
    /// The binaries.
    pub(crate) tools: &'a Toolchain,
    /// Whether etcd makes its writes durable.
    pub(crate) fsync: bool,
    /// Whether the API server logs every request.
    pub(crate) audit: bool,
}

impl Layout<'_> {
    pub(crate) fn etcd(&self) -> Spec {
        let client = format!("unix://{CLIENT_SOCKET}");
        let peer = format!("unix://{PEER_SOCKET}");
        let mut argv = vec![
            text(&self.tools.etcd),
            "--name=capstan".to_owned(),
            "--data-dir=etcd".to_owned(),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=capstan={peer}"),
            "--log-level=warn".to_owned(),
            "--auto-compaction-mode=periodic".to_owned(),
            "--auto-compaction-retention=5m".to_owned(),
            // Twice etcd's default: a benchmark may run for hours.
            format!("--quota-backend-bytes={}", 4_u64 << 30),
        ];
        if !self.fsync {
            argv.push("--unsafe-no-fsync".to_owned());
        }
        self.spec("etcd", argv, Vec::new())
    }

    pub(crate) fn apiserver(&self, port: u16) -> Spec {
        let mut argv = vec![
            text(&self.tools.kube_apiserver),
            format!("--etcd-servers=unix://{CLIENT_SOCKET}"),
            format!("--secure-port={port}"),
        ];
        argv.extend(
            [
                "--bind-address=127.0.0.1",
                "--tls-cert-file=pki/apiserver.crt",
                "--tls-private-key-file=pki/apiserver.key",
                "--client-ca-file=pki/ca.crt",
                "--service-account-issuer=https://kubernetes.default.svc",
                "--service-account-key-file=pki/service-account.pub",
                "--service-account-signing-key-file=pki/service-account.key",
                "--service-cluster-ip-range=10.0.0.0/16",
                "--endpoint-reconciler-type=none",
                "--authorization-mode=RBAC",
                "--disable-admission-plugins=ServiceAccount",
                "--allow-privileged=true",
                "--anonymous-auth=false",
            ]
            .map(str::to_owned),
        );
        if self.audit {
            argv.extend(
                [
                    "--audit-policy-file=audit-policy.yaml",
                    "--audit-log-path=audit.log",
                    // Rotation would move requests out of sight of the counter.
                    "--audit-log-maxsize=0",
                ]
                .map(str::to_owned),
            );
        }
        self.spec("kube-apiserver", argv, vec![port])
    }

    pub(crate) fn controller_manager(&self) -> Spec {
        let mut argv = vec![text(&self.tools.kube_controller_manager)];
        argv.extend(
            [
                "--kubeconfig=kube-controller-manager.kubeconfig",
                // The last one fills the roles that others aggregate: `edit`, `view`, a manager's.
                "--controllers=garbage-collector-controller,namespace-controller,\
                 clusterrole-aggregation-controller",
                // Each controller under its own account, whose permissions RBAC already has.
                "--use-service-account-credentials=true",
                "--leader-elect=false",
                // Serves nothing: one port less to clash.
                "--secure-port=0",
                "--kube-api-qps=200",
                "--kube-api-burst=400",
            ]
            .map(str::to_owned),
        );
        self.spec("kube-controller-manager", argv, Vec::new())
    }

    fn spec(&self, name: &str, argv: Vec<String>, ports: Vec<u16>) -> Spec {
        Spec {
            name: name.to_owned(),
            argv,
            cwd: Some(self.dir.to_owned()),
            env: Vec::new(),
            log: self.dir.join(format!("{name}.log")),
            ports,
        }
    }
}

/// Writes what the components read: certificates, keys, the audit policy.
pub(crate) fn write_files(dir: &Path, authority: &Authority) -> Result<(), super::Error> {
    let pki_dir = dir.join("pki");
    let server = authority
        .server(
            "kube-apiserver",
            &["127.0.0.1", "localhost", "kubernetes.default.svc"],
        )
        .map_err(super::Error::Pki)?;
    let signing_key = SigningKey::new().map_err(super::Error::Pki)?;
    let write = || -> io::Result<()> {
        std::fs::create_dir(&pki_dir)?;
        write_private(&pki_dir.join("ca.crt"), &authority.certificate_pem())?;
        write_private(&pki_dir.join("apiserver.crt"), &server.certificate_pem)?;
        write_private(&pki_dir.join("apiserver.key"), &server.key_pem)?;
        write_private(
            &pki_dir.join("service-account.key"),
            &signing_key.private_pem,
        )?;
        write_private(
            &pki_dir.join("service-account.pub"),
            &signing_key.public_pem,
        )?;
        write_private(&dir.join("audit-policy.yaml"), AUDIT_POLICY)
    };
    write().map_err(|source| super::Error::Directory {
        dir: dir.to_owned(),
        source,
    })
}

/// Writes the controller manager's kubeconfig, which names the server's port.
pub(crate) fn write_controller_manager_kubeconfig(
    dir: &Path,
    server: &str,
    authority: &Authority,
) -> Result<(), super::Error> {
    let user = "system:kube-controller-manager";
    let pair = authority.client(user, &[]).map_err(super::Error::Pki)?;
    let config = render(server, &authority.certificate_pem(), user, &pair);
    write_private(&dir.join("kube-controller-manager.kubeconfig"), &config).map_err(|source| {
        super::Error::Directory {
            dir: dir.to_owned(),
            source,
        }
    })
}

/// Whether etcd has made its socket. From then on the API server's own retries do the rest.
pub(crate) fn etcd_listens(dir: &Path) -> bool {
    dir.join(CLIENT_SOCKET).exists()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
