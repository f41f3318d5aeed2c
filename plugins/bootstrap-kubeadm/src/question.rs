//! What is asked: one machine's config with all that surrounds it, in this crate's own words.

use serde_json::Value;

use crate::refusal::Refusal;

/// What the machine will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The first control-plane machine.
    Init,
    /// A further control-plane machine.
    JoinControlPlane,
    /// A worker.
    JoinWorker,
}

impl Role {
    /// Whether it runs a control plane.
    pub(crate) fn is_control_plane(self) -> bool {
        self != Role::JoinWorker
    }

    /// Whether it joins a cluster that is there.
    pub(crate) fn joins(self) -> bool {
        self != Role::Init
    }
}

/// One machine's config with all that surrounds it.
#[derive(Clone, Debug)]
pub(crate) struct Question<'a> {
    /// The Cluster.
    pub(crate) cluster: &'a Value,
    /// `spec` of the KubeadmConfig.
    pub(crate) spec: &'a Value,
    /// What the machine will be.
    pub(crate) role: Role,
    /// `host:port` of the Cluster, with brackets around an IPv6 address.
    pub(crate) endpoint: Option<String>,
    /// Of the machine, with a leading v; may be empty.
    pub(crate) kubernetes_version: &'a str,
    /// Of the control plane, with a leading v; may be empty.
    pub(crate) control_plane_version: &'a str,
    /// Where the machine tells that it did not become a node.
    pub(crate) report: Option<Report<'a>>,
}

/// Where a machine reports.
#[derive(Clone, Debug)]
pub(crate) struct Report<'a> {
    /// Where to post.
    pub(crate) url: &'a str,
    /// Who vouches for it, PEM.
    pub(crate) authority: &'a str,
    /// The token that lets the machine.
    pub(crate) token: u64,
}

impl<'a> Question<'a> {
    /// Name of the Cluster.
    pub(crate) fn cluster_name(&self) -> &'a str {
        self.cluster
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// Whether the data is Ignition's and not cloud-init's.
    pub(crate) fn is_ignition(&self) -> bool {
        self.text("/format") == Some("ignition")
    }

    /// A text of the spec by JSON pointer; `None` when it is missing or empty.
    pub(crate) fn text(&self, pointer: &str) -> Option<&'a str> {
        self.spec
            .pointer(pointer)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    }

    /// A list of the spec by JSON pointer; empty when it is missing.
    pub(crate) fn list(&self, pointer: &str) -> &'a [Value] {
        self.spec
            .pointer(pointer)
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// The machine's version, else the control plane's.
    pub(crate) fn version_text(&self) -> &'a str {
        if self.kubernetes_version.is_empty() {
            self.control_plane_version
        } else {
            self.kubernetes_version
        }
    }

    /// The version to write kubeadm's configuration for.
    pub(crate) fn version(&self) -> Result<(u64, u64), Refusal> {
        let text = self.version_text();
        if text.is_empty() {
            return Err(Refusal::object(
                "VersionMissing",
                "the Machine has no spec.version and the cluster's control plane has none either: set one of them",
            ));
        }
        let mut numbers = text.trim_start_matches('v').split('.');
        let parsed = (
            numbers.next().and_then(|n| n.parse().ok()),
            numbers.next().and_then(|n| n.parse().ok()),
        );
        match parsed {
            (Some(major), Some(minor)) => Ok((major, minor)),
            _ => Err(Refusal::object(
                "VersionInvalid",
                format!(
                    "{text:?} is not a Kubernetes version: Machine.spec.version must be such as v1.36.3"
                ),
            )),
        }
    }
}

/// A piece of material: public as text, private as a handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Public.
    Text(String),
    /// Private.
    Secret(u64),
}

/// What the host has made ready.
#[derive(Clone, Debug, Default)]
pub(crate) struct Materials(pub(crate) Vec<(String, String, Piece)>);

impl Materials {
    /// The part of the material of this name, if the host has it.
    pub(crate) fn optional(&self, name: &str, part: &str) -> Option<&Piece> {
        self.0
            .iter()
            .find(|(n, p, _)| n == name && p == part)
            .map(|(_, _, piece)| piece)
    }

    /// The part of the material of this name.
    pub(crate) fn piece(&self, name: &str, part: &str) -> Result<&Piece, Refusal> {
        self.optional(name, part).ok_or_else(|| {
            Refusal::later(
                "MaterialMissing",
                format!("the host has not given the {part} of {name:?}"),
            )
        })
    }

    /// As [`Self::piece`], for what must be public.
    pub(crate) fn text(&self, name: &str, part: &str) -> Result<&str, Refusal> {
        match self.piece(name, part)? {
            Piece::Text(text) => Ok(text),
            Piece::Secret(_) => Err(Refusal::later(
                "MaterialMissing",
                format!("the host gave the {part} of {name:?} as a secret"),
            )),
        }
    }
}
