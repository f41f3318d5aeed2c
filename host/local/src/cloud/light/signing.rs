//! The parts of a controller manager that `kubeadm join` needs: the bootstrap signer, the token cleaner, and approval and signing of kubelets'
//! certificate requests.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::identity::Identity;
use super::object::{self, child, list_at, text_at};
use super::token::{self, BootstrapToken, SECRET_TYPE};
use super::{controllers, pki, rbac, resources};

const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

fn tokens(cluster: &Cluster) -> Vec<(Value, BootstrapToken)> {
    cluster
        .store
        .list(resources::secrets(), Some("kube-system"))
        .items
        .iter()
        .filter(|secret| text_at(&secret.value, "/type") == SECRET_TYPE)
        .filter_map(|secret| {
            Some((
                secret.value.clone(),
                BootstrapToken::from_secret(&secret.value)?,
            ))
        })
        .collect()
}

/// Signs `cluster-info` anew when a token or the map itself changed.
pub(crate) fn secret_changed(cluster: &Arc<Cluster>, changed: &Value) {
    let is_token = text_at(changed, "/type") == SECRET_TYPE;
    let is_map =
        object::namespace(changed) == "kube-public" && object::name(changed) == "cluster-info";
    if !is_token && !is_map {
        return;
    }
    let Some(info) = cluster
        .store
        .get(resources::config_maps(), "kube-public", "cluster-info")
    else {
        return;
    };
    let content = text_at(&info.value, "/data/kubeconfig").to_owned();
    let now = jiff::Timestamp::now();
    let signatures: Vec<(String, String)> = tokens(cluster)
        .into_iter()
        .filter(|(_, token)| token.signs && !token.is_expired(now))
        .map(|(_, token)| {
            (
                format!("jws-kubeconfig-{}", token.id),
                token::sign(&content, &token.id, &token.secret),
            )
        })
        .collect();
    controllers::edit(cluster, resources::config_maps(), &info.value, |map| {
        let data = child(map, "data");
        data.retain(|key, _| !key.starts_with("jws-kubeconfig-"));
        for (key, signature) in signatures {
            data.insert(key, json!(signature));
        }
    });
}

/// Deletes tokens that are past their time.
pub(crate) fn remove_expired_tokens(cluster: &Arc<Cluster>) {
    let now = jiff::Timestamp::now();
    for (secret, _) in tokens(cluster)
        .iter()
        .filter(|(_, token)| token.is_expired(now))
    {
        controllers::delete(
            cluster,
            resources::secrets(),
            "kube-system",
            object::name(secret),
            object::uid(secret),
        );
    }
}

/// Approves a kubelet's request when its author may have it without asking; signs what is approved.
pub(crate) fn request_changed(cluster: &Arc<Cluster>, request: &Value) {
    let has = |type_: &str| {
        list_at(request, "/status/conditions")
            .iter()
            .any(|condition| text_at(condition, "/type") == type_)
    };
    if has("Denied") || has("Failed") || !text_at(request, "/status/certificate").is_empty() {
        return;
    }
    let Some(pem) = STANDARD
        .decode(text_at(request, "/spec/request"))
        .ok()
        .and_then(|pem| String::from_utf8(pem).ok())
    else {
        return;
    };
    let signer = text_at(request, "/spec/signerName");
    if !has("Approved") {
        if signer == KUBELET_CLIENT && is_self_approved(cluster, request, &pem) {
            controllers::edit(cluster, resources::signing_requests(), request, |new| {
                let now = object::now_text();
                child(new, "status").insert("conditions".into(), json!([{
                    "type": "Approved", "status": "True", "reason": "AutoApproved",
                    "message": "a kubelet client certificate that its author may have without asking",
                    "lastUpdateTime": now, "lastTransitionTime": now}]));
            });
        }
        return;
    }
    if signer != KUBELET_CLIENT && signer != CLIENT {
        return;
    }
    let Some(leader) = cluster.leader() else {
        return;
    };
    let signed = leader.signing.sign_client(&pem);
    controllers::edit(
        cluster,
        resources::signing_requests(),
        request,
        |new| match signed {
            Ok(certificate) => {
                child(new, "status")
                    .insert("certificate".into(), json!(STANDARD.encode(certificate)));
            }
            Err(error) => object::set_condition(
                new,
                "Failed",
                "True",
                "SignerValidationFailure",
                &error.to_string(),
            ),
        },
    );
}

fn is_self_approved(cluster: &Cluster, request: &Value, pem: &str) -> bool {
    let Some((name, groups)) = pki::requested_subject(pem) else {
        return false;
    };
    let is_node = name.starts_with("system:node:") && groups == ["system:nodes"];
    let author = Identity {
        name: text_at(request, "/spec/username").to_owned(),
        groups: list_at(request, "/spec/groups")
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
    };
    let may = |subresource: &'static str| {
        let ask = rbac::Ask {
            verb: "create",
            resource: Some(resources::signing_requests()),
            namespace: "",
            name: "",
            subresource,
            path: "",
        };
        rbac::allows(&cluster.store, &author, ask)
    };
    is_node && (may("nodeclient") || (author.name == name && may("selfnodeclient")))
}
