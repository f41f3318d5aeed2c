//! The `http` capability: one request at a time, to granted origins only, with the host resolving, connecting, verifying,
//! injecting credentials and counting.

mod pool;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use capstan_core::call::{Mode, SecretHandle};
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;
use url::Url;

pub(crate) use self::pool::HttpPool;
use super::connect::ConnectError;
use super::{Capabilities, CredentialSource, on_host, sign};
use crate::grant::{AwsScope, CredentialScheme, Origin, Scheme};
use crate::limit::{
    HTTP_HEADER_BYTES_MAX, HTTP_HEADERS_MAX, HTTP_REDIRECTS_MAX, HTTP_TIMEOUT_DEFAULT,
    HTTP_URL_BYTES_MAX, TEXT_BYTES_MAX,
};
use crate::text::one_line;
use crate::trace;

/// A guest's request, in the host's words.
#[derive(Clone, Debug)]
pub(crate) struct HttpRequest {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<BodyPart>,
    pub(crate) credential: Option<String>,
    pub(crate) timeout: Option<Duration>,
}

/// One part of a body.
#[derive(Clone, Debug)]
pub(crate) enum BodyPart {
    Bytes(Vec<u8>),
    Secret(SecretHandle, BodyEncoding),
}

/// How secret bytes are put into a body.
#[derive(Clone, Copy, Debug)]
pub(crate) enum BodyEncoding {
    Plain,
    Base64,
    JsonString,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct HttpResponse {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// Why nothing came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HttpError {
    Denied(String),
    Planned,
    Invalid(String),
    Limit(String),
    Failed(String),
}

impl HttpError {
    /// As in the WIT interface.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Denied(_) => "denied",
            Self::Planned => "planned",
            Self::Invalid(_) => "invalid",
            Self::Limit(_) => "limit",
            Self::Failed(_) => "failed",
        }
    }
}

/// What one call may do over HTTP, and what is left of it.
pub(crate) struct CallHttp {
    pub(crate) pool: Arc<HttpPool>,
    pub(crate) credentials: Arc<dyn CredentialSource>,
    pub(crate) requests_left: u32,
    pub(crate) requests_limit: u32,
    pub(crate) body_bytes_max: usize,
    /// When the call is dropped.
    pub(crate) deadline: Instant,
}

/// A request that has passed every check but the address's.
struct Checked {
    method: Method,
    url: Url,
    origin: Origin,
    headers: HeaderMap,
    body: Bytes,
    has_secrets: bool,
    credential: Option<Added>,
}

/// A credential by its name, and how requests carry it.
struct Added {
    name: String,
    carried: Carried,
}

/// How a request carries a credential.
enum Carried {
    /// It is not known before the request is checked.
    Unknown,
    /// In a header.
    Header(HeaderName, HeaderValue),
    /// By signatures of each request, with this key.
    Signature(AwsScope, Vec<u8>),
    /// By the connection.
    Certificate(Vec<u8>),
}

/// Whether there is a redirect to follow.
enum Redirect {
    /// The request that it asks for.
    Follow(Box<Checked>),
    /// None; what was asked, for the log.
    None { method: Method, origin: Origin },
}

impl Capabilities {
    /// Sends one request and follows redirects as far as the grants allow.
    pub(crate) async fn http_send(
        &mut self,
        request: HttpRequest,
    ) -> Result<HttpResponse, HttpError> {
        let started = Instant::now();
        let until = self.http.until(started, request.timeout);
        let mut checked = self.check(request)?;
        trace::request(&checked.method, &checked.origin);
        self.authorize(&checked.origin, &checked.method)?;
        if self.mode == Mode::Plan && !matches!(checked.method, Method::GET | Method::HEAD) {
            self.planned.add(
                "http",
                format!("{} {}", checked.method, printable(&checked.url)),
            );
            return Err(HttpError::Planned);
        }
        if let Some(added) = &mut checked.credential {
            let (carried, secret) = self.credential(&added.name, &checked.origin).await?;
            self.tape.hide(&secret);
            match self.grants.credentials.get(&added.name).map(|c| &c.scheme) {
                // Of a key each part is a secret but the first.
                Some(CredentialScheme::AwsSignatureV4(_)) => {
                    for part in secret.split(|byte| *byte == b':').skip(1) {
                        self.tape.hide(part);
                    }
                }
                // Of a user and a password, the password, which may have colons.
                Some(CredentialScheme::Basic) => {
                    if let Some((_, password)) = split_once(&secret, b':') {
                        self.tape.hide(password);
                    }
                }
                _ => {}
            }
            added.carried = carried;
        }
        for _ in 0..=HTTP_REDIRECTS_MAX {
            let index = self.authorize(&checked.origin, &checked.method)?;
            self.http.take_request()?;
            let answer = self.exchange(&checked, index, until).await;
            if let Some(grant) = self.grants.http.get(index) {
                self.http.pool.count(grant.origin.to_string(), &answer);
            }
            let answer = answer?;
            match self.redirected(checked, &answer)? {
                Redirect::Follow(next) => {
                    checked = *next;
                    trace::request(&checked.method, &checked.origin);
                }
                Redirect::None { method, origin } => {
                    trace::response(answer.status);
                    tracing::debug!(
                        target: "plugin", plugin = %self.identity.plugin, object = %self.identity.object,
                        call = self.identity.function, call_id = %self.identity.call, %method, %origin, status = answer.status,
                        elapsed_ms = started.elapsed().as_millis(), "http"
                    );
                    return Ok(answer);
                }
            }
        }
        Err(HttpError::Limit(format!(
            "more than {HTTP_REDIRECTS_MAX} redirects"
        )))
    }

    /// Which grant allows it.
    fn authorize(&self, origin: &Origin, method: &Method) -> Result<usize, HttpError> {
        self.grants.http_grant(origin, method.as_str()).ok_or_else(|| {
            HttpError::Denied(format!(
                "{method} to {origin} is not granted: add {{\"origin\":\"{origin}\",\"methods\":[\"{method}\"]}} to \
                 http.origins of the grant of the capability http in spec.grants of the Plugin"
            ))
        })
    }

    fn check(&self, request: HttpRequest) -> Result<Checked, HttpError> {
        let invalid = |why: String| HttpError::Invalid(why);
        if request.url.len() > HTTP_URL_BYTES_MAX {
            return Err(HttpError::Limit(format!(
                "a URL has at most {HTTP_URL_BYTES_MAX} bytes"
            )));
        }
        let mut url = Url::parse(&request.url).map_err(|e| invalid(format!("not a URL: {e}")))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid(
                "a URL must not carry user or password: name a credential".to_owned(),
            ));
        }
        url.set_fragment(None);
        let origin = Origin::of(&url).map_err(invalid)?;
        let method = Method::from_bytes(request.method.as_bytes())
            .ok()
            .filter(|m| m.as_str().bytes().all(|b| b.is_ascii_uppercase()) && *m != Method::CONNECT)
            .ok_or_else(|| HttpError::Invalid("not a method such as GET or POST".to_owned()))?;
        let headers = headers_of(&request.headers)?;
        let has_secrets = request
            .body
            .iter()
            .any(|part| matches!(part, BodyPart::Secret(..)));
        let body = self.body_of(&request.body)?;
        let credential = request.credential.map(|name| Added {
            name,
            carried: Carried::Unknown,
        });
        Ok(Checked {
            method,
            url,
            origin,
            headers,
            body,
            has_secrets,
            credential,
        })
    }

    fn body_of(&self, parts: &[BodyPart]) -> Result<Bytes, HttpError> {
        let mut body = BytesMut::new();
        for part in parts {
            match part {
                BodyPart::Bytes(bytes) => body.extend_from_slice(bytes),
                BodyPart::Secret(handle, encoding) => {
                    let secret = self.secrets.resolve(*handle).ok_or_else(|| {
                        HttpError::Invalid(format!("no secret has the handle {}", handle.0))
                    })?;
                    match encoding {
                        BodyEncoding::Plain => body.extend_from_slice(secret),
                        BodyEncoding::Base64 => {
                            body.extend_from_slice(STANDARD.encode(secret).as_bytes());
                        }
                        BodyEncoding::JsonString => body.extend_from_slice(&json_inside(secret)?),
                    }
                }
            }
            if body.len() > self.http.body_bytes_max {
                return Err(HttpError::Limit(format!(
                    "a request's body has at most {} bytes",
                    self.http.body_bytes_max
                )));
            }
        }
        Ok(body.freeze())
    }

    /// How a granted credential is carried to this origin, and its secret.
    async fn credential(
        &self,
        name: &str,
        origin: &Origin,
    ) -> Result<(Carried, Vec<u8>), HttpError> {
        let grant = self.grants.credentials.get(name).ok_or_else(|| {
            HttpError::Denied(format!(
                "the credential {name} is not granted: add it to the credentials of the grant of the capability http in spec.grants of the Plugin"
            ))
        })?;
        if !grant.origins.iter().any(|granted| granted.matches(origin)) {
            return Err(HttpError::Denied(format!(
                "the credential {name} is not granted for {origin}: add the origin to that credential's origins in spec.grants of the Plugin, unless the ceiling of the host \
                 leaves it out"
            )));
        }
        let source = self.http.credentials.clone();
        let wanted = name.to_owned();
        let credential = on_host(&self.host, async move { source.resolve(&wanted).await })
            .await
            .and_then(|found| found)
            .map_err(|why| {
                HttpError::Denied(format!("the credential {name} cannot be used: {why}"))
            })?;
        if credential.scheme != grant.scheme {
            return Err(HttpError::Denied(format!(
                "the credential {name} is not of the kind that its grant says"
            )));
        }
        let denied = |why: &str| HttpError::Denied(format!("the credential {name} {why}"));
        let unusable = || denied("does not fit into a header");
        let (header, value) = match &credential.scheme {
            CredentialScheme::AwsSignatureV4(scope) => {
                if sign::Key::of(&credential.secret).is_none() {
                    return Err(denied("is not ID:SECRET or ID:SECRET:TOKEN"));
                }
                let carried = Carried::Signature(scope.clone(), credential.secret.clone());
                return Ok((carried, credential.secret));
            }
            CredentialScheme::ClientCertificate => {
                if origin.scheme != Scheme::Https {
                    return Err(denied("is a certificate, which only https can show"));
                }
                let carried = Carried::Certificate(credential.secret.clone());
                return Ok((carried, credential.secret));
            }
            CredentialScheme::Bearer => {
                let token = credential.secret.trim_ascii_end();
                (
                    AUTHORIZATION,
                    HeaderValue::from_bytes(&[b"Bearer ", token].concat()),
                )
            }
            CredentialScheme::Basic => {
                let pair = STANDARD.encode(credential.secret.trim_ascii_end());
                (
                    AUTHORIZATION,
                    HeaderValue::from_str(&format!("Basic {pair}")),
                )
            }
            CredentialScheme::Header(header) => (
                HeaderName::from_bytes(header.as_bytes()).map_err(|_| unusable())?,
                HeaderValue::from_bytes(credential.secret.trim_ascii_end()),
            ),
        };
        let mut value = value.map_err(|_| unusable())?;
        value.set_sensitive(true);
        Ok((Carried::Header(header, value), credential.secret))
    }

    async fn exchange(
        &self,
        checked: &Checked,
        index: usize,
        until: Instant,
    ) -> Result<HttpResponse, HttpError> {
        let identity = match &checked.credential {
            Some(Added {
                name,
                carried: Carried::Certificate(pem),
            }) => Some((name.as_str(), pem.as_slice())),
            _ => None,
        };
        let client = self
            .http
            .pool
            .client(&self.grants, index, identity)
            .map_err(HttpError::Failed)?;
        let mut request = http::Request::builder()
            .method(checked.method.clone())
            .uri(checked.url.as_str())
            .body(Full::new(checked.body.clone()))
            .map_err(|e| HttpError::Invalid(e.to_string()))?;
        *request.headers_mut() = checked.headers.clone();
        if !checked.headers.contains_key(USER_AGENT) {
            let name = HeaderValue::from_static(concat!("capstan/", env!("CARGO_PKG_VERSION")));
            request.headers_mut().insert(USER_AGENT, name);
        }
        for (header, value) in carried_headers(checked)? {
            request.headers_mut().insert(header, value);
        }
        let bytes_max = self.http.body_bytes_max;
        let work = async move {
            let response = client.request(request).await.map_err(|e| failure_of(&e))?;
            collect(response, bytes_max).await
        };
        let work = async move { tokio::time::timeout_at(until, work).await };
        match on_host(&self.host, work).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(HttpError::Limit("no complete response in time".to_owned())),
            Err(why) => Err(HttpError::Failed(why)),
        }
    }

    /// What follows from a response.
    fn redirected(
        &self,
        mut checked: Checked,
        answer: &HttpResponse,
    ) -> Result<Redirect, HttpError> {
        let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
        let safe = matches!(checked.method, Method::GET | Method::HEAD);
        let follow = match status {
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => safe,
            StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT => true,
            _ => false,
        };
        let location = answer
            .headers
            .iter()
            .find(|(name, _)| name == LOCATION.as_str());
        let Some((_, location)) = location.filter(|_| follow) else {
            return Ok(Redirect::None {
                method: checked.method,
                origin: checked.origin,
            });
        };
        let mut url = checked
            .url
            .join(location)
            .map_err(|e| HttpError::Failed(format!("redirected to what is no URL: {e}")))?;
        url.set_fragment(None);
        let _ = url.set_username("");
        let _ = url.set_password(None);
        let origin = Origin::of(&url).map_err(HttpError::Failed)?;
        if status == StatusCode::SEE_OTHER && !safe {
            checked.method = Method::GET;
            checked.body = Bytes::new();
            checked.has_secrets = false;
            checked.headers.remove(http::header::CONTENT_TYPE);
        }
        if origin != checked.origin {
            if checked.has_secrets {
                return Err(HttpError::Denied(format!(
                    "redirected to {origin}: a body with secrets does not follow to another origin"
                )));
            }
            checked.credential = None;
            checked.headers.remove(AUTHORIZATION);
            checked.headers.remove(http::header::COOKIE);
        }
        checked.url = url;
        checked.origin = origin;
        Ok(Redirect::Follow(Box::new(checked)))
    }
}

/// The headers that carry a request's credential: made for this request, also when it follows from another one.
fn carried_headers(checked: &Checked) -> Result<Vec<(HeaderName, HeaderValue)>, HttpError> {
    let Some(added) = &checked.credential else {
        return Ok(Vec::new());
    };
    match &added.carried {
        Carried::Unknown | Carried::Certificate(_) => Ok(Vec::new()),
        Carried::Header(name, value) => Ok(vec![(name.clone(), value.clone())]),
        Carried::Signature(scope, secret) => {
            let request = sign::Unsigned {
                method: checked.method.as_str(),
                url: &checked.url,
                headers: &checked.headers,
                body: &checked.body,
            };
            sign::Key::of(secret)
                .and_then(|key| key.sign(scope, &request, jiff::Timestamp::now()))
                .ok_or_else(|| {
                    let name = &added.name;
                    HttpError::Denied(format!("the credential {name} cannot sign this request"))
                })
        }
    }
}

impl CallHttp {
    fn until(&self, now: Instant, timeout: Option<Duration>) -> Instant {
        let wanted = timeout.unwrap_or(HTTP_TIMEOUT_DEFAULT);
        now.checked_add(wanted)
            .map_or(self.deadline, |until| until.min(self.deadline))
    }

    fn take_request(&mut self) -> Result<(), HttpError> {
        self.requests_left = self.requests_left.checked_sub(1).ok_or_else(|| {
            HttpError::Limit(format!(
                "a call sends at most {} requests",
                self.requests_limit
            ))
        })?;
        Ok(())
    }
}

/// Headers that belong to the connection, which is the host's.
const HOST_HEADERS: [&str; 10] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn headers_of(headers: &[(String, String)]) -> Result<HeaderMap, HttpError> {
    if headers.len() > HTTP_HEADERS_MAX {
        return Err(HttpError::Limit(format!(
            "a request has at most {HTTP_HEADERS_MAX} headers"
        )));
    }
    let bytes = headers.iter().fold(0_usize, |sum, (name, value)| {
        sum.saturating_add(name.len()).saturating_add(value.len())
    });
    if bytes > HTTP_HEADER_BYTES_MAX {
        return Err(HttpError::Limit(format!(
            "a request's headers have at most {HTTP_HEADER_BYTES_MAX} bytes"
        )));
    }
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let shown = one_line(name, TEXT_BYTES_MAX);
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| HttpError::Invalid(format!("{shown:?} is not a header name")))?;
        if HOST_HEADERS.contains(&name.as_str()) {
            return Err(HttpError::Invalid(format!(
                "the header {name} is the host's to set"
            )));
        }
        let value = HeaderValue::from_str(value).map_err(|_| {
            HttpError::Invalid(format!("the value of the header {name} is not valid"))
        })?;
        map.append(name, value);
    }
    Ok(map)
}

/// Bytes before and after the first of these.
fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = bytes.iter().position(|byte| *byte == at)?;
    Some((bytes.get(..place)?, bytes.get(place.saturating_add(1)..)?))
}

/// The inside of a JSON string, without its quotes.
fn json_inside(secret: &[u8]) -> Result<Vec<u8>, HttpError> {
    let not_text =
        || HttpError::Invalid("a secret that is not text cannot be put into JSON".to_owned());
    let text = std::str::from_utf8(secret).map_err(|_| not_text())?;
    let quoted = serde_json::to_vec(text).map_err(|_| not_text())?;
    let inside = quoted
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""));
    Ok(inside.unwrap_or_default().to_vec())
}

async fn collect(
    response: http::Response<hyper::body::Incoming>,
    bytes_max: usize,
) -> Result<HttpResponse, HttpError> {
    let too_large = || {
        HttpError::Limit(format!(
            "the response's body has more than {bytes_max} bytes"
        ))
    };
    let (head, mut incoming) = response.into_parts();
    let headers = head
        .headers
        .iter()
        .take(HTTP_HEADERS_MAX)
        .filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        })
        .collect();
    let mut body = Vec::new();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|e| HttpError::Failed(format!("the response broke off: {e}")))?;
        if let Ok(data) = frame.into_data() {
            if body.len().saturating_add(data.len()) > bytes_max {
                return Err(too_large());
            }
            body.extend_from_slice(&data);
        }
    }
    Ok(HttpResponse {
        status: head.status.as_u16(),
        headers,
        body,
    })
}

fn failure_of(error: &(dyn std::error::Error + 'static)) -> HttpError {
    let mut cause = Some(error);
    let mut last = error.to_string();
    while let Some(current) = cause {
        if let Some(connect) = current.downcast_ref::<ConnectError>() {
            return match connect {
                ConnectError::Refused(why) => HttpError::Denied(why.clone()),
                ConnectError::Failed(why) => HttpError::Failed(one_line(why, TEXT_BYTES_MAX)),
            };
        }
        last = current.to_string();
        cause = current.source();
    }
    HttpError::Failed(one_line(&last, TEXT_BYTES_MAX))
}

/// A URL without its query, which may hold what must not be logged.
fn printable(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}
