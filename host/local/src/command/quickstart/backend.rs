//! What runs the quickstart's machines: real ones where this host can, with what they are made from; and the cluster's file with that choice.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::{CLUSTER, Story};
use crate::cloud::{self, BackendChoice};
use crate::command::machines::Cloud;
use crate::images;
use crate::progress::Progress;

/// The documents of a file, as they are or with the backend in every LocalCluster that names none.
pub(super) fn documents(text: &str, backend: Option<BackendChoice>) -> anyhow::Result<Vec<Value>> {
    let mut documents = Vec::new();
    let mut part = String::new();
    for line in text.lines().chain(["---"]) {
        if line.trim_end() == "---" {
            let document: Value = serde_saphyr::from_str(&part)?;
            if !document.is_null() {
                documents.push(document);
            }
            part.clear();
        } else {
            part.push_str(line);
            part.push('\n');
        }
    }
    if let Some(backend) = backend {
        let is_local = |document: &&mut Value| {
            document.get("kind").and_then(Value::as_str) == Some("LocalCluster")
        };
        let specs = documents.iter_mut().filter(is_local);
        for spec in specs.filter_map(|document| document.get_mut("spec")?.as_object_mut()) {
            spec.entry("backend")
                .or_insert_with(|| json!(backend.as_str()));
        }
    }
    Ok(documents)
}

/// The Kubernetes versions that the objects in these documents ask for.
fn versions(documents: &[Value]) -> BTreeSet<String> {
    let paths = ["/spec/version", "/spec/template/spec/version"];
    let all = documents.iter().flat_map(|document| {
        paths
            .iter()
            .filter_map(|path| document.pointer(path)?.as_str())
    });
    all.map(str::to_owned).collect()
}

/// Chooses, says so in one line, and makes what real machines are made from; that takes minutes the first time.
pub(super) async fn choose(
    asked: BackendChoice,
    dir: &Path,
    example: &Path,
    story: &Story,
    progress: &Progress,
) -> anyhow::Result<BackendChoice> {
    if let Some(there) = of_what_is_there(dir).await {
        if asked != BackendChoice::Auto && asked != there {
            bail!(
                "the cluster that is there already has {} machines; `./dev down` removes it, then --backend {} makes another",
                there.as_str(),
                asked.as_str()
            );
        }
        return Ok(there);
    }
    if asked == BackendChoice::Light {
        story.say("machines are light ones, as asked: they exist only as far as their APIs show");
        return Ok(BackendChoice::Light);
    }
    let path = example.join("cluster.yaml");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("could not read {}", path.display()))?;
    let versions = versions(&documents(&text, None)?);
    match with_images(dir, &versions, progress).await {
        Ok(()) => {
            story.say(
                "machines are real ones, in namespaces of this host, which can run them: kubeadm, kubelet and containerd (others: --backend light)",
            );
            Ok(BackendChoice::Machines)
        }
        Err(why) if asked == BackendChoice::Machines => {
            Err(why.context("real machines cannot be had here"))
        }
        Err(why) => {
            story.say(format!(
                "machines are light ones, which exist only as far as their APIs show: {why:#} (real ones where that is mended, or --backend machines)"
            ));
            Ok(BackendChoice::Light)
        }
    }
}

async fn with_images(
    dir: &Path,
    versions: &BTreeSet<String>,
    progress: &Progress,
) -> anyhow::Result<()> {
    let dir = std::path::absolute(dir)?;
    let beside = dir.ancestors().find(|dir| dir.is_dir());
    let beside = beside.unwrap_or(&dir).to_owned();
    // Looks in throw-away namespaces, for some 100 ms.
    let probed = tokio::task::spawn_blocking(move || cloud::can_run_machines(&beside));
    if let Err(missing) = probed.await? {
        bail!("{}", missing.join("; "));
    }
    for version in versions {
        images::ensure(version, progress).await?;
    }
    Ok(())
}

/// The backend of the quickstart's network, when an earlier run has made one and its cloud runs.
async fn of_what_is_there(dir: &Path) -> Option<BackendChoice> {
    let cloud = Cloud::of(dir).ok()?;
    let networks = cloud.get(&format!("networks?name={CLUSTER}")).await.ok()?;
    match networks.pointer("/items/0/backend")?.as_str()? {
        "machines" => Some(BackendChoice::Machines),
        _ => Some(BackendChoice::Light),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# A comment.\nkind: LocalCluster\nspec: {}\n---\nkind: KubeadmControlPlane\nspec:\n  version: v1.2.3\n\
        ---\nkind: MachineDeployment\nspec:\n  template:\n    spec:\n      version: v1.2.2\n";

    #[test]
    fn the_choice_is_written_into_the_local_cluster_and_nowhere_else() {
        let plain = documents(FILE, None).unwrap();
        assert_eq!(plain.len(), 3);
        assert_eq!(plain[0], json!({"kind": "LocalCluster", "spec": {}}));
        let chosen = documents(FILE, Some(BackendChoice::Machines)).unwrap();
        assert_eq!(chosen[0]["spec"]["backend"], "machines");
        assert_eq!(chosen[1..], plain[1..]);
        let own = FILE.replace("{}", "{backend: light}");
        let kept = documents(&own, Some(BackendChoice::Machines)).unwrap();
        assert_eq!(kept[0]["spec"]["backend"], "light");
    }

    #[test]
    fn images_are_made_for_the_versions_that_the_file_asks_for() {
        let found: Vec<String> = versions(&documents(FILE, None).unwrap())
            .into_iter()
            .collect();
        assert_eq!(found, ["v1.2.2", "v1.2.3"]);
    }
}
