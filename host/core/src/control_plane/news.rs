//! What people hear of a control plane that waits: an event when the wait begins. What the status says already is no news.

use capstan_api::condition;
use capstan_api::reason::{condition_type, event};
use jiff::{SignedDuration, Timestamp};

use super::adoption::Verdict;
use super::{Observed, Step, size};

/// A machine is given so long to come up before it is news that it is not well.
const COMING_UP: SignedDuration = SignedDuration::from_mins(3);

/// Conditions that say why the number of machines does not change.
const SAYING: [&str; 3] = [
    condition_type::SCALING_UP,
    condition_type::ROLLING_OUT,
    condition_type::SCALING_DOWN,
];

fn is_said(observed: &Observed, why: &str) -> bool {
    SAYING.iter().any(|type_| {
        condition::read(&observed.object, type_).is_some_and(|said| said.message.contains(why))
    })
}

/// That machines which are not well hold a change of their number.
pub(super) fn of_health(observed: &Observed, why: &str, now: Timestamp) -> Option<Step> {
    let is_it = observed.members.iter().any(|member| {
        member.node_name().is_some()
            && now.duration_since(member.created()) > COMING_UP
            && size::unfit(observed, member, now).as_deref() == Some(why)
    });
    (is_it && !is_said(observed, why)).then(|| Step::Tell {
        reason: event::CONTROL_PLANE_UNHEALTHY,
        note: why.to_owned(),
    })
}

/// That machines which others made are not taken over.
pub(super) fn of_adoption(observed: &Observed, verdict: &Verdict) -> Option<Step> {
    let is_news = verdict.refused.iter().any(|why| !is_said(observed, why));
    (is_news && !verdict.waits).then(|| Step::Tell {
        reason: event::ADOPTION_FAILED,
        note: verdict.refused.join("; "),
    })
}
