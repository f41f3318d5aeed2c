//! The local cloud in the test's process, and what its API says about it.

use std::path::Path;
use std::time::Duration;

use capstan_local::cloud::{Access, Cloud, Options};
use serde_json::{Value, json};

use crate::plain_http;

/// A cloud and a client for it. Dropping it stops it.
pub struct TestCloud {
    access: Access,
    _cloud: Option<Cloud>,
}

impl TestCloud {
    /// Starts one in this directory.
    pub async fn start(dir: &Path) -> Self {
        let mut options = Options::new(dir);
        options.provision_delay = Duration::from_millis(100);
        Self::start_with(options).await
    }

    /// Starts one as these options say.
    pub async fn start_with(options: Options) -> Self {
        let cloud = Cloud::start(options).await.unwrap();
        Self {
            access: cloud.access().clone(),
            _cloud: Some(cloud),
        }
    }

    /// Speaks to one that runs elsewhere.
    pub fn connect(access: Access) -> Self {
        Self {
            access,
            _cloud: None,
        }
    }

    /// Where it is and with which token.
    pub fn access(&self) -> &Access {
        &self.access
    }

    async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        match self.call(method, path, body).await {
            Ok(text) => serde_json::from_str(&text).unwrap_or(Value::Null),
            Err(refusal) => panic!("{refusal}"),
        }
    }

    /// One request; the error has the status and what the cloud said.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<String, String> {
        let url = format!("{}{path}", self.access.endpoint);
        plain_http::send(method, &url, Some(&self.access.token), body).await
    }

    /// Its counts.
    pub async fn status(&self) -> Value {
        self.send("GET", "/v1/status", None).await
    }

    /// Removals of members that the etcds of light clusters refused.
    ///
    /// # Errors
    /// When the cloud does not answer.
    pub async fn etcd_refusals(&self) -> Result<Vec<Value>, String> {
        let text = self.call("GET", "/v1/status", None).await?;
        let status: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let refusals = status["etcdRefusals"].as_array().cloned();
        refusals.ok_or_else(|| "the cloud's status has no refusals".to_owned())
    }

    /// What still exists, as words; `Ok` when nothing does.
    pub async fn is_empty(&self) -> Result<(), String> {
        let status = self.status().await;
        let kinds = [
            "networks",
            "loadBalancers",
            "instances",
            "workloadClusters",
            "workloadNodes",
        ];
        match kinds.iter().any(|kind| status[*kind] != json!(0)) {
            true => Err(format!("the cloud still has {status}")),
            false => Ok(()),
        }
    }

    /// Everything of one kind (`instances`, `networks`, `load-balancers`) that belongs to a cluster.
    ///
    /// # Panics
    /// When there is more than a page.
    pub async fn of_cluster(&self, kind: &str, namespace: &str, name: &str) -> Vec<Value> {
        let path = format!("/v1/{kind}?limit=500&tag=cluster%3D{namespace}%2F{name}");
        let page = self.send("GET", &path, None).await;
        assert!(page["nextPageToken"].is_null(), "more than one page");
        page["items"].as_array().cloned().unwrap_or_default()
    }

    /// What still exists of a cluster; `Ok` when nothing does.
    pub async fn has_nothing_of(&self, namespace: &str, name: &str) -> Result<(), String> {
        for kind in ["instances", "load-balancers", "networks"] {
            let left = self.of_cluster(kind, namespace, name).await;
            if !left.is_empty() {
                return Err(format!("{} {kind} are left: {}", left.len(), left[0]));
            }
        }
        Ok(())
    }

    /// Makes an instance that no Machine knows of.
    pub async fn create_instance(&self, wanted: &Value) {
        self.send("POST", "/v1/instances", Some(wanted)).await;
    }

    /// Deletes an instance behind everybody's back.
    pub async fn delete_instance(&self, id: &str) {
        self.send("DELETE", &format!("/v1/instances/{id}"), None)
            .await;
    }

    /// What an instance has written on its console.
    ///
    /// # Errors
    /// What the cloud said.
    pub async fn console(&self, id: &str) -> Result<String, String> {
        let path = format!("/v1/instances/{id}/console");
        self.call("GET", &path, None).await
    }

    /// Makes an instance a target of a load balancer, or takes it out.
    ///
    /// # Errors
    /// What the cloud said.
    pub async fn set_target(
        &self,
        balancer: &str,
        id: &str,
        is_target: bool,
    ) -> Result<(), String> {
        let method = if is_target { "PUT" } else { "DELETE" };
        let path = format!("/v1/load-balancers/{balancer}/targets/{id}");
        self.call(method, &path, None).await.map(drop)
    }

    /// Turns an instance off, as a power cut would.
    pub async fn stop_instance(&self, id: &str) {
        self.act(id, "stop").await;
    }

    /// Turns it on again.
    pub async fn start_instance(&self, id: &str) {
        self.act(id, "start").await;
    }

    /// Does one of the actions on an instance.
    pub async fn act(&self, id: &str, action: &str) {
        if let Err(refusal) = self.try_act(id, action).await {
            panic!("{refusal}");
        }
    }

    /// Does one of the actions on an instance that may be gone.
    ///
    /// # Errors
    /// What the cloud said.
    pub async fn try_act(&self, id: &str, action: &str) -> Result<(), String> {
        let path = format!("/v1/instances/{id}/actions/{action}");
        self.call("POST", &path, None).await.map(drop)
    }

    /// Replaces its fault rules.
    pub async fn faults(&self, rules: Value) {
        self.send("PUT", "/v1/faults", Some(&json!({"rules": rules})))
            .await;
    }
}
