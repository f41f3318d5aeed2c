//! The end of the quickstart: waits for the Nodes and their system pods, shows what there is, and says what can be done with it.

use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

use super::server::{self, Server};
use super::told::{self, Told};
use super::{CLUSTER, Scene};
use crate::cloud::BackendChoice;
use crate::control_plane::write_private;
use crate::out;

/// Writes the cluster's kubeconfig, waits until the cluster is complete, and shows it.
pub(super) async fn finish(scene: &Scene<'_>) -> anyhow::Result<()> {
    let workload = scene.args.home.dir.join("quickstart.kubeconfig");
    let path = format!("/api/v1/namespaces/default/secrets/{CLUSTER}-kubeconfig");
    let secret = scene.server.get(&path).await?;
    let secret =
        secret.with_context(|| format!("Secret default/{CLUSTER}-kubeconfig is missing"))?;
    let kubeconfig = server::secret_text(&secret, "value")
        .with_context(|| format!("Secret default/{CLUSTER}-kubeconfig has no kubeconfig"))?;
    write_private(&workload, &kubeconfig)?;
    scene.story.say(format!("cluster {CLUSTER} is Available"));
    let is_real = scene.backend == BackendChoice::Machines;
    if is_real {
        let cluster = Server::of(&workload)?;
        let mut told = Told::default();
        let complete = async |told: &mut Told| is_complete(&cluster, told).await;
        scene.until(&mut told, complete).await?;
        scene.story.say("all Nodes and their system pods are Ready");
    }
    let management = scene.args.home.dir.join("kubeconfig");
    let kinds = "clusters,kubeadmcontrolplanes,machinedeployments,machinesets,machines,plugins";
    out::result("");
    scene
        .kubectl
        .show(&management, &["get", kinds, "-A"])
        .await?;
    out::result(format!("\nThe Nodes of cluster {CLUSTER}:\n"));
    scene
        .kubectl
        .show(&workload, &["get", "nodes", "-o", "wide"])
        .await?;
    if is_real {
        out::result("\nTheir pods:\n");
        scene
            .kubectl
            .show(&workload, &["get", "pods", "-A"])
            .await?;
    }
    out::result(next(scene, &management, &workload));
    Ok(())
}

/// Looks at Nodes and system pods; something when all are Ready.
async fn is_complete(cluster: &Server, told: &mut Told) -> anyhow::Result<Option<()>> {
    let mut is_complete = true;
    for (word, path) in [
        ("node", "/api/v1/nodes"),
        ("pod", "/api/v1/namespaces/kube-system/pods"),
    ] {
        let items = cluster.list(path).await?;
        for object in &items {
            told.object(word, object);
            is_complete &= is_ready(object);
        }
        told.only(word, &items);
        is_complete &= !items.is_empty();
    }
    Ok(is_complete.then_some(()))
}

fn is_ready(object: &Value) -> bool {
    told::condition(object, "Ready") == Some("True")
}

fn next(scene: &Scene<'_>, management: &Path, workload: &Path) -> String {
    let mut text = String::from("\nNext, in this directory:\n\n");
    if let Some(path) = scene.kubectl.unless_on_path() {
        text.push_str(&format!("  alias kubectl={}\n", path.display()));
    }
    let (management, workload) = (management.display(), workload.display());
    text.push_str(&format!(
        "  export KUBECONFIG={management}
  kubectl scale machinedeployment/{CLUSTER}-md-0 --replicas=5     # more workers
"
    ));
    if scene.backend == BackendChoice::Machines {
        text.push_str(&format!(
            "  kubectl get machines --watch                                   # see it happen
  kubectl --kubeconfig {workload} create deployment hello --image=capstan.dev/sample:v1 --port=8080 --replicas=3
  kubectl --kubeconfig {workload} expose deployment hello --port=80 --target-port=8080
  kubectl --kubeconfig {workload} exec deploy/hello -- capstan-sample get http://hello.default.svc.cluster.local/
  ./dev local exec MACHINE -- ps axf                             # inside a machine
  ./dev local console MACHINE                                    # what it printed while it booted
  ./dev local fault MACHINE kill                                 # or freeze, link-down, fill-disk; `start` brings it back
"
        ));
    } else {
        text.push_str(&format!(
            "  kubectl patch machinedeployment/{CLUSTER}-md-0 --type merge \\
    -p '{{\"spec\":{{\"template\":{{\"spec\":{{\"version\":\"v1.36.4\"}}}}}}}}'    # another version, machine by machine
  kubectl get machines --watch                                   # see it happen
  kubectl --kubeconfig {workload} get nodes    # the workload cluster
"
        ));
    }
    text.push_str(&format!(
        "  kubectl delete cluster {CLUSTER}                              # and everything that belongs to it
  ./dev status                                                   # what runs here
  ./dev down                                                     # stop it all
"
    ));
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_ready_when_its_condition_says_so() {
        let pod =
            |status: &str| json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
        assert!(is_ready(&pod("True")));
        assert!(!is_ready(&pod("False")) && !is_ready(&json!({})));
    }
}
