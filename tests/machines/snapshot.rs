//! What a host looks like from outside of all machines: its settings, links, routes, mounts, packet filters and control groups.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use capstan_tests::eventually;

/// How long the kernel may take to clean up after the last process.
const PATIENCE: Duration = Duration::from_secs(30);

/// Settings that machines could touch. Counters and random numbers are not settings.
const SETTINGS: [&str; 6] = ["fs", "kernel", "net/bridge", "net/ipv4", "net/ipv6", "vm"];
const COUNTERS: [&str; 12] = [
    "/random/",
    "/pty/nr",
    "ns_last_pid",
    "dentry-state",
    "file-nr",
    "inode-nr",
    "inode-state",
    "aio-nr",
    "/quota/",
    "conntrack_count",
    "sched_domain",
    "/stat_refresh",
];

/// What is compared, by name.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot {
    all: BTreeMap<String, String>,
    with_parents: bool,
}

impl Snapshot {
    /// While a cloud runs.
    pub fn with_a_cloud() -> Self {
        Self::take(false)
    }

    /// Without anything of ours.
    pub fn without_a_cloud() -> Self {
        Self::take(true)
    }

    fn take(with_parents: bool) -> Self {
        let mut all = BTreeMap::new();
        for part in SETTINGS {
            settings(&Path::new("/proc/sys").join(part), &mut all);
        }
        for entry in fs::read_dir("/sys/class/net").unwrap() {
            let link = entry.unwrap().file_name().into_string().unwrap();
            all.insert(format!("link {link}"), String::new());
        }
        for line in fs::read_to_string("/proc/self/mountinfo").unwrap().lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            all.insert(format!("mount {}", fields[4]), fields[3].to_owned());
        }
        for line in fs::read_to_string("/proc/net/route").unwrap().lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            all.insert(
                format!("route {} {}", fields[0], fields[1]),
                fields[2].to_owned(),
            );
        }
        groups(Path::new("/sys/fs/cgroup"), with_parents, &mut all);
        for filter in ["iptables-save", "ip6tables-save"] {
            all.insert(filter.to_owned(), printed(filter, &[]));
        }
        all.insert("nft".to_owned(), printed("nft", &["-s", "list", "ruleset"]));
        Self { all, with_parents }
    }

    /// Waits until the host is as it was.
    pub async fn is_still_so(&self) {
        eventually("the host is as before", PATIENCE, async || {
            let now = Self::take(self.with_parents);
            let mut changes = Vec::new();
            for (what, value) in &self.all {
                match now.all.get(what) {
                    Some(other) if other == value => {}
                    // Of another run on this host, which may end at any time.
                    None if what.contains("capstan") => {}
                    other => changes.push(format!("{what}: {value:?} became {other:?}")),
                }
            }
            let new = now.all.keys().filter(|what| !self.all.contains_key(*what));
            changes.extend(new.map(|what| format!("{what} is new")));
            if changes.is_empty() {
                Ok(())
            } else {
                Err(changes.join("\n"))
            }
        })
        .await;
    }
}

fn settings(dir: &Path, all: &mut BTreeMap<String, String>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for path in entries.map(|entry| entry.unwrap().path()) {
        let name = path.display().to_string();
        if COUNTERS.iter().any(|counter| name.contains(counter)) {
            continue;
        }
        if path.is_dir() {
            settings(&path, all);
        } else if let Ok(value) = fs::read_to_string(&path) {
            all.insert(name, value);
        }
    }
}

/// Control groups with this project's name: of machines, and, when asked for, those that they are in, which stay as long as their cloud.
fn groups(dir: &Path, with_parents: bool, all: &mut BTreeMap<String, String>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let is_in_one = dir.to_string_lossy().contains("capstan");
            if is_in_one || (with_parents && path.to_string_lossy().contains("capstan")) {
                all.insert(format!("control group {}", path.display()), String::new());
            }
            groups(&path, with_parents, all);
        }
    }
}

/// What a program prints, without counters and comments; empty where it is not installed.
fn printed(program: &str, words: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(words).output() else {
        return String::new();
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    // ":INPUT ACCEPT [12:34]"
    lines
        .map(|line| line.split(" [").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}
