//! Cases of machines and etcd members that come, go and fail: never below a majority, and always with a reason.

use capstan_api::condition::Report;
use proptest::prelude::*;

use super::super::{leave, remediation};
use super::*;

pub(super) fn three() -> Observed {
    running(
        3,
        vec![member("a", "a"), member("b", "b"), member("c", "a")],
    )
}

pub(super) fn waiting(member: Member) -> Member {
    with_condition(
        deleting(member),
        Report::yes("Deleting", "WaitingForPreTerminateHook"),
    )
}

pub(super) fn drops_hook(step: &Step, name: &str) -> bool {
    matches!(step, Step::Patch { patch, name: of, .. }
        if of == name && patch.pointer("/metadata/annotations")
            .is_some_and(|a| a.get(annotation::KCP_CLEANUP_HOOK) == Some(&Value::Null)))
}

/// Steps without conditions on Machines, and without what is only told.
pub(super) fn steps(seen: &Observed) -> Vec<Step> {
    let mut steps = decide(seen, now()).steps;
    steps.retain(|step| match step {
        Step::ReportMachine { conditions, .. } => conditions.len() <= 1,
        Step::Tell { .. } => false,
        _ => true,
    });
    steps
}

#[test]
fn the_leader_hands_over_before_its_machine_is_deleted() {
    let mut seen = three();
    seen.desired = Ok(desired(1));
    let steps = steps(&seen);
    let [
        Step::MoveLeader { from, to, .. },
        Step::DeleteMachine { name, .. },
    ] = steps.as_slice()
    else {
        panic!("{steps:?}")
    };
    assert_eq!((from.name.as_str(), name.as_str()), ("a", "a"));
    assert!([2, 3].contains(to), "{to}");
}

#[test]
fn a_leader_that_cannot_be_asked_is_left_to_the_election() {
    let mut seen = three();
    seen.members[0] = given_up(seen.members[0].clone());
    view(&mut seen).members[0].answer = Lookup::Unknown("the kubelet does not answer".to_owned());
    let steps = steps(&seen);
    let [
        Step::Annotate { annotations },
        Step::ReportMachine { conditions, .. },
        Step::DeleteMachine { name, .. },
    ] = steps.as_slice()
    else {
        panic!("{steps:?}")
    };
    assert_eq!(name, "a");
    assert_eq!(conditions[0].reason, "MachineDeleting");
    let record = annotations[annotation::REMEDIATION_IN_PROGRESS]
        .as_str()
        .unwrap();
    assert!(record.contains("\"machine\":\"a\""), "{record}");
}

#[test]
fn the_member_is_removed_by_the_others_and_then_the_hook_goes() {
    let mut seen = three();
    seen.members[0] = deleting(seen.members[0].clone());
    assert!(
        steps(&seen).is_empty(),
        "its Machine does not wait for the hook yet"
    );
    seen.members[0] = waiting(seen.members[0].clone());
    view(&mut seen).members[0].is_leader = false;
    view(&mut seen).members[1].is_leader = true;
    let done = steps(&seen);
    let [Step::RemoveEtcdMember { id, through, .. }, hook] = done.as_slice() else {
        panic!("{done:?}")
    };
    assert_eq!(*id, 1);
    let names: Vec<&str> = through.iter().map(|a| a.name.as_str()).collect();
    assert_eq!(names, ["b", "c"]);
    assert!(drops_hook(hook, "a"));
    view(&mut seen).members.remove(0);
    let done = steps(&seen);
    assert!(
        matches!(done.as_slice(), [hook] if drops_hook(hook, "a")),
        "{done:?}"
    );
}

#[test]
fn where_all_are_deleted_another_comes_and_stays() {
    let mut seen = three();
    seen.members = seen.members.into_iter().map(waiting).collect();
    let done = steps(&seen);
    assert!(
        matches!(
            done.as_slice(),
            [
                Step::BeforeJoin { .. },
                Step::CreateMachine {
                    role: Role::JoinControlPlane,
                    ..
                }
            ]
        ),
        "{done:?}"
    );
    let message = message_of(&reported(&seen), "EtcdClusterHealthy").to_owned();
    assert!(message.contains("Machine a stays"), "{message}");
    // Not beside a member that is not well: nothing can join there.
    let mut ill = seen.clone();
    view(&mut ill).members[2].answer = Lookup::Unknown("it does not answer".to_owned());
    assert!(steps(&ill).is_empty());
    // One is enough. When it is well, the others go one after the other.
    let mut young = member("d", "a");
    young.machine.status = None;
    seen.members.push(young);
    assert!(steps(&seen).is_empty());
    seen.members[3] = member("d", "a");
    seen.etcd = etcd_of(&seen.members);
    let done = steps(&seen);
    let removes = |step: &Step| matches!(step, Step::RemoveEtcdMember { id: 1, .. });
    assert!(done.iter().any(removes), "{done:?}");
}

#[test]
fn a_status_that_was_lost_lets_no_machine_go() {
    let mut seen = three();
    (seen.connected, seen.initialized) = (false, Lookup::Missing);
    seen.etcd = Lookup::Missing;
    seen.members[0] = waiting(seen.members[0].clone());
    assert!(!steps(&seen).iter().any(|step| drops_hook(step, "a")));
    let why = leave::decide(&seen, now()).wait.unwrap();
    assert!(why.contains("Machine a stays"), "{why}");
}

#[test]
fn machines_that_go_are_as_up_to_date_as_they_were() {
    let mut seen = three();
    seen.members[0] = waiting(seen.members[0].clone());
    let of = |seen: &Observed| status_of(&reported(seen), "MachinesUpToDate");
    assert_eq!(of(&seen), ConditionStatus::True);
    seen.members[0].machine.spec.version = Some("v1.35.0".to_owned());
    assert_eq!(of(&seen), ConditionStatus::False);
}

#[test]
fn another_hook_comes_before_ours() {
    let mut seen = three();
    seen.members[1] = waiting(seen.members[1].clone());
    let annotations = seen.members[1]
        .machine
        .metadata
        .annotations
        .as_mut()
        .unwrap();
    annotations.insert(
        format!("{}/other", annotation::PRE_TERMINATE_HOOK_PREFIX),
        String::new(),
    );
    assert!(steps(&seen).is_empty());
    let why = leave::decide(&seen, now()).wait.unwrap();
    assert!(why.contains("/other comes first"), "{why}");
    // Kubelets of older versions talk to any API server.
    seen.members[1].machine.spec.version = Some("v1.30.14".to_owned());
    assert!(
        matches!(steps(&seen).as_slice(), [Step::RemoveEtcdMember { id: 2, .. }, hook] if drops_hook(hook, "b"))
    );
}

#[test]
fn a_machine_stays_while_its_member_is_needed() {
    let mut seen = three();
    seen.members[0] = waiting(seen.members[0].clone());
    view(&mut seen).members[1].alarms = vec!["NOSPACE".to_owned()];
    assert!(steps(&seen).is_empty());
    let message = leave::decide(&seen, now()).wait.unwrap();
    assert!(message.contains("2 are needed for a majority"), "{message}");
    seen.etcd = Lookup::Unknown("nobody".to_owned());
    assert!(steps(&seen).is_empty(), "what cannot be seen is not safe");
    assert!(
        steps(&running(1, vec![deleting(member("a", "a"))]))
            .iter()
            .any(|s| drops_hook(s, "a"))
    );
}

#[test]
fn a_member_without_a_machine_is_removed_when_that_is_safe() {
    let mut seen = three();
    view(&mut seen).members.push(etcd_member(9, "gone"));
    let done = steps(&seen);
    assert!(
        matches!(done.as_slice(), [Step::RemoveEtcdMember { id: 9, .. }]),
        "{done:?}"
    );
    assert!(message_of(&reported(&seen), "EtcdClusterHealthy").contains("etcd member gone"));
    view(&mut seen).members[0].answer = Lookup::Unknown("silent".to_owned());
    view(&mut seen).members[1].answer = Lookup::Unknown("silent".to_owned());
    assert!(
        !steps(&seen)
            .iter()
            .any(|s| matches!(s, Step::RemoveEtcdMember { .. }))
    );
    let said = reported(&seen);
    let message = message_of(&said, "EtcdClusterHealthy");
    assert!(message.contains("`etcdctl member remove 9`"), "{message}");
    let mut seen = three();
    view(&mut seen).members.push(etcd_member(9, "joins"));
    seen.members.push(member("d", "b"));
    seen.members[3].machine.status = None;
    assert!(
        !steps(&seen)
            .iter()
            .any(|s| matches!(s, Step::RemoveEtcdMember { .. })),
        "a machine that is on its way may be behind it"
    );
    let mut seen = three();
    view(&mut seen).members.push(etcd_member(9, "theirs"));
    seen.foreign = vec![crate::control_plane::adoption::Foreign {
        name: "theirs".to_owned(),
        ..crate::control_plane::adoption::Foreign::default()
    }];
    assert!(steps(&seen).is_empty());
    assert!(matches!(size_of(&seen), Size::Keep));
    seen.desired = Ok(desired(5));
    assert!(matches!(size_of(&seen), Size::Wait(why) if why.contains("theirs")));
}

#[test]
fn nothing_joins_beside_a_learner_or_an_unknown_member() {
    let mut seen = three();
    seen.desired = Ok(desired(5));
    assert!(matches!(size_of(&seen), Size::Do(_)));
    view(&mut seen).members.push(EtcdMember {
        is_learner: true,
        ..etcd_member(7, "")
    });
    assert!(matches!(size_of(&seen), Size::Wait(why) if why.contains("no vote")));
    seen.etcd = Lookup::Unknown("nobody".to_owned());
    assert!(matches!(size_of(&seen), Size::Wait(_)));
}

#[test]
fn without_surge_a_machine_goes_first_and_only_of_three() {
    let mut seen = three();
    let mut wanted = desired(3);
    wanted.max_surge = 0;
    wanted.version = "v1.36.1".to_owned();
    seen.desired = Ok(wanted.clone());
    assert_eq!(deleted(&size_of(&seen)), Some("a"));
    let mut one = running(1, vec![member("a", "a")]);
    wanted.replicas = 1;
    one.desired = Ok(wanted);
    assert!(matches!(size_of(&one), Size::Wait(why) if why.contains("maxSurge")));
}

#[test]
fn the_only_machine_is_not_remediated_and_it_says_so() {
    let mut seen = running(1, vec![given_up(member("a", "a"))]);
    seen.object["status"] = json!({"initialization": {"controlPlaneInitialized": true}});
    let done = steps(&seen);
    let [Step::ReportMachine { conditions, .. }, Step::AfterStable] = done.as_slice() else {
        panic!("{done:?}")
    };
    assert_eq!(conditions[0].reason, "CannotBeRemediated");
    let reported = reported(&seen);
    assert_eq!(status_of(&reported, "Remediating"), ConditionStatus::False);
    assert!(message_of(&reported, "Remediating").contains("only machine"));
    let mut early = running(1, vec![given_up(member("a", "a"))]);
    early.initialized = Lookup::Missing;
    assert!(
        steps(&early)
            .iter()
            .any(|s| matches!(s, Step::DeleteMachine { .. })),
        "before there is a cluster nothing can be lost"
    );
}

#[test]
fn a_machine_that_etcd_needs_is_not_remediated() {
    let mut seen = three();
    seen.members[0] = given_up(seen.members[0].clone());
    view(&mut seen).members[1].answer = Lookup::Unknown("silent".to_owned());
    let done = steps(&seen);
    assert!(
        !done.iter().any(|s| matches!(s, Step::DeleteMachine { .. })),
        "{done:?}"
    );
    let remedy = remediation::decide(&seen, now());
    assert_eq!(remedy.refused.unwrap().1.reason, "CannotBeRemediated");
}

#[test]
fn a_remediation_goes_on_where_a_crash_left_it_and_ends_with_the_replacement() {
    let mut seen = three();
    seen.members[0] = given_up(seen.members[0].clone());
    let text = noted(&mut seen, "a", 1);
    let done = steps(&seen);
    assert!(
        matches!(done.as_slice(), [Step::MoveLeader { .. }, Step::ReportMachine { .. }, Step::DeleteMachine { name, .. }] if name == "a"),
        "{done:?}"
    );
    seen.members.remove(0);
    seen.etcd = etcd_of(&seen.members);
    let done = steps(&seen);
    let [
        Step::BeforeJoin { is_rollout: false },
        Step::CreateMachine {
            remediation_for, ..
        },
        Step::Annotate { .. },
    ] = done.as_slice()
    else {
        panic!("{done:?}")
    };
    assert_eq!(remediation_for.as_deref(), Some(text.as_str()));
    let mut replacement = member("d", "a");
    let annotations = replacement.machine.metadata.annotations.as_mut().unwrap();
    annotations.insert(annotation::REMEDIATION_FOR.to_owned(), text);
    seen.members.push(replacement);
    seen.etcd = etcd_of(&seen.members);
    let done = steps(&seen);
    assert!(
        matches!(done.as_slice(), [Step::Annotate { .. }]),
        "{done:?}"
    );
    let reported = reported(&seen);
    assert_eq!(reported.status["lastRemediation"]["machine"], "a");
    assert_eq!(reported.status["lastRemediation"]["retryCount"], 1);
}

#[test]
fn a_remediation_that_a_crash_left_is_taken_back_where_etcd_cannot_spare_the_member_any_more() {
    let mut seen = three();
    seen.members[0] = given_up(seen.members[0].clone());
    noted(&mut seen, "a", 0);
    view(&mut seen).members[1].answer = Lookup::Unknown("no answer within 10 s".to_owned());
    let done = steps(&seen);
    let [Step::Annotate { annotations }] = done.as_slice() else {
        panic!("{done:?}")
    };
    assert_eq!(
        annotations[annotation::REMEDIATION_IN_PROGRESS],
        json!(null)
    );
    seen.object["metadata"]["annotations"] = json!({});
    let remedy = remediation::decide(&seen, now());
    let (_, said) = remedy.refused.unwrap();
    assert!(
        said.message.contains("lose its majority"),
        "{}",
        said.message
    );
    assert!(
        remedy
            .steps
            .iter()
            .all(|step| matches!(step, Step::ReportMachine { .. }))
    );
}

#[test]
fn a_replacement_may_come_beside_another_machine_that_is_not_well() {
    let mut seen = running(
        5,
        vec![
            member("a", "a"),
            member("b", "b"),
            member("c", "a"),
            member("d", "b"),
        ],
    );
    seen.members[3].components[0].pod = pod("False");
    assert!(matches!(size_of(&seen), Size::Wait(_)));
    noted(&mut seen, "gone", 0);
    assert!(matches!(size_of(&seen), Size::Do(_)));
}

#[test]
fn retries_are_counted_spaced_and_ended() {
    let mut seen = three();
    let text = noted(&mut seen, "older", 1);
    seen.object["metadata"]["annotations"] = json!({});
    let mut again = given_up(seen.members[0].clone());
    let annotations = again.machine.metadata.annotations.as_mut().unwrap();
    annotations.insert(annotation::REMEDIATION_FOR.to_owned(), text);
    seen.members[0] = again;
    let mut wanted = desired(3);
    let refusal = |seen: &Observed| {
        let (_, report) = remediation::decide(seen, now()).refused.unwrap();
        (report.reason, report.message)
    };
    wanted.remediation = json!({"retryPeriodSeconds": 90});
    seen.desired = Ok(wanted.clone());
    let (reason, message) = refusal(&seen);
    assert_eq!(reason, "RemediationDeferred");
    assert!(message.ends_with("is at 2026-01-01T01:00:30Z"), "{message}");
    assert_eq!(
        remediation::decide(&seen, now()).again,
        Some(std::time::Duration::from_secs(30))
    );
    wanted.remediation = json!({"maxRetry": 1});
    seen.desired = Ok(wanted.clone());
    assert_eq!(refusal(&seen).0, "CannotBeRemediated");
    wanted.remediation = json!({"maxRetry": 1, "minHealthyPeriodSeconds": 30});
    seen.desired = Ok(wanted.clone());
    assert!(
        remediation::decide(&seen, now()).refused.is_none(),
        "another sequence"
    );
    wanted.remediation = json!({"maxRetry": 2});
    seen.desired = Ok(wanted);
    let remedy = remediation::decide(&seen, now());
    assert!(
        matches!(&remedy.steps[0], Step::Annotate { annotations }
            if annotations.to_string().contains(r#"\"retryCount\":2"#)),
        "{:?}",
        remedy.steps
    );
}

#[test]
fn one_remediation_at_a_time() {
    let mut seen = running(
        5,
        ["a", "b", "c", "d", "e"]
            .iter()
            .map(|n| member(n, "a"))
            .collect(),
    );
    seen.members[0] = given_up(seen.members[0].clone());
    seen.members[1] = deleting(given_up(seen.members[1].clone()));
    let remedy = remediation::decide(&seen, now());
    assert_eq!(remedy.refused.unwrap().1.reason, "RemediationDeferred");
    noted(&mut seen, "b", 0);
    let remedy = remediation::decide(&seen, now());
    assert!(remedy.blocks && remedy.steps.is_empty());
}

#[test]
fn alarms_and_strangers_are_not_healthy() {
    let mut seen = three();
    view(&mut seen).members[1].alarms = vec!["NOSPACE".to_owned()];
    let told = reported(&seen);
    assert!(message_of(&told, "EtcdClusterHealthy").contains("alarms: NOSPACE"));
    assert_eq!(status_of(&told, "Available"), ConditionStatus::True);
    let mut seen = three();
    view(&mut seen).members.remove(2);
    let told = reported(&seen);
    assert!(message_of(&told, "EtcdClusterHealthy").contains("c is not a member"));
}

/// A cluster as the simulation has it: machines with what is true of their members, by name.
#[derive(Clone, Debug)]
struct World {
    machines: Vec<(String, Fate)>,
    members: Vec<(u64, String)>,
    replicas: u32,
    next: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Well,
    Silent,
    Leaving,
    SilentAndLeaving,
}

impl Fate {
    fn is_silent(self) -> bool {
        matches!(self, Self::Silent | Self::SilentAndLeaving)
    }

    fn is_leaving(self) -> bool {
        matches!(self, Self::Leaving | Self::SilentAndLeaving)
    }
}

impl World {
    fn healthy(&self) -> usize {
        let well = |name: &str| {
            self.machines
                .iter()
                .any(|(machine, fate)| machine == name && !fate.is_silent())
        };
        self.members.iter().filter(|(_, name)| well(name)).count()
    }

    fn has_quorum(&self) -> bool {
        self.healthy() * 2 > self.members.len()
    }

    fn observed(&self) -> Observed {
        let machines = self.machines.iter().map(|(name, fate)| {
            let machine = member(name, "a");
            let machine = if fate.is_silent() {
                given_up(machine)
            } else {
                machine
            };
            if fate.is_leaving() {
                waiting(machine)
            } else {
                machine
            }
        });
        let mut seen = running(self.replicas, machines.collect());
        seen.object["status"] = json!({"initialization": {"controlPlaneInitialized": true}});
        let members = self.members.iter().map(|(id, name)| EtcdMember {
            answer: match self.machines.iter().find(|(machine, _)| machine == name) {
                Some((_, fate)) if !fate.is_silent() => Lookup::Found(Answer::default()),
                _ => Lookup::Unknown("silent".to_owned()),
            },
            ..etcd_member(*id, name)
        });
        let mut members: Vec<EtcdMember> = members.collect();
        if self.has_quorum()
            && let Some(leader) = members.iter_mut().find(|m| m.answer.found().is_some())
        {
            leader.is_leader = true;
        }
        seen.etcd = Lookup::Found(View {
            members,
            has_quorum: self.has_quorum(),
            stale_alarms: vec![],
        });
        seen
    }

    /// Does the steps as etcd and the cloud would; tells how many did something.
    fn perform(&mut self, steps: Vec<Step>) -> usize {
        let mut done = 0;
        for step in steps {
            match step {
                Step::RemoveEtcdMember { id, .. } => {
                    self.members.retain(|(other, _)| *other != id);
                }
                Step::DeleteMachine { name, .. } => {
                    for (machine, fate) in &mut self.machines {
                        if *machine == name {
                            *fate = match fate {
                                Fate::Silent | Fate::SilentAndLeaving => Fate::SilentAndLeaving,
                                _ => Fate::Leaving,
                            };
                        }
                    }
                }
                Step::CreateMachine { .. } => {
                    self.next += 1;
                    let name = format!("n{}", self.next);
                    self.members.push((self.next, name.clone()));
                    self.machines.push((name, Fate::Well));
                }
                Step::Patch { name, patch, .. } if patch.to_string().contains("kcp-cleanup") => {
                    self.machines.retain(|(machine, _)| *machine != name);
                }
                _ => continue,
            }
            done += 1;
        }
        done
    }
}

proptest! {
    /// Whatever fails, no step of ours takes a cluster that has a majority below it, and while one is left it gets where it
    /// should be: as many machines as wanted, all well, each with its member.
    #[test]
    fn no_step_goes_below_a_majority(
        size in 1_usize..6,
        replicas in prop::sample::select(vec![1_u32, 3, 5]),
        fates in prop::collection::vec((0_usize..40, 0_usize..6, 0_u8..3), 0..4),
    ) {
        let mut world = World {
            machines: (1..=size).map(|n| (format!("n{n}"), Fate::Well)).collect(),
            members: (1..=size).map(|n| (n as u64, format!("n{n}"))).collect(),
            replicas,
            next: size as u64,
        };
        for round in 0..80 {
            for (_, at, fate) in fates.iter().filter(|(when, _, _)| *when == round) {
                let count = world.machines.len();
                let machine = &mut world.machines[at % count];
                match fate {
                    0 => machine.1 = if machine.1.is_leaving() { Fate::SilentAndLeaving } else { Fate::Silent },
                    1 => machine.1 = if machine.1.is_silent() { Fate::SilentAndLeaving } else { Fate::Leaving },
                    // Deleted behind our back: the member stays.
                    _ if count > 1 => { world.machines.remove(at % count); }
                    _ => {}
                }
            }
            let had = world.has_quorum();
            let before = world.clone();
            let seen = world.observed();
            let plan = decide(&seen, now());
            let done = world.perform(plan.steps.clone());
            if world.machines.is_empty() {
                // Somebody deleted the only one.
                return Ok(());
            }
            if had {
                prop_assert!(world.has_quorum(), "{before:?}\n{:?}", plan.steps);
            } else {
                prop_assert_eq!(done, 0, "with a lost majority: {:?}", plan.steps);
            }
        }
        if world.has_quorum() && world.machines.len() > 1 {
            let seen = world.observed();
            let well = world.machines.iter().all(|(_, fate)| *fate == Fate::Well);
            let stuck = decide(&seen, now()).waits;
            prop_assert!(
                (well && world.machines.len() == replicas as usize && world.members.len() == replicas as usize)
                    || !stuck.is_empty(),
                "{world:?}"
            );
        }
    }
}
