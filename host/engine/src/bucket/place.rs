//! Where a bucket is.

use std::str::FromStr;

use url::Url;

use super::BucketError;

/// Names of buckets have no more characters.
const NAME_MAX: usize = 63;

/// A bucket, the region that it is in, and a directory in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketPlace {
    /// Its name.
    pub bucket: String,
    /// What all names in it begin with: empty, or with a `/` at its end.
    pub prefix: String,
    /// Its region, which requests are signed for.
    pub region: String,
    /// The store, where it is not that of AWS.
    endpoint: Option<Url>,
}

impl FromStr for BucketPlace {
    type Err = BucketError;

    /// `s3://BUCKET/PREFIX`, in the first region of AWS until somebody says otherwise.
    fn from_str(text: &str) -> Result<Self, BucketError> {
        let odd = |why: &str| BucketError::new(format!("{text} is not s3://BUCKET/PREFIX: {why}"));
        let rest = text
            .strip_prefix("s3://")
            .ok_or_else(|| odd("it does not begin with s3://"))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_name = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit();
        let is_bucket = (3..=NAME_MAX).contains(&bucket.len())
            && bucket.starts_with(is_name)
            && bucket.ends_with(is_name)
            && bucket
                .chars()
                .all(|char| is_name(char) || "-.".contains(char));
        if !is_bucket {
            return Err(odd(
                "a bucket has 3 to 63 lower-case letters, digits, dots and hyphens",
            ));
        }
        let prefix = prefix.trim_matches('/');
        let is_segment = |segment: &str| {
            !segment.is_empty()
                && !segment.chars().all(|char| char == '.')
                && segment
                    .chars()
                    .all(|char| char.is_ascii_alphanumeric() || "-_.".contains(char))
        };
        if !prefix.is_empty() && !prefix.split('/').all(is_segment) {
            return Err(odd(
                "a prefix has letters, digits, dots, hyphens and underscores, between single slashes",
            ));
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            prefix: if prefix.is_empty() {
                String::new()
            } else {
                format!("{prefix}/")
            },
            region: "us-east-1".to_owned(),
            endpoint: None,
        })
    }
}

impl BucketPlace {
    /// The same bucket at another store than that of AWS.
    ///
    /// # Errors
    /// When that is no URL to put names of buckets behind.
    pub fn at(mut self, endpoint: &str) -> Result<Self, BucketError> {
        let endpoint = Url::parse(endpoint)
            .map_err(|e| BucketError::new(format!("{endpoint} is no URL: {e}")))?;
        self.endpoint = Some(endpoint);
        self.base().map(|_| self)
    }

    /// The URL that names are added to: of the bucket's own host at AWS, of a path elsewhere.
    pub(super) fn base(&self) -> Result<Url, BucketError> {
        let (bucket, region) = (&self.bucket, &self.region);
        let text = match &self.endpoint {
            Some(endpoint) => format!("{}/{bucket}/", endpoint.as_str().trim_end_matches('/')),
            // The certificate is good for one label before the service.
            None if bucket.contains('.') => {
                format!("https://s3.{region}.amazonaws.com/{bucket}/")
            }
            None => format!("https://{bucket}.s3.{region}.amazonaws.com/"),
        };
        let url = Url::parse(&text)
            .map_err(|e| BucketError::new(format!("{text} is no address of a bucket: {e}")))?;
        if !["http", "https"].contains(&url.scheme())
            || url.query().is_some()
            || !url.username().is_empty()
        {
            return Err(BucketError::new(format!(
                "{text} is no address of a bucket: it needs http:// or https://, a host, and no more than a path"
            )));
        }
        Ok(url)
    }

    /// How a person names an object of it.
    #[must_use]
    pub fn shown(&self, name: &str) -> String {
        format!("s3://{}/{name}", self.bucket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_odd_ones_refused() {
        let place: BucketPlace = "s3://snapshots/etcd/prod/".parse().unwrap();
        assert_eq!(
            (place.bucket.as_str(), place.prefix.as_str()),
            ("snapshots", "etcd/prod/")
        );
        assert_eq!(
            place.base().unwrap().as_str(),
            "https://snapshots.s3.us-east-1.amazonaws.com/"
        );
        assert_eq!(
            place.shown("etcd/prod/x.db"),
            "s3://snapshots/etcd/prod/x.db"
        );
        for odd in [
            "snapshots",
            "s3://",
            "s3://ab",
            "s3://Upper/x",
            "s3://-abc",
            "s3://abc/a//b",
            "s3://abc/../x",
            "s3://abc/ä",
            "s3://abc/a?b",
        ] {
            assert!(odd.parse::<BucketPlace>().is_err(), "{odd}");
        }
    }

    #[test]
    fn stores_of_others_are_reached_by_path() {
        let place: BucketPlace = "s3://my.bucket".parse().unwrap();
        assert_eq!(
            place.base().unwrap().as_str(),
            "https://s3.us-east-1.amazonaws.com/my.bucket/"
        );
        let elsewhere = place.clone().at("https://store.example.com:9000/s3/");
        assert_eq!(
            elsewhere.unwrap().base().unwrap().as_str(),
            "https://store.example.com:9000/s3/my.bucket/"
        );
        for odd in ["ftp://store.example.com", "https://a:b@store.example.com"] {
            assert!(place.clone().at(odd).is_err(), "{odd}");
        }
    }
}
