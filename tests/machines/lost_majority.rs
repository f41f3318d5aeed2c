//! Of three real control-plane machines two are lost for good: the third goes on alone, word for word as `host/docs/etcd.md` says, and gets two others.

use std::time::Duration;

use capstan_tests::control_plane::{self, object};
use capstan_tests::eventually;
use capstan_tests::kube_client::{MACHINE, condition, conditions, name};
use capstan_tests::page::{commands, document, section};

use crate::lab::{Lab, NEW};
use crate::ledger::Ledger;
use crate::restore::{note, pause};
use crate::several::patient_etcd;

/// Three machines join one after the other, and others may compile meanwhile.
const PATIENCE: Duration = Duration::from_secs(1200);

/// All of it, with what each part costs.
pub async fn play(lab: &Lab) {
    let mut cluster = lab.cluster("lost", 0, NEW);
    cluster.control_planes = 3;
    cluster.cluster_configuration = patient_etcd();
    let (host, kube) = (&lab.host, lab.host.kube());
    let mut ledger = Ledger::open(host);
    cluster.create(kube).await;
    let settled = async || {
        eventually("three machines with their members", PATIENCE, async || {
            control_plane::is_settled(host, &cluster, 3).await?;
            cluster.nodes_match(kube).await
        })
        .await;
    };
    settled().await;
    let kubectl = lab.kubectl(&cluster).await;
    note(&kubectl, "before").await;
    ledger.enter("a control plane of 3 is made");

    let machines = lab.machines(&cluster, true).await;
    let [left, lost @ ..] = &machines[..] else {
        panic!("{machines:?}")
    };
    assert_eq!(lost.len(), 2);
    for machine in lost {
        lab.act(machine, "kill").await.unwrap();
    }
    eventually("the lost majority is said", PATIENCE, async || {
        let plane = object(host, &cluster).await;
        let said = condition(&plane, "EtcdClusterHealthy");
        let is_said = said
            .message
            .contains("host/docs/etcd.md, \"A lost majority\"");
        is_said.then_some(()).ok_or_else(|| conditions(&plane))
    })
    .await;
    ledger.enter("2 of 3 are killed, and it is said");

    pause(lab, &cluster, true).await;
    let page = document("host/docs/etcd.md");
    let [open, close] = &commands(&section(&page, "On a machine"))[..] else {
        panic!("two blocks")
    };
    let steps = commands(&section(&page, "A lost majority"));
    let [compare, _, _, alone, without] = &steps[..] else {
        panic!("{steps:?}")
    };
    let id = lab.id(&name(left)).await;
    let script = format!("{open}{compare}{alone}{without}{close}");
    let said = lab.steps(&id, &script).await;
    assert!(
        said.contains("RAFT INDEX") && said.contains("is healthy"),
        "{said}"
    );
    let manifest = "cat /etc/kubernetes/manifests/etcd.yaml";
    assert!(
        !lab.script(&id, manifest)
            .await
            .contains("force-new-cluster")
    );
    eventually("the API server answers", PATIENCE, async || {
        kubectl.run(&["get", "configmap", "before"]).await
    })
    .await;
    note(&kubectl, "after").await;
    ledger.enter("the third goes on alone");

    for machine in lost {
        kube.delete(MACHINE, &cluster.namespace, &name(machine))
            .await;
    }
    pause(lab, &cluster, false).await;
    eventually("the lost machines are gone", PATIENCE, async || {
        let now = lab.machines(&cluster, true).await;
        let old = now
            .iter()
            .find(|m| lost.iter().any(|lost| name(lost) == name(m)));
        old.map_or(Ok(()), |old| Err(conditions(old)))
    })
    .await;
    settled().await;
    for key in ["before", "after"] {
        kubectl.run(&["get", "configmap", key]).await.unwrap();
    }
    ledger.enter("two others have joined");
    cluster.delete(host).await;
    lab.nothing_is_left().await;
    ledger.enter("it is deleted");
    ledger.print();
}
