//! Who may do what with plugins, as users of the real server: the role of the operators' page that publishes components grants nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_tests::host::{NAMESPACE, TestHost, plugin};
use capstan_tests::installation::apply;
use capstan_tests::kube_client::{CONFIG_MAP, Kube, PLUGIN, SECRET, condition, conditions};
use capstan_tests::probe::PROBE;
use capstan_tests::{PATIENCE, eventually, run, wasm};
use serde_json::{Value, json};

const PUBLISHER: &str = "publisher";

/// Capabilities that everybody has.
const HARMLESS: [&str; 3] = ["event", "log", "state"];

/// The Role of this name, as the page has it.
fn documented(name: &str) -> Value {
    let path = wasm::root().join("host/docs/plugin-reference.md");
    let text = std::fs::read_to_string(path).unwrap();
    let blocks = text
        .split("```")
        .filter_map(|block| block.strip_prefix("yaml\n"));
    let documents = blocks.flat_map(|block| block.split("---\n"));
    let mut roles = documents.filter(|text| text.contains(&format!("name: {name}}}")));
    serde_saphyr::from_str(roles.next().unwrap()).unwrap()
}

/// The administrator, who acts as somebody else.
async fn acting_as(host: &TestHost, user: &str) -> Kube {
    let text = host
        .plane
        .kubeconfig_text("admin", &["system:masters"])
        .unwrap();
    let mut config: Value = serde_saphyr::from_str(&text).unwrap();
    config["users"][0]["user"]["as"] = json!(user);
    Kube::from_kubeconfig(&config.to_string()).await
}

async fn publisher(host: &TestHost) -> Kube {
    let role = documented("plugin-publisher");
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"namespace": NAMESPACE, "name": PUBLISHER},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "plugin-publisher"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": PUBLISHER}],
    });
    apply(host.kube(), &[role, binding]).await;
    acting_as(host, PUBLISHER).await
}

fn map(name: &str, component: &[u8]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": NAMESPACE, "name": name, "labels": {"capstan.dev/plugin": name}},
        "binaryData": {"plugin.wasm": BASE64.encode(wasm::gzip(component))},
    })
}

#[test]
fn who_may_only_write_config_maps_gets_no_more_than_the_harmless_capabilities() {
    run(async {
        let host = TestHost::start().await;
        let own = eventually("the role is in force", PATIENCE, async || {
            let own = publisher(&host).await;
            let map = map("trial", b"nothing");
            let answer = own.try_create(CONFIG_MAP, &map).await;
            let refused = answer.map(|_| own);
            refused.map_err(|refusal| format!("{refusal:?}"))
        })
        .await;
        // Everything that could be a grant if somebody read it.
        let grants =
            json!([{"capability": "http"}, {"capability": "secret"}, {"capability": "workload"}]);
        let mut asking = map(PROBE, &wasm::component("engine-probe"));
        let spec = json!({"source": {"configMap": {"name": PROBE}}, "grants": grants});
        asking["data"] = json!({"grants": grants.to_string(), "spec": spec.to_string()});
        for key in ["grants", "spec", "config", "ceiling", "state"] {
            asking["metadata"]["annotations"][format!("capstan.dev/{key}")] =
                json!(grants.to_string());
        }
        own.try_create(CONFIG_MAP, &asking).await.unwrap();
        let object = eventually("it is loaded and lacks its grant", PATIENCE, async || {
            let object = plugin(host.kube(), PROBE).await.ok_or("no Plugin")?;
            let is_told = condition(&object, "Granted").reason == "GrantMissing";
            is_told.then_some(object.clone()).ok_or(conditions(&object))
        })
        .await;
        assert!(object["spec"].get("grants").is_none(), "{object}");
        assert_ne!(condition(&object, "Ready").status, "True");
        let asked = object["status"]["capabilities"].as_array().unwrap();
        let had = asked.iter().filter(|one| one["granted"] == true);
        let had: Vec<&str> = had.map(|one| one["name"].as_str().unwrap()).collect();
        assert!(had.iter().all(|name| HARMLESS.contains(name)), "{had:?}");
        assert!(asked.iter().any(|one| one["name"] == "http"), "{asked:?}");

        // The objects that do grant are out of reach, and so are the keys and credentials that grants are about.
        let plugin_object = json!({
            "apiVersion": PLUGIN.api_version, "kind": "Plugin",
            "metadata": {"namespace": NAMESPACE, "name": "own"}, "spec": spec,
        });
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"namespace": NAMESPACE, "name": "key", "labels": {"capstan.dev/signing-key": ""}},
        });
        let granted = json!({"spec": {"grants": grants}});
        for refused in [
            own.try_create(PLUGIN, &plugin_object).await,
            own.try_apply(PLUGIN, &plugin_object).await,
            own.try_merge(PLUGIN, NAMESPACE, PROBE, &granted).await,
            own.try_create(SECRET, &secret).await,
        ] {
            let refusal = refused.unwrap_err();
            assert_eq!(refusal.code, 403, "{refusal:?}");
        }
    });
}

#[test]
fn who_may_only_write_config_maps_does_not_get_at_the_grants_of_what_is_pinned() {
    run(async {
        let host = TestHost::start().await;
        let kube = host.kube();
        // What is not pinned says so: other bytes in the same place would have the same grants.
        let object = plugin(kube, "infrastructure-local").await.unwrap();
        assert_eq!(condition(&object, "Verified").reason, "AnyComponent");
        let digest = object["status"]["activeDigest"].clone();
        let pin = json!({"spec": {"digest": digest}});
        kube.merge(PLUGIN, NAMESPACE, "infrastructure-local", &pin)
            .await;
        let verified = async |status: &str, reason: &str| {
            eventually("Verified follows", PATIENCE, async || {
                let object = plugin(kube, "infrastructure-local").await.unwrap();
                let verified = condition(&object, "Verified");
                let is_so = verified.status == status && verified.reason == reason;
                is_so.then_some(object.clone()).ok_or(conditions(&object))
            })
            .await
        };
        verified("True", "Verified").await;
        let own = eventually("the role is in force", PATIENCE, async || {
            let own = publisher(&host).await;
            let other = wasm::gzip(&wasm::component("minimal-infrastructure"));
            let change = json!({"binaryData": {"plugin.wasm": BASE64.encode(other)}});
            let answer = own.try_merge(CONFIG_MAP, NAMESPACE, "infrastructure-local", &change);
            let refused = answer.await.map(|_| ());
            refused.map_err(|refusal| format!("{refusal:?}"))
        });
        own.await;
        let object = verified("False", "DigestMismatch").await;
        assert_eq!(object["status"]["activeDigest"], digest);
    });
}
