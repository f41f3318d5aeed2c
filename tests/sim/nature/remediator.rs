//! A remediator that is no plugin: starts the instance of a Machine again when a health check asks for help.

use std::sync::Arc;

use capstan_controllers::kinds;
use serde_json::Value;

use super::Memory;
use crate::cloud::Phase;
use crate::kinds as sim;
use crate::object::{is_deleting, list, name, text, uid};
use crate::world::State;

/// Answers requests, each after a while.
pub(super) fn help(state: &mut State, memory: &mut Memory) {
    let requests: Vec<Arc<Value>> = state
        .management
        .all(&sim::SIM_REMEDIATION)
        .filter(|request| !is_deleting(request))
        .cloned()
        .collect();
    for request in requests {
        if !memory.is_due(state, &format!("help {}", uid(&request)), 5, 180) {
            continue;
        }
        let owners = list(&request, "/metadata/ownerReferences");
        // One that goes is left alone.
        let stays = state.management.find(&kinds::MACHINE, |machine| {
            let is_its = |owner: &Value| text(owner, "/uid") == uid(machine);
            owners.iter().any(is_its) && !is_deleting(machine)
        });
        if stays.is_none() {
            continue;
        }
        let instances = state.cloud.instances.values_mut();
        let broken = instances.filter(|instance| {
            let is_its = |owner: &Value| text(owner, "/uid") == instance.machine;
            matches!(instance.phase, Phase::Broken(_)) && owners.iter().any(is_its)
        });
        let mut started = Vec::new();
        for instance in broken {
            instance.phase = Phase::Running;
            started.push(instance.id.clone());
        }
        for id in started {
            // Its kubelet says so soon, and is missed again only when it is silent again.
            memory.due.remove(&format!("ready {id}"));
            memory.due.remove(&format!("silent {id}"));
            state.note(&format!(
                "remediator: instance {id} runs again, as {} asks",
                name(&request)
            ));
            state.stir();
        }
    }
}
