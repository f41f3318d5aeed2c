//! Snapshots in a bucket of an S3-style store: names in it as in a directory.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use capstan_api::name::ObjectKey;
use capstan_engine::{self as engine, BucketPlace, Upload};

use super::surplus;
use crate::etcd::EtcdError;
use crate::kinds;
use crate::kube_api::KubeApi;
use crate::secrets::SecretData;

/// Keys of the Secret that opens the bucket.
const ACCESS_KEY: &str = "accessKeyId";
const SECRET_KEY: &str = "secretAccessKey";
const TOKEN: &str = "sessionToken";
const AUTHORITIES: &str = "ca.crt";

/// What goes at once, and is held in memory: stores take no parts below 5 MiB but the last, and ten thousand of these are 80 GiB.
const PART_BYTES: usize = 8 << 20;

/// A bucket that snapshots go into, and the Secret that opens it.
#[derive(Clone)]
pub struct Bucket {
    place: BucketPlace,
    secret: ObjectKey,
    api: Arc<dyn KubeApi>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("place", &self.place)
            .field("secret", &self.secret)
            .finish_non_exhaustive()
    }
}

impl Bucket {
    /// A bucket, and the Secret of the management cluster that opens it: read for each snapshot, so that it can be renewed.
    #[must_use]
    pub fn new(place: BucketPlace, secret: ObjectKey, api: Arc<dyn KubeApi>) -> Self {
        Self { place, secret, api }
    }

    /// A new object.
    pub(super) async fn begin(&self, of_cluster: &str, name: &str) -> Result<Object, EtcdError> {
        let secret = self.api.get(&kinds::SECRET, &self.secret).await;
        let secret = secret.map_err(|error| {
            EtcdError::Store(format!("Secret {} cannot be read: {error}", self.secret))
        })?;
        let secret = SecretData::read(&secret);
        let bucket = self.open(&secret)?;
        let directory = format!("{}{of_cluster}/", self.place.prefix);
        Ok(Object {
            name: format!("{directory}{name}"),
            directory,
            bucket,
            place: self.place.clone(),
            buffer: BytesMut::new(),
            upload: None,
        })
    }

    fn open(&self, secret: &SecretData) -> Result<engine::Bucket, EtcdError> {
        let required = |key: &str| {
            let text = secret.text(key).map(str::trim);
            text.filter(|text| !text.is_empty())
                .ok_or_else(|| EtcdError::Store(format!("Secret {} has no {key}", self.secret)))
        };
        let mut key = format!("{}:{}", required(ACCESS_KEY)?, required(SECRET_KEY)?);
        if let Some(token) = secret.text(TOKEN) {
            key.push(':');
            key.push_str(token.trim());
        }
        let authorities = secret.text(AUTHORITIES);
        let opened = engine::Bucket::open(&self.place, key.into_bytes(), authorities);
        opened.map_err(|error| {
            EtcdError::Store(format!(
                "{} cannot be opened with Secret {}: {error}",
                self.place.shown(""),
                self.secret
            ))
        })
    }
}

/// An object that is being written.
pub(super) struct Object {
    name: String,
    directory: String,
    bucket: engine::Bucket,
    place: BucketPlace,
    buffer: BytesMut,
    /// What went already, when it is more than one part.
    upload: Option<Upload>,
}

impl Object {
    pub(super) async fn add(&mut self, part: &[u8]) -> Result<(), EtcdError> {
        self.buffer.extend_from_slice(part);
        while self.buffer.len() > PART_BYTES {
            let part = self.buffer.split_to(PART_BYTES).freeze();
            self.send(part).await?;
        }
        Ok(())
    }

    async fn send(&mut self, part: Bytes) -> Result<(), EtcdError> {
        let bucket = &self.bucket;
        let failed = |error: engine::BucketError| failed(&self.place, &error);
        let mut upload = match self.upload.take() {
            Some(upload) => upload,
            None => bucket.begin(&self.name).await.map_err(failed)?,
        };
        bucket.add(&mut upload, part).await.map_err(failed)?;
        self.upload = Some(upload);
        Ok(())
    }

    /// Makes an object of what came.
    pub(super) async fn finish(mut self) -> Result<Stored, EtcdError> {
        let rest = self.buffer.split().freeze();
        let done = match self.upload.is_some() {
            false => self.bucket.put(&self.name, rest).await,
            true => {
                self.send(rest).await?;
                match self.upload.take() {
                    Some(upload) => self.bucket.finish(upload).await,
                    None => Ok(()),
                }
            }
        };
        done.map_err(|error| failed(&self.place, &error))?;
        Ok(Stored {
            name: self.name,
            directory: self.directory,
            bucket: self.bucket,
            place: self.place,
        })
    }
}

/// An object that is there.
pub(super) struct Stored {
    name: String,
    directory: String,
    bucket: engine::Bucket,
    place: BucketPlace,
}

impl Stored {
    pub(super) fn path(&self) -> String {
        self.place.shown(&self.name)
    }

    /// Removes all but the newest ones beside this one, and uploads that nobody goes on with: a cluster has one at a time. When there
    /// are more than a list holds, the oldest of those in it go, and others the next time.
    pub(super) async fn prune(&self, keep: usize) -> Result<(), EtcdError> {
        let failed = |error: engine::BucketError| failed(&self.place, &error);
        let names = self.bucket.list(&self.directory).await.map_err(failed)?;
        for name in surplus(&names, keep) {
            self.bucket.delete(name).await.map_err(failed)?;
        }
        let unfinished = self.bucket.unfinished(&self.directory).await;
        for (name, upload) in unfinished.map_err(failed)? {
            self.bucket.abort(&name, &upload).await.map_err(failed)?;
        }
        Ok(())
    }
}

fn failed(place: &BucketPlace, error: &engine::BucketError) -> EtcdError {
    EtcdError::Store(format!("{}: {error}", place.shown("")))
}
