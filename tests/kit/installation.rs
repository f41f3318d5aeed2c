//! The installation that `capstan manifests` prints, applied as a person would, and the host's account in it.

use std::path::PathBuf;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use capstan_local::control_plane::ControlPlane;
use http::Method;
use serde_json::{Value, json};

use crate::host::NAMESPACE;
use crate::kube_client::Kube;
use crate::wasm;

/// Name of the host's account.
pub const ACCOUNT: &str = "capstan";

/// How long the account's token is valid: longer than any test.
const TOKEN_S: u32 = 7200;

/// What the program prints with these arguments.
///
/// # Panics
/// When it fails, or prints what is no YAML.
pub fn manifests(args: &[&str]) -> Vec<Value> {
    let mut program = Command::new(wasm::program());
    let printed = program.arg("manifests").args(args).output().unwrap();
    assert!(printed.status.success(), "{printed:?}");
    let text = String::from_utf8(printed.stdout).unwrap();
    let documents = text.split("---\n").filter(|text| !text.trim().is_empty());
    documents
        .map(|text| serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}")))
        .collect()
}

/// Applies objects of any kind.
///
/// # Panics
/// When the server refuses one.
pub async fn apply(kube: &Kube, documents: &[Value]) {
    for document in documents {
        let path = path(document) + "?fieldManager=kubectl&force=true";
        let content_type = "application/apply-patch+yaml";
        let answer = kube
            .send(Method::PATCH, &path, content_type, Some(document))
            .await;
        answer.unwrap_or_else(|refusal| panic!("applying {path}: {refusal:?}"));
    }
}

/// Where an object is.
fn path(document: &Value) -> String {
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
    let api = text("/apiVersion").unwrap();
    let root = if api.contains('/') { "apis" } else { "api" };
    let plural = capstan_api::contract::plural(text("/kind").unwrap());
    let place = text("/metadata/namespace").map(|own| format!("/namespaces/{own}"));
    format!(
        "/{root}/{api}{}/{plural}/{}",
        place.unwrap_or_default(),
        text("/metadata/name").unwrap()
    )
}

/// The documents of a kind.
pub fn of_kind<'a>(documents: &'a [Value], kind: &str) -> Vec<&'a Value> {
    documents.iter().filter(|d| d["kind"] == kind).collect()
}

/// A kubeconfig with a token of the host's account, as a Pod would have it.
///
/// # Panics
/// When the server gives none.
pub async fn account_kubeconfig(plane: &ControlPlane, kube: &Kube) -> PathBuf {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{ACCOUNT}/token");
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"expirationSeconds": TOKEN_S},
    });
    let answer = kube
        .send(Method::POST, &path, "application/json", Some(&request))
        .await
        .unwrap();
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "host",
        "clusters": [{"name": "host", "cluster": {
            "server": plane.url(), "certificate-authority-data": BASE64.encode(plane.ca_pem()),
        }}],
        "users": [{"name": "host", "user": {"token": answer["status"]["token"]}}],
        "contexts": [{"name": "host", "context": {"cluster": "host", "user": "host"}}],
    });
    let file = plane.dir().join("account.kubeconfig");
    std::fs::write(&file, kubeconfig.to_string()).unwrap();
    file
}

/// The arguments with which the Deployment runs the host, but where it keeps its files and listens.
///
/// # Panics
/// When there is no Deployment.
pub fn host_args(documents: &[Value]) -> Vec<String> {
    let deployments = of_kind(documents, "Deployment");
    let args = &deployments[0]["spec"]["template"]["spec"]["containers"][0]["args"];
    let args: Vec<String> = serde_json::from_value(args.clone()).unwrap();
    let is_place =
        |arg: &String| arg.starts_with("--cache-dir=") || arg.starts_with("--admin-listen=");
    args.into_iter().filter(|arg| !is_place(arg)).collect()
}
