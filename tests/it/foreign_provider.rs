//! Infrastructure of a provider that is no plugin beside a bootstrap and a control plane that are: on one Cluster, over the contract.

use std::path::Path;

use capstan_tests::cluster::TestCluster;
use capstan_tests::foreign::{
    self, CLUSTERS, FINALIZER, ForeignProvider, MACHINE_TEMPLATES, MACHINES,
};
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{CLUSTER, MACHINE, MACHINE_DEPLOYMENT, condition, name};
use capstan_tests::{PATIENCE, eventually, run};
use serde_json::{Value, json};

#[test]
fn a_foreign_provider_works_with_plugins_on_the_same_cluster() {
    run(async {
        let host = TestHost::shared().await;
        let program = Path::new(env!("CARGO_BIN_EXE_foreign-provider"));
        let provider = ForeignProvider::start(program, host).await;
        let (kube, ns) = (host.kube(), "foreign");
        let cluster = TestCluster::new(ns, "mixed", 2);
        foreign::create(&cluster, host).await;
        let available = async |workers: u32| {
            eventually("the mixed cluster is available", PATIENCE, async || {
                provider.check()?;
                cluster.is_available(kube, workers).await?;
                cluster.nodes_match(kube).await
            })
            .await;
        };
        available(2).await;

        // What the provider says has arrived, by way of the contract's fields.
        let found = kube.get(CLUSTER, ns, "mixed").await.unwrap();
        let infra = kube.get(CLUSTERS, ns, "mixed").await.unwrap();
        let endpoint = &infra["spec"]["controlPlaneEndpoint"];
        assert_eq!(&found["spec"]["controlPlaneEndpoint"], endpoint);
        let domains = &infra["status"]["failureDomains"];
        assert_eq!(&found["status"]["failureDomains"], domains);
        assert_eq!(condition(&found, "InfrastructureReady").status, "True");
        for machine in kube.list(MACHINE, ns).await {
            let infra = kube.get(MACHINES, ns, &name(&machine)).await.unwrap();
            let owner = &infra["metadata"]["ownerReferences"][0];
            assert_eq!(owner["uid"], machine["metadata"]["uid"], "{infra}");
            // It is nobody else's: no finalizer and no condition but the provider's own.
            assert_eq!(infra["metadata"]["finalizers"], json!([FINALIZER]));
            assert_eq!(infra["status"]["conditions"].as_array().unwrap().len(), 1);
            let id = &infra["spec"]["providerID"];
            assert_eq!(&machine["spec"]["providerID"], id);
            for field in ["addresses", "failureDomain"] {
                assert_eq!(machine["status"][field], infra["status"][field]);
            }
            assert_eq!(condition(&machine, "InfrastructureReady").status, "True");
        }

        // A paused Cluster is left alone by both; then it grows.
        let pause = async |paused: bool| {
            let patch = json!({"spec": {"paused": paused}});
            kube.merge(CLUSTER, ns, "mixed", &patch).await;
        };
        pause(true).await;
        let deployment = cluster.deployment();
        let is_paused = async || {
            let found = kube.get(MACHINE_DEPLOYMENT, ns, &deployment).await;
            let found = found.ok_or("gone")?;
            let all = found["status"]["conditions"].as_array();
            let paused = all.into_iter().flatten().find(|c| c["type"] == "Paused");
            let paused = paused.ok_or("it says nothing")?;
            let is_seen = paused["observedGeneration"] == found["metadata"]["generation"];
            (is_seen && paused["status"] == "True")
                .then_some(())
                .ok_or(paused.to_string())
        };
        eventually("the deployment is paused", PATIENCE, is_paused).await;
        kube.scale(MACHINE_DEPLOYMENT, ns, &deployment, 3).await;
        eventually("it has seen the scaling", PATIENCE, is_paused).await;
        assert_eq!(kube.list(MACHINES, ns).await.len(), 3);
        pause(false).await;
        available(3).await;

        // The provider goes over to another version in place: no machine is lost for that, and the next ones are made in it.
        let before = kube.list(MACHINES, ns).await;
        foreign::upgrade(host).await;
        for replicas in [4, 5] {
            kube.scale(MACHINE_DEPLOYMENT, ns, &deployment, replicas)
                .await;
            available(replicas).await;
        }
        let after = kube.list(MACHINES, ns).await;
        let uid = |machine: &Value| machine["metadata"]["uid"].clone();
        for machine in &before {
            let is_same = |other: &Value| uid(other) == uid(machine);
            assert!(after.iter().any(is_same), "{} is gone", name(machine));
        }
        let next = format!("{}/{}", foreign::GROUP, foreign::NEXT);
        let is_made_in_next = |machine: &&Value| {
            let fields = machine["metadata"]["managedFields"].as_array();
            let mut fields = fields.into_iter().flatten();
            fields.any(|field| field["apiVersion"] == *next)
        };
        let is_new = |machine: &&Value| !before.iter().any(|old| uid(old) == uid(machine));
        let mut new = after.iter().filter(is_new);
        assert!(new.any(|machine| is_made_in_next(&machine)), "{after:?}");

        cluster.delete(host).await;
        for kind in [CLUSTERS, MACHINES, MACHINE_TEMPLATES] {
            eventually(
                "nothing of the provider is left",
                PATIENCE,
                async || match kube.list(kind, ns).await.first() {
                    Some(left) => Err(name(left)),
                    None => Ok(()),
                },
            )
            .await;
        }
        provider.check().unwrap();
    });
}
