//! One bucket of an S3-style store: objects are put whole or in parts, listed and deleted. Requests are signed as those of plugins are.
//!
//! For what the host itself keeps, such as snapshots of etcd. Names are made by the host, of characters that no URL has to encode.

mod answer;
mod place;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ETAG, HeaderMap, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use jiff::Timestamp;
use url::Url;

use crate::capability::connect::{OwnClient, own_client};
use crate::capability::sign::{Key, Unsigned};
use crate::grant::AwsScope;
use crate::limit::{
    BUCKET_ANSWER_BYTES_MAX, BUCKET_NAMES_MAX, BUCKET_PARTS_MAX, BUCKET_REQUEST_TIMEOUT,
    TEXT_BYTES_MAX,
};
use crate::text::one_line;

pub use place::BucketPlace;

/// Open connections to a store: one snapshot is written at a time for each control plane, and lists are short.
const CONNECTIONS_MAX: usize = 16;

/// The name under which stores know the service, whoever runs it.
const SERVICE: &str = "s3";

/// Pauses between tries: stores ask for patience with 503, and connections break.
const PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(1)];

/// Why a store did not do what it was asked, with its name for the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BucketError(String);

impl BucketError {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// A bucket and the key that opens it.
pub struct Bucket {
    client: OwnClient,
    base: Url,
    scope: AwsScope,
    key: Vec<u8>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("base", &self.base.as_str())
            .finish_non_exhaustive()
    }
}

/// An object that comes in parts.
#[derive(Debug)]
pub struct Upload {
    name: String,
    id: String,
    /// What the store called each part.
    tags: Vec<String>,
}

impl Upload {
    /// Name of the object.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the store calls the upload.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

struct Answer {
    headers: HeaderMap,
    body: Bytes,
}

impl Bucket {
    /// The bucket at a place, opened by a key `ID:SECRET` or `ID:SECRET:TOKEN`, with these authorities in PEM instead of the public ones.
    ///
    /// # Errors
    /// When the key or the authorities are not what they should be.
    pub fn open(
        place: &BucketPlace,
        key: Vec<u8>,
        ca_pem: Option<&str>,
    ) -> Result<Self, BucketError> {
        if Key::of(&key).is_none() {
            return Err(BucketError::new(
                "the access key is not an ID and a secret, and perhaps a token",
            ));
        }
        Ok(Self {
            client: own_client(ca_pem, CONNECTIONS_MAX).map_err(BucketError)?,
            base: place.base()?,
            scope: AwsScope {
                region: place.region.clone(),
                service: SERVICE.to_owned(),
            },
            key,
        })
    }

    /// Puts a whole object.
    ///
    /// # Errors
    /// What the store said.
    pub async fn put(&self, name: &str, content: Bytes) -> Result<(), BucketError> {
        self.send(&Method::PUT, name, &[], content).await.map(drop)
    }

    /// Begins an object that comes in parts. It appears when it is finished.
    ///
    /// # Errors
    /// What the store said.
    pub async fn begin(&self, name: &str) -> Result<Upload, BucketError> {
        let query = [("uploads", "")];
        let answer = self
            .send(&Method::POST, name, &query, Bytes::new())
            .await?
            .body;
        let id = answer::values(&answer, "UploadId").into_iter().next();
        let id =
            id.ok_or_else(|| BucketError::new("the store began an upload and gave it no name"))?;
        Ok(Upload {
            name: name.to_owned(),
            id,
            tags: Vec::new(),
        })
    }

    /// Adds a part. All but the last have to be of 5 MiB or more.
    ///
    /// # Errors
    /// What the store said.
    pub async fn add(&self, upload: &mut Upload, part: Bytes) -> Result<(), BucketError> {
        let number = upload.tags.len().saturating_add(1);
        if number > BUCKET_PARTS_MAX {
            return Err(BucketError::new(format!(
                "it has more than {BUCKET_PARTS_MAX} parts"
            )));
        }
        let number = number.to_string();
        let query = [
            ("partNumber", number.as_str()),
            ("uploadId", upload.id.as_str()),
        ];
        let answer = self.send(&Method::PUT, &upload.name, &query, part).await?;
        let tag = answer
            .headers
            .get(ETAG)
            .and_then(|value| value.to_str().ok());
        let tag = tag.ok_or_else(|| BucketError::new("the store took a part and gave no ETag"))?;
        upload.tags.push(tag.to_owned());
        Ok(())
    }

    /// Makes an object of the parts. When that fails, the upload may still be there.
    ///
    /// # Errors
    /// What the store said.
    pub async fn finish(&self, upload: &Upload) -> Result<(), BucketError> {
        let query = [("uploadId", upload.id.as_str())];
        let document = answer::complete(&upload.tags);
        let answer = self
            .send(&Method::POST, &upload.name, &query, document.into())
            .await?
            .body;
        // The store answers before it knows, so that a failure comes as a success.
        match answer::failure(&answer) {
            Some(why) => Err(BucketError(one_line(&why, TEXT_BYTES_MAX))),
            None => Ok(()),
        }
    }

    /// Drops an upload of which nothing becomes.
    ///
    /// # Errors
    /// What the store said.
    pub async fn abort(&self, name: &str, id: &str) -> Result<(), BucketError> {
        let query = [("uploadId", id)];
        self.send(&Method::DELETE, name, &query, Bytes::new())
            .await
            .map(drop)
    }

    /// Names that begin so, in their order; the first thousand of them.
    ///
    /// # Errors
    /// What the store said.
    pub async fn list(&self, prefix: &str) -> Result<Vec<String>, BucketError> {
        let most = BUCKET_NAMES_MAX.to_string();
        let query = [
            ("list-type", "2"),
            ("max-keys", most.as_str()),
            ("prefix", prefix),
        ];
        let answer = self.send(&Method::GET, "", &query, Bytes::new()).await?;
        Ok(answer::values(&answer.body, "Key"))
    }

    /// Uploads under such names that were begun and not finished: name and upload.
    ///
    /// # Errors
    /// What the store said.
    pub async fn unfinished(&self, prefix: &str) -> Result<Vec<(String, String)>, BucketError> {
        let query = [("prefix", prefix), ("uploads", "")];
        let answer = self.send(&Method::GET, "", &query, Bytes::new()).await?;
        let names = answer::values(&answer.body, "Key");
        Ok(names
            .into_iter()
            .zip(answer::values(&answer.body, "UploadId"))
            .collect())
    }

    /// Deletes an object. Gone already is as good.
    ///
    /// # Errors
    /// What the store said.
    pub async fn delete(&self, name: &str) -> Result<(), BucketError> {
        self.send(&Method::DELETE, name, &[], Bytes::new())
            .await
            .map(drop)
    }

    /// Asks, and asks again after what passes by itself. What a second try of the same leaves behind, or is refused for, the next
    /// snapshot puts right.
    async fn send(
        &self,
        method: &Method,
        name: &str,
        query: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, BucketError> {
        let mut url = self
            .base
            .join(name)
            .map_err(|e| BucketError::new(format!("{name} is no name: {e}")))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut pauses = PAUSES.into_iter();
        loop {
            let tried = self.try_once(method, &url, body.clone());
            let tried = tokio::time::timeout(BUCKET_REQUEST_TIMEOUT, tried).await;
            let why = match tried {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(Tried::Refused(why))) => {
                    return Err(BucketError::new(format!("{method} {}: {why}", shown(&url))));
                }
                Ok(Err(Tried::Again(why))) => why,
                Err(_) => format!("no answer within {} s", BUCKET_REQUEST_TIMEOUT.as_secs()),
            };
            match pauses.next() {
                Some(pause) => tokio::time::sleep(pause).await,
                None => {
                    return Err(BucketError::new(format!("{method} {}: {why}", shown(&url))));
                }
            }
        }
    }

    async fn try_once(&self, method: &Method, url: &Url, body: Bytes) -> Result<Answer, Tried> {
        let headers = HeaderMap::new();
        let unsigned = Unsigned {
            method: method.as_str(),
            url,
            headers: &headers,
            body: &body,
        };
        let signed = Key::of(&self.key)
            .and_then(|key| key.sign(&self.scope, &unsigned, Timestamp::now()))
            .ok_or_else(|| Tried::Refused("the access key does not fit a header".to_owned()))?;
        let mut request = Request::builder()
            .method(method.clone())
            .uri(url.as_str())
            .header(USER_AGENT, concat!("capstan/", env!("CARGO_PKG_VERSION")));
        for (name, value) in signed {
            request = request.header(name, value);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|e| Tried::Refused(e.to_string()))?;
        let response = self.client.request(request).await;
        let response = response.map_err(|e| Tried::Again(causes(&e)))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, BUCKET_ANSWER_BYTES_MAX).collect().await;
        let body = body
            .map_err(|e| Tried::Again(format!("its answer breaks off: {e}")))?
            .to_bytes();
        let status = parts.status;
        // Deleting what is gone is refused by some.
        if status.is_success() || (status == StatusCode::NOT_FOUND && method == Method::DELETE) {
            return Ok(Answer {
                headers: parts.headers,
                body,
            });
        }
        let said = answer::failure(&body).unwrap_or_default();
        let why = one_line(&format!("{status} {said}"), TEXT_BYTES_MAX);
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Tried::Again(why));
        }
        Err(Tried::Refused(why))
    }
}

enum Tried {
    /// It may go better next time.
    Again(String),
    Refused(String),
}

/// Without the query, which says nothing to people.
fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    one_line(&text, TEXT_BYTES_MAX)
}
