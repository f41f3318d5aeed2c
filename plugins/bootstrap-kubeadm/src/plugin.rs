//! The plugin as the host sees it: translates between the SDK's words and this crate's.

use std::time::Duration;

use capstan_sdk::bootstrap::{
    Bootstrap, BootstrapAnswer, BootstrapInput, Part as SdkPart, Role as SdkRole,
};
use capstan_sdk::{
    Condition, ConditionStatus, Failure, Manifest, Material, MaterialValue, NoStatus, Plugin,
    Requirement, SecretHandle,
};
use serde_json::Value;

use crate::data::data;
use crate::kinds;
use crate::needs::{Need, TOKEN, TOKEN_LIFETIME_MS, needs};
use crate::question::{Materials, Piece, Question, Report, Role};
use crate::refusal::{Refusal, Remedy};
use crate::template::CONTROL_PLANE_VERSION;
use crate::yaml::Part;

/// How long to wait for what is not known yet (contract 3.9: 10 s for a missing endpoint).
const LATER: Duration = Duration::from_secs(10);
/// Parts that any material may have.
const PARTS: [&str; 6] = ["certificate", "key", "public-key", "hash", "token", "value"];

/// The plugin.
#[derive(Debug)]
pub struct Kubeadm;

impl Plugin for Kubeadm {
    fn manifest() -> Manifest {
        Manifest::new("bootstrap-kubeadm", env!("CARGO_PKG_VERSION"))
            .description("Turns machines into nodes with kubeadm, by cloud-config or Ignition.")
            .kind(kinds::config())
            .kind(kinds::config_template())
    }
}

impl Bootstrap for Kubeadm {
    type Spec = Value;
    type Status = NoStatus;

    fn requirements(input: BootstrapInput<Self>) -> Result<Vec<Requirement>, Failure> {
        let question = question(&input);
        let needs = needs(&question).into_iter();
        Ok(needs
            .map(|need| requirement(need, question.control_plane_version))
            .collect())
    }

    fn render(input: BootstrapInput<Self>, material: Material) -> Result<BootstrapAnswer, Failure> {
        let mut question = question(&input);
        let (materials, mut handles) = read(&material, &needs(&question));
        let report = input.failure_report();
        if let Some(report) = &report {
            handles.push(report.token);
            question.report = Some(Report {
                url: &report.url,
                authority: &report.certificate_authority,
                token: handles.len().saturating_sub(1) as u64,
            });
        }
        let data = data(&question, &materials)?;
        let mut answer = BootstrapAnswer::new(data.format);
        if let Some(ignored) = data.ignored {
            answer.conditions.push(Condition::new(
                "AdditionalConfigApplied",
                ConditionStatus::False,
                "KeysIgnored",
                ignored,
            ));
        }
        for part in data.parts {
            answer.parts.push(match part {
                Part::Text(text) => SdkPart::Text(text),
                Part::Secret { handle, encoding } => {
                    SdkPart::Secret(sdk_handle(&handles, handle)?, encoding)
                }
            });
        }
        Ok(answer)
    }
}

fn question(input: &BootstrapInput<Kubeadm>) -> Question<'_> {
    Question {
        cluster: &input.cluster.raw,
        spec: &input.config.spec,
        role: match input.role {
            SdkRole::Init => Role::Init,
            SdkRole::JoinControlPlane => Role::JoinControlPlane,
            SdkRole::JoinWorker => Role::JoinWorker,
        },
        endpoint: input
            .control_plane_endpoint
            .as_ref()
            .map(ToString::to_string),
        kubernetes_version: &input.kubernetes_version,
        control_plane_version: &input.control_plane_version,
        report: None,
    }
}

fn requirement(need: Need, control_plane_version: &str) -> Requirement {
    match need {
        Need::Authority {
            name,
            common_name,
            algorithm,
            validity_days,
        } => Requirement::CertificateAuthority {
            name: name.to_owned(),
            common_name: common_name.to_owned(),
            algorithm,
            validity_days,
        },
        Need::KeyPair { name, algorithm } => Requirement::KeyPair {
            name: name.to_owned(),
            algorithm,
        },
        Need::JoinToken => Requirement::join_token(TOKEN, Duration::from_millis(TOKEN_LIFETIME_MS)),
        Need::SecretValue {
            name,
            secret,
            key,
            is_template,
        } => Requirement::SecretValue {
            name,
            secret,
            key,
            template: if is_template {
                let version = control_plane_version.to_owned();
                vec![(CONTROL_PLANE_VERSION.to_owned(), version)]
            } else {
                Vec::new()
            },
        },
    }
}

fn need_name(need: &Need) -> &str {
    match need {
        Need::Authority { name, .. } | Need::KeyPair { name, .. } => name,
        Need::JoinToken => TOKEN,
        Need::SecretValue { name, .. } => name,
    }
}

/// The host's material with its handles numbered by their place in the list beside it.
fn read(material: &Material, needs: &[Need]) -> (Materials, Vec<SecretHandle>) {
    let mut handles = Vec::new();
    let mut pieces = Vec::new();
    for need in needs {
        for part in PARTS {
            let piece = match material.get(need_name(need), part) {
                None => continue,
                Some(MaterialValue::Text(text)) => Piece::Text(text.clone()),
                Some(MaterialValue::Secret(handle)) => {
                    handles.push(*handle);
                    Piece::Secret(handles.len().saturating_sub(1) as u64)
                }
            };
            pieces.push((need_name(need).to_owned(), part.to_owned(), piece));
        }
    }
    (Materials(pieces), handles)
}

fn sdk_handle(handles: &[SecretHandle], number: u64) -> Result<SecretHandle, Failure> {
    let handle = usize::try_from(number)
        .ok()
        .and_then(|number| handles.get(number));
    handle
        .copied()
        .ok_or_else(|| Failure::terminal("HandleUnknown", "a secret has no handle"))
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        match refusal.remedy {
            Remedy::Later => Failure::transient(refusal.reason, refusal.message).retry_after(LATER),
            Remedy::Object => Failure::terminal(refusal.reason, refusal.message),
            Remedy::Plugin => Failure::unsupported(refusal.reason, refusal.message),
        }
    }
}
