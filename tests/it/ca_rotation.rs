//! The authorities of a cluster are rotated, and taken back, while people work with it.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use capstan_tests::cluster::TestCluster;
use capstan_tests::control_plane::{object, settled};
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{
    BOOTSTRAP_CONFIG, CONFIG_MAP, CONTROL_PLANE, Kube, MACHINE, NODE, SECRET, condition,
    conditions, name,
};
use capstan_tests::{PATIENCE, eventually, run};
use serde_json::{Value, json};

/// A whole rotation of three control-plane machines and two workers replaces twenty-one machines.
const ROTATION: Duration = Duration::from_secs(900);
const ROTATED: &str = "CertificateAuthoritiesRotated";

/// Asks for a rotation of this name, or for none.
async fn ask(host: &TestHost, cluster: &TestCluster, name: &Value) {
    let patch = json!({"metadata": {"annotations": {"capstan.dev/rotate-ca": name}}});
    let plane = cluster.control_plane();
    host.kube()
        .merge(CONTROL_PLANE, &cluster.namespace, &plane, &patch)
        .await;
}

/// The stage, as the condition's reason has it.
async fn stage(host: &TestHost, cluster: &TestCluster) -> String {
    condition(&object(host, cluster).await, ROTATED).reason
}

/// Text of a Secret of the cluster.
async fn secret(
    host: &TestHost,
    cluster: &TestCluster,
    purpose: &str,
    key: &str,
) -> Option<String> {
    let name = format!("{}-{purpose}", cluster.name);
    let secret = host
        .kube()
        .get(SECRET, &cluster.namespace, &name)
        .await
        .unwrap();
    let value = secret["data"][key].as_str()?;
    Some(String::from_utf8(STANDARD.decode(value).unwrap()).unwrap())
}

/// What came of a request.
#[derive(Debug)]
enum Answer {
    Good,
    /// The connection did not come about or ended: a machine that goes does that.
    Cut,
    /// One side does not trust the other.
    Distrust(String),
}

/// One request over a new connection, with the credentials of a kubeconfig.
async fn request(kubeconfig: &str) -> Answer {
    let client = Kube::from_kubeconfig(kubeconfig).await.client();
    let request = http::Request::get("/api/v1/namespaces/kube-system")
        .body(Vec::new())
        .unwrap();
    match tokio::time::timeout(Duration::from_secs(10), client.request_text(request)).await {
        Ok(Ok(_)) => Answer::Good,
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 401 | 403) => {
            Answer::Distrust(format!("{} {}", status.code, status.message))
        }
        Ok(Err(kube::Error::Api(_))) | Err(_) => Answer::Cut,
        Ok(Err(error)) => {
            let said = format!("{error:?}");
            let is_trust = [
                "InvalidCertificate",
                "AlertReceived",
                "UnknownIssuer",
                "BadSignature",
            ];
            if is_trust.iter().any(|word| said.contains(word)) {
                Answer::Distrust(said)
            } else {
                Answer::Cut
            }
        }
    }
}

/// Somebody who works with the cluster all the time.
#[derive(Default)]
struct People {
    good: u32,
    cut: u32,
    /// A kubeconfig that was taken while everybody learned to trust the new authorities.
    taken: Option<String>,
}

impl People {
    fn count(&mut self, answer: Answer, whose: &str) {
        match answer {
            Answer::Good => self.good += 1,
            Answer::Cut => self.cut += 1,
            Answer::Distrust(said) => panic!("a request with {whose} failed for trust: {said}"),
        }
    }

    /// Requests with the kubeconfig as it is now, with the one of before the rotation as long as the old authorities sign alone, and with the one of the first
    /// stage until the last.
    async fn work(&mut self, host: &TestHost, cluster: &TestCluster, before: &str) {
        let current = cluster.kubeconfig(host.kube()).await;
        self.count(request(&current).await, "the kubeconfig as it is");
        let at = stage(host, cluster).await;
        if self.taken.is_none() && at == "TrustingNewAuthorities" && current != before {
            self.taken = Some(current);
        }
        let old_alone = ["", "TrustingNewAuthorities"];
        if old_alone.contains(&at.as_str()) {
            let answer = request(before).await;
            if old_alone.contains(&stage(host, cluster).await.as_str()) {
                self.count(answer, "a kubeconfig of before the rotation");
            }
        }
        if let Some(taken) = self.taken.clone() {
            let answer = request(&taken).await;
            let at = stage(host, cluster).await;
            if at != "DroppingOldAuthorities" && at != "Rotated" {
                self.count(answer, "a kubeconfig of the first stage");
            }
        }
    }
}

/// Nodes that were ready and are not any more: their kubelets do not get through.
async fn lost_nodes(host: &TestHost, cluster: &TestCluster, seen: &mut Vec<String>) -> Vec<String> {
    let kubeconfig = cluster.kubeconfig(host.kube()).await;
    let kube = Kube::from_kubeconfig(&kubeconfig).await;
    let path = NODE.path("", None);
    let Ok(nodes) = kube
        .send(http::Method::GET, &path, "application/json", None)
        .await
    else {
        return Vec::new();
    };
    let machines = host.kube().list(MACHINE, &cluster.namespace).await;
    let is_going = |node: &str| {
        !machines.iter().any(|machine| {
            machine["status"]["nodeRef"]["name"] == node
                && machine["metadata"]["deletionTimestamp"].is_null()
        })
    };
    let mut lost = Vec::new();
    for node in nodes["items"].as_array().into_iter().flatten() {
        let (name, is_ready) = (name(node), condition(node, "Ready").status == "True");
        if is_ready && !seen.contains(&name) {
            seen.push(name);
        } else if !is_ready && seen.contains(&name) && !is_going(&name) {
            lost.push(name);
        }
    }
    lost
}

#[test]
fn authorities_are_rotated_while_people_work_and_the_host_is_killed() {
    run(async {
        let mut host = TestHost::start_process().await;
        let mut cluster = TestCluster::new("ca-rotation", "rotated", 2);
        cluster.control_planes = 3;
        cluster.create(host.kube()).await;
        cluster.available(&host, 2).await;
        settled(&host, &cluster, 3).await;
        let before = cluster.kubeconfig(host.kube()).await;
        let mut old = Vec::new();
        for purpose in ["ca", "etcd", "proxy", "sa"] {
            old.push((
                purpose,
                secret(&host, &cluster, purpose, "tls.crt").await.unwrap(),
            ));
        }
        let first_machines: Vec<String> = host
            .kube()
            .list(MACHINE, &cluster.namespace)
            .await
            .iter()
            .map(name)
            .collect();

        ask(&host, &cluster, &json!("2026-11")).await;
        let mut people = People::default();
        let (mut stages, mut nodes) = (Vec::new(), Vec::new());
        let begun = Instant::now();
        loop {
            people.work(&host, &cluster, &before).await;
            let lost = lost_nodes(&host, &cluster, &mut nodes).await;
            assert!(
                lost.is_empty(),
                "{} s: nodes do not get through: {lost:?}",
                begun.elapsed().as_secs()
            );
            let at = stage(&host, &cluster).await;
            if !at.is_empty() && stages.last() != Some(&at) {
                println!("{} s: {at}", begun.elapsed().as_secs());
                stages.push(at.clone());
                if at == "SigningWithNewAuthorities" {
                    host.kill();
                    host.run_process();
                }
            }
            if at == "Rotated" {
                break;
            }
            let object = object(&host, &cluster).await;
            assert!(
                begun.elapsed() < ROTATION,
                "not rotated: {}",
                conditions(&object)
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        println!(
            "{} s, {} good requests, {} cut",
            begun.elapsed().as_secs(),
            people.good,
            people.cut
        );
        let wanted = [
            "TrustingNewAuthorities",
            "SigningWithNewAuthorities",
            "RenewingSignatures",
            "DroppingOldAuthorities",
            "Rotated",
        ];
        assert_eq!(stages, wanted);
        assert!(people.taken.is_some() && people.good > 50);

        cluster.available(&host, 2).await;
        settled(&host, &cluster, 3).await;
        let machines = host.kube().list(MACHINE, &cluster.namespace).await;
        assert!(
            machines
                .iter()
                .all(|machine| !first_machines.contains(&name(machine)))
        );
        nobody_trusts(&host, &cluster, &old).await;
        let refused = request(&before).await;
        assert!(matches!(refused, Answer::Distrust(_)), "{refused:?}");
        let current = cluster.kubeconfig(host.kube()).await;
        assert!(matches!(request(&current).await, Answer::Good));
        // A worker that joins now trusts, and is trusted.
        host.kube()
            .scale(
                capstan_tests::kube_client::MACHINE_DEPLOYMENT,
                &cluster.namespace,
                &cluster.deployment(),
                3,
            )
            .await;
        cluster.available(&host, 3).await;
        let listed = object(&host, &cluster).await["status"]["certificates"].clone();
        let listed: Vec<&str> = listed
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|it| it["name"].as_str())
            .collect();
        assert!(
            ["ca", "etcd", "proxy", "kubeconfig"]
                .iter()
                .all(|name| listed.contains(name)),
            "{listed:?}"
        );
        cluster.delete(&host).await;
    });
}

/// The old authorities are in no Secret, no bootstrap data and no map of the workload cluster.
async fn nobody_trusts(host: &TestHost, cluster: &TestCluster, old: &[(&str, String)]) {
    // A line of the middle of the certificate or key, which nothing else has.
    let marks: Vec<&str> = old
        .iter()
        .filter_map(|(_, pem)| pem.lines().nth(2))
        .collect();
    assert_eq!(marks.len(), old.len());
    for (purpose, pem) in old {
        let now = secret(host, cluster, purpose, "tls.crt").await.unwrap();
        assert_ne!(now, *pem);
        assert_eq!(now.matches("-----BEGIN").count(), 1, "{purpose}: {now}");
        for key in [
            "rotation-old.crt",
            "rotation-old.key",
            "rotation-new.crt",
            "rotation-new.key",
        ] {
            assert_eq!(
                secret(host, cluster, purpose, key).await,
                None,
                "{purpose} {key}"
            );
        }
    }
    let has_mark = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        marks.iter().any(|mark| text.contains(mark))
    };
    eventually("no Secret has them", PATIENCE, async || {
        for secret in host.kube().list(SECRET, &cluster.namespace).await {
            for (key, value) in secret["data"].as_object().into_iter().flatten() {
                let bytes = STANDARD.decode(value.as_str().unwrap_or_default()).unwrap();
                if has_mark(&bytes) {
                    return Err(format!("Secret {} {key}", name(&secret)));
                }
            }
        }
        Ok(())
    })
    .await;
    let workload = cluster.workload(host.kube()).await;
    let ca = secret(host, cluster, "ca", "tls.crt").await.unwrap();
    let kubeconfig = cluster.kubeconfig(host.kube()).await;
    assert!(kubeconfig.contains(&STANDARD.encode(&ca)));
    eventually(
        "maps that pods and machines trust follow",
        PATIENCE,
        async || {
            for map in workload.list(CONFIG_MAP, "").await {
                let text = map["data"].to_string().replace("\\n", "\n");
                let encoded = marks.iter().any(|mark| text.contains(mark));
                let info = map["data"]["kubeconfig"].as_str().unwrap_or_default();
                let told = info.split("certificate-authority-data:").nth(1);
                let told = told
                    .and_then(|rest| rest.lines().next())
                    .map(|line| line.trim().trim_matches('"'));
                let is_other = told.is_some_and(|told| told != STANDARD.encode(&ca));
                if encoded || is_other {
                    return Err(format!("ConfigMap {}", name(&map)));
                }
            }
            Ok(())
        },
    )
    .await;
}

#[test]
fn a_rotation_that_is_taken_back_leaves_the_old_authorities() {
    run(async {
        let host = TestHost::shared().await;
        let cluster = TestCluster::new("ca-back", "back", 1);
        cluster.create(host.kube()).await;
        cluster.available(host, 1).await;
        let before = cluster.kubeconfig(host.kube()).await;
        let old = secret(host, &cluster, "ca", "tls.crt").await.unwrap();
        ask(host, &cluster, &json!("once")).await;
        eventually(
            "the first stage with both authorities",
            PATIENCE,
            async || {
                let both = secret(host, &cluster, "ca", "tls.crt").await.unwrap();
                let at = stage(host, &cluster).await;
                let is_both =
                    both.starts_with(old.trim_end()) && both.matches("-----BEGIN").count() == 2;
                (is_both && at == "TrustingNewAuthorities")
                    .then_some(())
                    .ok_or(at)
            },
        )
        .await;
        let secrets = host.kube().list(SECRET, &cluster.namespace).await;
        assert!(
            secrets
                .iter()
                .any(|secret| secret["data"]["rotation-new.key"].is_string())
        );
        crate::bootstrap::assert_hidden(host, &crate::bootstrap::needles(&secrets)).await;
        ask(host, &cluster, &Value::Null).await;
        eventually("taken back", PATIENCE, async || {
            let object = object(host, &cluster).await;
            let is_back = condition(&object, ROTATED).reason == "RotationTakenBack";
            is_back.then_some(()).ok_or_else(|| conditions(&object))
        })
        .await;
        cluster.available(host, 1).await;
        assert_eq!(secret(host, &cluster, "ca", "tls.crt").await.unwrap(), old);
        assert!(matches!(request(&before).await, Answer::Good));
        let configs = host.kube().list(BOOTSTRAP_CONFIG, &cluster.namespace).await;
        assert_eq!(configs.len(), 2);
        cluster.delete(host).await;
    });
}
