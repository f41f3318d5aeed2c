//! A machine that kubeadm cannot make a node of says so itself: once, within seconds, and only for itself. One whose commands after kubeadm
//! fail says that, too, and is used all the same.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_tests::cluster::{TestCluster, VERSION_NEXT};
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{
    BOOTSTRAP_CONFIG, Kube, LOCAL_MACHINE, MACHINE, NODE, SECRET, condition, conditions,
};
use capstan_tests::{PATIENCE, eventually, run};
use http::Method;
use serde_json::{Value, json};

/// A worker whose name another Node has taken, so that kubeadm refuses it at once.
async fn worker(kube: &Kube, cluster: &TestCluster, name: &str, taken: &str, annotations: Value) {
    let own = json!({"namespace": cluster.namespace, "name": name, "annotations": annotations});
    let spec = json!({"joinConfiguration": {"nodeRegistration": {"name": taken}}});
    let config = json!({"apiVersion": BOOTSTRAP_CONFIG.api_version, "kind": "KubeadmConfig", "metadata": own, "spec": spec});
    kube.apply(BOOTSTRAP_CONFIG, &config).await;
    let infra = json!({"apiVersion": LOCAL_MACHINE.api_version, "kind": "LocalMachine", "metadata": own, "spec": {"instanceType": "small"}});
    kube.apply(LOCAL_MACHINE, &infra).await;
    let reference = |group: &str, kind: &str| json!({"apiGroup": format!("{group}.cluster.x-k8s.io"), "kind": kind, "name": name});
    let machine = json!({
        "apiVersion": MACHINE.api_version, "kind": "Machine",
        "metadata": {"namespace": cluster.namespace, "name": name},
        "spec": {
            "clusterName": cluster.name, "version": VERSION_NEXT,
            "bootstrap": {"configRef": reference("bootstrap", "KubeadmConfig")},
            "infrastructureRef": reference("infrastructure", "LocalMachine"),
        },
    });
    kube.apply(MACHINE, &machine).await;
}

/// The machine's data, once it is there.
async fn data(kube: &Kube, cluster: &TestCluster, name: &str) -> String {
    let secret = eventually("the data is there", PATIENCE, async || {
        let secret = kube.get(SECRET, &cluster.namespace, name).await;
        secret.ok_or("no Secret".to_owned())
    })
    .await;
    let bytes = BASE64.decode(secret["data"]["value"].as_str().unwrap());
    String::from_utf8(bytes.unwrap()).unwrap()
}

/// What is between two texts.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text.split_once(before).unwrap();
    rest.split_once(after).unwrap().0.trim()
}

/// A file's content in a cloud-config.
fn content(data: &str, path: &str) -> String {
    let yaml: Value = serde_saphyr::from_str(data).unwrap();
    let files = yaml["write_files"].as_array().unwrap();
    let file = files.iter().find(|file| file["path"] == path).unwrap();
    file["content"].as_str().unwrap().to_owned()
}

/// Where and with what a machine reports.
struct Told {
    server: String,
    path: String,
    token: String,
    authority: String,
}

impl Told {
    /// As its data says.
    fn of(data: &str) -> Self {
        let script = content(data, "/run/cluster-api/bootstrap-report.sh");
        let url = between(&script, "\"https://", "?");
        let (server, path) = url.split_once('/').unwrap();
        Self {
            server: server.to_owned(),
            path: format!("/{path}"),
            token: content(data, "/run/cluster-api/bootstrap-report.token"),
            authority: content(data, "/run/cluster-api/bootstrap-report.crt"),
        }
    }

    /// Reports as its script does; answers the status.
    async fn post(&self, token: &str, path: &str, body: &Value) -> u16 {
        let authority = BASE64.encode(&self.authority);
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("https://{}", self.server), "certificate-authority-data": authority}}],
            "users": [{"name": "c", "user": {"token": token.trim()}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        });
        let machine = Kube::from_kubeconfig(&kubeconfig.to_string()).await;
        let answer = machine
            .send(Method::POST, path, "text/plain", Some(body))
            .await;
        answer.map_or_else(|refusal| refusal.code, |_| 200)
    }
}

#[test]
fn a_machine_whose_last_commands_fail_says_so_and_is_used_all_the_same() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        let cluster = TestCluster::new("late", "late", 0);
        cluster.create(kube).await;
        cluster.available(host, 0).await;
        worker(kube, &cluster, "late", "late", json!({})).await;
        let told = Told::of(&data(kube, &cluster, "late").await);
        let machine = async || kube.get(MACHINE, &cluster.namespace, "late").await.unwrap();
        eventually("it is a node", PATIENCE, async || {
            let machine = machine().await;
            let is_ready = condition(&machine, "Ready").status == "True";
            is_ready.then_some(()).ok_or(conditions(&machine))
        })
        .await;
        let path = format!("{}?phase=post-kubeadm-commands&exitCode=3", told.path);
        let log = json!("the last command failed");
        assert_eq!(told.post(&told.token, &path, &log).await, 200);
        eventually("its Machine says so", PATIENCE, async || {
            let machine = machine().await;
            let bootstrap = condition(&machine, "BootstrapConfigReady");
            let is_said = bootstrap.status == "True"
                && bootstrap
                    .message
                    .contains("post-kubeadm-commands ended with exit code 3")
                && bootstrap.message.contains("the last command failed");
            is_said.then_some(()).ok_or(conditions(&machine))
        })
        .await;
        assert_eq!(condition(&machine().await, "Ready").status, "True");
        let config = kube.get(BOOTSTRAP_CONFIG, &cluster.namespace, "late").await;
        let said = condition(&config.unwrap(), "BootstrapSucceeded");
        assert_eq!(
            (said.status.as_str(), said.reason.as_str()),
            ("False", "PostKubeadmCommandsFailed")
        );
        cluster.delete(host).await;
    });
}

#[test]
fn a_machine_that_kubeadm_refuses_says_so_and_only_once() {
    run(async {
        let host = TestHost::shared().await;
        let kube = host.kube();
        let cluster = TestCluster::new("reports", "reports", 0);
        cluster.create(kube).await;
        cluster.available(host, 0).await;
        let workload = cluster.workload(kube).await;
        let nodes = workload.list(NODE, "").await;
        let taken = capstan_tests::kube_client::name(&nodes[0]);

        worker(kube, &cluster, "broken", &taken, json!({})).await;
        eventually(
            "the Machine says what the machine said",
            PATIENCE,
            async || {
                let machine = kube
                    .get(MACHINE, &cluster.namespace, "broken")
                    .await
                    .unwrap();
                let ready = condition(&machine, "BootstrapConfigReady");
                let is_said = ready.status == "False"
                    && ready
                        .message
                        .contains("kubeadm-join ended with exit code 1")
                    && ready.message.contains("already exists");
                is_said.then_some(()).ok_or(conditions(&machine))
            },
        )
        .await;
        let config = kube
            .get(BOOTSTRAP_CONFIG, &cluster.namespace, "broken")
            .await;
        let said = condition(&config.unwrap(), "BootstrapSucceeded");
        assert_eq!(
            (said.status.as_str(), said.reason.as_str()),
            ("False", "BootstrapFailed")
        );

        let told = Told::of(&data(kube, &cluster, "broken").await);
        let post = async |token: &str, path: &str, body: &Value| told.post(token, path, body).await;
        let token = &told.token;
        let path = format!("{}?phase=kubeadm-join&exitCode=1", told.path);
        let log = json!("again");
        assert_eq!(
            post(token, &path, &log).await,
            410,
            "it is good for one report"
        );
        assert_eq!(post("1.00", &path, &log).await, 401);
        let other = path.replace("/broken?", "/other?");
        assert_eq!(
            post(token, &other, &log).await,
            401,
            "it is for one machine"
        );
        assert_eq!(post(token, "/", &log).await, 404);

        // Who does not want it is not told where to.
        worker(
            kube,
            &cluster,
            "silent",
            &taken,
            json!({"capstan.dev/no-bootstrap-report": ""}),
        )
        .await;
        let data = self::data(kube, &cluster, "silent").await;
        assert!(!data.contains("bootstrap-report"), "{data}");
        cluster.delete(host).await;
    });
}
