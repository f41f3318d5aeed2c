//! What the API server refuses of the kinds that the host and its plugins bring, and in which words: contract, chapter 4.

mod cases;

use capstan_tests::cluster::namespace;
use capstan_tests::host::TestHost;
use capstan_tests::kube_client::{CLUSTER, CONTROL_PLANE, Kind, Kube, MACHINE, Refusal};
use capstan_tests::{PATIENCE, eventually, run};
use http::Method;
use serde_json::{Value, json};

use self::cases::{Case, base};

/// CustomResourceDefinitions.
const DEFINITION: Kind = Kind {
    api_version: "apiextensions.k8s.io/v1",
    plural: "customresourcedefinitions",
    namespaced: false,
};

/// RFC 7396.
fn merged(object: &Value, patch: &Value) -> Value {
    let Value::Object(changes) = patch else {
        return patch.clone();
    };
    let mut whole = object.as_object().cloned().unwrap_or_default();
    for (key, change) in changes {
        if change.is_null() {
            whole.remove(key);
        } else {
            let before = whole.get(key).unwrap_or(&Value::Null);
            let after = merged(before, change);
            whole.insert(key.clone(), after);
        }
    }
    Value::Object(whole)
}

/// What the server says to a change of the object of this name, or to another object that differs from it by that.
async fn said(kube: &Kube, ns: &str, case: &Case) -> Result<Value, Refusal> {
    let (kind, object) = base(case.of, ns);
    if case.is_update {
        let name = object["metadata"]["name"].as_str().unwrap();
        return kube.try_merge(kind, ns, name, &case.change).await;
    }
    let mut other = merged(&object, &case.change);
    if case.change["metadata"]["name"].is_null() {
        other["metadata"]["name"] = json!("other");
    }
    let path = format!("{}?dryRun=All", kind.path(ns, None));
    kube.send(Method::POST, &path, "application/json", Some(&other))
        .await
}

#[test]
fn every_rule_about_single_objects_is_the_servers_and_says_what_is_wrong() {
    run(async {
        let host = TestHost::shared().await;
        let (kube, ns) = (host.kube(), "admission");
        namespace(kube, ns).await;
        let mut wrong = Vec::new();
        // What the cases change is good before.
        for of in cases::BASES {
            let (kind, object) = base(of, ns);
            if let Err(refusal) = kube.try_create(kind, &object).await {
                wrong.push(format!("{of}: {refusal:?}"));
            }
        }
        for case in cases::refused() {
            let words = case.words;
            match said(kube, ns, &case).await {
                Err(refusal) if refusal.code == 422 && refusal.message.contains(words) => {}
                answer => wrong.push(format!(
                    "{} {} {}: not refused with {words:?}: {answer:?}",
                    case.section, case.of, case.change
                )),
            }
        }
        for case in cases::accepted() {
            if let Err(refusal) = said(kube, ns, &case).await {
                wrong.push(format!("{} {}: {refusal:?}", case.of, case.change));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        // A request to scale passes the same rules.
        let (_, plane) = base("control plane", ns);
        let path = CONTROL_PLANE.path(ns, plane["metadata"]["name"].as_str());
        let two = json!({"spec": {"replicas": 2}});
        let scaled = kube
            .send(
                Method::PATCH,
                &format!("{path}/scale"),
                "application/merge-patch+json",
                Some(&two),
            )
            .await;
        let refusal = scaled.unwrap_err();
        assert!(
            refusal.message.contains("replicas must be odd"),
            "{refusal:?}"
        );
        assert!(
            kube.list(MACHINE, ns).await.len() == 1,
            "nothing was made of it"
        );
    });
}

#[test]
fn a_cluster_that_already_has_a_topology_can_still_be_changed_elsewhere() {
    run(async {
        let host = TestHost::without_host().await;
        let (kube, ns) = (host.kube(), "classy");
        namespace(kube, ns).await;
        let name = "clusters.cluster.x-k8s.io";
        let definition = kube.get(DEFINITION, "", name).await.unwrap();
        // As on a management cluster that was Cluster API's: the rule is not there yet.
        let mut before = definition.clone();
        let rules = before
            .pointer_mut(
                "/spec/versions/0/schema/openAPIV3Schema/properties/spec/x-kubernetes-validations",
            )
            .and_then(Value::as_array_mut)
            .unwrap();
        let all = rules.len();
        rules.retain(|rule| rule["optionalOldSelf"] != true);
        assert_eq!(rules.len() + 1, all);
        let replace = async |definition: &Value| {
            let versions = json!({"spec": {"versions": definition["spec"]["versions"]}});
            kube.merge(DEFINITION, "", name, &versions).await;
        };
        replace(&before).await;
        let classy = |name: &str| {
            json!({
                "apiVersion": CLUSTER.api_version, "kind": "Cluster",
                "metadata": {"namespace": ns, "name": name},
                "spec": {"topology": {"classRef": {"name": "class"}, "version": "v1.36.1"}},
            })
        };
        eventually("the rule is gone", PATIENCE, async || {
            let created = kube.try_create(CLUSTER, &classy("old")).await;
            created.map_err(|refusal| refusal.message)
        })
        .await;
        replace(&definition).await;
        eventually("the rule is back", PATIENCE, async || {
            let path = format!("{}?dryRun=All", CLUSTER.path(ns, None));
            let created = kube
                .send(
                    Method::POST,
                    &path,
                    "application/json",
                    Some(&classy("new")),
                )
                .await;
            let refusal = created.err().ok_or("it was accepted")?;
            let says_what = refusal.message.contains("leave topology out");
            says_what.then_some(()).ok_or(refusal.message)
        })
        .await;
        for change in [
            json!({"metadata": {"labels": {"some": "label"}}}),
            json!({"spec": {"paused": true}}),
            json!({"spec": {"topology": {"version": "v1.36.2"}}}),
        ] {
            kube.merge(CLUSTER, ns, "old", &change).await;
        }
        let refusal = kube
            .try_merge(CLUSTER, ns, "old", &json!({"spec": {"topology": null}}))
            .await
            .unwrap_err();
        assert!(refusal.message.contains("infrastructureRef"), "{refusal:?}");
    });
}
