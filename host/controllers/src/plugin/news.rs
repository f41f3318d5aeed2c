//! What is told of a Plugin as an event: every time something takes over, is left, fails, or is held back.

use capstan_core::plugin::{Attempt, Observed, Step};

use super::memory::Slot;
use crate::event::Event;

/// What a step that was taken has changed, for people.
pub(super) fn of_step(step: &Step, before: &Observed, after: &Observed) -> Option<Event> {
    let active = |observed: &Observed| {
        let active = observed.active.as_ref();
        active.map_or_else(|| "nothing".to_owned(), |active| active.digest.clone())
    };
    let now = active(after);
    match step {
        Step::CheckSignatures if before.active.is_some() && after.active.is_none() => {
            Some(withdrawn(&active(before)))
        }
        Step::Activate => Some(Event::normal(
            "Activated",
            "Activate",
            format!("{now} answers calls, before it was {}", active(before)),
        )),
        Step::Regrant => {
            let generation = after.plugin.metadata.generation.unwrap_or_default();
            let note = format!(
                "{now} has the grants, limits and config of generation {generation} from now on"
            );
            Some(Event::normal("Regranted", "Grant", note))
        }
        Step::FallBack => {
            let why = after.given_up.as_ref().map(|(_, why)| why.clone());
            let why = why.unwrap_or_else(|| format!("spec.digest names {now}"));
            Some(Event::warning(
                "FellBack",
                "FallBack",
                format!("{now} answers calls again: {why}"),
            ))
        }
        Step::Restore { digest } => Some(restored(digest, now == *digest)),
        Step::ActivateCanary => {
            let canary = after.canary.as_ref()?.active.as_ref()?;
            let (reason, whose) = if canary.spec.promoted {
                ("CanaryPromoted", "all objects")
            } else {
                ("CanaryServing", "its objects")
            };
            let note = format!("{} answers calls about {whose}", canary.digest);
            Some(Event::normal(reason, "ActivateCanary", note))
        }
        Step::DropCanary => Some(Event::normal(
            "CanaryDropped",
            "DropCanary",
            format!("{now} answers calls about all objects"),
        )),
        Step::Deactivate => Some(Event::normal(
            "Deactivated",
            "Deactivate",
            format!("{} answers no calls any more", active(before)),
        )),
        // What comes of a load is told when it is there.
        Step::Load { .. }
        | Step::LoadCanary { .. }
        | Step::CheckSignatures
        | Step::InstallKinds
        | Step::RecallKinds => None,
    }
}

fn withdrawn(digest: &str) -> Event {
    let note = format!(
        "{digest} answers no calls any more: nobody whose key this host still has has signed it"
    );
    Event::warning("NotSigned", "CheckSignatures", note)
}

fn restored(digest: &str, is_back: bool) -> Event {
    if is_back {
        let note = format!(
            "{digest} answers calls, as before the host was started: what the source has now must not"
        );
        return Event::warning("FellBack", "Restore", note);
    }
    let note =
        format!("{digest} answered calls before the host was started, and cannot do so again");
    Event::warning("NotRestored", "Restore", note)
}

/// What is wrong with what was loaded, or that it waits for grants.
pub(super) fn of_attempt(attempt: &Attempt, slot: Slot) -> Option<Event> {
    let action = match slot {
        Slot::Main => "Load",
        Slot::Canary => "LoadCanary",
    };
    match &attempt.result {
        Err(problem) => Some(Event::warning(
            &problem.reason,
            action,
            problem.message.clone(),
        )),
        Ok(candidate) => {
            let missing: Vec<&str> = candidate
                .missing
                .iter()
                .map(|missing| missing.capability.as_str())
                .collect();
            let note = format!(
                "{} is not called without {}: status.missingGrants has the lines to add",
                candidate.digest,
                missing.join(", ")
            );
            (!missing.is_empty()).then(|| Event::warning("GrantMissing", "Grant", note))
        }
    }
}

/// That calls are held back, or go through again.
pub(super) fn of_breaker(before: bool, after: &Observed) -> Option<Event> {
    match (&after.held_back, before) {
        (Some(why), false) => Some(Event::warning("CircuitOpen", "CallPlugin", why.clone())),
        (None, true) => Some(Event::normal(
            "CircuitClosed",
            "CallPlugin",
            "calls go through again",
        )),
        _ => None,
    }
}
