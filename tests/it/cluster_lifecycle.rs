//! A cluster of one control-plane machine and two workers: becomes Available, scales, and goes without a trace.

use capstan_tests::cluster::TestCluster;
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{
    CLUSTER, CONTROL_PLANE, MACHINE, MACHINE_DEPLOYMENT, SECRET, condition, conditions, name,
};
use capstan_tests::{PATIENCE, eventually, run};
use serde_json::json;

#[test]
fn a_cluster_becomes_available_and_its_kubeconfig_shows_the_nodes_of_its_machines() {
    run(async {
        let host = TestHost::shared().await;
        let cluster = TestCluster::new("becomes-available", "one", 2);
        cluster.create(host.kube()).await;
        cluster.available(host, 2).await;
        eventually("nodes like machines", PATIENCE, async || {
            cluster.nodes_match(host.kube()).await
        })
        .await;
        let plane = host.kube().list(CONTROL_PLANE, &cluster.namespace).await;
        assert_eq!(condition(&plane[0], "Available").status, "True");
        assert_eq!(
            plane[0]["status"]["initialization"]["controlPlaneInitialized"],
            true
        );
        cluster.delete(host).await;
    });
}

#[test]
fn a_deployment_scales_up_and_down() {
    run(async {
        let host = TestHost::shared().await;
        let cluster = TestCluster::new("scales", "scaled", 1);
        cluster.create(host.kube()).await;
        cluster.available(host, 1).await;
        let scale = async |replicas| {
            let name = cluster.deployment();
            host.kube()
                .scale(MACHINE_DEPLOYMENT, &cluster.namespace, &name, replicas)
                .await;
            cluster.available(host, replicas).await;
            eventually("nodes like machines", PATIENCE, async || {
                let count = usize::try_from(replicas).unwrap() + 1;
                let instances = host
                    .cloud
                    .of_cluster("instances", &cluster.namespace, &cluster.name)
                    .await;
                if instances.len() != count {
                    return Err(format!("{} instances, not {count}", instances.len()));
                }
                cluster.nodes_match(host.kube()).await
            })
            .await;
        };
        scale(5).await;
        scale(1).await;
        cluster.delete(host).await;
    });
}

#[test]
fn a_paused_cluster_is_left_alone_until_it_goes_on() {
    run(async {
        let host = TestHost::shared().await;
        let cluster = TestCluster::new("paused", "paused", 1);
        cluster.create(host.kube()).await;
        cluster.available(host, 1).await;
        let pause = async |paused: bool| {
            let patch = json!({"spec": {"paused": paused}});
            host.kube()
                .merge(CLUSTER, &cluster.namespace, &cluster.name, &patch)
                .await;
            let wanted = if paused { "True" } else { "False" };
            eventually("pause is reported by all", PATIENCE, async || {
                for kind in [CLUSTER, MACHINE, MACHINE_DEPLOYMENT, CONTROL_PLANE] {
                    for object in host.kube().list(kind, &cluster.namespace).await {
                        if condition(&object, "Paused").status != wanted {
                            return Err(format!("{} {}", name(&object), conditions(&object)));
                        }
                    }
                }
                Ok(())
            })
            .await;
        };
        pause(true).await;
        let deployment = cluster.deployment();
        let kube = host.kube();
        kube.scale(MACHINE_DEPLOYMENT, &cluster.namespace, &deployment, 2)
            .await;
        let machine = name(&kube.list(MACHINE, &cluster.namespace).await[0]);
        let before = kube.list(MACHINE, &cluster.namespace).await.len();
        // Whatever else the host has queued is done when another cluster is.
        let other = TestCluster::new("not-paused", "other", 1);
        other.create(kube).await;
        other.available(host, 1).await;
        other.delete(host).await;
        assert_eq!(kube.list(MACHINE, &cluster.namespace).await.len(), before);
        assert!(
            kube.get(MACHINE, &cluster.namespace, &machine)
                .await
                .is_some()
        );
        pause(false).await;
        cluster.available(host, 2).await;
        cluster.delete(host).await;
    });
}

#[test]
fn a_deleted_machine_is_replaced() {
    run(async {
        let host = TestHost::shared().await;
        let cluster = TestCluster::new("replaced", "replaced", 2);
        cluster.create(host.kube()).await;
        cluster.available(host, 2).await;
        let victim = name(&cluster.workers(host.kube()).await[0]);
        host.kube()
            .delete(MACHINE, &cluster.namespace, &victim)
            .await;
        eventually("the machine is gone", PATIENCE, async || {
            let left = host.kube().get(MACHINE, &cluster.namespace, &victim).await;
            left.map_or(Ok(()), |machine| Err(conditions(&machine)))
        })
        .await;
        cluster.available(host, 2).await;
        cluster.delete(host).await;
    });
}

#[test]
fn a_cluster_without_a_control_plane_object_gets_its_kubeconfig_from_its_authority() {
    run(async {
        let host = TestHost::shared().await;
        let (kube, ns) = (host.kube(), "no-control-plane");
        let cluster = TestCluster::new(ns, "alone", 0);
        cluster.create_alone(kube).await;
        eventually("it says which Secret is missing", PATIENCE, async || {
            let found = kube.get(CLUSTER, ns, "alone").await.ok_or("gone")?;
            let probe = condition(&found, "RemoteConnectionProbe").message;
            probe
                .contains("create Secret alone-ca with tls.crt and tls.key")
                .then_some(())
                .ok_or(conditions(&found))
        })
        .await;
        cluster.bring_authority(kube).await;
        let made = eventually("the kubeconfig is made", PATIENCE, async || {
            let found = kube.get(SECRET, ns, "alone-kubeconfig").await;
            found.ok_or("not yet".to_owned())
        })
        .await;
        let found = kube.get(CLUSTER, ns, "alone").await.unwrap();
        let owner = &made["metadata"]["ownerReferences"][0];
        assert_eq!(owner["uid"], found["metadata"]["uid"]);
        assert_eq!(owner["controller"], true);
        let text = cluster.kubeconfig(kube).await;
        let endpoint = &found["spec"]["controlPlaneEndpoint"];
        let server = format!(
            "https://{}:{}",
            endpoint["host"].as_str().unwrap(),
            endpoint["port"]
        );
        assert!(text.contains(&server), "{server} is not in {text}");
        assert!(text.contains("alone-admin@alone"), "{text}");
        kube.delete(SECRET, ns, "alone-ca").await;
        cluster.delete(host).await;
    });
}
