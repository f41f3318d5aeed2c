//! kubectl, unmodified: columns, categories, scale, wait, explain, dry runs.

use std::path::PathBuf;

use capstan_tests::cluster::{TestCluster, VERSION_NEXT};
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{
    CLUSTER, CLUSTER_RESOURCE_SET, CLUSTER_RESOURCE_SET_BINDING, CONFIG_MAP, IP_ADDRESS,
    IP_ADDRESS_CLAIM, Kind, MACHINE_DEPLOYMENT, MACHINE_DRAIN_RULE, MACHINE_HEALTH_CHECK, PROVIDER,
    name,
};
use capstan_tests::kubectl::Kubectl;
use capstan_tests::{PATIENCE, eventually, run};
use serde_json::{Value, json};

async fn kubectl(host: &TestHost) -> Kubectl {
    let kubeconfig: PathBuf = host.plane.admin_kubeconfig();
    Kubectl::found(&kubeconfig).await
}

/// Column headings of a table.
fn headings(table: &str) -> Vec<String> {
    let first = table.lines().next().unwrap_or_default();
    let mut headings: Vec<String> = Vec::new();
    for part in first
        .split("  ")
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        headings.push(part.to_owned());
    }
    headings
}

/// Objects of the other kinds, and a label by which the set selects the Cluster.
fn beside(ns: &str) -> Vec<(Kind, Value)> {
    let object = |kind: Kind, name: &str, spec: Value| {
        let of = json!({
            "apiVersion": kind.api_version, "kind": name,
            "metadata": {"namespace": ns, "name": "beside"}, "spec": spec,
        });
        (kind, of)
    };
    let pool = json!({"apiGroup": "ipam.example.com", "kind": "Pool", "name": "p"});
    let entry = json!({
        "apiVersion": PROVIDER.api_version, "kind": "Provider", "metadata": {"namespace": ns, "name": "addon-beside"},
        "providerName": "beside", "type": "AddonProvider", "version": "v1.0.0",
    });
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": ns, "name": "beside"},
        "data": {"a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: beside, namespace: default}\n"},
    });
    vec![
        (PROVIDER, entry),
        (CONFIG_MAP, map),
        object(
            MACHINE_HEALTH_CHECK,
            "MachineHealthCheck",
            json!({"clusterName": "seen", "selector": {"matchLabels": {"nobody": "has"}}}),
        ),
        object(
            MACHINE_DRAIN_RULE,
            "MachineDrainRule",
            json!({"drain": {"behavior": "Drain", "order": 7}, "pods": [{"selector": {"matchLabels": {"nobody": "has"}}}]}),
        ),
        object(
            CLUSTER_RESOURCE_SET,
            "ClusterResourceSet",
            json!({
                "clusterSelector": {"matchLabels": {"beside": "yes"}},
                "resources": [{"kind": "ConfigMap", "name": "beside"}],
            }),
        ),
        object(IP_ADDRESS_CLAIM, "IPAddressClaim", json!({"poolRef": pool})),
        object(
            IP_ADDRESS,
            "IPAddress",
            json!({"claimRef": {"name": "beside"}, "poolRef": pool, "address": "10.0.0.5", "prefix": 24}),
        ),
    ]
}

#[test]
fn kubectl_shows_scales_and_waits_for_what_cluster_api_has() {
    run(async {
        let host = TestHost::shared().await;
        let (kube, ns) = (host.kube(), "kubectl");
        let cluster = TestCluster::new(ns, "seen", 1);
        cluster.create(kube).await;
        let label = json!({"metadata": {"labels": {"beside": "yes"}}});
        kube.merge(CLUSTER, ns, "seen", &label).await;
        let kubectl = kubectl(host).await;
        let run = async |words: &[&str]| {
            let words: Vec<&str> = [&["-n", ns], words].concat();
            kubectl.run(&words).await
        };
        // kubectl's own limit for a request ends a wait that takes longer.
        eventually("kubectl has waited", PATIENCE, async || {
            let words = [
                "wait",
                "--for=condition=Available",
                "cluster/seen",
                "--timeout=15s",
            ];
            run(&words).await
        })
        .await;
        let columns: [(&str, &[&str]); 13] = [
            (
                "cl",
                &[
                    "NAME",
                    "CLUSTERCLASS",
                    "AVAILABLE",
                    "CP DESIRED",
                    "CP AVAILABLE",
                    "CP UP-TO-DATE",
                    "W DESIRED",
                    "W AVAILABLE",
                    "W UP-TO-DATE",
                    "PHASE",
                    "AGE",
                    "VERSION",
                ],
            ),
            (
                "ma",
                &[
                    "NAME",
                    "CLUSTER",
                    "NODE NAME",
                    "FAILURE DOMAIN",
                    "READY",
                    "AVAILABLE",
                    "UP-TO-DATE",
                    "PHASE",
                    "AGE",
                    "VERSION",
                ],
            ),
            (
                "ms",
                &[
                    "NAME",
                    "CLUSTER",
                    "DESIRED",
                    "CURRENT",
                    "READY",
                    "AVAILABLE",
                    "UP-TO-DATE",
                    "AGE",
                    "VERSION",
                ],
            ),
            (
                "md",
                &[
                    "NAME",
                    "CLUSTER",
                    "AVAILABLE",
                    "DESIRED",
                    "CURRENT",
                    "READY",
                    "AVAILABLE",
                    "UP-TO-DATE",
                    "PHASE",
                    "AGE",
                    "VERSION",
                ],
            ),
            (
                "kcp",
                &[
                    "NAME",
                    "CLUSTER",
                    "AVAILABLE",
                    "DESIRED",
                    "CURRENT",
                    "READY",
                    "AVAILABLE",
                    "UP-TO-DATE",
                    "INITIALIZED",
                    "AGE",
                    "VERSION",
                ],
            ),
            (
                "kubeadmconfigs",
                &["NAME", "CLUSTER", "DATA SECRET CREATED", "AGE"],
            ),
            ("mhc", &["NAME", "CLUSTER", "REPLICAS", "HEALTHY", "AGE"]),
            ("machinedrainrules", &["NAME", "BEHAVIOR", "ORDER", "AGE"]),
            ("clusterresourcesets", &["NAME", "APPLIED", "AGE"]),
            ("clusterresourcesetbindings", &["NAME", "CLUSTER", "AGE"]),
            (
                "ipaddressclaims",
                &["NAME", "POOL NAME", "POOL KIND", "AGE"],
            ),
            (
                "ipaddresses.ipam.cluster.x-k8s.io",
                &["NAME", "ADDRESS", "POOL NAME", "POOL KIND", "AGE"],
            ),
            (
                "providers.clusterctl.cluster.x-k8s.io",
                &["NAME", "AGE", "TYPE", "PROVIDER", "VERSION"],
            ),
        ];
        for (kind, object) in beside(ns) {
            kube.apply(kind, &object).await;
        }
        eventually("the set is bound", PATIENCE, async || {
            let bound = kube.get(CLUSTER_RESOURCE_SET_BINDING, ns, "seen").await;
            bound.map(drop).ok_or("not yet".to_owned())
        })
        .await;
        for (kind, wanted) in columns {
            let table = run(&["get", kind]).await.unwrap();
            // Columns without a value in any row are as wide as their heading, with three spaces behind.
            let found: Vec<String> = headings(&table);
            let wanted: Vec<String> = wanted.iter().map(|&heading| heading.to_owned()).collect();
            assert_eq!(found, wanted, "{kind}:\n{table}");
        }
        let wide = run(&["get", "ma", "-o", "wide"]).await.unwrap();
        for heading in ["PROVIDER ID", "INTERNAL-IP", "OS-IMAGE", "PAUSED"] {
            assert!(wide.contains(heading), "{wide}");
        }
        let category = run(&["get", "cluster-api", "-o", "name"]).await.unwrap();
        for kind in [
            "cluster.cluster.x-k8s.io/seen",
            "machinedeployment.cluster.x-k8s.io/",
            "kubeadmcontrolplane.controlplane.cluster.x-k8s.io/",
            "localmachine.infrastructure.cluster.x-k8s.io/",
        ] {
            assert!(category.contains(kind), "{kind} is not in\n{category}");
        }

        let deployment = format!("md/{}", cluster.deployment());
        run(&["scale", &deployment, "--replicas=2"]).await.unwrap();
        eventually("kubectl has waited", PATIENCE, async || {
            let available = "--for=jsonpath={.status.availableReplicas}=2";
            run(&["wait", available, &deployment, "--timeout=15s"]).await
        })
        .await;
        let refused = run(&["scale", &deployment, "--replicas=-1"])
            .await
            .unwrap_err();
        assert!(refused.contains("replicas"), "{refused}");
        let told = run(&["describe", "cluster", "seen"]).await.unwrap();
        assert!(told.contains("ControlPlaneInitialized"), "{told}");
        run(&["delete", "cluster", "seen", "--wait=false"])
            .await
            .unwrap();
        cluster.delete(host).await;
    });
}

#[test]
fn kubectl_explains_every_field_and_dry_runs_change_nothing() {
    run(async {
        let host = TestHost::shared().await;
        let (kube, ns) = (host.kube(), "dry-run");
        let kubectl = kubectl(host).await;
        for (field, words) in [
            ("cluster.spec.paused", "paused"),
            ("machine.spec.deletion.nodeDrainTimeoutSeconds", "drain"),
            (
                "machinedeployment.spec.rollout.strategy.rollingUpdate.maxSurge",
                "FIELD",
            ),
            (
                "machinehealthcheck.spec.checks.nodeStartupTimeoutSeconds",
                "Node",
            ),
            (
                "kubeadmcontrolplane.spec.rollout.before.certificatesExpiryDays",
                "FIELD",
            ),
            ("clusterresourceset.spec.strategy", "ApplyOnce"),
        ] {
            let text = kubectl.run(&["explain", field]).await.unwrap();
            assert!(
                text.contains("DESCRIPTION") && text.contains(words),
                "{field}: {text}"
            );
            assert!(!text.contains("<empty>"), "{field}: {text}");
        }
        let cluster = TestCluster::new(ns, "tried", 1);
        capstan_tests::cluster::namespace(kube, ns).await;
        let dry = ["apply", "--server-side", "--dry-run=server", "-f", "-"];
        for (_, object) in cluster.objects() {
            let said = kubectl.with_input(&dry, &object.to_string()).await.unwrap();
            assert!(
                said.contains("serverside-applied (server dry run)"),
                "{said}"
            );
        }
        for (kind, _) in cluster.objects() {
            assert!(kube.list(kind, ns).await.is_empty(), "{}", kind.plural);
        }
        let (_, mut deployment) = cluster.objects().remove(4);
        deployment["spec"]["template"]["spec"]["version"] = json!("not-a-version");
        let refused = kubectl.with_input(&dry, &deployment.to_string()).await;
        let refused = refused.unwrap_err();
        assert!(refused.contains("version"), "{refused}");

        // An object that exists: the dry run shows what defaulting and rules make of the change.
        cluster.create(kube).await;
        let (_, mut deployment) = cluster.objects().remove(4);
        deployment["spec"]["template"]["spec"]["version"] =
            json!(VERSION_NEXT.trim_start_matches('v'));
        let json = [&dry[..], &["-o", "json", "--force-conflicts"]].concat();
        let shown = kubectl
            .with_input(&json, &deployment.to_string())
            .await
            .unwrap();
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["spec"]["template"]["spec"]["version"], VERSION_NEXT);
        let stored = kube
            .get(MACHINE_DEPLOYMENT, ns, &cluster.deployment())
            .await
            .unwrap();
        assert_eq!(
            stored["spec"]["template"]["spec"]["version"],
            cluster.worker_version.as_str(),
            "{}",
            name(&stored)
        );
        cluster.delete(host).await;
    });
}
