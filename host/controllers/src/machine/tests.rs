//! Machines of several clusters, one of whose API servers hangs. Time is virtual.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::*;
use crate::ctx::SystemClock;
use crate::kube_api::KubeApi;
use crate::kube_api::staged::{Act, Staged};
use crate::store::Change;
use crate::tasks::Tasks;
use crate::workloads::nodes::{NODE_WRITES_AT_ONCE, VOLUME_CHECKS_AT_ONCE};
use crate::workloads::{Connect, ConnectError};
use capstan_core::material::{KUBECONFIG, secret_key, secret_object};

/// Leads to a server for each Cluster, whose kubeconfig is its name.
struct Servers(BTreeMap<&'static str, Arc<Staged>>);

impl Connect for Servers {
    fn connect<'a>(
        &'a self,
        kubeconfig: &'a str,
    ) -> BoxFuture<'a, Result<Arc<dyn KubeApi>, ConnectError>> {
        let server = self.0.get(kubeconfig).cloned();
        async move {
            let server = server.ok_or(ConnectError::Unreadable)?;
            Ok(server as Arc<dyn KubeApi>)
        }
        .boxed()
    }
}

fn observed(cluster: &str) -> Observed {
    let machine = json!({
        "metadata": {"name": "m", "namespace": "ns", "uid": "m"},
        "spec": {
            "clusterName": cluster, "bootstrap": {"dataSecretName": "s"},
            "infrastructureRef": {"apiGroup": "g.io", "kind": "Thing", "name": "m"},
        },
    });
    Observed {
        machine: serde_json::from_value(machine).unwrap(),
        chosen: Default::default(),
        cluster: Lookup::Missing,
        infra: Lookup::Missing,
        infra_is_own: false,
        bootstrap: None,
        connection: Connection {
            connected: true,
            last_success: None,
            since: None,
        },
        node: NodeLookup::NotLooked,
        outdated: None,
        outdated_revision: false,
        deletion: Facts::default(),
    }
}

fn patch_node() -> Step {
    Step::PatchNode {
        name: "n".to_owned(),
        resource_version: "1".to_owned(),
        patch: json!({}),
    }
}

fn delete_node() -> Step {
    Step::DeleteNode {
        name: "n".to_owned(),
    }
}

fn check_volumes() -> Step {
    Step::CheckVolumes {
        node: "n".to_owned(),
    }
}

/// A host with a connection to each of two Clusters, `hangs` and `well`, which have a Node; and their servers.
pub(crate) async fn two_clusters() -> (Ctx, BTreeMap<&'static str, Arc<Staged>>) {
    let api = Staged::new();
    let servers = ["hangs", "well"].map(|name| (name, Staged::new()));
    for (name, server) in &servers {
        let key = secret_key(&ObjectKey::new("ns", *name), KUBECONFIG);
        let secret = secret_object(&key, name, None, &[("value", name.as_bytes())]);
        api.hold(&kinds::SECRET, secret);
        let node =
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "uid": "n"}});
        server.hold(&kinds::NODE, node);
    }
    let servers = BTreeMap::from(servers);
    let ctx = Ctx::new(
        api,
        Arc::new(Servers(servers.clone())),
        Arc::new(SystemClock),
        Tasks::default(),
        "ns",
    );
    for name in ["hangs", "well"] {
        ctx.workloads.keep(&ObjectKey::new("ns", name));
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    (ctx, servers)
}

#[tokio::test(start_paused = true)]
async fn a_workload_cluster_that_hangs_holds_few_workers_and_none_of_another() {
    let (ctx, servers) = two_clusters().await;
    let hanging = &servers["hangs"];
    // From now on it answers that it is alive, and nothing else.
    hanging.act("patch", Act::Hang);
    hanging.act("delete", Act::Hang);
    hanging.act("list", Act::Hang);

    let controller = MachineController::default();
    let (hung, well) = (observed("hangs"), observed("well"));
    let steps = [patch_node(), delete_node(), check_volumes()];
    let mut held = Vec::new();
    for step in steps.iter().cycle().take(WORKERS) {
        let mut worker = controller.perform(&ctx, &hung, step).boxed();
        match (&mut worker).now_or_never() {
            None => held.push((step, worker)),
            Some(done) => assert_eq!(done, Ok(Effect::NotItsTurn)),
        }
    }
    let looks = held.iter().filter(|(step, _)| **step == check_volumes());
    assert_eq!(looks.count(), VOLUME_CHECKS_AT_ONCE);
    assert_eq!(held.len(), NODE_WRITES_AT_ONCE + VOLUME_CHECKS_AT_ONCE);
    for step in &steps {
        let done = controller.perform(&ctx, &well, step).await;
        let expected = match step {
            Step::CheckVolumes { .. } => Effect::Volumes(Vec::new()),
            _ => Effect::Done,
        };
        assert_eq!(done, Ok(expected));
    }
    // Who gives up makes room.
    for step in [patch_node(), check_volumes()] {
        let at = held.iter().position(|(of, _)| **of == step).unwrap();
        drop(held.remove(at));
        let next = controller.perform(&ctx, &hung, &step);
        assert!(next.now_or_never().is_none(), "it is its turn");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_changed_wakes_its_machine_and_no_other() {
    let (ctx, _) = two_clusters().await;
    let machines = ctx.store(&kinds::MACHINE);
    for (at, cluster) in ["well", "well", "hangs"].into_iter().enumerate() {
        let machine = json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
            "metadata": {"name": format!("m-{at}"), "namespace": "ns", "resourceVersion": "1"},
            "spec": {"clusterName": cluster, "providerID": format!("p://{at}")},
            "status": {"nodeRef": {"name": "n"}},
        });
        machines.apply(Object::new(machine).unwrap());
    }
    let woken = |node: Value| {
        let node = Object::new(node).unwrap();
        let node = Arc::new(node.in_workload(&ObjectKey::new("ns", "well")));
        let change = Change {
            old: None,
            new: Some(node),
        };
        let woken = wake::of_workload(&ctx, &change).into_iter();
        woken.map(|it| it.key.name).collect::<Vec<_>>()
    };
    let node = |name: &str| json!({"kind": "Node", "metadata": {"name": name}});
    assert_eq!(woken(node("n")), ["m-0", "m-1"]);
    let mut fresh = node("fresh");
    fresh["spec"]["providerID"] = json!("p://1");
    assert_eq!(woken(fresh), ["m-1"]);
    assert!(woken(node("other")).is_empty());
}
