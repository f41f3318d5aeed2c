//! What a rotation says.

use capstan_api::annotation;
use capstan_api::condition::{self, Report};
use capstan_api::reason::{condition_type, rotation as reason};
use jiff::Timestamp;

use super::super::Observed;
use super::plan::{Turn, turn};
use super::{Record, Stage};

/// The condition; none for a control plane whose authorities nobody asked to rotate.
#[must_use]
pub fn report(observed: &Observed, now: Timestamp) -> Option<Report> {
    let type_ = condition_type::CERTIFICATE_AUTHORITIES_ROTATED;
    match turn(observed, now) {
        Turn::Idle => condition::read(&observed.object, type_).map(|stored| {
            let status = condition::status_of(&stored);
            Report::new(type_, status, &stored.reason).with_message(stored.message)
        }),
        Turn::Refused { why } => {
            let message = format!("nothing was changed:\n* {}", why.join("\n* "));
            Some(Report::no(type_, reason::ROTATION_REFUSED).with_message(message))
        }
        Turn::Blocked { why } => {
            Some(Report::no(type_, reason::ROTATION_BLOCKED).with_message(why))
        }
        Turn::Done(record) if record.undo => {
            let message = format!("rotation {} was taken back", record.id);
            Some(Report::no(type_, reason::ROTATION_TAKEN_BACK).with_message(message))
        }
        Turn::Done(record) => Some(
            Report::yes(type_, reason::ROTATED).with_message(format!("rotation {}", record.id)),
        ),
        Turn::Active {
            record,
            wait,
            is_late,
            ..
        } => {
            let late = if is_late {
                format!(
                    "\nannotation {} was removed too late: the old keys are gone, it goes on",
                    annotation::ROTATE_CA
                )
            } else {
                String::new()
            };
            let message = format!("rotation {}: {wait}{late}", record.id);
            Some(Report::no(type_, reason_of(&record)).with_message(message))
        }
    }
}

fn reason_of(record: &Record) -> &'static str {
    match (record.undo, record.stage) {
        (true, _) => reason::TAKING_BACK,
        (false, Stage::Trust | Stage::Learn) => reason::TRUSTING_NEW,
        (false, Stage::Sign) => reason::SIGNING_WITH_NEW,
        (false, Stage::Renew) => reason::RENEWING_SIGNATURES,
        (false, Stage::Drop | Stage::Done) => reason::DROPPING_OLD,
    }
}
