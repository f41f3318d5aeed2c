//! What a plugin may do on the API server of its object's own workload cluster: verbs on resources, in the words of RBAC.

use std::fmt;

use super::both;

/// What can be done to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the WIT function of the same name")]
pub enum WorkloadVerb {
    Get,
    List,
    Apply,
    Patch,
    Delete,
}

impl WorkloadVerb {
    /// As in a grant.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Apply => "apply",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for WorkloadVerb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Permission for verbs on resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadGrant {
    /// API groups, empty text for the core group; `*` for all.
    pub groups: Vec<String>,
    /// Plurals; `*` for all.
    pub resources: Vec<String>,
    /// Verbs.
    pub verbs: Vec<WorkloadVerb>,
    /// Namespaces; empty for all, and for resources without namespaces.
    pub namespaces: Vec<String>,
    /// Names; empty for all. A grant with names does not list.
    pub names: Vec<String>,
}

/// What a request is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) verb: WorkloadVerb,
    pub(crate) group: &'a str,
    pub(crate) plural: &'a str,
    pub(crate) namespace: Option<&'a str>,
    /// None for a list.
    pub(crate) name: Option<&'a str>,
}

const ALL: &str = "*";

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|entry| entry == wanted || entry == ALL)
}

/// What both lists allow, where `*` stands for everything; `None` when that is nothing.
fn common(granted: &[String], ceiling: &[String]) -> Option<Vec<String>> {
    let all = |list: &[String]| list.iter().any(|entry| entry == ALL);
    if all(ceiling) {
        return (!granted.is_empty()).then(|| granted.to_vec());
    }
    if all(granted) {
        return (!ceiling.is_empty()).then(|| ceiling.to_vec());
    }
    let kept: Vec<String> = granted
        .iter()
        .filter(|entry| ceiling.contains(entry))
        .cloned()
        .collect();
    (!kept.is_empty()).then_some(kept)
}

impl WorkloadGrant {
    /// Whether the grant is for this request. What a list does not say (a namespace, a name) is all of them.
    pub(crate) fn is_for(&self, target: &Target<'_>) -> bool {
        let within = |limited: &[String], wanted: Option<&str>| {
            limited.is_empty() || wanted.is_some_and(|wanted| limited.iter().any(|l| l == wanted))
        };
        self.verbs.contains(&target.verb)
            && has(&self.groups, target.group)
            && has(&self.resources, target.plural)
            && within(&self.namespaces, target.namespace)
            && within(&self.names, target.name)
    }

    /// What is left of it below a ceiling.
    pub(super) fn below(&self, ceiling: &Self) -> Option<Self> {
        let verbs: Vec<WorkloadVerb> = self
            .verbs
            .iter()
            .copied()
            .filter(|verb| ceiling.verbs.contains(verb))
            .collect();
        if verbs.is_empty() {
            return None;
        }
        Some(Self {
            groups: common(&self.groups, &ceiling.groups)?,
            resources: common(&self.resources, &ceiling.resources)?,
            verbs,
            namespaces: both(&self.namespaces, &ceiling.namespaces)?,
            names: both(&self.names, &ceiling.names)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> Vec<String> {
        entries.iter().map(|e| (*e).to_owned()).collect()
    }

    fn grant(resources: &[&str], verbs: &[WorkloadVerb], namespaces: &[&str]) -> WorkloadGrant {
        WorkloadGrant {
            groups: list(&["", "apps"]),
            resources: list(resources),
            verbs: verbs.to_vec(),
            namespaces: list(namespaces),
            names: vec![],
        }
    }

    fn target<'a>(verb: WorkloadVerb, plural: &'a str, namespace: Option<&'a str>) -> Target<'a> {
        Target {
            verb,
            group: "",
            plural,
            namespace,
            name: (verb != WorkloadVerb::List).then_some("x"),
        }
    }

    #[test]
    fn a_grant_for_one_namespace_does_not_list_all() {
        let granted = grant(&["configmaps"], &[WorkloadVerb::List], &["kube-system"]);
        let of = |namespace| granted.is_for(&target(WorkloadVerb::List, "configmaps", namespace));
        assert!(of(Some("kube-system")));
        assert!(!of(Some("default")));
        assert!(!of(None));
    }

    #[test]
    fn a_grant_for_names_does_not_list() {
        let mut granted = grant(
            &["configmaps"],
            &[WorkloadVerb::List, WorkloadVerb::Get],
            &[],
        );
        granted.names = list(&["x"]);
        assert!(granted.is_for(&target(WorkloadVerb::Get, "configmaps", Some("a"))));
        assert!(!granted.is_for(&target(WorkloadVerb::List, "configmaps", Some("a"))));
    }

    #[test]
    fn a_ceiling_leaves_what_both_allow() {
        use WorkloadVerb::{Apply, Delete, Get};
        let ceiling = grant(&["configmaps", "services"], &[Get, Apply], &["kube-system"]);
        let cut = grant(&["*"], &[Get, Delete], &[]).below(&ceiling).unwrap();
        assert_eq!(
            cut,
            grant(&["configmaps", "services"], &[Get], &["kube-system"])
        );
        assert_eq!(grant(&["secrets"], &[Get], &[]).below(&ceiling), None);
        assert_eq!(grant(&["*"], &[Delete], &[]).below(&ceiling), None);
        assert_eq!(grant(&["*"], &[Get], &["default"]).below(&ceiling), None);
    }
}
