//! A client for one JSON API: its address, its credential, lists in pages, and another try when the API says that it is busy.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Request, Response};
use crate::answer::Failure;
use crate::context::Context;

/// Tries of one request in one call: more is the host's back-off.
const TRIES_MAX: u32 = 3;

/// The longest that a call waits by itself. What takes longer is better waited for by the host, which keeps nothing meanwhile.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// What is waited for when a busy API does not say how long.
const WAIT_DEFAULT: Duration = Duration::from_millis(500);

/// Pages of one list: a call sends at most 64 requests.
const PAGES_MAX: usize = 50;

/// Where the next page of a list is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// In the header `Link` with `rel="next"`.
    Link,
    /// A whole URL, or a path, in the body at this JSON pointer; `null` or nothing on the last page.
    Url(&'static str),
    /// A number or a text in the body at the pointer, which goes into the query under the name.
    Cursor {
        /// JSON pointer into the body, such as `/meta/next_page`.
        pointer: &'static str,
        /// Parameter of the query, such as `page`.
        parameter: &'static str,
    },
}

impl Next {
    /// See [`Next::Cursor`].
    #[must_use]
    pub fn cursor(pointer: &'static str, parameter: &'static str) -> Self {
        Self::Cursor { pointer, parameter }
    }
}

/// A JSON API at one address.
#[derive(Clone, Debug)]
pub struct Client {
    base: String,
    credential: Option<String>,
    idempotency_key: String,
    left: Duration,
}

impl Client {
    /// An API whose paths begin with `base`, such as `https://api.example.com/v1`, for the time that the call has.
    #[must_use]
    pub fn new(base: impl Into<String>, context: &Context) -> Self {
        Self {
            base: base.into().trim_end_matches('/').to_owned(),
            credential: None,
            idempotency_key: context.idempotency_key.clone(),
            left: context.time_left(),
        }
    }

    /// Lets the host add a granted credential to every request.
    #[must_use]
    pub fn credential(mut self, name: impl Into<String>) -> Self {
        self.credential = Some(name.into());
        self
    }

    /// A request to a path, with the client's credential. A whole URL is taken as it is.
    pub fn request(&self, method: &str, path: &str) -> Request {
        let url = if path.contains("://") {
            path.to_owned()
        } else {
            format!("{}/{}", self.base, path.trim_start_matches('/'))
        };
        let request = Request::new(method, url).header("accept", "application/json");
        match &self.credential {
            Some(name) => request.credential(name),
            None => request,
        }
    }

    /// Reads an object.
    ///
    /// # Errors
    /// See [`Response::failure`]; what cannot be read as `T` is transient.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.send(self.request("GET", path))?.json()
    }

    /// Reads an object that may not be there.
    ///
    /// # Errors
    /// As for [`Client::get`]; not for the status 404.
    pub fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Failure> {
        let response = self.send_any(self.request("GET", path))?;
        if response.status == 404 {
            return Ok(None);
        }
        success(response, "GET", path)?.json().map(Some)
    }

    /// Makes something. The call's idempotency key goes with it, so that a second try finds what the first has made.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub fn create<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        self.send(self.creating(path).json(body))?.json()
    }

    /// A `POST` with the call's idempotency key, for bodies with secrets: give it to [`Client::send`].
    pub fn creating(&self, path: &str) -> Request {
        self.request("POST", path)
            .header("idempotency-key", &self.idempotency_key)
    }

    /// Removes something; that it is gone already is as good.
    ///
    /// # Errors
    /// As for [`Client::get`]; not for the statuses 404 and 410.
    pub fn remove(&self, path: &str) -> Result<(), Failure> {
        let response = self.send_any(self.request("DELETE", path))?;
        if matches!(response.status, 404 | 410) {
            return Ok(());
        }
        success(response, "DELETE", path).map(drop)
    }

    /// All entries of a list, page by page. `items` is the JSON pointer of the entries, empty when the body is the list.
    ///
    /// # Errors
    /// As for [`Client::get`]; terminal when there are more than 50 pages.
    pub fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        items: &str,
        next: &Next,
    ) -> Result<Vec<T>, Failure> {
        let mut all = Vec::new();
        let mut request = self.request("GET", path);
        for _ in 0..PAGES_MAX {
            let response = self.send(request)?;
            let body: Value = response.json()?;
            let page = body.pointer(items).cloned().unwrap_or_default();
            let page: Vec<T> = serde_json::from_value(page).map_err(|error| {
                let message =
                    format!("GET {path}: the entries at {items:?} are not as expected: {error}");
                Failure::transient("InvalidResponse", message)
            })?;
            all.extend(page);
            match self.next(path, next, &response, &body) {
                Some(following) => request = following,
                None => return Ok(all),
            }
        }
        let message = format!("GET {path}: more than {PAGES_MAX} pages; ask for larger ones");
        Err(Failure::terminal("TooManyPages", message))
    }

    fn next(&self, path: &str, next: &Next, response: &Response, body: &Value) -> Option<Request> {
        match next {
            Next::Link => {
                let url = response.header("link").and_then(next_link)?;
                Some(self.request("GET", url))
            }
            Next::Url(pointer) => {
                let url = body
                    .pointer(pointer)?
                    .as_str()
                    .filter(|url| !url.is_empty())?;
                Some(self.request("GET", url))
            }
            Next::Cursor { pointer, parameter } => {
                let cursor = match body.pointer(pointer)? {
                    Value::String(text) if !text.is_empty() => text.clone(),
                    Value::Number(number) => number.to_string(),
                    _ => return None,
                };
                Some(self.request("GET", path).query(parameter, &cursor))
            }
        }
    }

    /// Sends a request; what is not a success is a failure that names method and path.
    ///
    /// # Errors
    /// See [`Response::failure`].
    pub fn send(&self, request: Request) -> Result<Response, Failure> {
        let (method, url) = (request.method.clone(), request.url.clone());
        let response = self.send_any(request)?;
        let path = url.strip_prefix(&self.base).unwrap_or(&url);
        success(response, &method, path)
    }

    /// Sends a request, and again when the API is busy (429, or 503 with `Retry-After`) and the wait is short and well within the
    /// call's deadline. A longer wait is the host's: the response then makes a failure that says when to come back.
    ///
    /// # Errors
    /// When there is no response.
    pub fn send_any(&self, request: Request) -> Result<Response, Failure> {
        let mut slept = Duration::ZERO;
        let mut wait = WAIT_DEFAULT;
        for _ in 1..TRIES_MAX {
            let response = request.clone().send()?;
            let asked = response.retry_after();
            let is_busy = response.status == 429 || (response.status == 503 && asked.is_some());
            let pause = asked.unwrap_or(wait);
            // The other half of the time is for the requests themselves: there is no clock to look at.
            let fits =
                pause <= WAIT_MAX && slept.saturating_add(pause).saturating_mul(2) <= self.left;
            if !is_busy || !fits {
                return Ok(response);
            }
            super::pause(pause);
            slept = slept.saturating_add(pause);
            wait = wait.saturating_mul(2);
        }
        Ok(request.send()?)
    }
}

fn success(response: Response, method: &str, path: &str) -> Result<Response, Failure> {
    if response.is_success() {
        return Ok(response);
    }
    let path = path.split('?').next().unwrap_or_default();
    let reason = match response.status {
        404 => "NotFound",
        409 => "Conflict",
        429 => "TooManyRequests",
        401 | 403 => "NotAllowed",
        500.. => "ServerError",
        _ => "RequestRefused",
    };
    Err(response.failure(reason, &format!("{method} {path}")))
}

/// The target of `rel="next"` in a `Link` header.
fn next_link(header: &str) -> Option<&str> {
    header.split(',').find_map(|link| {
        let (target, parameters) = link.split_once('>')?;
        let is_next = parameters
            .split(';')
            .any(|parameter| matches!(parameter.trim(), "rel=\"next\"" | "rel=next"));
        is_next.then(|| target.trim().trim_start_matches('<'))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::answer::FailureKind;
    use crate::testing::{Host, context};

    fn client() -> Client {
        Client::new("https://api.example.com/v1/", &context()).credential("api")
    }

    #[test]
    fn what_is_made_carries_the_key_and_what_is_gone_is_gone() {
        let host = Host::scripted([
            Response::new(201).with_json(&json!({"id": 7})),
            Response::new(404),
            Response::new(404),
        ]);
        let made: Value = client().create("servers", &json!({"name": "a"})).unwrap();
        assert_eq!(made["id"], 7);
        assert_eq!(client().find::<Value>("/servers/8").unwrap(), None);
        client().remove("/servers/8").unwrap();
        let requests = host.requests();
        assert_eq!(requests[0].url, "https://api.example.com/v1/servers");
        let key = ("idempotency-key".to_owned(), context().idempotency_key);
        assert!(requests[0].headers.contains(&key));
        assert!(
            requests
                .iter()
                .all(|request| request.credential.as_deref() == Some("api"))
        );
    }

    #[test]
    fn a_busy_api_is_asked_again_when_that_is_soon_enough() {
        let busy = |seconds: &str| Response::new(429).with_header("retry-after", seconds);
        let good = || Response::new(200).with_json(&json!([]));
        let host = Host::scripted([busy("2"), good()]);
        client().get::<Value>("a").unwrap();
        assert_eq!(host.slept(), Duration::from_secs(2));
        let host = Host::scripted([busy("30")]);
        let failure = client().get::<Value>("a").unwrap_err();
        assert_eq!(failure.kind, FailureKind::Transient);
        assert_eq!(failure.retry_after, Some(Duration::from_secs(30)));
        assert_eq!((host.slept(), host.requests().len()), (Duration::ZERO, 1));
        let mut short = context();
        short.deadline_ms = short.now_ms + 3_000;
        let host = Host::scripted([busy("2")]);
        let client = Client::new("https://api.example.com", &short);
        assert!(client.get::<Value>("a").is_err());
        assert_eq!(host.slept(), Duration::ZERO);
        let host = Host::scripted([busy("1"), busy("1"), busy("1")]);
        assert!(client_fails_at_last(&host));
    }

    fn client_fails_at_last(host: &Host) -> bool {
        let failure = client().get::<Value>("a").unwrap_err();
        failure.reason == "TooManyRequests" && host.requests().len() == 3
    }

    #[test]
    fn lists_are_read_to_their_last_page() {
        let cursor = Next::Cursor {
            pointer: "/meta/next",
            parameter: "page",
        };
        let host = Host::scripted([
            Response::new(200).with_json(&json!({"servers": [1, 2], "meta": {"next": 2}})),
            Response::new(200).with_json(&json!({"servers": [3], "meta": {"next": null}})),
        ]);
        let all: Vec<u32> = client()
            .list("servers?size=2", "/servers", &cursor)
            .unwrap();
        assert_eq!(all, [1, 2, 3]);
        assert!(host.requests()[1].url.ends_with("/servers?size=2&page=2"));
        let link = "<https://api.example.com/v1/x?p=2>; rel=\"next\", <https://api.example.com/v1/x>; rel=\"first\"";
        let host = Host::scripted([
            Response::new(200)
                .with_json(&json!([1]))
                .with_header("link", link),
            Response::new(200).with_json(&json!([2])),
        ]);
        let all: Vec<u32> = client().list("x", "", &Next::Link).unwrap();
        assert_eq!(all, [1, 2]);
        assert_eq!(host.requests()[1].url, "https://api.example.com/v1/x?p=2");
        let endless =
            Host::serving(|_| Ok(Response::new(200).with_json(&json!({"n": "/x", "i": []}))));
        let failure = client()
            .list::<u32>("x", "/i", &Next::Url("/n"))
            .unwrap_err();
        assert_eq!(failure.reason, "TooManyPages");
        assert_eq!(endless.requests().len(), PAGES_MAX);
    }
}
