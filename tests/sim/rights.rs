//! What the host may do with the management cluster: the roles of an installation, as an API server judges by them.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use capstan_controllers::access;
use capstan_controllers::kube_api::Resource;
use capstan_controllers::registry;
use serde_json::Value;

use crate::object::list;

/// A request, as far as rights depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Verb.
    pub verb: &'a str,
    /// Kind.
    pub resource: &'a Resource,
    /// Subresource.
    pub subresource: Option<&'a str>,
    /// Namespace; absent for all of them.
    pub namespace: Option<&'a str>,
}

/// Group, resource and verb.
type Right = (String, String, String);

struct Rights {
    everywhere: BTreeSet<Right>,
    own_namespace: BTreeSet<Right>,
}

fn rights() -> &'static Rights {
    static RIGHTS: OnceLock<Rights> = OnceLock::new();
    RIGHTS.get_or_init(|| {
        let rules = access::rules(&registry::access());
        Rights {
            everywhere: flat(&rules.everywhere),
            own_namespace: flat(&rules.own_namespace),
        }
    })
}

fn flat(rules: &[Value]) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for rule in rules {
        for group in list(rule, "/apiGroups") {
            for resource in list(rule, "/resources") {
                for verb in list(rule, "/verbs") {
                    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                    rights.insert((text(group), text(resource), text(verb)));
                }
            }
        }
    }
    rights
}

impl Ask<'_> {
    /// Whether a role of the installation allows it.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        let resource = match self.subresource {
            Some(subresource) => format!("{}/{subresource}", self.resource.plural),
            None => self.resource.plural.clone(),
        };
        let holds = |rights: &BTreeSet<Right>| {
            [resource.as_str(), "*"].iter().any(|resource| {
                rights.contains(&(
                    self.resource.group.clone(),
                    (*resource).to_owned(),
                    self.verb.to_owned(),
                ))
            })
        };
        holds(&rights().everywhere)
            || (self.namespace == Some(crate::host::NAMESPACE) && holds(&rights().own_namespace))
    }

    /// It, in words.
    #[must_use]
    pub fn words(&self) -> String {
        let subresource = self.subresource.map(|name| format!("/{name}"));
        format!(
            "{} {}{}",
            self.verb,
            self.resource.plural,
            subresource.unwrap_or_default()
        )
    }
}
