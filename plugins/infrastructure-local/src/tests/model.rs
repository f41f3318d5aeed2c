//! A model of the cloud's API: networks, load balancers, instances, tags, idempotency keys and faults.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use capstan_sdk::http::{Error, Request, Response};
use capstan_sdk::testing::Host;
use serde_json::{Value, json};

const ORIGIN: &str = "http://127.0.0.1:21080/v1/";

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The work is done, then the connection breaks.
    LoseAnswer,
    /// Refused with 429.
    Throttle,
}

#[derive(Default)]
struct Cloud {
    resources: BTreeMap<String, Vec<Value>>,
    keys: BTreeMap<String, (Value, String)>,
    made: usize,
    faults: Vec<(&'static str, Fault)>,
    /// Networks take their time, and say so.
    slow_networks: Option<&'static str>,
    console: String,
}

/// The model and the fake host that serves it.
pub(super) struct Model {
    cloud: Rc<RefCell<Cloud>>,
    _host: Host,
}

impl Model {
    pub(super) fn new() -> Model {
        let cloud = Rc::new(RefCell::new(Cloud::default()));
        let served = Rc::clone(&cloud);
        Model {
            cloud,
            _host: Host::serving(move |request| served.borrow_mut().serve(request)),
        }
    }

    /// The next request whose `METHOD path` begins so goes wrong.
    pub(super) fn fault(&self, begins: &'static str, fault: Fault) {
        self.cloud.borrow_mut().faults.push((begins, fault));
    }

    pub(super) fn all(&self, kind: &str) -> Vec<Value> {
        self.cloud
            .borrow()
            .resources
            .get(kind)
            .cloned()
            .unwrap_or_default()
    }

    /// Sets a field of all resources of a kind.
    pub(super) fn set(&self, kind: &str, field: &str, value: Value) {
        for resource in self
            .cloud
            .borrow_mut()
            .resources
            .entry(kind.to_owned())
            .or_default()
        {
            resource[field] = value.clone();
        }
    }

    /// From now on networks are made and deleted in the background, and say this meanwhile.
    pub(super) fn slow_networks(&self, message: &'static str) {
        self.cloud.borrow_mut().slow_networks = Some(message);
    }

    /// Makes all resources of a kind disappear.
    pub(super) fn clear(&self, kind: &str) {
        self.cloud.borrow_mut().resources.remove(kind);
    }

    pub(super) fn print(&self, console: &str) {
        self.cloud.borrow_mut().console = console.to_owned();
    }

    /// How many resources were ever made.
    pub(super) fn made(&self) -> usize {
        self.cloud.borrow().made
    }
}

fn error(status: u16, code: &str) -> Response {
    Response::new(status)
        .with_json(&json!({"error": {"code": code, "message": format!("{code}!")}}))
}

impl Cloud {
    fn serve(&mut self, request: &Request) -> Result<Response, Error> {
        assert_eq!(request.credential.as_deref(), Some("cloud-token"));
        let path = request
            .url
            .strip_prefix(ORIGIN)
            .expect("the granted origin");
        let called = format!("{} {path}", request.method);
        let fault = self
            .faults
            .iter()
            .position(|(begins, _)| called.starts_with(begins));
        let fault = fault.map(|position| self.faults.remove(position).1);
        if fault == Some(Fault::Throttle) {
            return Ok(error(429, "Throttled").with_header("Retry-After", "7"));
        }
        let response = self.answer(request, path);
        match fault {
            Some(Fault::LoseAnswer) => Err(Error::Failed("the connection was closed".to_owned())),
            _ => Ok(response),
        }
    }

    fn answer(&mut self, request: &Request, path: &str) -> Response {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let parts: Vec<&str> = path.split('/').collect();
        match (request.method.as_str(), parts.as_slice()) {
            ("GET", ["instance-types"]) => Response::new(200).with_json(&json!({"items": [{
                "name": "small", "cpu": 2, "memoryMiB": 4096, "architecture": "amd64", "operatingSystem": "linux",
                "capacity": {"cpu": "2", "memory": "4096Mi", "pods": "110"},
            }]})),
            ("GET", [kind]) => self.list(kind, query),
            ("POST", [kind]) => self.make(kind, request),
            ("GET", ["instances", _, "console"]) => Response {
                body: self.console.clone().into_bytes(),
                ..Response::new(200)
            },
            ("GET", [kind, id]) => match self.find(kind, id) {
                Some(resource) => Response::new(200).with_json(resource),
                None => error(404, "NotFound"),
            },
            ("DELETE", [kind, id]) => self.delete(kind, id),
            ("DELETE", ["load-balancers", id, "targets", instance]) => {
                match self.find("load-balancers", id) {
                    None => error(404, "NotFound"),
                    Some(balancer) => {
                        let targets = balancer["targets"].as_array_mut().unwrap();
                        targets.retain(|target| target != instance);
                        Response::new(200).with_json(balancer)
                    }
                }
            }
            other => panic!("unknown request {other:?}"),
        }
    }

    fn find(&mut self, kind: &str, id: &str) -> Option<&mut Value> {
        self.resources
            .get_mut(kind)?
            .iter_mut()
            .find(|resource| resource["id"] == id)
    }

    fn list(&self, kind: &str, query: &str) -> Response {
        let matches = |resource: &&Value| {
            query.split('&').all(|term| {
                let (field, value) = term.split_once('=').expect("a term");
                let value = value.replace("%2F", "/").replace("%3D", "=");
                match field {
                    "name" => resource["name"] == value.as_str(),
                    "tag" => {
                        let (key, value) = value.split_once('=').expect("a tag");
                        resource["tags"][key] == value
                    }
                    "pageToken" => true,
                    other => panic!("unknown term {other}"),
                }
            })
        };
        let all = self
            .resources
            .get(kind)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let found: Vec<&Value> = all.iter().filter(matches).collect();
        // Two pages, so that nobody forgets to look at the second.
        if query.contains("pageToken=") {
            return Response::new(200).with_json(&json!({"items": found}));
        }
        Response::new(200).with_json(&json!({"items": [], "nextPageToken": "2"}))
    }

    fn make(&mut self, kind: &str, request: &Request) -> Response {
        let key = request
            .headers
            .iter()
            .find(|(name, _)| name == "idempotency-key")
            .expect("a key");
        let key = format!("{kind} {}", key.1);
        let body: Value = serde_json::from_str(&request.body_preview()).expect("JSON");
        if let Some((used, id)) = self.keys.get(&key).cloned() {
            return match (used == body, self.find(kind, &id)) {
                (false, _) => error(409, "IdempotencyMismatch"),
                (true, None) => error(409, "IdempotencyKeyUsed"),
                (true, Some(resource)) => Response::new(200).with_json(resource),
            };
        }
        self.made = self.made.saturating_add(1);
        let id = format!("{kind}-{}", self.made);
        let mut resource = body.clone();
        resource["id"] = json!(id);
        let added = match kind {
            "networks" => json!({
                "state": if self.slow_networks.is_some() { "pending" } else { "active" },
                "stateMessage": self.slow_networks.unwrap_or_default(), "zones": ["zone-a", "zone-b"],
            }),
            "load-balancers" => {
                json!({"state": "provisioning", "host": "127.0.0.1", "port": 23456, "targets": []})
            }
            _ => json!({
                "state": "pending", "zone": body.get("zone").cloned().unwrap_or(json!("zone-a")), "providerId": format!("local:///zone-a/{id}"),
                "addresses": [{"type": "InternalIP", "address": "127.77.0.9"}, {"type": "Odd", "address": "x"}],
                "bootstrap": {"state": "waiting", "message": ""}
            }),
        };
        resource
            .as_object_mut()
            .unwrap()
            .extend(added.as_object().unwrap().clone());
        for balancer in body["loadBalancerIds"]
            .as_array()
            .cloned()
            .unwrap_or_default()
        {
            let balancer = self
                .find("load-balancers", balancer.as_str().unwrap())
                .expect("a load balancer");
            balancer["targets"].as_array_mut().unwrap().push(json!(id));
        }
        self.keys.insert(key, (body, id));
        self.resources
            .entry(kind.to_owned())
            .or_default()
            .push(resource.clone());
        Response::new(202).with_json(&resource)
    }

    fn delete(&mut self, kind: &str, id: &str) -> Response {
        if self.find(kind, id).is_none() {
            return error(404, "NotFound");
        }
        let in_use = |kind: &str| {
            self.resources
                .get(kind)
                .is_some_and(|all| all.iter().any(|resource| resource["networkId"] == id))
        };
        if kind == "networks" {
            if in_use("instances") || in_use("load-balancers") {
                return error(409, "InUse");
            }
            if self.slow_networks.is_some() {
                let network = self.find(kind, id).unwrap();
                network["state"] = json!("deleting");
                return Response::new(202).with_json(network);
            }
            self.resources
                .get_mut(kind)
                .unwrap()
                .retain(|network| network["id"] != id);
            return Response::new(204);
        }
        let state = if kind == "instances" {
            "terminating"
        } else {
            "deleting"
        };
        let resource = self.find(kind, id).unwrap();
        resource["state"] = json!(state);
        Response::new(202).with_json(resource)
    }
}
