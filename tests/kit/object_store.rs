//! A real store that speaks S3, checks every signature, and keeps its objects as files.

use std::path::PathBuf;
use std::process::Child;

use bytes::Bytes;
use capstan_engine::{Bucket, BucketPlace};
use capstan_local::pki::Authority;
use capstan_local::process::{self, Spec};
use capstan_local::progress::Progress;
use capstan_local::{port, toolchain};
use tempfile::TempDir;

use crate::eventually::{PATIENCE, eventually};

/// The key that opens it.
pub const ACCESS_KEY: (&str, &str) = ("test-access-key", "test-secret-access-key");

/// The store with one bucket. Dropping it ends it.
pub struct ObjectStore {
    child: Child,
    home: TempDir,
    place: BucketPlace,
    ca_pem: String,
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        // Fails only for a process that has already ended.
        let _: std::io::Result<()> = self.child.kill();
        let _: std::io::Result<_> = self.child.wait();
    }
}

impl ObjectStore {
    /// One with TLS by an authority that nobody else knows, in a region of its own.
    pub async fn start(bucket: &str) -> Self {
        let progress = Progress::new(|line| eprintln!("{line}"));
        let program = toolchain::ensure_object_store(&progress).await.unwrap();
        let home = tempfile::tempdir().unwrap();
        let authority = Authority::new("store-ca").unwrap();
        let pair = authority
            .server("localhost", &["localhost", "127.0.0.1"])
            .unwrap();
        let text = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
        for (name, content) in [
            ("tls.crt", &pair.certificate_pem),
            ("tls.key", &pair.key_pem),
        ] {
            std::fs::write(home.path().join(name), content).unwrap();
        }
        for name in ["objects", "sidecar"] {
            std::fs::create_dir(home.path().join(name)).unwrap();
        }
        let port = port::free().unwrap();
        let (log, region) = (home.path().join("log"), "test-region-1");
        let words = [
            program.to_str().unwrap(),
            "--access",
            ACCESS_KEY.0,
            "--secret",
            ACCESS_KEY.1,
            "--region",
            region,
            "--port",
            &format!("127.0.0.1:{port}"),
            "--cert",
            &text("tls.crt"),
            "--key",
            &text("tls.key"),
            "posix",
            "--sidecar",
            &text("sidecar"),
            &text("objects"),
        ]
        .map(str::to_owned);
        let spec = Spec {
            name: "versitygw".to_owned(),
            argv: words.to_vec(),
            cwd: None,
            env: Vec::new(),
            log: log.clone(),
            ports: Vec::new(),
        };
        let (child, record) = process::spawn(&spec, None).unwrap();
        let mut place: BucketPlace = format!("s3://{bucket}/etcd").parse().unwrap();
        region.clone_into(&mut place.region);
        let place = place.at(&format!("https://localhost:{port}")).unwrap();
        let ca_pem = authority.certificate_pem();
        let store = Self {
            child,
            home,
            place,
            ca_pem,
        };
        eventually("the store makes a bucket", PATIENCE, async || {
            if !process::is_alive(&record) {
                return Err(process::log_tail(&log, 20));
            }
            // Without a name it is the bucket itself that is put.
            let made = store.bucket().put("", Bytes::new()).await;
            made.map_err(|error| error.to_string())
        })
        .await;
        store
    }

    /// Where it is.
    pub fn place(&self) -> BucketPlace {
        self.place.clone()
    }

    /// The authority behind its certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The bucket, opened with the right key.
    pub fn bucket(&self) -> Bucket {
        let key = format!("{}:{}", ACCESS_KEY.0, ACCESS_KEY.1);
        Bucket::open(&self.place, key.into_bytes(), Some(&self.ca_pem)).unwrap()
    }

    /// The file that an object is, by its `s3://` address.
    pub fn file(&self, address: &str) -> PathBuf {
        let path = address.strip_prefix("s3://").unwrap();
        self.home.path().join("objects").join(path)
    }
}
