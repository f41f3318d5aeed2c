//! Where the host keeps snapshots of etcd, as command lines say.

use std::path::{Path, PathBuf};
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

/// Snapshots that are kept unless told otherwise.
const KEEP: usize = 5;

/// Snapshots of etcd.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SnapshotArgs {
    /// Where a snapshot of etcd is kept before a member is removed from the etcd of a control plane: a directory, or a bucket of an
    /// S3-style store as s3://BUCKET/PREFIX.
    #[arg(long, value_name = "PLACE")]
    etcd_snapshots: Option<Place>,
    /// Snapshots that are kept of each cluster.
    #[arg(long, default_value_t = KEEP, value_name = "COUNT")]
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
    /// As it was written, and what it means, which is large beside the other.
    Bucket(String, Box<BucketPlace>),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with(BUCKET) {
            let place = text.parse::<BucketPlace>();
            return place
                .map(|place| Self::Bucket(text.to_owned(), Box::new(place)))
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

/// A place with all that belongs to it.
enum Whole<'a> {
    Directory(&'a Path),
    Bucket(Box<BucketPlace>, &'a str),
}

impl SnapshotArgs {
    fn whole(&self) -> anyhow::Result<Option<Whole<'_>>> {
        let mut place = match &self.etcd_snapshots {
            None => return Ok(None),
            Some(Place::Bucket(_, place)) => place.clone(),
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
                return Ok(Some(Whole::Directory(dir)));
            }
        };
        if let Some(region) = &self.etcd_snapshots_region {
            place.region.clone_from(region);
        }
        if let Some(endpoint) = &self.etcd_snapshots_endpoint {
            *place = place.at(endpoint).context("--etcd-snapshots-endpoint")?;
        }
        let secret = self.etcd_snapshots_secret.as_ref().context(
            "--etcd-snapshots names a bucket: --etcd-snapshots-secret must name the Secret that opens it",
        )?;
        Ok(Some(Whole::Bucket(place, secret)))
    }

    /// The place, if there is one.
    pub(super) fn store(
        &self,
        namespace: &str,
        api: &Arc<dyn KubeApi>,
        tasks: &Tasks,
    ) -> anyhow::Result<Option<SnapshotStore>> {
        let keep = self.etcd_snapshots_keep;
        Ok(self.whole()?.map(|place| match place {
            Whole::Directory(dir) => SnapshotStore::new(dir.to_owned(), keep),
            Whole::Bucket(place, secret) => {
                let secret = ObjectKey::new(namespace, secret);
                let bucket = SnapshotBucket::new(*place, secret, Arc::clone(api), tasks.clone());
                SnapshotStore::in_bucket(bucket, keep)
            }
        }))
    }

    /// The directory, if the place is one.
    pub(super) fn directory(&self) -> Option<&Path> {
        match &self.etcd_snapshots {
            Some(Place::Directory(dir)) => Some(dir),
            Some(Place::Bucket(..)) | None => None,
        }
    }

    /// The same as flags of `capstan run`, when it would take them.
    pub(super) fn flags(&self) -> anyhow::Result<Vec<String>> {
        self.whole()?;
        let place = match &self.etcd_snapshots {
            None => return Ok(Vec::new()),
            Some(Place::Directory(dir)) => dir.display().to_string(),
            Some(Place::Bucket(text, _)) => text.clone(),
        };
        let keep = (self.etcd_snapshots_keep != KEEP).then(|| self.etcd_snapshots_keep.to_string());
        let given = [
            ("", Some(place)),
            ("-keep", keep),
            ("-secret", self.etcd_snapshots_secret.clone()),
            ("-region", self.etcd_snapshots_region.clone()),
            ("-endpoint", self.etcd_snapshots_endpoint.clone()),
        ];
        let flags = given.into_iter().filter_map(|(name, value)| {
            let value = value?;
            Some(format!("--etcd-snapshots{name}={value}"))
        });
        Ok(flags.collect())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        snapshots: SnapshotArgs,
    }

    fn parsed(flags: &[&str]) -> SnapshotArgs {
        let line = Line::try_parse_from([&["capstan"], flags].concat());
        line.unwrap_or_else(|error| panic!("{error}")).snapshots
    }

    #[test]
    fn a_place_is_a_directory_or_a_bucket() {
        assert!(matches!("/var/snapshots".parse(), Ok(Place::Directory(_))));
        assert!(matches!("snapshots".parse(), Ok(Place::Directory(_))));
        assert!(
            matches!("s3://snapshots/a".parse(), Ok(Place::Bucket(_, place)) if place.prefix == "a/")
        );
        for odd in ["gs://snapshots", "s3://S"] {
            assert!(odd.parse::<Place>().is_err(), "{odd}");
        }
    }

    #[test]
    fn what_was_said_is_said_again() {
        for said in [
            &[][..],
            &["--etcd-snapshots=/var/snapshots"],
            &["--etcd-snapshots=/var/snapshots", "--etcd-snapshots-keep=9"],
            &[
                "--etcd-snapshots=s3://snapshots/a",
                "--etcd-snapshots-keep=1",
                "--etcd-snapshots-secret=key",
                "--etcd-snapshots-region=eu-1",
                "--etcd-snapshots-endpoint=https://store.example.com",
            ],
        ] {
            assert_eq!(parsed(said).flags().unwrap(), said);
        }
        for wrong in [
            &["--etcd-snapshots=s3://snapshots"][..],
            &[
                "--etcd-snapshots=/var/snapshots",
                "--etcd-snapshots-secret=key",
            ],
        ] {
            assert!(parsed(wrong).flags().is_err(), "{wrong:?}");
        }
    }
}
