//! What is done, and said, when several things are broken at once.

use super::super::etcd::Alarm;
use super::super::{leave, remediation};
use super::*;

fn named(names: &[&str]) -> Observed {
    let members: Vec<Member> = names.iter().map(|name| member(name, "a")).collect();
    let count = u32::try_from(members.len()).unwrap();
    running(count, members)
}

fn deletes(seen: &Observed) -> Vec<String> {
    let steps = decide(seen, now()).steps.into_iter();
    let deleted = steps.filter_map(|step| match step {
        Step::DeleteMachine { name, .. } => Some(name),
        _ => None,
    });
    deleted.collect()
}

#[test]
fn without_space_no_machine_goes_or_comes_and_it_says_what_to_do() {
    let mut seen = named(&["a", "b", "c"]);
    seen.members[1] = given_up(seen.members[1].clone());
    assert_eq!(deletes(&seen), ["b"]);
    view(&mut seen).members[1].alarms = vec!["NOSPACE".to_owned()];
    assert!(deletes(&seen).is_empty(), "it could not be drained");
    let refused = remediation::decide(&seen, now()).refused.unwrap().1;
    assert_eq!(refused.reason, "CannotBeRemediated");
    assert!(
        refused.message.contains("etcdctl alarm disarm"),
        "{}",
        refused.message
    );
    assert!(message_of(&reported(&seen), "EtcdClusterHealthy").contains("etcdctl alarm disarm"));
    seen.members[1] = member("b", "a");
    seen.desired = Ok(desired(5));
    assert!(matches!(size_of(&seen), Size::Wait(why) if why.contains("no space")));
}

#[test]
fn an_alarm_of_a_member_that_is_gone_is_ended_before_anything_else() {
    let mut seen = named(&["a", "b", "c"]);
    seen.members[1] = given_up(seen.members[1].clone());
    let alarm = Alarm {
        member: 9,
        number: 1,
        name: "NOSPACE".to_owned(),
    };
    view(&mut seen).stale_alarms.push(alarm.clone());
    let steps = decide(&seen, now()).steps;
    let ends = |step: &Step| matches!(step, Step::EndAlarm { alarm: ended, through } if *ended == alarm && through.len() == 3);
    assert!(steps.iter().any(ends), "{steps:?}");
    assert!(deletes(&seen).is_empty());
    view(&mut seen).has_quorum = false;
    let steps = decide(&seen, now()).steps;
    assert!(
        !steps.iter().any(ends),
        "nobody could agree to it: {steps:?}"
    );
}

#[test]
fn a_machine_whose_member_never_caught_up_is_replaced_and_its_member_goes() {
    let mut seen = named(&["a", "b", "c"]);
    seen.desired = Ok(desired(4));
    let mut stuck = member("d", "a");
    if let Some(status) = stuck.machine.status.as_mut() {
        status.node_ref = None;
    }
    seen.members.push(given_up(stuck));
    view(&mut seen).members.push(EtcdMember {
        is_learner: true,
        ..etcd_member(4, "node-d")
    });
    assert_eq!(deletes(&seen), ["d"], "a learner has no vote to lose");
    view(&mut seen).members[3].is_learner = false;
    view(&mut seen).members[3].answer = Lookup::Unknown("silent".to_owned());
    view(&mut seen).members[2].answer = Lookup::Unknown("silent".to_owned());
    assert!(deletes(&seen).is_empty(), "a vote may be needed");
    seen.members.pop();
    view(&mut seen).members[2].answer = Lookup::Found(Answer::default());
    view(&mut seen).members[3].is_learner = true;
    let steps = decide(&seen, now()).steps;
    assert!(
        steps
            .iter()
            .any(|step| matches!(step, Step::RemoveEtcdMember { id: 4, .. })),
        "{steps:?}"
    );
}

#[test]
fn a_machine_that_cannot_join_is_no_second_one() {
    let mut fresh = member("b", "a");
    if let Some(status) = fresh.machine.status.as_mut() {
        status.node_ref = None;
    }
    let mut seen = running(3, vec![given_up(member("a", "a"))]);
    seen.object["status"]["initialization"]["controlPlaneInitialized"] = json!(true);
    seen.members.push(fresh);
    let said = |seen: &Observed| {
        let steps = decide(seen, now()).steps.into_iter();
        let all = steps.filter_map(|step| match step {
            Step::ReportMachine { name, conditions } if name == "a" => Some(conditions),
            _ => None,
        });
        let mut all = all.flatten();
        let own = all.find(|c| c.type_ == "OwnerRemediated");
        own.map(|own| (own.reason, own.message)).unwrap()
    };
    let (reason, message) = said(&seen);
    assert_eq!(
        reason, "RemediationDeferred",
        "it may still join: {message}"
    );
    seen.connected = false;
    seen.etcd = Lookup::Unknown("no connection".to_owned());
    let (reason, message) = said(&seen);
    assert_eq!(reason, "CannotBeRemediated");
    assert!(
        message.contains("so that b cannot join. Bring it back;"),
        "{message}"
    );
    assert!(deletes(&seen).is_empty());
    // Nor is one that is given up as well.
    seen.members.insert(1, given_up(member("c", "a")));
    let (_, message) = said(&seen);
    assert!(
        message.contains("Bring it back, or as many of it and c as etcd's majority needs"),
        "{message}"
    );
    assert!(deletes(&seen).is_empty());
}

#[test]
fn a_replacement_does_not_get_the_name_of_the_machine_that_it_replaces() {
    let name_of = |seen: &Observed| {
        let Size::Do(steps) = size_of(seen) else {
            panic!("{:?}", size_of(seen))
        };
        let created = steps.into_iter().find_map(|step| match step {
            Step::CreateMachine { name, .. } => Some(name),
            _ => None,
        });
        created.unwrap()
    };
    let mut seen = named(&["a", "b"]);
    seen.desired = Ok(desired(3));
    let first = name_of(&seen);
    assert_eq!(name_of(&seen), first, "an answer may be lost");
    // The third one came, failed, and is gone again.
    let record = remediation::Record {
        machine: first.clone(),
        timestamp: now(),
        retry_count: 0,
    };
    seen.object["metadata"]["annotations"] =
        json!({annotation::REMEDIATION_IN_PROGRESS: record.text()});
    assert_ne!(name_of(&seen), first);
}

#[test]
fn of_five_with_two_dead_both_go_before_a_replacement_comes() {
    let mut seen = named(&["a", "b", "c", "d", "e"]);
    for dead in [1, 2] {
        seen.members[dead] = given_up(seen.members[dead].clone());
        view(&mut seen).members[dead].answer = Lookup::Unknown("silent".to_owned());
    }
    assert_eq!(deletes(&seen), ["b"]);
    let record = remediation::Record {
        machine: "b".to_owned(),
        timestamp: now(),
        retry_count: 2,
    };
    seen.object["metadata"]["annotations"] =
        json!({annotation::REMEDIATION_IN_PROGRESS: record.text()});
    seen.members.remove(1);
    view(&mut seen).members.remove(1);
    let steps = decide(&seen, now()).steps;
    assert_eq!(deletes(&seen), ["c"], "nothing could join beside it");
    let Some(Step::Annotate { annotations }) =
        steps.iter().find(|s| matches!(s, Step::Annotate { .. }))
    else {
        panic!("{steps:?}")
    };
    let text = annotations[annotation::REMEDIATION_IN_PROGRESS]
        .as_str()
        .unwrap();
    assert!(
        text.contains("\"c\"") && text.contains("\"retryCount\":2"),
        "the tries of the first one still count: {text}"
    );
    // One that is given up but answers is in nobody's way.
    view(&mut seen).members[1].answer = Lookup::Found(Answer::default());
    assert!(deletes(&seen).is_empty());
    assert!(matches!(size_of(&seen), Size::Do(_)));
}

#[test]
fn a_member_that_has_not_started_is_left_to_the_machine_that_may_be_starting_it() {
    let mut seen = named(&["a", "b", "c"]);
    let starting = &mut view(&mut seen).members[2];
    starting.name = String::new();
    starting.is_learner = true;
    starting.answer = Lookup::Unknown("it was not asked".to_owned());
    let removes = |seen: &Observed| {
        let steps = decide(seen, now()).steps;
        steps
            .iter()
            .any(|step| matches!(step, Step::RemoveEtcdMember { id: 3, .. }))
    };
    assert!(!removes(&seen), "its Node can be there before its member");
    seen.members[2] = given_up(seen.members[2].clone());
    assert!(!removes(&seen));
    assert_eq!(deletes(&seen), ["c"], "it has no vote to lose");
    seen.members.remove(2);
    assert!(removes(&seen), "nobody is left who could be starting it");
}

#[test]
fn a_member_that_its_machine_never_told_of_goes_before_the_machine() {
    let mut seen = named(&["a", "b", "c"]);
    let waits = Report::yes("Deleting", "WaitingForPreTerminateHook");
    let mut going = with_condition(deleting(seen.members[2].clone()), waits);
    going.machine.status.as_mut().unwrap().node_ref = None;
    seen.members[2] = going;
    let learner = &mut view(&mut seen).members[2];
    learner.is_learner = true;
    let removes = |seen: &Observed| {
        let steps = decide(seen, now()).steps;
        let goes = steps
            .iter()
            .position(|step| matches!(step, Step::RemoveEtcdMember { id: 3, .. }));
        let lets_go = steps
            .iter()
            .position(|step| matches!(step, Step::Patch { name, .. } if name == "c"));
        assert!(lets_go.is_some(), "{steps:?}");
        goes.is_some() && goes < lets_go
    };
    assert!(removes(&seen), "it would get its vote and die with it");
    view(&mut seen).members[2].name = String::new();
    assert!(removes(&seen), "it may start at any moment");
    let mut joining = member("d", "a");
    joining.machine.status.as_mut().unwrap().node_ref = None;
    seen.members.push(joining);
    assert!(!removes(&seen), "it may be that of a machine that joins");
}

#[test]
fn the_name_of_a_machine_that_was_given_up_is_not_given_again() {
    let mut seen = named(&["a", "b"]);
    seen.desired = Ok(desired(3));
    let name = |seen: &Observed| {
        let Size::Do(steps) = size_of(seen) else {
            panic!("nothing is made")
        };
        let made = steps.into_iter().find_map(|step| match step {
            Step::CreateMachine { name, .. } => Some(name),
            _ => None,
        });
        made.unwrap()
    };
    let first = name(&seen);
    assert_eq!(name(&seen), first, "an answer may be lost");
    seen.object["status"] =
        json!({"lastRemediation": {"machine": first, "time": "2026-01-01T00:55:00Z"}});
    assert_ne!(name(&seen), first);
}

#[test]
fn what_a_person_does_about_a_cluster_that_does_not_answer_is_said() {
    let mut seen = named(&["a"]);
    seen.object["status"] = json!({"initialization": {"controlPlaneInitialized": true}});
    seen.connected = false;
    seen.last_success = Some(now() - SignedDuration::from_mins(6));
    let told = reported(&seen);
    let said = message_of(&told, "Available");
    assert!(said.contains("at h:6443"), "{said}");
    assert!(said.contains("bring it back (a)"), "{said}");
    assert!(said.contains("restore the latest snapshot"), "{said}");
}

#[test]
fn a_deletion_that_waits_for_a_dead_member_lets_it_go_first() {
    let waits = || Report::yes("Deleting", "WaitingForPreTerminateHook");
    let mut seen = named(&["a", "b", "c"]);
    seen.members[2] = with_condition(deleting(seen.members[2].clone()), waits());
    seen.members[0] = given_up(seen.members[0].clone());
    assert!(deletes(&seen).is_empty(), "one after the other");
    view(&mut seen).members[0].answer = Lookup::Unknown("no answer".to_owned());
    assert!(leave::is_held(&seen, &seen.members[2]));
    assert_eq!(deletes(&seen), ["a"]);
    let record = remediation::in_progress(&seen);
    assert!(record.is_none(), "it is noted with the deletion");
    seen.members[0] = with_condition(deleting(seen.members[0].clone()), waits());
    let steps = decide(&seen, now()).steps;
    let removes = |id: u64| move |step: &Step| matches!(step, Step::RemoveEtcdMember { id: gone, .. } if *gone == id);
    assert!(steps.iter().any(removes(1)), "{steps:?}");
    assert!(!steps.iter().any(removes(3)), "{steps:?}");
    seen.members.remove(0);
    view(&mut seen).members.remove(0);
    let steps = decide(&seen, now()).steps;
    assert!(steps.iter().any(removes(3)), "{steps:?}");
}

#[test]
fn a_learner_is_no_loss_to_a_majority_that_can_spare_no_vote() {
    let mut seen = named(&["a", "b", "c", "d"]);
    view(&mut seen).members[3].is_learner = true;
    view(&mut seen).members[2].answer = Lookup::Unknown("no answer".to_owned());
    seen.members[3] = given_up(seen.members[3].clone());
    seen.members[2] = given_up(seen.members[2].clone());
    view(&mut seen).members[1].answer = Lookup::Unknown("no answer".to_owned());
    assert_eq!(
        deletes(&seen),
        ["d"],
        "it keeps the others from being replaced"
    );
    view(&mut seen).has_quorum = false;
    assert!(deletes(&seen).is_empty());
}

#[test]
fn a_deletion_that_waits_for_a_learner_without_a_node_lets_it_go_first() {
    let waits = || Report::yes("Deleting", "WaitingForPreTerminateHook");
    let mut seen = named(&["a", "b", "c"]);
    seen.desired = Ok(desired(1));
    seen.members[1] = with_condition(deleting(seen.members[1].clone()), waits());
    if let Some(status) = seen.members[2].machine.status.as_mut() {
        status.node_ref = None;
    }
    view(&mut seen).members[2].is_learner = true;
    assert!(leave::is_held(&seen, &seen.members[1]));
    assert!(deletes(&seen).is_empty(), "it may still catch up");
    seen.members[2] = given_up(seen.members[2].clone());
    assert_eq!(deletes(&seen), ["c"], "it never will");
    seen.members[2] = with_condition(deleting(seen.members[2].clone()), waits());
    let removed = |seen: &Observed| {
        let steps = decide(seen, now()).steps.into_iter();
        let ids = steps.filter_map(|step| match step {
            Step::RemoveEtcdMember { id, .. } => Some(id),
            _ => None,
        });
        ids.collect::<Vec<u64>>()
    };
    assert_eq!(removed(&seen), [3]);
    seen.members.pop();
    view(&mut seen).members.pop();
    assert_eq!(removed(&seen), [2]);
    // With a vote, it would be missed.
    let mut seen = named(&["a", "b", "c"]);
    seen.members[1] = with_condition(deleting(seen.members[1].clone()), waits());
    seen.members[2] = given_up(seen.members[2].clone());
    if let Some(status) = seen.members[2].machine.status.as_mut() {
        status.node_ref = None;
    }
    assert!(deletes(&seen).is_empty());
}

#[test]
fn a_replacement_that_etcd_cannot_spare_says_what_brings_it_on() {
    let mut seen = named(&["a", "b", "c"]);
    let record = remediation::Record {
        machine: "a".to_owned(),
        timestamp: now(),
        retry_count: 0,
    };
    seen.object["metadata"]["annotations"] =
        json!({annotation::REMEDIATION_IN_PROGRESS: record.text()});
    let goes = Report::yes("Deleting", "WaitingForPreTerminateHook");
    seen.members[0] = with_condition(deleting(given_up(seen.members[0].clone())), goes);
    view(&mut seen).members[0].answer = Lookup::Unknown("no answer within 10 s".to_owned());
    let said = |seen: &Observed| message_of(&reported(seen), "Remediating").to_owned();
    assert!(said(&seen).ends_with("retry 0"), "{}", said(&seen));
    // Its kubelet died after the first one was deleted: there are as many machines as wanted, and all are of the right version.
    view(&mut seen).members[1].answer = Lookup::Unknown("no answer within 10 s".to_owned());
    seen.members[1] = given_up(seen.members[1].clone());
    assert!(deletes(&seen).is_empty());
    let said = said(&seen);
    assert!(
        said.ends_with(
            "Machine a stays: of 2 voting etcd members 1 would be known to be healthy, 2 are needed for a majority. Bring one back \
             whose member is not healthy"
        ),
        "{said}"
    );
}

#[test]
fn a_deleted_machine_that_etcd_cannot_spare_says_so_where_nothing_else_is_under_way() {
    let mut seen = named(&["a", "b", "c"]);
    for at in [0, 2] {
        let goes = Report::yes("Deleting", "WaitingForPreTerminateHook");
        seen.members[at] = with_condition(deleting(seen.members[at].clone()), goes);
        view(&mut seen).members[at].answer = Lookup::Unknown("no answer within 10 s".to_owned());
    }
    assert!(leave::is_held(&seen, &seen.members[0]));
    let told = reported(&seen);
    let said = message_of(&told, "EtcdClusterHealthy");
    assert!(
        said.contains("\n* Machine a stays: of 2 voting etcd members 1 would be known"),
        "{said}"
    );
    assert!(
        said.ends_with("Bring one back whose member is not healthy"),
        "{said}"
    );
}

#[test]
fn a_plugin_that_does_not_say_what_to_look_at_has_no_member_forgotten() {
    let seen = |members: [&str; 3], unseen: &[usize]| {
        let mut seen = named(&members);
        for at in unseen {
            let member = &mut seen.members[*at];
            (member.components, member.datastore, member.etcd) = (vec![], None, None);
            member.unseen = Some(Failure::transient("PluginTrap", "unreachable"));
        }
        seen
    };
    // One that waits for its member to be removed.
    let waits = |mut seen: Observed| {
        let report = Report::yes("Deleting", "WaitingForPreTerminateHook");
        seen.members[0] = with_condition(deleting(seen.members[0].clone()), report);
        let hook = |step: &Step| matches!(step, Step::Patch { .. } | Step::RemoveEtcdMember { .. });
        decide(&seen, now()).steps.iter().any(hook)
    };
    assert!(waits(seen(["a", "b", "c"], &[])));
    assert!(!waits(seen(["a", "b", "c"], &[0])));
    assert!(!waits(seen(["a", "b", "c"], &[1, 2])));
    // One that is too many, and one that is missing.
    for (wanted, unseen, steps) in [(1, false, 1), (1, true, 0), (5, false, 1), (5, true, 0)] {
        let mut seen = seen(["a", "b", "c"], if unseen { &[0, 1, 2] } else { &[] });
        seen.desired = Ok(desired(wanted));
        let plan = decide(&seen, now());
        let sizes = plan.steps.iter().filter(|step| {
            matches!(
                step,
                Step::CreateMachine { .. } | Step::DeleteMachine { .. }
            )
        });
        assert_eq!(sizes.count(), steps, "{wanted} {unseen}");
        let told = plan
            .waits
            .iter()
            .any(|wait| wait.message.contains("Machine a: the plugin"));
        assert_eq!(told, unseen);
    }
    // What was known of it stays said.
    let seen = seen(["a", "b", "c"], &[0]);
    let reports = health::machine_conditions(&seen, &seen.members[0], now());
    assert!(
        reports
            .iter()
            .all(|it| it.type_ == condition_type::UP_TO_DATE),
        "{reports:?}"
    );
}
