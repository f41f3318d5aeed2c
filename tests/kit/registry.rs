//! A registry of images as people run it: the reference implementation, `distribution`, built from its module.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_local::process::{self, Spec};
use capstan_local::progress::Progress;
use capstan_local::toolchain;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::eventually::{PATIENCE, eventually};

/// The one who may push and pull where logins are asked for.
const USER: &str = "reader";
const PASSWORD: &str = "open sesame";
/// `PASSWORD` by bcrypt, which is all that the program takes.
const PASSWORD_HASH: &str = "$2a$04$a26I.vMv7sdG83NfsIzifeNC7a1LtKEIFXL3yPmK72uC7W8Ju9oli";

/// A running registry. Dropping it ends it.
pub struct Registry {
    child: Child,
    home: TempDir,
    address: String,
    ca_pem: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Fails only for a process that has already ended.
        let _: std::io::Result<()> = self.child.kill();
        let _: std::io::Result<_> = self.child.wait();
    }
}

impl Registry {
    /// One with TLS by an authority that nobody else knows, and logins.
    pub async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let (ca_pem, certificate, key) = certificates();
        let write = |name: &str, text: &str| {
            let path = home.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let tls =
            json!({"certificate": write("tls.crt", &certificate), "key": write("tls.key", &key)});
        let users = write("users", &format!("{USER}:{PASSWORD_HASH}\n"));
        let more = json!({
            "http": {"addr": "127.0.0.1:0", "tls": tls},
            "auth": {"htpasswd": {"realm": "test", "path": users}},
        });
        Self::run(home, more, ca_pem).await
    }

    /// One without TLS, for everybody.
    pub async fn start_plain() -> Self {
        let more = json!({"http": {"addr": "127.0.0.1:0"}});
        Self::run(tempfile::tempdir().unwrap(), more, String::new()).await
    }

    async fn run(home: TempDir, mut config: Value, ca_pem: String) -> Self {
        let progress = Progress::new(|line| eprintln!("{line}"));
        let program = toolchain::ensure_registry(&progress).await.unwrap();
        config["version"] = json!(0.1);
        config["storage"] = json!({"filesystem": {"rootdirectory": home.path().join("data")}});
        // JSON is YAML.
        let file = home.path().join("config.yml");
        fs::write(&file, config.to_string()).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let log = home.path().join("log");
        let spec = Spec {
            name: "registry".to_owned(),
            argv: vec![text(&program), "serve".to_owned(), text(&file)],
            cwd: None,
            env: vec![("OTEL_TRACES_EXPORTER".to_owned(), "none".to_owned())],
            log: log.clone(),
            ports: Vec::new(),
        };
        let (child, record) = process::spawn(&spec, None).unwrap();
        let address = eventually("the registry listens", PATIENCE, async || {
            let said = fs::read_to_string(&log).unwrap_or_default();
            if !process::is_alive(&record) {
                return Err(format!("it has ended: {said}"));
            }
            let (_, after) = said.split_once("listening on ").ok_or("not yet")?;
            let end = after.find(|c: char| !c.is_ascii_digit() && !".:".contains(c));
            end.map(|end| after[..end].to_owned())
                .ok_or("half a line".to_owned())
        })
        .await;
        Self {
            child,
            home,
            address,
            ca_pem,
        }
    }

    /// A reference to something in it.
    pub fn reference(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    /// The authority behind its certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A directory that goes with this value.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// A file for programs.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// The login, as `docker login` keeps it.
    pub fn login(&self) -> String {
        let auth = BASE64.encode(format!("{USER}:{PASSWORD}"));
        json!({"auths": {self.address.as_str(): {"auth": auth}}}).to_string()
    }
}

/// An authority's certificate, a certificate of this machine by it, and its key, in PEM.
fn certificates() -> (String, String, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    (authority.pem(), certificate.pem(), key.serialize_pem())
}
