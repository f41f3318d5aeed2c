//! Where the host keeps snapshots of etcd, as its command line says.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use capstan_api::name::ObjectKey;
use capstan_controllers::etcd::{SnapshotBucket, SnapshotStore};
use capstan_controllers::kube_api::KubeApi;
use capstan_controllers::tasks::Tasks;
use capstan_engine::BucketPlace;

/// What buckets are written as.
const BUCKET: &str = "s3://";

/// Snapshots of etcd.
#[derive(Debug, clap::Args)]
pub(super) struct SnapshotArgs {
    /// Where a snapshot of etcd is kept before a member is removed from the etcd of a control plane: a directory, or a bucket of an
    /// S3-style store as s3://BUCKET/PREFIX.
    #[arg(long, value_name = "PLACE")]
    etcd_snapshots: Option<Place>,
    /// Snapshots that are kept of each cluster.
    #[arg(long, default_value_t = 5, value_name = "COUNT")]
    etcd_snapshots_keep: usize,
    /// Secret in the host's namespace with accessKeyId and secretAccessKey of the bucket, and where needed sessionToken and ca.crt.
    #[arg(long, value_name = "NAME", requires = "etcd_snapshots")]
    etcd_snapshots_secret: Option<String>,
    /// Region of the bucket.
    #[arg(long, value_name = "REGION", requires = "etcd_snapshots")]
    etcd_snapshots_region: Option<String>,
    /// URL of the store, where it is not that of AWS.
    #[arg(long, value_name = "URL", requires = "etcd_snapshots")]
    etcd_snapshots_endpoint: Option<String>,
}

#[derive(Clone, Debug)]
enum Place {
    Directory(PathBuf),
    /// Large beside the other.
    Bucket(Box<BucketPlace>),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with(BUCKET) {
            let place = text.parse::<BucketPlace>();
            return place
                .map(|place| Self::Bucket(Box::new(place)))
                .map_err(|error| error.to_string());
        }
        match text.split_once("://") {
            Some((scheme, _)) => Err(format!(
                "{scheme}:// is not known: name a directory, or a bucket as s3://BUCKET/PREFIX"
            )),
            None => Ok(Self::Directory(text.into())),
        }
    }
}

impl SnapshotArgs {
    /// The place, if there is one.
    pub(super) fn store(
        &self,
        namespace: &str,
        api: &Arc<dyn KubeApi>,
        tasks: &Tasks,
    ) -> anyhow::Result<Option<SnapshotStore>> {
        let keep = self.etcd_snapshots_keep;
        let mut place = match &self.etcd_snapshots {
            None => return Ok(None),
            Some(Place::Bucket(place)) => (**place).clone(),
            Some(Place::Directory(dir)) => {
                if self.etcd_snapshots_secret.is_some()
                    || self.etcd_snapshots_region.is_some()
                    || self.etcd_snapshots_endpoint.is_some()
                {
                    bail!(
                        "--etcd-snapshots {} is a directory: a secret, a region and an endpoint are for buckets (s3://BUCKET/PREFIX)",
                        dir.display()
                    );
                }
                return Ok(Some(SnapshotStore::new(dir.clone(), keep)));
            }
        };
        if let Some(region) = &self.etcd_snapshots_region {
            place.region.clone_from(region);
        }
        if let Some(endpoint) = &self.etcd_snapshots_endpoint {
            place = place.at(endpoint).context("--etcd-snapshots-endpoint")?;
        }
        let secret = self.etcd_snapshots_secret.as_ref().context(
            "--etcd-snapshots names a bucket: --etcd-snapshots-secret must name the Secret that opens it",
        )?;
        let secret = ObjectKey::new(namespace, secret);
        let bucket = SnapshotBucket::new(place, secret, Arc::clone(api), tasks.clone());
        Ok(Some(SnapshotStore::in_bucket(bucket, keep)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_directory_or_a_bucket() {
        assert!(matches!("/var/snapshots".parse(), Ok(Place::Directory(_))));
        assert!(matches!("snapshots".parse(), Ok(Place::Directory(_))));
        assert!(
            matches!("s3://snapshots/a".parse(), Ok(Place::Bucket(place)) if place.prefix == "a/")
        );
        for odd in ["gs://snapshots", "s3://S"] {
            assert!(odd.parse::<Place>().is_err(), "{odd}");
        }
    }
}
