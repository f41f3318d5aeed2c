//! Refuses what kubeadm or the cluster would refuse on the machine, by field, before there is a machine.

use std::net::IpAddr;

use serde_json::Value;

use crate::question::{Question, Role};
use crate::refusal::Refusal;

/// Letters of a bootstrap token before and after its point (Kubernetes `staging/src/k8s.io/cluster-bootstrap/token/api`).
const TOKEN: (usize, usize) = (6, 16);
/// What a bootstrap token may be for.
const USAGES: [&str; 2] = ["signing", "authentication"];
/// What the groups of a bootstrap token begin with.
const GROUPS: &str = "system:bootstrappers:";
/// Letters of such a group after that.
const GROUP_LETTERS_MAX: usize = 256;
/// What taints do.
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
/// Bits that a range for Services leaves to its addresses at most (kubeadm `constants.MaximumBitsForServiceSubnet`).
const SERVICE_BITS_MAX: u32 = 20;

/// Whether the machine could be made with this.
pub(crate) fn check(question: &Question<'_>) -> Result<(), Refusal> {
    match question.role {
        Role::Init => {
            tokens(question)?;
            networks(question.cluster)?;
            taints(question, "initConfiguration")
        }
        Role::JoinControlPlane | Role::JoinWorker => {
            if question.role == Role::JoinWorker
                && question
                    .spec
                    .pointer("/joinConfiguration/controlPlane")
                    .is_some()
            {
                // As upstream `bootstrap/kubeadm/internal/controllers` does.
                return Err(Refusal::object(
                    "FieldNotForWorkers",
                    "joinConfiguration.controlPlane: the machine is a worker: remove the field, or give the Machine the label cluster.x-k8s.io/control-plane",
                ));
            }
            for field in [
                "discovery.bootstrapToken.token",
                "discovery.tlsBootstrapToken",
            ] {
                let field = format!("joinConfiguration.{field}");
                let pointer = format!("/{}", field.replace('.', "/"));
                if let Some(token) = question.text(&pointer) {
                    self::token(&field, token)?;
                }
            }
            taints(question, "joinConfiguration")
        }
    }
}

fn refused(field: &str, why: &str) -> Refusal {
    Refusal::object("FieldRefusedByKubeadm", format!("{field}: {why}"))
}

/// Whether a text becomes another one on the machine: by cloud-init's templates, or by a command before kubeadm.
fn is_filled_in(text: &str) -> bool {
    text.contains("{{") || text.contains("${")
}

fn token(field: &str, token: &str) -> Result<(), Refusal> {
    let is_token = token
        .split_once('.')
        .is_some_and(|(id, secret)| (id.len(), secret.len()) == TOKEN)
        && token
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.')
        && token.matches('.').count() == 1;
    if is_token || is_filled_in(token) {
        return Ok(());
    }
    // Not the token itself: conditions are read by more people than specs of configs.
    let why = "it is no bootstrap token: write 6 and 16 of a-z and 0-9 with a point between them, as kubeadm token generate prints";
    Err(refused(field, why))
}

fn tokens(question: &Question<'_>) -> Result<(), Refusal> {
    let tokens = question.list("/initConfiguration/bootstrapTokens");
    for (position, given) in tokens.iter().enumerate() {
        let field = |name: &str| format!("initConfiguration.bootstrapTokens[{position}].{name}");
        let list = |name: &str| {
            let list = given.get(name).and_then(Value::as_array);
            list.into_iter().flatten().filter_map(Value::as_str)
        };
        if given.get("expires").is_some() {
            let why = "kubeadm gives every token a life and then refuses an end beside it: use ttlSeconds";
            return Err(refused(&field("expires"), why));
        }
        token(
            &field("token"),
            given
                .get("token")
                .and_then(Value::as_str)
                .unwrap_or_default(),
        )?;
        if let Some(usage) = list("usages").find(|usage| !USAGES.contains(usage)) {
            let why = format!("{usage:?} is none of {}", USAGES.join(", "));
            return Err(refused(&field("usages"), &why));
        }
        if let Some(group) = list("groups").find(|group| !is_group(group)) {
            let why = format!(
                "{group:?} must begin with {GROUPS}, and go on with a-z, 0-9, : and inner -"
            );
            return Err(refused(&field("groups"), &why));
        }
    }
    Ok(())
}

fn is_group(group: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    group.strip_prefix(GROUPS).is_some_and(|name| {
        name.len() <= GROUP_LETTERS_MAX
            && name
                .bytes()
                .all(|b| is_letter(b) || matches!(b, b':' | b'-'))
            && name.bytes().last().is_some_and(is_letter)
    })
}

fn taints(question: &Question<'_>, section: &str) -> Result<(), Refusal> {
    let taints = question.list(&format!("/{section}/nodeRegistration/taints"));
    for (position, taint) in taints.iter().enumerate() {
        let effect = taint
            .get("effect")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if !EFFECTS.contains(&effect) && !is_filled_in(effect) {
            let field = format!("{section}.nodeRegistration.taints[{position}].effect");
            let why = format!("{effect:?} is none of {}", EFFECTS.join(", "));
            return Err(refused(&field, &why));
        }
    }
    Ok(())
}

/// A range of addresses: whether of IPv6, and the bits that it leaves to them.
fn range(text: &str) -> Option<(bool, u32)> {
    let (address, prefix) = text.split_once('/')?;
    let is_new = address.parse::<IpAddr>().ok()?.is_ipv6();
    let bits: u32 = if is_new { 128 } else { 32 };
    Some((is_new, bits.checked_sub(prefix.parse().ok()?)?))
}

fn networks(cluster: &Value) -> Result<(), Refusal> {
    for network in ["pods", "services"] {
        let blocks = cluster.pointer(&format!("/spec/clusterNetwork/{network}/cidrBlocks"));
        let blocks = blocks.and_then(Value::as_array).into_iter().flatten();
        let blocks: Vec<&str> = blocks.filter_map(Value::as_str).collect();
        let field = |position: usize| {
            format!("Cluster.spec.clusterNetwork.{network}.cidrBlocks[{position}]")
        };
        let mut families = Vec::new();
        for (position, block) in blocks.iter().enumerate() {
            let Some((is_new, bits)) = range(block) else {
                let why = format!("{block:?} is no range such as 10.0.0.0/16");
                return Err(refused(&field(position), &why));
            };
            if families.contains(&is_new) {
                let why = format!(
                    "{block:?} is another range of one family: a cluster has one, or with two stacks one of IPv4 and one of IPv6"
                );
                return Err(refused(&field(position), &why));
            }
            families.push(is_new);
            if network == "services" && bits > SERVICE_BITS_MAX {
                let least = if is_new { 128 } else { 32_u32 }.saturating_sub(SERVICE_BITS_MAX);
                let why =
                    format!("{block:?} is too large: /{least} is the largest range for Services");
                return Err(refused(&field(position), &why));
            }
        }
    }
    Ok(())
}
