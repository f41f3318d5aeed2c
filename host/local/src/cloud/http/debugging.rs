//! Operations that look into a machine, or hurt it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;
use serde_json::json;

use super::listing::find;
use super::{Answer, Call, answer, json_answer, patiently};
use crate::cloud::answer::Refusal;
use crate::cloud::backend::{Backend, Fault};
use crate::cloud::lifecycle;
use crate::cloud::records::{Instance, InstanceState, Record};
use crate::cloud::region::Region;
use crate::cloud::requests::{self, Exec};

/// How long a command inside, or filling a disk, may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Units whose logs can be read.
const UNITS: [&str; 2] = ["kubelet", "containerd"];

/// Words and bytes of a command.
const ARGUMENTS_MAX: usize = 256;
const COMMAND_BYTES_MAX: usize = 64 * 1024;

/// What a backend's error means to a client.
fn refusal(error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::Unsupported => Refusal::unsupported(error.to_string()),
        io::ErrorKind::NotFound => Refusal::conflict("InvalidState", error.to_string()),
        _ => Refusal::machine(error.to_string()),
    }
}

fn running(region: &Region, id: &str) -> Result<(Instance, Arc<dyn Backend>), Refusal> {
    let instance = find(&region.lock().instances, id)?;
    if instance.state != InstanceState::Running {
        let message = format!(
            "instance {id:?} is {}, which does not allow this action",
            instance.state.as_str()
        );
        return Err(Refusal::conflict("InvalidState", message));
    }
    let backend = region.backend(&instance.backend);
    Ok((instance, backend))
}

/// Plays a fault on a machine.
pub(super) async fn fault(
    region: &Arc<Region>,
    id: &str,
    name: &str,
    fault: Fault,
) -> Result<Answer, Refusal> {
    let (_, backend) = running(region, id)?;
    let played = tokio::time::timeout(TIMEOUT, backend.fault(id, fault)).await;
    played
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| refusal(&error))?;
    region.console(id).line(format!("fault: {name}"));
    if fault == Fault::Kill {
        patiently(lifecycle::spawn(region, id, lifecycle::killed)).await;
    }
    Ok(json_answer(
        StatusCode::ACCEPTED,
        &find(&region.lock().instances, id)?.view(),
    ))
}

/// Runs a command inside.
pub(super) async fn exec(region: &Arc<Region>, call: &Call, id: &str) -> Result<Answer, Refusal> {
    let Exec { command } = requests::parse(&call.body)?;
    let bytes: usize = command.iter().map(String::len).sum();
    if command.is_empty() || command.len() > ARGUMENTS_MAX || bytes > COMMAND_BYTES_MAX {
        return Err(Refusal::invalid(format!(
            "command: must be 1 to {ARGUMENTS_MAX} words of at most {COMMAND_BYTES_MAX} bytes together"
        )));
    }
    let (_, backend) = running(region, id)?;
    let output = tokio::time::timeout(TIMEOUT, backend.exec(id, command)).await;
    let output = output
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| refusal(&error))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(json_answer(
        StatusCode::OK,
        &json!({"exitCode": output.code, "stdout": text(&output.stdout), "stderr": text(&output.stderr)}),
    ))
}

/// The log of a unit.
pub(super) fn unit_log(region: &Region, id: &str, unit: &str) -> Result<Answer, Refusal> {
    let instance = find(&region.lock().instances, id)?;
    if !UNITS.contains(&unit) {
        return Err(Refusal::not_found("log of a unit named", unit));
    }
    let log = region
        .backend(&instance.backend)
        .unit_log(id, unit)
        .map_err(|error| refusal(&error))?;
    let text = String::from_utf8_lossy(&log).into_owned();
    Ok(answer(StatusCode::OK, "text/plain; charset=utf-8", text))
}
