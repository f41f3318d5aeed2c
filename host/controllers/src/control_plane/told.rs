//! What people hear of the steps of a control plane: events.

use capstan_api::reason::event;
use capstan_core::call::bootstrap::Role;
use capstan_core::control_plane::Step;
use capstan_core::plan::Failure;

use super::rotation;
use crate::event::Event;

/// What people hear of a step. The names are those of Cluster API's control-plane controller where it has one.
pub(super) fn event_of(
    is_deleting: bool,
    step: &Step,
    done: &Result<(), Failure>,
) -> Option<Event> {
    if matches!(done, Err(failure) if failure.is_lost_race()) {
        return None;
    }
    let event = match (step, done) {
        (Step::CreateMachine { role, .. }, Err(failure)) => {
            Event::warning(making(*role), "CreateMachine", &*failure.message)
        }
        (Step::CompleteMachine { role, .. }, Err(failure)) => {
            Event::warning(making(*role), "CompleteMachine", &*failure.message)
        }
        (Step::DeleteMachine { .. }, Err(failure)) => {
            let reason = if is_deleting {
                event::FAILED_DELETE
            } else {
                event::FAILED_SCALE_DOWN
            };
            Event::warning(reason, "DeleteMachine", &*failure.message)
        }
        (Step::Tell { reason, note }, _) => Event::warning(reason, "Wait", note.as_str()),
        (Step::AdoptMachine { name, .. }, Ok(())) => Event::normal(
            event::MACHINE_ADOPTED,
            "AdoptMachine",
            format!("Machine {name}"),
        ),
        (Step::AdoptMachine { .. }, Err(failure)) => {
            Event::warning(event::ADOPTION_FAILED, "AdoptMachine", &*failure.message)
        }
        (Step::RemoveEtcdMember { name, .. }, Ok(())) => Event::normal(
            event::ETCD_MEMBER_REMOVED,
            "RemoveEtcdMember",
            format!("etcd member {name}"),
        ),
        (Step::RemoveEtcdMember { .. }, Err(failure)) => Event::warning(
            event::FAILED_REMOVE_ETCD_MEMBER,
            "RemoveEtcdMember",
            &*failure.message,
        ),
        (Step::MoveLeader { from, to_name, .. }, Ok(())) => Event::normal(
            event::ETCD_LEADER_MOVED,
            "MoveLeader",
            format!("from {} to {to_name}", from.name),
        ),
        (Step::MoveLeader { .. }, Err(failure)) => Event::warning(
            event::FAILED_MOVE_ETCD_LEADER,
            "MoveLeader",
            &*failure.message,
        ),
        (Step::RecordRotation { record }, Ok(())) => Event::normal(
            event::CERTIFICATE_AUTHORITIES_ROTATING,
            "RotateCertificateAuthorities",
            rotation::said(record),
        ),
        (
            Step::HoldAuthorities { .. } | Step::PublishAuthorities | Step::RecordRotation { .. },
            Err(failure),
        ) => Event::warning(
            event::FAILED_CERTIFICATE_AUTHORITY_ROTATION,
            "RotateCertificateAuthorities",
            &*failure.message,
        ),
        (Step::Snapshot { .. }, Err(failure)) => {
            Event::warning(event::FAILED_ETCD_SNAPSHOT, "Snapshot", &*failure.message)
        }
        _ => return None,
    };
    Some(event)
}

/// Why a machine is made that cannot be.
fn making(role: Role) -> &'static str {
    if role == Role::Init {
        event::FAILED_INITIALIZATION
    } else {
        event::FAILED_SCALE_UP
    }
}

#[cfg(test)]
mod tests {
    use capstan_api::name::ObjectKey;
    use capstan_core::control_plane::etcd::Address;

    use super::*;

    fn create(role: Role) -> Step {
        Step::CreateMachine {
            name: "m".to_owned(),
            role,
            failure_domain: None,
            remediation_for: None,
        }
    }

    #[test]
    fn what_fails_is_told_under_cluster_apis_names() {
        let refused = || Failure::terminal("Refused", "the webhook says no");
        let told = |is_deleting: bool, step: &Step| {
            let event = event_of(is_deleting, step, &Err(refused())).unwrap();
            assert!(event.warning);
            assert_eq!(event.note, "the webhook says no");
            event.reason
        };
        let complete = |role: Role| Step::CompleteMachine {
            name: "m".to_owned(),
            role,
            config: false,
            infra: true,
        };
        for (role, reason) in [
            (Role::Init, "FailedInitialization"),
            (Role::JoinControlPlane, "FailedScaleUp"),
        ] {
            assert_eq!(told(false, &create(role)), reason);
            assert_eq!(told(false, &complete(role)), reason);
        }
        let delete = Step::DeleteMachine {
            name: "m".to_owned(),
            uid: "u".to_owned(),
        };
        assert_eq!(told(false, &delete), "FailedScaleDown");
        assert_eq!(told(true, &delete), "FailedDelete");
        let moves = Step::MoveLeader {
            from: Address {
                name: "m".to_owned(),
                pod: ObjectKey::new("kube-system", "etcd-m"),
                port: 2379,
            },
            to: 2,
            to_name: "n".to_owned(),
        };
        assert_eq!(told(false, &moves), "FailedMoveEtcdLeader");
        let moved = event_of(false, &moves, &Ok(())).unwrap();
        assert_eq!(
            (moved.reason.as_str(), moved.warning),
            ("EtcdLeaderMoved", false)
        );
    }

    #[test]
    fn what_is_done_as_a_matter_of_course_and_a_lost_race_are_no_news() {
        let race = Failure::transient("Conflict", "changed meanwhile");
        assert_eq!(event_of(false, &create(Role::Init), &Ok(())), None);
        assert_eq!(event_of(false, &create(Role::Init), &Err(race)), None);
    }
}
