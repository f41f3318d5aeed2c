//! What a Plugin object says and what a manifest makes, for commands that have no management cluster.

use std::collections::BTreeMap;

use capstan_api::plugin::PluginSpec;
use capstan_core::call::manifest::Manifest;
use capstan_core::plan::Failure;
use capstan_engine::{Grants, Limits};
use serde_json::Value;

use super::{grants, install};
use crate::plugins::SecretSource;

/// The parts of `spec` that a call depends on, in the engine's words.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// What the plugin may do.
    pub grants: Grants,
    /// What a call may use.
    pub limits: Limits,
    /// Where the secret of each granted credential is.
    pub credentials: BTreeMap<String, SecretSource>,
}

impl Terms {
    /// As the host reads them.
    ///
    /// # Errors
    /// Terminal: names the entry that is not well-formed.
    pub fn of(spec: &PluginSpec) -> Result<Self, Failure> {
        Ok(Self {
            grants: grants::grants(spec)?,
            limits: grants::limits(spec),
            credentials: grants::credentials(spec),
        })
    }
}

/// The CustomResourceDefinitions that the host would install for a plugin.
///
/// # Errors
/// Terminal: names the kind that none can be made of.
pub fn definitions(manifest: &Manifest) -> Result<Vec<Value>, Failure> {
    let kinds = manifest.kinds.iter();
    kinds
        .map(|kind| install::definition(kind, &manifest.name))
        .collect()
}
