//! Snapshots in a bucket of an S3-style store: names in it as in a directory.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use capstan_api::name::ObjectKey;
use capstan_engine::{self as engine, BucketPlace, Upload};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::{Kept, Place, Target, surplus};
use crate::etcd::EtcdError;
use crate::kinds;
use crate::kube_api::KubeApi;
use crate::secrets::SecretData;
use crate::tasks::Tasks;

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
    tasks: Tasks,
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
    pub fn new(place: BucketPlace, secret: ObjectKey, api: Arc<dyn KubeApi>, tasks: Tasks) -> Self {
        Self {
            place,
            secret,
            api,
            tasks,
        }
    }

    /// A new object, in the place of what earlier attempts left.
    async fn start(&self, of_cluster: &str, name: &str) -> Result<Object, EtcdError> {
        let secret = self.api.get(&kinds::SECRET, &self.secret).await;
        let secret = secret.map_err(|error| {
            EtcdError::Store(format!("Secret {} cannot be read: {error}", self.secret))
        })?;
        let secret = SecretData::read(&secret);
        let bucket = Arc::new(self.open(&secret)?);
        let directory = format!("{}{of_cluster}/", self.place.prefix);
        let left = abort_all(&bucket, &directory).await;
        Ok(Object {
            name: format!("{directory}{name}"),
            directory,
            not_aborted: left.err().map(|error| failed(&self.place, &error)),
            sending: Sending {
                bucket,
                upload: None,
                tasks: self.tasks.clone(),
            },
            place: self.place.clone(),
            buffer: BytesMut::new(),
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

impl Place for Bucket {
    fn begin<'a>(
        &'a self,
        of_cluster: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Target>, EtcdError>> {
        async move {
            let object = self.start(of_cluster, name).await?;
            Ok(Box::new(object) as Box<dyn Target>)
        }
        .boxed()
    }
}

/// Aborts uploads that nobody goes on with: a cluster has one at a time.
async fn abort_all(bucket: &engine::Bucket, directory: &str) -> Result<(), engine::BucketError> {
    for (name, upload) in bucket.unfinished(directory).await? {
        bucket.abort(&name, &upload).await?;
    }
    Ok(())
}

/// An object that is being written.
struct Object {
    name: String,
    directory: String,
    place: BucketPlace,
    buffer: BytesMut,
    sending: Sending,
    /// Why uploads of earlier attempts are still there: a bucket may forbid to look for them.
    not_aborted: Option<EtcdError>,
}

/// What went already, when it is more than one part. It is aborted when nothing becomes of it.
struct Sending {
    bucket: Arc<engine::Bucket>,
    upload: Option<Upload>,
    tasks: Tasks,
}

impl Drop for Sending {
    fn drop(&mut self) {
        let Some(upload) = self.upload.take() else {
            return;
        };
        let bucket = Arc::clone(&self.bucket);
        self.tasks.spawn("abort upload", async move {
            // What is still there, the next snapshot aborts.
            if let Err(error) = bucket.abort(upload.name(), upload.id()).await {
                tracing::warn!("an upload of a snapshot that failed stays: {error}");
            }
        });
    }
}

impl Object {
    async fn hold(&mut self, part: &[u8]) -> Result<(), EtcdError> {
        self.buffer.extend_from_slice(part);
        while self.buffer.len() > PART_BYTES {
            let part = self.buffer.split_to(PART_BYTES).freeze();
            self.send(part).await?;
        }
        Ok(())
    }

    async fn send(&mut self, part: Bytes) -> Result<(), EtcdError> {
        let failed = |error: engine::BucketError| failed(&self.place, &error);
        let Sending { bucket, upload, .. } = &mut self.sending;
        let upload = match upload {
            Some(upload) => upload,
            None => upload.insert(bucket.begin(&self.name).await.map_err(failed)?),
        };
        bucket.add(upload, part).await.map_err(failed)
    }

    /// Makes an object of what came.
    async fn store(mut self) -> Result<Stored, EtcdError> {
        let rest = self.buffer.split().freeze();
        if self.sending.upload.is_some() {
            self.send(rest.clone()).await?;
        }
        let Sending { bucket, upload, .. } = &mut self.sending;
        let done = match upload {
            Some(whole) => bucket.finish(whole).await,
            None => bucket.put(&self.name, rest).await,
        };
        done.map_err(|error| failed(&self.place, &error))?;
        *upload = None;
        Ok(Stored {
            name: self.name,
            directory: self.directory,
            bucket: Arc::clone(&self.sending.bucket),
            place: self.place,
            not_aborted: self.not_aborted,
        })
    }
}

impl Target for Object {
    fn add<'a>(&'a mut self, part: &'a [u8]) -> BoxFuture<'a, Result<(), EtcdError>> {
        self.hold(part).boxed()
    }

    fn finish(self: Box<Self>, keep: usize) -> BoxFuture<'static, Result<Kept, EtcdError>> {
        async move {
            let stored = self.store().await?;
            let path = stored.path();
            // The snapshot is there all the same.
            let pruned = stored.prune(keep).await;
            Ok(Kept {
                path,
                not_pruned: pruned.err().map(|error| error.to_string()),
            })
        }
        .boxed()
    }
}

/// An object that is there.
struct Stored {
    name: String,
    directory: String,
    bucket: Arc<engine::Bucket>,
    place: BucketPlace,
    not_aborted: Option<EtcdError>,
}

impl Stored {
    fn path(&self) -> String {
        self.place.shown(&self.name)
    }

    /// Removes all but the newest ones beside this one. When there are more than a list holds, the oldest of those in it go, and others
    /// the next time.
    async fn prune(self, keep: usize) -> Result<(), EtcdError> {
        let failed = |error: engine::BucketError| failed(&self.place, &error);
        let names = self.bucket.list(&self.directory).await.map_err(failed)?;
        for name in surplus(&names, keep) {
            self.bucket.delete(name).await.map_err(failed)?;
        }
        self.not_aborted.map_or(Ok(()), Err)
    }
}

fn failed(place: &BucketPlace, error: &engine::BucketError) -> EtcdError {
    EtcdError::Store(format!("{}: {error}", place.shown("")))
}
