//! Processes are real here: `sleep` and `sh`.

use super::*;

fn spec(dir: &Path, argv: &[&str]) -> Spec {
    Spec {
        name: "sample".into(),
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        cwd: None,
        env: Vec::new(),
        log: dir.join("sample.log"),
        ports: Vec::new(),
    }
}

#[test]
fn stops_what_it_started_and_says_so_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, record) = spawn(&spec(dir.path(), &["sleep", "1000"]), None).unwrap();
    assert!(is_alive(&record));
    assert!(usage(record.pid).unwrap().rss_bytes > 0);
    assert!(stop(&record, Duration::from_secs(20)).unwrap());
    assert!(!stop(&record, Duration::from_secs(20)).unwrap());
    assert_eq!(describe_exit(child.wait().unwrap()), "killed by signal 15");
}

#[test]
fn kills_what_ignores_a_polite_request() {
    let dir = tempfile::tempdir().unwrap();
    let script = "trap '' TERM; echo ready; while :; do sleep 0.1; done";
    let (mut child, record) = spawn(&spec(dir.path(), &["sh", "-c", script]), None).unwrap();
    while log_tail(&record.log, 1) != "ready" {
        std::thread::yield_now();
    }
    assert!(stop(&record, Duration::from_millis(50)).unwrap());
    assert_eq!(describe_exit(child.wait().unwrap()), "killed by signal 9");
}

#[test]
fn leaves_a_recycled_pid_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (mut stranger, record) = spawn(&spec(dir.path(), &["sleep", "1000"]), None).unwrap();
    // The same pid, started at another time: what a record looks like after the id was reused.
    let stale = Record {
        identity: format!("{}0", record.identity),
        ..record.clone()
    };
    assert!(!is_alive(&stale));
    assert!(!stop(&stale, Duration::from_secs(1)).unwrap());
    assert!(is_alive(&record), "the stranger must not be touched");
    stop(&record, Duration::from_secs(20)).unwrap();
    stranger.wait().unwrap();
}

#[test]
fn a_missing_program_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let failure = spawn(&spec(dir.path(), &["/nowhere/at-all"]), None).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "could not run /nowhere/at-all (sample)"
    );
}

#[test]
fn the_tail_of_a_log_is_its_last_lines() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::fs::write(&path, "a\nb\nc\n").unwrap();
    assert_eq!(log_tail(&path, 2), "b\nc");
    assert_eq!(log_tail(&dir.path().join("none"), 2), "(nothing)");
}
