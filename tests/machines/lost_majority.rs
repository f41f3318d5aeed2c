//! Of three real control-plane machines two are lost for good: the third goes on alone, word for word as `host/docs/etcd.md` says, and gets two others.

use std::time::Duration;

use capstan_tests::control_plane::{self, object};
use capstan_tests::eventually;
use capstan_tests::kube_client::{MACHINE, condition, conditions, name};
use capstan_tests::page::{commands, document, section};
use serde_json::Value;

use crate::lab::{Lab, NEW};
use crate::ledger::Ledger;
use crate::restore::{note, pause};
use crate::several::patient_etcd;

/// Three machines join one after the other, and others may compile meanwhile.
const PATIENCE: Duration = Duration::from_secs(1200);

fn names(machines: &[Value]) -> Vec<String> {
    machines.iter().map(name).collect()
}

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
    eventually("the member to go on with is named", PATIENCE, async || {
        let plane = object(host, &cluster).await;
        let said = condition(&plane, "EtcdClusterHealthy");
        let parts = [
            "2 of 3 members are gone".to_owned(),
            format!("go on with {},", name(left)),
            "host/docs/etcd.md, \"A lost majority\"".to_owned(),
        ];
        let is_said = parts.iter().all(|part| said.message.contains(part));
        is_said.then_some(()).ok_or_else(|| conditions(&plane))
    })
    .await;
    let now = lab.machines(&cluster, true).await;
    assert_eq!(names(&now), names(&machines));
    for machine in &now {
        let deleted = &machine["metadata"]["deletionTimestamp"];
        assert!(deleted.is_null(), "{machine}");
    }
    ledger.enter("2 of 3 are killed, and the third is named");

    pause(lab, &cluster, true).await;
    let page = document("host/docs/etcd.md");
    let [open, close] = &commands(&section(&page, "On a machine"))[..] else {
        panic!("two blocks")
    };
    let steps = commands(&section(&page, "A lost majority"));
    // There is nobody else on whose machine the third block would be for.
    let [compare, stopped, _, alone, without] = &steps[..] else {
        panic!("{steps:?}")
    };
    let id = lab.id(&name(left)).await;
    let script = format!("{open}{compare}{stopped}{alone}{without}{close}");
    let said = lab.steps(&id, &script).await;
    for part in ["RAFT INDEX", "REVISION", "is healthy", "PEER ADDRS"] {
        assert!(said.contains(part), "{said}");
    }
    let (_, members) = said.rsplit_once("PEER ADDRS").unwrap();
    assert!(members.contains(&name(left)), "{said}");
    for machine in lost {
        assert!(!members.contains(&name(machine)), "{said}");
    }
    let manifest = "cat /etc/kubernetes/manifests/etcd.yaml";
    let manifest = lab.script(&id, manifest).await;
    assert!(
        manifest.contains("- etcd\n") && !manifest.contains("force-new-cluster"),
        "{manifest}"
    );
    let kept = "tar -tzf /etc/kubernetes/stopped/etcd-before.tar.gz";
    let kept = lab.script(&id, kept).await;
    assert!(kept.contains("member/snap/db"), "{kept}");
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
    let now = lab.machines(&cluster, true).await;
    assert!(names(&now).contains(&name(left)), "{now:?}");
    for key in ["before", "after"] {
        kubectl.run(&["get", "configmap", key]).await.unwrap();
    }
    ledger.enter("two others have joined");
    cluster.delete(host).await;
    lab.nothing_is_left().await;
    ledger.enter("it is deleted");
    ledger.print();
}
