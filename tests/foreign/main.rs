//! An infrastructure provider that is not a plugin: a process with a kubeconfig of its own, which speaks Cluster API's contract and nothing
//! else. Its machines are those of the local cloud. Arguments: kubeconfig, URL of the cloud; the cloud's token is in `CLOUD_TOKEN`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use capstan_local::cloud::Access;
use capstan_tests::cloud::TestCloud;
use capstan_tests::foreign::{CLUSTERS, FINALIZER, MACHINES};
use capstan_tests::kube_client::{CLUSTER, Kind, Kube, MACHINE, SECRET, name};
use serde_json::{Value, json};

/// How often it looks: a controller would watch, and see the same.
const LOOKS_EVERY: Duration = Duration::from_millis(250);

struct Provider {
    kube: Kube,
    cloud: TestCloud,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let kubeconfig = args.next().context("the path of a kubeconfig")?;
    let endpoint = args.next().context("the URL of the cloud")?;
    let token = std::env::var("CLOUD_TOKEN").context("CLOUD_TOKEN")?;
    let text = std::fs::read_to_string(Path::new(&kubeconfig)).context("reading the kubeconfig")?;
    let provider = Provider {
        kube: Kube::from_kubeconfig(&text).await,
        cloud: TestCloud::connect(Access { endpoint, token }),
    };
    loop {
        for object in provider.kube.list(CLUSTERS, "").await {
            told(&object, provider.cluster(&object).await);
        }
        for object in provider.kube.list(MACHINES, "").await {
            told(&object, provider.machine(&object).await);
        }
        tokio::time::sleep(LOOKS_EVERY).await;
    }
}

/// Text at a pointer; empty when there is none.
fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

/// Name of the owner of a kind of Cluster API's.
fn owner<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    let found = owners.iter().find(|owner| {
        owner["kind"] == kind && text(owner, "/apiVersion").starts_with("cluster.x-k8s.io/")
    });
    found.map(|owner| text(owner, "/name"))
}

fn is_paused(cluster: &Value, object: &Value) -> bool {
    let paused = "cluster.x-k8s.io/paused";
    let annotation = object["metadata"]["annotations"].get(paused);
    cluster["spec"]["paused"] == true || annotation.is_some()
}

fn is_deleting(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}

/// What every resource of a cluster is tagged with, as [`TestCloud::of_cluster`] looks for it.
fn cluster_tag(namespace: &str, cluster: &str) -> Value {
    json!({"cluster": format!("{namespace}/{cluster}")})
}

fn ready() -> Value {
    json!([{
        "type": "Ready", "status": "True", "reason": "Ready", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }])
}

/// A refusal, such as a lost race, is looked at again.
fn told(object: &Value, outcome: Result<(), String>) {
    if let Err(why) = outcome {
        eprintln!("{}/{}: {why}", namespace(object), name(object));
    }
}

impl Provider {
    async fn patch(&self, kind: Kind, object: &Value, patch: &Value) -> Result<(), String> {
        let answer = self
            .kube
            .try_merge(kind, namespace(object), &name(object), patch)
            .await;
        answer.map(drop).map_err(|refusal| refusal.message)
    }

    async fn patch_status(&self, kind: Kind, object: &Value, status: &Value) -> Result<(), String> {
        let status_of = format!("{}/status", name(object));
        let patch = json!({"status": status});
        let answer = self
            .kube
            .try_merge(kind, namespace(object), &status_of, &patch)
            .await;
        answer.map(drop).map_err(|refusal| refusal.message)
    }

    /// Finalizers are replaced whole: only if the object is as it was read.
    async fn finalize(&self, kind: Kind, object: &Value, wanted: bool) -> Result<(), String> {
        let all = object["metadata"]["finalizers"].as_array();
        let mut all: Vec<Value> = all.cloned().unwrap_or_default();
        if all.contains(&json!(FINALIZER)) == wanted {
            return Ok(());
        }
        all.retain(|finalizer| finalizer != FINALIZER);
        if wanted {
            all.push(json!(FINALIZER));
        }
        let version = &object["metadata"]["resourceVersion"];
        let patch = json!({"metadata": {"finalizers": all, "resourceVersion": version}});
        self.patch(kind, object, &patch).await
    }

    async fn make(&self, kind: &str, body: &Value) -> Result<(), String> {
        let path = format!("/v1/{kind}");
        self.cloud.call("POST", &path, Some(body)).await.map(drop)
    }

    async fn cluster(&self, object: &Value) -> Result<(), String> {
        let namespace = namespace(object);
        let Some(cluster) = owner(object, "Cluster") else {
            return Ok(());
        };
        let owner = self.kube.get(CLUSTER, namespace, cluster).await;
        if owner.is_some_and(|owner| is_paused(&owner, object)) {
            return Ok(());
        }
        let things = async |kind| self.cloud.of_cluster(kind, namespace, cluster).await;
        if is_deleting(object) {
            for kind in ["load-balancers", "networks"] {
                let left = things(kind).await;
                if let Some(thing) = left.first() {
                    let path = format!("/v1/{kind}/{}", text(thing, "/id"));
                    return self.cloud.call("DELETE", &path, None).await.map(drop);
                }
            }
            return self.finalize(CLUSTERS, object, false).await;
        }
        self.finalize(CLUSTERS, object, true).await?;
        let networks = things("networks").await;
        let tags = cluster_tag(namespace, cluster);
        let Some(network) = networks.first() else {
            return self
                .make("networks", &json!({"name": cluster, "tags": tags}))
                .await;
        };
        if network["state"] != "active" {
            return Ok(());
        }
        let balancers = things("load-balancers").await;
        let Some(balancer) = balancers.first() else {
            let body = json!({
                "name": format!("{cluster}-api"), "networkId": network["id"], "targetPort": 6443, "tags": tags,
            });
            return self.make("load-balancers", &body).await;
        };
        let is_done = object["status"]["initialization"]["provisioned"] == true;
        if balancer["state"] != "active" || is_done {
            return Ok(());
        }
        let endpoint = json!({"host": balancer["host"], "port": balancer["port"]});
        let patch = json!({"spec": {"controlPlaneEndpoint": endpoint}});
        self.patch(CLUSTERS, object, &patch).await?;
        let zones = network["zones"].as_array().cloned().unwrap_or_default();
        let domains = zones
            .iter()
            .map(|zone| json!({"name": zone, "controlPlane": true}));
        let status = json!({
            "initialization": {"provisioned": true},
            "failureDomains": domains.collect::<Value>(),
            "conditions": ready(),
        });
        self.patch_status(CLUSTERS, object, &status).await
    }

    async fn machine(&self, object: &Value) -> Result<(), String> {
        let namespace = namespace(object);
        let Some(machine) = owner(object, "Machine") else {
            return Ok(());
        };
        let Some(machine) = self.kube.get(MACHINE, namespace, machine).await else {
            return Ok(());
        };
        let cluster_name = text(&machine, "/spec/clusterName");
        let Some(cluster) = self.kube.get(CLUSTER, namespace, cluster_name).await else {
            return Ok(());
        };
        if is_paused(&cluster, object) {
            return Ok(());
        }
        let instances = self.cloud.of_cluster("instances", namespace, cluster_name);
        let instances = instances.await;
        let tag = format!("{namespace}/{}", name(&machine));
        let instance = instances
            .iter()
            .find(|instance| instance["tags"]["machine"] == tag.as_str());
        if is_deleting(object) {
            let Some(instance) = instance else {
                return self.finalize(MACHINES, object, false).await;
            };
            if text(instance, "/state").starts_with("terminat") {
                return Ok(());
            }
            let path = format!("/v1/instances/{}", text(instance, "/id"));
            return self.cloud.call("DELETE", &path, None).await.map(drop);
        }
        self.finalize(MACHINES, object, true).await?;
        match instance {
            None => self.launch(&cluster, &machine, &tag).await,
            Some(instance) => self.report(object, instance).await,
        }
    }

    /// Makes the instance once the contract says that all is there.
    async fn launch(&self, cluster: &Value, machine: &Value, tag: &str) -> Result<(), String> {
        let (namespace, cluster_name) = (namespace(machine), name(cluster));
        let secret = text(machine, "/spec/bootstrap/dataSecretName");
        let is_provisioned =
            cluster["status"]["initialization"]["infrastructureProvisioned"] == true;
        if !is_provisioned || secret.is_empty() {
            return Ok(());
        }
        let secret = self.kube.get(SECRET, namespace, secret).await;
        let secret = secret.ok_or("the Secret with bootstrap data does not exist")?;
        let of_cluster = async |kind| {
            let all = self.cloud.of_cluster(kind, namespace, &cluster_name).await;
            let first = all.into_iter().next();
            first.ok_or_else(|| format!("there is none of {kind}"))
        };
        let network = of_cluster("networks").await?;
        let mut tags = cluster_tag(namespace, &cluster_name);
        tags["machine"] = json!(tag);
        let mut body = json!({
            "name": name(machine),
            "networkId": network["id"],
            "type": "small",
            "image": machine["spec"]["version"],
            // Both are base64.
            "userData": secret["data"]["value"],
            "userDataFormat": "cloud-config",
            "tags": tags,
        });
        let domain = text(machine, "/spec/failureDomain");
        if !domain.is_empty() {
            body["zone"] = json!(domain);
        }
        let label = "cluster.x-k8s.io/control-plane";
        if machine["metadata"]["labels"].get(label).is_some() {
            let balancer = of_cluster("load-balancers").await?;
            body["loadBalancerIds"] = json!([balancer["id"]]);
        }
        self.make("instances", &body).await
    }

    /// Says what the instance is, once it has bootstrapped.
    async fn report(&self, object: &Value, instance: &Value) -> Result<(), String> {
        let is_done = object["status"]["initialization"]["provisioned"] == true;
        let has_bootstrapped = instance["bootstrap"]["state"] == "done";
        if is_done || instance["state"] != "running" || !has_bootstrapped {
            return Ok(());
        }
        let patch = json!({"spec": {"providerID": instance["providerId"]}});
        self.patch(MACHINES, object, &patch).await?;
        let status = json!({
            "initialization": {"provisioned": true},
            "addresses": instance["addresses"],
            "failureDomain": instance["zone"],
            "conditions": ready(),
        });
        self.patch_status(MACHINES, object, &status).await
    }
}
