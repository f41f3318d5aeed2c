//! Which kind a person means: the host's own by their names, any other as the API server serves it.

use anyhow::{Context as _, bail};
use capstan_controllers::kinds;
use capstan_controllers::kube_api::{KubeApi, Resource};
use serde::Deserialize;

/// What `/apis` lists.
#[derive(Deserialize)]
struct GroupList {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    name: String,
    /// The one that the server prefers first.
    versions: Vec<GroupVersion>,
}

#[derive(Deserialize)]
struct GroupVersion {
    version: String,
}

/// What a group's version lists.
#[derive(Deserialize)]
struct ResourceList {
    resources: Vec<Served>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Served {
    /// Its plural; with a slash, a subresource.
    name: String,
    kind: String,
    namespaced: bool,
    #[serde(default)]
    short_names: Vec<String>,
}

impl Served {
    fn is_called(&self, word: &str) -> bool {
        let mut names = [&self.name, &self.kind]
            .into_iter()
            .chain(&self.short_names);
        !self.name.contains('/') && names.any(|name| name.eq_ignore_ascii_case(word))
    }
}

/// A kind of the host by its name in singular or plural; nothing is asked for that.
pub(super) fn own(word: &str) -> Option<Resource> {
    let known = [
        &*kinds::CLUSTER,
        &*kinds::MACHINE,
        &*kinds::MACHINE_SET,
        &*kinds::MACHINE_DEPLOYMENT,
        &*kinds::MACHINE_POOL,
        &*kinds::MACHINE_HEALTH_CHECK,
        &*kinds::MACHINE_HOOK,
        &*kinds::CLUSTER_RESOURCE_SET,
        &*kinds::PLUGIN,
    ];
    let found = known.into_iter().find(|resource| {
        word.eq_ignore_ascii_case(&resource.kind) || word.eq_ignore_ascii_case(&resource.plural)
    });
    found.cloned()
}

/// The kind that a person means: by its name in singular or plural or a short one, with its group behind a dot where that is needed.
pub(super) async fn find(api: &dyn KubeApi, word: &str) -> anyhow::Result<Resource> {
    if let Some(resource) = own(word) {
        return Ok(resource);
    }
    let (name, wanted) = match word.split_once('.') {
        Some((name, group)) => (name, Some(group)),
        None => (word, None),
    };
    let groups = api.get_raw("/apis").await;
    let groups = groups.context("asking the API server which kinds it serves")?;
    let groups: GroupList = serde_json::from_str(&groups).context("reading its groups")?;
    let core = Group {
        name: String::new(),
        versions: vec![GroupVersion {
            version: "v1".to_owned(),
        }],
    };
    let mut found = Vec::new();
    for group in [core].into_iter().chain(groups.groups) {
        if wanted.is_none_or(|wanted| wanted.eq_ignore_ascii_case(&group.name)) {
            found.extend(of_group(api, &group, name).await);
        }
    }
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => bail!("the API server serves no kind {word}: `kubectl api-resources` lists all"),
        several => {
            let names = several.iter().map(|r| format!("{}.{}", r.plural, r.group));
            bail!(
                "{word} may be one of {}",
                names.collect::<Vec<_>>().join(", ")
            )
        }
    }
}

/// Kinds of a group that are called like this. A version whose server does not answer has none.
async fn of_group(api: &dyn KubeApi, group: &Group, word: &str) -> Vec<Resource> {
    let mut lists = Vec::new();
    for GroupVersion { version } in &group.versions {
        let path = if group.name.is_empty() {
            format!("/api/{version}")
        } else {
            format!("/apis/{}/{version}", group.name)
        };
        if let Ok(text) = api.get_raw(&path).await {
            lists.push((version.as_str(), text));
        }
    }
    in_lists(&lists, &group.name, word)
}

/// Each kind in the first version that has it: kinds of several providers share a group, and not each its versions.
fn in_lists(lists: &[(&str, String)], group: &str, word: &str) -> Vec<Resource> {
    let mut found: Vec<Resource> = Vec::new();
    for (version, text) in lists {
        for resource in in_list(text, group, version, word) {
            if found.iter().all(|known| known.kind != resource.kind) {
                found.push(resource);
            }
        }
    }
    found
}

fn in_list(text: &str, group: &str, version: &str, word: &str) -> Vec<Resource> {
    let Ok(list) = serde_json::from_str::<ResourceList>(text) else {
        return Vec::new();
    };
    let called = list
        .resources
        .into_iter()
        .filter(|served| served.is_called(word));
    called
        .map(|served| Resource {
            namespaced: served.namespaced,
            ..Resource::namespaced(group, version, &served.kind, &served.name)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn own_kinds_are_named_in_singular_and_plural() {
        for word in ["machine", "Machines", "MACHINE"] {
            assert_eq!(own(word).unwrap().kind, "Machine");
        }
        assert!(own("pod").is_none());
    }

    #[test]
    fn a_kind_is_found_in_the_first_version_of_its_group_that_has_it() {
        let list = |kinds: &[&str]| {
            let resources: Vec<_> = kinds
                .iter()
                .map(|kind| json!({"name": kind.to_lowercase(), "kind": kind, "namespaced": true}))
                .collect();
            json!({"resources": resources}).to_string()
        };
        let lists = [
            ("v2", list(&["Theirs", "Both"])),
            ("v1", list(&["Both", "Ours"])),
        ];
        let version = |word: &str| {
            let found = in_lists(&lists, "g", word);
            let versions = found.iter().map(|found| found.version.as_str());
            versions.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            ["theirs", "both", "ours", "nobodys"].map(version),
            ["v2", "v2", "v1", ""]
        );
    }

    #[test]
    fn a_served_kind_is_found_by_each_of_its_names_and_subresources_are_none() {
        let text = r#"{"kind": "APIResourceList", "groupVersion": "g/v2", "resources": [
            {"name": "locals", "singularName": "local", "kind": "Local", "namespaced": true, "shortNames": ["lo"], "verbs": ["get"]},
            {"name": "locals/status", "singularName": "", "kind": "Local", "namespaced": true, "verbs": ["get"]},
            {"name": "places", "singularName": "place", "kind": "Place", "namespaced": false, "verbs": ["get"]}
        ]}"#;
        let in_list = |text: &str, word: &str| in_list(text, "g", "v2", word);
        for word in ["local", "Locals", "lo"] {
            let found = in_list(text, word);
            assert_eq!(found, [Resource::namespaced("g", "v2", "Local", "locals")]);
        }
        assert!(!in_list(text, "place").first().unwrap().namespaced);
        assert!(in_list(text, "other").is_empty());
        assert!(in_list("not a list", "local").is_empty());
    }
}
