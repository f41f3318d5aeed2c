//! A client that makes the calls of cluster-autoscaler's `clusterapi` provider: it finds groups by annotation, grows them through
//! `/scale`, and shrinks them by marking the Machine that has to go.

use std::collections::BTreeMap;

use capstan_tests::cluster::TestCluster;
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{
    Kube, LOCAL_MACHINE_TEMPLATE, MACHINE, MACHINE_DEPLOYMENT, MACHINE_POOL, MACHINE_SET, NODE,
    name,
};
use capstan_tests::{PATIENCE, eventually, run};
use http::Method;
use serde_json::{Value, json};

const GROUP: &str = "cluster.x-k8s.io";
const MIN: &str = "cluster.x-k8s.io/cluster-api-autoscaler-node-group-min-size";
const MAX: &str = "cluster.x-k8s.io/cluster-api-autoscaler-node-group-max-size";
const DELETE: &str = "cluster.x-k8s.io/delete-machine";
const CAPACITY: &str = "capacity.cluster-autoscaler.kubernetes.io";

/// The autoscaler with its two clusters.
struct Autoscaler<'a> {
    management: &'a Kube,
    workload: Kube,
    namespace: &'a str,
    /// The group's preferred version, by discovery.
    version: String,
}

/// A group of machines that may grow and shrink.
#[derive(Debug)]
struct Group {
    object: Value,
    min: u64,
    max: u64,
}

impl<'a> Autoscaler<'a> {
    async fn start(management: &'a Kube, workload: Kube, namespace: &'a str) -> Self {
        let json = "application/json";
        let path = format!("/apis/{GROUP}");
        let group = management
            .send(Method::GET, &path, json, None)
            .await
            .unwrap();
        let version = group["preferredVersion"]["version"]
            .as_str()
            .unwrap()
            .to_owned();
        let path = format!("/apis/{GROUP}/{version}");
        let served = management
            .send(Method::GET, &path, json, None)
            .await
            .unwrap();
        let served: Vec<&str> = served["resources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| r["name"].as_str().unwrap())
            .collect();
        for resource in [
            "machines",
            "machinesets",
            "machinesets/scale",
            "machinedeployments",
            "machinedeployments/scale",
            "machinepools",
            "machinepools/scale",
        ] {
            assert!(
                served.contains(&resource),
                "{resource} is not among {served:?}"
            );
        }
        Self {
            management,
            workload,
            namespace,
            version,
        }
    }

    fn path(&self, resource: &str, rest: &str) -> String {
        format!(
            "/apis/{GROUP}/{}/namespaces/{}/{resource}{rest}",
            self.version, self.namespace
        )
    }

    async fn list(&self, resource: &str) -> Vec<Value> {
        let path = self.path(resource, "");
        let list = self
            .management
            .send(Method::GET, &path, "application/json", None)
            .await
            .unwrap();
        list["items"].as_array().unwrap().clone()
    }

    /// Deployments, and sets that no deployment owns, with both annotations.
    async fn groups(&self) -> Vec<Group> {
        let mut objects = self.list("machinedeployments").await;
        let sets = self.list("machinesets").await;
        objects.extend(
            sets.into_iter()
                .filter(|set| owner(set, "MachineDeployment").is_none()),
        );
        let groups = objects.into_iter().filter_map(|object| {
            let size = |key: &str| {
                object["metadata"]["annotations"][key]
                    .as_str()?
                    .parse()
                    .ok()
            };
            let (min, max) = (size(MIN)?, size(MAX)?);
            (max > 0).then_some(Group { min, max, object })
        });
        groups.collect()
    }

    async fn group(&self, of: &str) -> Group {
        let found = self
            .groups()
            .await
            .into_iter()
            .find(|group| name(&group.object) == of);
        found.unwrap_or_else(|| panic!("{of} is no group"))
    }

    async fn set_size(&self, group: &Group, size: u64) {
        assert!((group.min..=group.max).contains(&size));
        let path = self.path(
            "machinedeployments",
            &format!("/{}/scale", name(&group.object)),
        );
        let scale = self
            .management
            .send(Method::GET, &path, "application/json", None)
            .await
            .unwrap();
        assert_eq!(scale["kind"], "Scale");
        assert!(
            scale["status"]["selector"]
                .as_str()
                .is_some_and(|s| !s.is_empty()),
            "{scale}"
        );
        let patch = json!({"spec": {"replicas": size}});
        self.management
            .send(
                Method::PATCH,
                &path,
                "application/merge-patch+json",
                Some(&patch),
            )
            .await
            .unwrap();
    }

    /// Provider IDs of the group's members; those that have no Node yet are pending.
    async fn members(&self, group: &Group) -> Vec<String> {
        let wanted = group.object["spec"]["selector"]["matchLabels"]
            .as_object()
            .unwrap();
        let machines = self.list("machines").await;
        let members = machines.iter().filter(|machine| {
            machine["spec"]["clusterName"] == group.object["spec"]["clusterName"]
                && wanted
                    .iter()
                    .all(|(key, value)| machine["metadata"]["labels"][key] == *value)
        });
        let ids = members.map(|machine| {
            if !machine["metadata"]["deletionTimestamp"].is_null() {
                return format!("deleting-machine-{}", name(machine));
            }
            if machine["status"]["nodeRef"].is_null() {
                return format!("pending-machine-{}", name(machine));
            }
            // The last segment alone has to tell machines apart.
            let id = machine["spec"]["providerID"].as_str().unwrap();
            id.rsplit('/').next().unwrap().to_owned()
        });
        let mut ids: Vec<String> = ids.collect();
        ids.sort();
        ids
    }

    /// The Machine behind a Node, by the Node's annotations, and the deployment that it comes from.
    async fn machine_of(&self, node: &Value) -> (Value, String) {
        let annotation = |key: &str| {
            node["metadata"]["annotations"][key]
                .as_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(
            annotation("cluster.x-k8s.io/cluster-namespace"),
            self.namespace
        );
        let machine = annotation("cluster.x-k8s.io/machine");
        let path = self.path("machines", &format!("/{machine}"));
        let machine = self
            .management
            .send(Method::GET, &path, "application/json", None)
            .await
            .unwrap();
        let set = owner(&machine, "MachineSet").unwrap();
        let path = self.path("machinesets", &format!("/{set}"));
        let set = self
            .management
            .send(Method::GET, &path, "application/json", None)
            .await
            .unwrap();
        (machine, owner(&set, "MachineDeployment").unwrap())
    }

    /// Marks the Machine of a Node by a full update, as the autoscaler does, then makes the group smaller.
    async fn remove(&self, node: &Value, group: &Group) -> String {
        let path = |machine: &Value| self.path("machines", &format!("/{}", name(machine)));
        eventually("marked", PATIENCE, async || {
            // Somebody may have written in between.
            let (mut machine, _) = self.machine_of(node).await;
            let annotations = machine["metadata"]["annotations"].as_object_mut();
            let mark = (DELETE.to_owned(), json!("2026-01-01 00:00:00 +0000 UTC"));
            match annotations {
                Some(annotations) => drop(annotations.insert(mark.0, mark.1)),
                None => machine["metadata"]["annotations"] = json!({mark.0: mark.1}),
            }
            let put = self
                .management
                .send(
                    Method::PUT,
                    &path(&machine),
                    "application/json",
                    Some(&machine),
                )
                .await;
            put.map(drop).map_err(|refusal| refusal.message)
        })
        .await;
        let (machine, _) = self.machine_of(node).await;
        self.set_size(
            group,
            group.object["spec"]["replicas"].as_u64().unwrap() - 1,
        )
        .await;
        name(&machine)
    }

    /// Whether older sets still have machines: then nothing is scaled down.
    async fn is_rolling_out(&self, group: &Group) -> bool {
        let sets = self.list("machinesets").await;
        let mine = sets.iter().filter(|set| {
            set["metadata"]["labels"]["cluster.x-k8s.io/deployment-name"]
                == name(&group.object).as_str()
        });
        let mut by_revision = BTreeMap::new();
        for set in mine {
            let revision =
                &set["metadata"]["annotations"]["machinedeployment.clusters.x-k8s.io/revision"];
            let revision: u64 = revision.as_str().unwrap().parse().unwrap();
            by_revision.insert(revision, set);
        }
        let older = by_revision.into_values().rev().skip(1);
        let has_machines = |set: &Value| {
            ["spec", "status"]
                .iter()
                .any(|part| set[part]["replicas"].as_u64().unwrap_or_default() > 0)
        };
        older.into_iter().any(has_machines)
    }
}

fn owner(object: &Value, kind: &str) -> Option<String> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    let found = owners.iter().find(|owner| owner["kind"] == kind)?;
    found["name"].as_str().map(str::to_owned)
}

#[test]
fn an_autoscaler_finds_groups_grows_them_and_takes_away_the_machine_that_it_chose() {
    run(async {
        let host = TestHost::shared().await;
        let (kube, ns) = (host.kube(), "autoscaled");
        let mut cluster = TestCluster::new(ns, "scaled", 1);
        cluster.annotations = json!({
            MIN: "0", MAX: "4",
            (format!("{CAPACITY}/memory")): "4Gi",
        });
        cluster.create(kube).await;
        cluster.available(host, 1).await;
        let autoscaler = Autoscaler::start(kube, cluster.workload(kube).await, ns).await;
        assert_eq!(autoscaler.version, "v1beta2");
        let deployment = cluster.deployment();
        let group = autoscaler.group(&deployment).await;
        assert_eq!(
            (group.min, group.max, autoscaler.groups().await.len()),
            (0, 4, 1)
        );

        autoscaler.set_size(&group, 4).await;
        eventually("machines are members at once", PATIENCE, async || {
            let members = autoscaler.members(&group).await;
            (members.len() == 4)
                .then_some(())
                .ok_or(format!("{members:?}"))
        })
        .await;
        cluster.available(host, 4).await;
        let nodes = autoscaler.workload.list(NODE, "").await;
        let last = |node: &Value| {
            node["spec"]["providerID"]
                .as_str()
                .unwrap()
                .rsplit('/')
                .next()
                .unwrap()
                .to_owned()
        };
        let members = autoscaler.members(&group).await;
        let workers: Vec<&Value> = nodes
            .iter()
            .filter(|node| members.contains(&last(node)))
            .collect();
        assert_eq!(workers.len(), 4, "{members:?}");
        for node in &workers {
            assert_eq!(autoscaler.machine_of(node).await.1, deployment);
        }
        assert!(!autoscaler.is_rolling_out(&group).await);

        // Two go, one right after the other: those two and no others.
        let mut gone = Vec::new();
        for node in &workers[1..3] {
            let group = autoscaler.group(&deployment).await;
            gone.push(autoscaler.remove(node, &group).await);
        }
        cluster.available(host, 2).await;
        let left: Vec<String> = kube.list(MACHINE, ns).await.iter().map(name).collect();
        assert!(
            left.iter().all(|machine| !gone.contains(machine)),
            "{gone:?} were chosen, {left:?} are left"
        );
        let survivors = autoscaler.members(&group).await;
        for node in [workers[0], workers[3]] {
            assert!(survivors.contains(&last(node)), "{survivors:?}");
        }

        // To nothing and back: how large a machine would be, the template says, and the annotations where they know better.
        for size in [0, 1] {
            let group = autoscaler.group(&deployment).await;
            assert_eq!(
                group.object["metadata"]["annotations"][format!("{CAPACITY}/memory")],
                "4Gi"
            );
            let template = &group.object["spec"]["template"]["spec"]["infrastructureRef"];
            let plural = format!("{}s", template["kind"].as_str().unwrap().to_lowercase());
            assert_eq!(plural, LOCAL_MACHINE_TEMPLATE.plural);
            let template = template["name"].as_str().unwrap();
            let status = eventually(
                "the template says what machines have",
                PATIENCE,
                async || {
                    let found = kube.get(LOCAL_MACHINE_TEMPLATE, ns, template).await;
                    let status = found.ok_or("no template")?["status"].clone();
                    let says = status["capacity"].is_object();
                    says.then_some(status.clone()).ok_or(status.to_string())
                },
            )
            .await;
            let capacity = json!({"cpu": "2", "memory": "4096Mi", "pods": "110"});
            assert_eq!(status["capacity"], capacity);
            assert_eq!(status["nodeInfo"]["operatingSystem"], "linux");
            assert!(status["nodeInfo"]["architecture"].is_string(), "{status}");
            autoscaler.set_size(&group, size).await;
            cluster.available(host, u32::try_from(size).unwrap()).await;
        }
        cluster.delete(host).await;
    });
}

#[test]
fn replicas_that_are_left_out_become_the_minimum_of_the_autoscaler_and_stay_what_it_says() {
    run(async {
        let host = TestHost::shared().await;
        let (kube, ns) = (host.kube(), "autoscaler-defaults");
        capstan_tests::cluster::namespace(kube, ns).await;
        let object = |kind: &str, name: &str, annotations: Value| {
            let mut object = json!({
                "apiVersion": MACHINE_DEPLOYMENT.api_version, "kind": kind,
                "metadata": {"namespace": ns, "name": name, "annotations": annotations},
                "spec": {
                    "clusterName": "none", "selector": {},
                    "template": {"spec": {
                        "clusterName": "none",
                        "bootstrap": {"dataSecretName": "none"},
                        "infrastructureRef": {"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "LocalMachineTemplate", "name": "none"},
                    }},
                },
            });
            if kind == "MachinePool" {
                object["spec"].as_object_mut().unwrap().remove("selector");
            }
            object
        };
        let sized = json!({MIN: "3", MAX: "5"});
        for (kind, plural) in [
            ("MachineDeployment", MACHINE_DEPLOYMENT),
            ("MachineSet", MACHINE_SET),
            ("MachinePool", MACHINE_POOL),
        ] {
            let apply = async |name: &str, annotations: Value| {
                let made = kube.apply(plural, &object(kind, name, annotations)).await;
                made["spec"]["replicas"].clone()
            };
            assert_eq!(apply("sized", sized.clone()).await, 3);
            assert_eq!(apply("half", json!({MIN: "3"})).await, 1);
            assert_eq!(apply("unsized", json!({})).await, 1);
            // What the autoscaler set stays when the object is applied again without replicas.
            kube.scale(plural, ns, "sized", 4).await;
            assert_eq!(apply("sized", sized.clone()).await, 4);
            let refused = kube
                .try_apply(
                    plural,
                    &object(kind, "words", json!({MIN: "few", MAX: "5"})),
                )
                .await;
            assert!(refused.unwrap_err().message.contains(MIN));
            for name in ["sized", "half", "unsized"] {
                kube.delete(plural, ns, name).await;
            }
        }
    });
}
