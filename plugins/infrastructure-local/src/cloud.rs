//! The local cloud's API: its resources, and requests whose outcome is one of few.

use std::collections::BTreeMap;
use std::time::Duration;

use capstan_sdk::http::{Request, Response, SecretEncoding, escaped};
use capstan_sdk::infrastructure::{Capacity, NodeInfo};
use capstan_sdk::{Context, Failure, SecretHandle};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Name of the credential when the configuration names no other.
pub(crate) const CREDENTIAL: &str = "cloud-token";
/// Bytes of an error's message that are passed on.
const MESSAGE_BYTES_MAX: usize = 512;

/// `spec.config` of the Plugin object.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    endpoint: String,
    credential: Option<String>,
}

/// A network.
#[derive(Debug, Deserialize)]
pub(crate) struct Network {
    pub(crate) id: String,
    pub(crate) state: String,
    #[serde(default, rename = "stateMessage")]
    pub(crate) state_message: String,
    #[serde(default)]
    pub(crate) zones: Vec<String>,
}

/// A load balancer.
#[derive(Debug, Deserialize)]
pub(crate) struct LoadBalancer {
    pub(crate) id: String,
    pub(crate) state: String,
    #[serde(default, rename = "stateMessage")]
    pub(crate) state_message: String,
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// A type of instances.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InstanceType {
    pub(crate) name: String,
    capacity: BTreeMap<String, String>,
    architecture: String,
    operating_system: String,
}

impl InstanceType {
    /// What a machine of it has.
    pub(crate) fn capacity(&self) -> Capacity {
        Capacity {
            resources: self.capacity.clone(),
            node_info: NodeInfo {
                architecture: Some(self.architecture.clone()),
                operating_system: Some(self.operating_system.clone()),
            },
        }
    }
}

/// An instance.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) provider_id: String,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) state_message: String,
    #[serde(default)]
    pub(crate) zone: String,
    #[serde(default)]
    pub(crate) addresses: Vec<Address>,
    #[serde(default)]
    pub(crate) bootstrap: Bootstrap,
    #[serde(default)]
    pub(crate) tags: BTreeMap<String, String>,
}

/// An address of an instance.
#[derive(Debug, Deserialize)]
pub(crate) struct Address {
    #[serde(rename = "type")]
    pub(crate) address_type: String,
    pub(crate) address: String,
}

/// What an instance did with its user data.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Bootstrap {
    pub(crate) state: String,
    pub(crate) message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page<T> {
    items: Vec<T>,
    #[serde(default)]
    next_page_token: Option<String>,
}

/// What became of a request to make something.
#[derive(Debug)]
pub(crate) enum Made<T> {
    /// It is there, made now or by an earlier request with the same key.
    There(T),
    /// It was made by an earlier request with the same key, and is gone.
    Gone,
}

/// The cloud.
#[derive(Debug)]
pub(crate) struct Cloud {
    endpoint: String,
    credential: String,
    idempotency_key: String,
}

impl Cloud {
    /// The cloud that the Plugin object's configuration names.
    pub(crate) fn new(context: &Context) -> Result<Cloud, Failure> {
        let config: Config = context.config_as()?;
        if config.endpoint.is_empty() {
            return Err(Failure::denied(
                "EndpointMissing",
                "the Plugin object infrastructure-local has no spec.config.endpoint: set it to the local cloud's URL, such as http://127.0.0.1:21080",
            ));
        }
        Ok(Cloud {
            endpoint: config.endpoint.trim_end_matches('/').to_owned(),
            credential: config.credential.unwrap_or_else(|| CREDENTIAL.to_owned()),
            idempotency_key: context.idempotency_key.clone(),
        })
    }

    fn url(&self, path: &str) -> String {
        format!("{}/v1/{path}", self.endpoint)
    }

    fn send(&self, request: Request) -> Result<Response, Failure> {
        Ok(request.credential(self.credential.clone()).send()?)
    }

    /// One resource; `None` when it does not exist.
    pub(crate) fn find<T: DeserializeOwned>(
        &self,
        kind: &str,
        id: &str,
    ) -> Result<Option<T>, Failure> {
        let path = format!("{kind}/{}", escaped(id));
        let response = self.send(Request::get(self.url(&path)))?;
        match response.status {
            200 => response.json().map(Some),
            404 => Ok(None),
            _ => Err(refused(&response, &format!("reading {path}"))),
        }
    }

    /// All resources that a query such as `tag=a%3Db` selects.
    fn list<T: DeserializeOwned>(&self, kind: &str, query: &str) -> Result<Vec<T>, Failure> {
        let mut items = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let next = token
                .as_deref()
                .map(|token| format!("&pageToken={}", escaped(token)));
            let path = format!("{kind}?{query}{}", next.unwrap_or_default());
            let response = self.send(Request::get(self.url(&path)))?;
            if response.status != 200 {
                return Err(refused(&response, &format!("listing {kind}")));
            }
            let page: Page<T> = response.json()?;
            items.extend(page.items);
            token = page.next_page_token;
            if token.is_none() {
                return Ok(items);
            }
        }
    }

    /// All resources with a tag.
    pub(crate) fn tagged<T: DeserializeOwned>(
        &self,
        kind: &str,
        key: &str,
        value: &str,
    ) -> Result<Vec<T>, Failure> {
        self.list(kind, &format!("tag={}", escaped(&format!("{key}={value}"))))
    }

    /// All resources with this exact name.
    pub(crate) fn named<T: DeserializeOwned>(
        &self,
        kind: &str,
        name: &str,
    ) -> Result<Vec<T>, Failure> {
        self.list(kind, &format!("name={}", escaped(name)))
    }

    /// Makes a resource, once for this object however often it is asked for.
    pub(crate) fn make<T: DeserializeOwned>(
        &self,
        kind: &str,
        body: &Value,
        user_data: Option<SecretHandle>,
    ) -> Result<Made<T>, Failure> {
        let request =
            Request::post(self.url(kind)).header("idempotency-key", self.idempotency_key.clone());
        let request = match user_data {
            None => request.json(body),
            Some(data) => request.json_with_secret(body, "/userData", data, SecretEncoding::Base64),
        };
        let response = self.send(request)?;
        match (response.status, error_code(&response).as_str()) {
            (200..300, _) => response.json().map(Made::There),
            (409, "IdempotencyKeyUsed" | "IdempotencyMismatch") => Ok(Made::Gone),
            _ => Err(refused(&response, &format!("making one of {kind}"))),
        }
    }

    /// Starts a deletion; what does not exist is no error. False when the cloud says that it is still in use.
    pub(crate) fn delete(&self, path: &str) -> Result<bool, Failure> {
        let response = self.send(Request::delete(self.url(path)))?;
        match (response.status, error_code(&response).as_str()) {
            (200..300 | 404, _) => Ok(true),
            (409, "InUse") => Ok(false),
            _ => Err(refused(&response, &format!("deleting {path}"))),
        }
    }

    /// All types of instances.
    pub(crate) fn instance_types(&self) -> Result<Vec<InstanceType>, Failure> {
        let response = self.send(Request::get(self.url("instance-types")))?;
        if response.status != 200 {
            return Err(refused(&response, "listing instance-types"));
        }
        let all: Page<InstanceType> = response.json()?;
        Ok(all.items)
    }

    /// What an instance has printed; empty when it cannot be read, since it is only ever shown.
    pub(crate) fn console(&self, id: &str) -> String {
        let path = format!("instances/{}/console", escaped(id));
        match self.send(Request::get(self.url(&path))) {
            Ok(response) if response.status == 200 => response.text(),
            _ => String::new(),
        }
    }
}

fn error_field(response: &Response, field: &str) -> String {
    let body: Value = serde_json::from_slice(&response.body).unwrap_or_else(|_| json!({}));
    let text = body
        .pointer(&format!("/error/{field}"))
        .and_then(Value::as_str)
        .unwrap_or_default();
    text.chars().take(MESSAGE_BYTES_MAX).collect()
}

fn error_code(response: &Response) -> String {
    if response.status < 400 {
        String::new()
    } else {
        error_field(response, "code")
    }
}

/// The failure of a request that was answered with an error. The cloud's own messages name fields and never repeat user data.
fn refused(response: &Response, doing: &str) -> Failure {
    let code = error_code(response);
    let reason = if code.is_empty() {
        "CloudRefused".to_owned()
    } else {
        format!("Cloud{code}")
    };
    let mut failure = response.failure(reason, doing);
    let message = error_field(response, "message");
    if response.status == 401 {
        failure
            .message
            .push_str(": grant the credential of the local cloud, with its current token");
    } else if !message.is_empty() {
        failure.message = format!("{doing}: {message}");
    }
    // What another request holds or has not made yet may be free or there next time.
    if matches!(response.status, 404 | 409) {
        failure =
            Failure::transient(failure.reason, failure.message).retry_after(Duration::from_secs(5));
    }
    failure
}
