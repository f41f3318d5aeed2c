//! What is said of members of etcd with alarms, and of databases that hold mostly nothing.

use super::*;

#[test]
fn what_a_person_does_about_alarms_and_free_space_is_said() {
    let mut seen = running(1, vec![member("m-1", "a")]);
    let said = |seen: &Observed| etcd::condition(seen, &seen.members[0]);
    view(&mut seen).members[0].alarms = vec!["CORRUPT".to_owned(), "NOSPACE".to_owned()];
    let told = said(&seen);
    assert_eq!(told.status, ConditionStatus::False);
    for word in [
        "alarms: CORRUPT, NOSPACE",
        "delete its Machine",
        "etcdctl alarm disarm",
    ] {
        assert!(told.message.contains(word), "{}", told.message);
    }
    view(&mut seen).members[0].alarms.clear();
    let sizes = |db_bytes, db_in_use_bytes| {
        let mut seen = seen.clone();
        let answer = Answer {
            db_bytes,
            db_in_use_bytes,
            ..Answer::default()
        };
        view(&mut seen).members[0].answer = Lookup::Found(answer);
        said(&seen)
    };
    let mib = 1 << 20;
    let told = sizes(512 * mib, 100 * mib);
    assert_eq!(told.status, ConditionStatus::True);
    for word in [
        "at least 512 MiB, in use at least 64 MiB",
        "run `etcdctl defrag` in its Pod kube-system/etcd-m-1",
        "this member leads",
    ] {
        assert!(told.message.contains(word), "{}", told.message);
    }
    let filled = |db_bytes, db_quota_bytes| {
        let mut seen = seen.clone();
        let answer = Answer {
            db_bytes,
            db_quota_bytes,
            ..Answer::default()
        };
        view(&mut seen).members[0].answer = Lookup::Found(answer);
        said(&seen)
    };
    let told = filled(1536 * mib, 2048 * mib);
    assert_eq!(told.status, ConditionStatus::True);
    let words = "three quarters of its quota of 2048 MiB";
    assert!(told.message.contains(words), "{}", told.message);
    assert_eq!(filled(1535 * mib, 2048 * mib).message, "");
    assert_eq!(filled(1536 * mib, 0).message, "");
    for (size, in_use) in [(512, 300), (100, 1), (512, 0)] {
        assert_eq!(sizes(size * mib, in_use * mib).message, "");
    }
}
