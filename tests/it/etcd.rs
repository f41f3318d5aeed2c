//! One suite of behaviours for what the host asks of etcd: it runs against real servers and against the local cloud's.

mod lab;

use capstan_api::name::ObjectKey;
use capstan_controllers::etcd::{AlarmChange, EtcdError, Progress, SnapshotStore};
use capstan_core::control_plane::etcd::{Alarm, EtcdMember, View, lost_majority_of};
use capstan_core::lookup::Lookup;
use capstan_tests::etcd::{RealEtcd, TestEtcd};
use capstan_tests::{PATIENCE, eventually, run};
use sha2::{Digest as _, Sha256};

use self::lab::Lab;

async fn view(etcd: &TestEtcd, what: &str, is: impl Fn(&View) -> bool) -> View {
    let mut seen = None;
    eventually(what, PATIENCE, async || {
        let view = etcd.view().await?;
        let fits = is(&view);
        let said = format!("{view:?}");
        seen = Some(view);
        fits.then_some(()).ok_or(said)
    })
    .await;
    seen.unwrap()
}

fn leader(view: &View) -> (u64, String) {
    let leader = view.leader().unwrap();
    (leader.id, leader.name.clone())
}

/// Whether a call was refused by a rule of etcd's, in these words.
fn is_refused<T: std::fmt::Debug>(answer: &Result<T, EtcdError>, words: &str) -> bool {
    matches!(answer, Err(EtcdError::Refused { code: 9, message, .. }) if message.ends_with(words))
}

/// A fourth member comes as a learner, gets its vote when it has caught up, and goes again.
async fn learns(lab: &Lab, voter: u64) {
    let etcd = lab.etcd();
    let (newcomer, peer_url) = lab.newcomer();
    let mut id = 0;
    eventually(
        "a member is added when all have been there for a while",
        PATIENCE,
        async || {
            id = etcd
                .client
                .add_learner(&etcd.addresses, &peer_url)
                .await
                .map_err(|error| error.to_string())?;
            Ok::<_, String>(())
        },
    )
    .await;
    view(
        etcd,
        "it has neither a vote nor a name, and needs no majority",
        |view| {
            let mut members = view.members.iter();
            let new = members.find(|m| m.id == id);
            view.has_quorum
                && view.members.len() == 4
                && new.is_some_and(|m| m.is_learner && m.name.is_empty())
        },
    )
    .await;
    let again = etcd.client.add_learner(&etcd.addresses, &peer_url).await;
    // Within the same second etcd makes the same ID of it, and says that.
    assert!(
        is_refused(&again, "Peer URLs already exists")
            || is_refused(&again, "member ID already exist"),
        "{again:?}"
    );
    let other = etcd
        .client
        .add_learner(&etcd.addresses, "http://127.0.0.1:1")
        .await;
    assert!(
        is_refused(&other, "too many learner members in cluster"),
        "{other:?}"
    );
    let early = etcd.client.promote(&etcd.addresses, id).await;
    assert!(is_refused(&early, "in sync with leader"), "{early:?}");
    let voting = etcd.client.promote(&etcd.addresses, voter).await;
    assert!(
        is_refused(&voting, "can only promote a learner member"),
        "{voting:?}"
    );
    let nobody = etcd.client.promote(&etcd.addresses, 7).await;
    assert!(
        matches!(nobody, Err(EtcdError::Refused { code: 5, .. })),
        "{nobody:?}"
    );
    lab.start_newcomer().await;
    eventually("it gets its vote", PATIENCE, async || {
        match etcd.client.promote(&etcd.addresses, id).await {
            Ok(()) => Ok(()),
            // Whoever started it was first.
            refused if is_refused(&refused, "can only promote a learner member") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    view(etcd, "it is a member like the others", |view| {
        let new = view.member(&newcomer.name);
        view.has_quorum
            && view.members.len() == 4
            && new.is_some_and(|m| m.id == id && !m.is_learner)
    })
    .await;
    etcd.client
        .remove_member(&etcd.addresses, id)
        .await
        .unwrap();
    view(etcd, "it is gone", |view| {
        view.members.len() == 3 && view.leader().is_some()
    })
    .await;
}

/// One of two members is gone: the other agrees with nobody, says who the members were, and changes nothing.
async fn loses_its_majority(lab: &Lab) {
    let both = view(lab.etcd(), "two members", |view| {
        view.members.len() == 2 && view.leader().is_some()
    })
    .await;
    let beside = lab.beside().await;
    let etcd = beside.as_ref().unwrap_or(lab.etcd());
    let (leading, name) = leader(&both);
    lab.stop(&name).await;
    let alone = view(etcd, "the majority is lost", |view| !view.has_quorum).await;
    assert_eq!(alone.members.len(), 2);
    assert!(alone.leader().is_none());
    let removed = etcd.client.remove_member(&etcd.addresses, leading).await;
    assert!(removed.is_err(), "{removed:?}");
    let still = view(etcd, "it is as it was", |view| !view.has_quorum).await;
    assert_eq!(still.members.len(), 2);
}

/// Three members that are well, and what becomes of them.
async fn behaves(lab: &Lab) {
    let etcd = lab.etcd();
    let all = view(etcd, "three members with a leader", |view| {
        let answers = |m: &EtcdMember| {
            m.answer.found().is_some_and(|a| {
                a.errors.is_empty()
                    && a.db_bytes > 0
                    && a.db_in_use_bytes > 0
                    && a.db_quota_bytes == 2 << 30
                    && a.raft_index > 0
                    && a.version.starts_with("3.")
            })
        };
        view.has_quorum
            && view.members.len() == 3
            && view.leader().is_some()
            && view
                .members
                .iter()
                .all(|m| !m.is_learner && m.alarms.is_empty() && answers(m))
    })
    .await;
    let mut names: Vec<&str> = all.members.iter().map(|m| m.name.as_str()).collect();
    let mut expected: Vec<&str> = etcd.addresses.iter().map(|a| a.name.as_str()).collect();
    names.sort_unstable();
    expected.sort_unstable();
    assert_eq!(names, expected);

    let (old, old_name) = leader(&all);
    let next = all.members.iter().find(|m| m.id != old).unwrap();
    let refused = etcd
        .client
        .move_leader(etcd.address(&next.name), next.id)
        .await;
    assert!(
        matches!(refused, Err(EtcdError::Refused { code: 9, .. })),
        "who does not lead cannot hand over: {refused:?}"
    );
    etcd.client
        .move_leader(etcd.address(&old_name), next.id)
        .await
        .unwrap();
    view(etcd, "the leader has moved", |view| {
        view.leader().is_some_and(|leader| leader.id == next.id)
    })
    .await;
    let refused = etcd.client.move_leader(etcd.address(&next.name), 7).await;
    assert!(
        matches!(refused, Err(EtcdError::Refused { code: 9, .. })),
        "{refused:?}"
    );

    let place = tempfile::tempdir().unwrap();
    let store = SnapshotStore::new(place.path().to_owned(), 1);
    let cluster = ObjectKey::new("n", "c");
    let now = jiff::Timestamp::now();
    let progress = Progress::default();
    let taken = etcd
        .client
        .snapshot(&etcd.addresses, &store, &cluster, now, &progress);
    let taken = taken.await.unwrap();
    let bytes = std::fs::read(&taken.path).unwrap();
    let (content, digest) = bytes.split_at(bytes.len() - 32);
    assert_eq!(u64::try_from(bytes.len()).unwrap(), taken.bytes);
    assert!(
        !content.is_empty() && content.len() % 512 == 0,
        "{}",
        bytes.len()
    );
    assert_eq!(
        Sha256::digest(content).as_slice(),
        digest,
        "whole and unharmed"
    );

    learns(lab, old).await;

    let nobody = etcd.client.remove_member(&etcd.addresses, 7).await;
    assert_eq!(nobody, Ok(()), "gone already is as good");
    assert_eq!(
        etcd.client.remove_member(&[], 7).await,
        Err(EtcdError::Nobody)
    );

    let moved = view(etcd, "three members", |view| view.leader().is_some()).await;
    let (_, leading) = leader(&moved);
    let dead = moved.members.iter().find(|m| m.name != leading).unwrap();
    let alarm = Alarm {
        member: dead.id,
        number: 1,
        name: "NOSPACE".to_owned(),
    };
    etcd.client
        .set_alarm(&etcd.addresses, &alarm, AlarmChange::Raise)
        .await
        .unwrap();
    view(
        etcd,
        "one has an alarm, and the others do not complain",
        |view| {
            let has = |m: &EtcdMember| m.alarms == ["NOSPACE"];
            let is_silent = |m: &EtcdMember| {
                m.answer
                    .found()
                    .is_some_and(|answer| answer.errors.is_empty())
            };
            view.members
                .iter()
                .all(|m| has(m) == (m.id == dead.id) && is_silent(m))
        },
    )
    .await;
    lab.stop(&dead.name).await;
    let left = view(etcd, "one does not answer", |view| {
        let silent = view.members.iter().find(|m| m.id == dead.id);
        silent.is_some_and(|m| matches!(m.answer, Lookup::Unknown(_))) && view.has_quorum
    })
    .await;
    let (leading_id, leading) = leader(&left);
    let alive = left
        .members
        .iter()
        .find(|m| m.id != leading_id && m.id != dead.id)
        .unwrap();
    let through = [etcd.address(&leading).clone()];
    eventually(
        "etcd itself refuses to lose its majority",
        PATIENCE,
        async || match etcd.client.remove_member(&through, alive.id).await {
            Err(EtcdError::Refused {
                code: 14, message, ..
            }) if message.contains("unhealthy") => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )
    .await;
    // The first to be asked is the dead one: the next one does it.
    etcd.client
        .remove_member(&etcd.addresses, dead.id)
        .await
        .unwrap();
    view(etcd, "two members are left, and the alarm", |view| {
        view.members.len() == 2
            && view.has_quorum
            && view.leader().is_some()
            && view.stale_alarms == [alarm.clone()]
    })
    .await;
    etcd.client
        .set_alarm(&etcd.addresses, &alarm, AlarmChange::End)
        .await
        .unwrap();
    view(etcd, "no alarm", |view| view.stale_alarms.is_empty()).await;
    loses_its_majority(lab).await;
}

#[test]
fn real_etcd_behaves_as_the_suite_says() {
    run(async {
        let lab = Lab::real().await;
        behaves(&lab).await;
        lab.end().await;
    });
}

/// How far a member is.
fn index(member: &EtcdMember) -> u64 {
    member.answer.found().map_or(0, |answer| answer.raft_index)
}

/// `host/docs/etcd.md`, "A lost majority", with processes in place of static pods.
#[test]
fn of_a_lost_majority_the_member_that_is_named_goes_on_with_all_there_was() {
    run(async {
        let real = RealEtcd::start(5).await;
        let etcd = &real.etcd;
        let all = view(etcd, "five members with a leader", |view| {
            view.members.len() == 5 && view.leader().is_some()
        })
        .await;
        let (_, leading) = leader(&all);
        let others: Vec<&str> = etcd.addresses.iter().map(|a| a.name.as_str()).collect();
        let others: Vec<&str> = others.into_iter().filter(|n| *n != leading).collect();
        let [wanted, .., late] = others[..] else {
            panic!("{others:?}")
        };
        let value = vec![b'x'; 1 << 20];
        let keys = |from: u32| (from..from + 20).map(|number| format!("/registry/{number}"));
        for key in keys(0) {
            real.put(&key, b"small").await;
        }
        // Of two that will be left, one misses the second half: more than what is on its way to it when the others are killed.
        real.signal(late, "STOP");
        for key in keys(20) {
            real.put(&key, &value).await;
        }
        view(etcd, "all that run know the same", |view| {
            let mut known = view.members.iter().filter(|m| m.name != late).map(index);
            let first = known.next().unwrap();
            first > 0 && known.all(|index| index == first)
        })
        .await;
        let lost = [others[1], others[2], leading.as_str()];
        for name in lost {
            real.kill(name);
        }
        real.signal(late, "CONT");
        let left = view(etcd, "two members that are no majority", |view| {
            let answer = |name: &str| view.member(name).is_some_and(|m| index(m) > 0);
            !view.has_quorum && answer(late) && answer(wanted)
        })
        .await;
        assert!(index(left.member(late).unwrap()) < index(left.member(wanted).unwrap()));
        let said = lost_majority_of(&left).unwrap();
        let named = said.split("go on with ").nth(1).unwrap();
        let (named, rest) = named.split_once(',').unwrap();
        assert_eq!(named, wanted, "{said}");
        assert!(
            rest.contains(&format!("({late} still answers)")) && said.contains("3 of 5 members"),
            "{said}"
        );

        real.kill(late);
        real.kill(named);
        real.again(named, &["--force-new-cluster"]);
        let is_alone = |view: &View| {
            view.has_quorum
                && view.members.len() == 1
                && view.leader().is_some_and(|leader| leader.name == wanted)
        };
        view(etcd, "a cluster of one", is_alone).await;
        // The flag does not stay.
        real.kill(named);
        real.again(named, &[]);
        view(etcd, "a cluster of one without the flag", is_alone).await;
        for key in keys(0) {
            assert_eq!(real.value(&key).await.as_deref(), Some(&b"small"[..]));
        }
        for key in keys(20) {
            assert!(real.value(&key).await.as_ref() == Some(&value), "{key}");
        }
        real.put("/registry/new", b"new").await;
        assert_eq!(
            real.value("/registry/new").await.as_deref(),
            Some(&b"new"[..])
        );
    });
}

#[test]
fn the_local_clouds_etcd_behaves_as_the_suite_says() {
    run(async {
        let lab = Lab::light().await;
        behaves(&lab).await;
        lab.end().await;
    });
}
