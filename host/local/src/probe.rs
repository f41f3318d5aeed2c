//! Whether this host can run machines in namespaces, and what is missing where it cannot. Everything is tried in namespaces that are thrown away.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::machine::cgroup::{Groups, Version};
use crate::machine::tool;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether machines can run as far as this goes.
    pub is_good: bool,
    /// What was found, and what to do where it is not good.
    pub sentence: String,
}

/// Programs of the host that machines are made with.
const PROGRAMS: [&str; 8] = [
    "unshare",
    "nsenter",
    "ip",
    "mount",
    "umount",
    "pivot_root",
    "mknod",
    "cp",
];

/// Capabilities that are needed, by number.
const CAPABILITIES: [(u32, &str); 15] = [
    (0, "CHOWN"),
    (1, "DAC_OVERRIDE"),
    (3, "FOWNER"),
    (4, "FSETID"),
    (5, "KILL"),
    (6, "SETGID"),
    (7, "SETUID"),
    (8, "SETPCAP"),
    (10, "NET_BIND_SERVICE"),
    (12, "NET_ADMIN"),
    (13, "NET_RAW"),
    (18, "SYS_CHROOT"),
    (21, "SYS_ADMIN"),
    (27, "MKNOD"),
    (31, "SETFCAP"),
];

/// inotify instances that a control-plane machine takes, as measured.
const INOTIFY_PER_CONTROL_PLANE: u32 = 23;

/// What is tried in namespaces: a name, what it is for in words, and a script. `$D` is a scratch directory.
const TRIALS: [(&str, &str); 4] = [
    ("namespaces of all six kinds", "true"),
    (
        "overlayfs with its upper layer in the directory",
        "mkdir $D/u $D/w $D/m $D/l && mount -t overlay o -o lowerdir=$D/l,upperdir=$D/u,workdir=$D/w $D/m && touch $D/m/a && rm $D/m/a",
    ),
    (
        "mounts of proc, sysfs, devpts, mqueue and tmpfs, and device nodes",
        "mkdir $D/p $D/s $D/d $D/q $D/t && mount -t proc p $D/p && mount -t sysfs s $D/s && mount -t devpts -o newinstance d $D/d && \
         mount -t mqueue q $D/q && mount -t tmpfs t $D/t && mknod $D/t/n c 1 3 && echo >$D/t/n",
    ),
    (
        "bridges and pairs of links",
        "ip link add name br0 type bridge && ip link add name va0 type veth peer name vb0 && ip link set va0 master br0 up",
    ),
];

/// What kube-proxy and the machines themselves need of nftables.
const RULES: &str = "table ip t {\n chain x { accept; }\n chain d { type nat hook output priority -100;\n \
    fib daddr type local counter\n ct state new numgen random mod 2 vmap { 0 : jump x, 1 : jump x }\n }\n \
    chain p { type nat hook postrouting priority 100;\n meta mark and 0x4000 == 0x4000 masquerade fully-random\n }\n}\n";

/// Looks at this host, for machines that are kept in `dir`. Takes about 0.2 s; changes nothing.
#[must_use]
pub fn run(dir: &Path) -> Vec<Finding> {
    let mut findings = basics();
    if findings.iter().all(|finding| finding.is_good) {
        findings.extend(trials(dir));
        findings.push(packet_filter());
        findings.push(control_groups());
        findings.extend(amounts(dir));
    }
    findings
}

/// The sentences of what is not good; nothing when machines can run.
#[must_use]
pub fn obstacles(findings: &[Finding]) -> Vec<&str> {
    findings
        .iter()
        .filter(|finding| !finding.is_good)
        .map(|finding| finding.sentence.as_str())
        .collect()
}

fn good(sentence: impl Into<String>) -> Finding {
    Finding {
        is_good: true,
        sentence: sentence.into(),
    }
}

fn bad(sentence: impl Into<String>) -> Finding {
    Finding {
        is_good: false,
        sentence: sentence.into(),
    }
}

/// System, user, capabilities, programs: without these the rest need not be tried.
fn basics() -> Vec<Finding> {
    if !cfg!(target_os = "linux") {
        return vec![bad("machines need Linux")];
    }
    if !rustix::process::geteuid().is_root() {
        return vec![bad(
            "machines need root: run the command with sudo, or use the light backend, which does not",
        )];
    }
    let mut findings = vec![good("the user is root")];
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let missing = missing_capabilities(&status);
    findings.push(if missing.is_empty() {
        good("root has the capabilities that are needed")
    } else {
        bad(format!(
            "root lacks capabilities here ({}): start the container with them, or use a virtual machine",
            missing.join(", ")
        ))
    });
    let absent: Vec<&str> = PROGRAMS
        .into_iter()
        .filter(|program| tool::find(program).is_none())
        .collect();
    findings.push(if absent.is_empty() {
        good("the system's programs are there")
    } else {
        bad(format!(
            "programs are missing ({}): install util-linux, iproute2 and coreutils",
            absent.join(", ")
        ))
    });
    findings
}

/// The needed capabilities that `/proc/self/status` does not list as effective.
fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
        .unwrap_or_default();
    CAPABILITIES
        .into_iter()
        .filter(|(bit, _)| effective.checked_shr(*bit).unwrap_or_default() & 1 == 0)
        .map(|(_, name)| name)
        .collect()
}

/// A name that no other trial has at the same time.
fn trial_name() -> String {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    format!("capstan-probe-{}-{number}", std::process::id())
}

/// A directory for the trials, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn make(dir: &Path) -> io::Result<Self> {
        let nearest = dir
            .ancestors()
            .find(|dir| dir.is_dir())
            .unwrap_or(Path::new("/"));
        let path = nearest.join(format!(".{}", trial_name()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "the probe's directory is left behind");
        }
    }
}

fn trials(dir: &Path) -> Vec<Finding> {
    let special = |path: &Path| path.to_string_lossy().contains([',', ':', '\\']);
    if special(dir) {
        return vec![bad(format!(
            "{}: overlayfs takes no path with a comma, a colon or a backslash; use another directory",
            dir.display()
        ))];
    }
    let scratch = match Scratch::make(dir) {
        Ok(scratch) => scratch,
        Err(error) => return vec![bad(format!("{} cannot be used: {error}", dir.display()))],
    };
    TRIALS
        .iter()
        .map(|(what, script)| match in_namespaces(script, &scratch.0) {
            Ok(()) => good(format!("this host has {what}")),
            Err(error) => bad(format!("this host does not give {what}: {error}")),
        })
        .collect()
}

/// Whether file systems in files can be mounted here: etcd gets one of its own then. Tried once.
pub(crate) fn gives_disks(dir: &Path) -> bool {
    static TRIED: OnceLock<bool> = OnceLock::new();
    let script = "truncate -s 8M $D/disk && mkfs.ext4 -q -F $D/disk >/dev/null && mkdir $D/on && mount -o loop $D/disk $D/on";
    *TRIED.get_or_init(|| {
        Scratch::make(dir).is_ok_and(|scratch| in_namespaces(script, &scratch.0).is_ok())
    })
}

fn in_namespaces(script: &str, scratch: &Path) -> io::Result<()> {
    let output = tool::command("unshare")
        .args(["--mount", "--net", "--uts", "--ipc", "--pid", "--cgroup"])
        .args(["--fork", "--propagation", "private", "sh", "-c", script])
        .env("D", scratch)
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find(|line| !line.trim().is_empty());
    Err(io::Error::other(
        line.unwrap_or("it failed without a word").trim().to_owned(),
    ))
}

/// nftables. The machines' own `nft` is in their image; the host need not have it.
fn packet_filter() -> Finding {
    if tool::find("nft").is_some() {
        let tried = tool::feed("unshare", &["--net", "--", "nft", "-f", "-"], RULES);
        return match tried {
            Ok(_) => good("the kernel has nftables"),
            Err(error) => bad(format!(
                "the kernel's nftables lacks something that kube-proxy needs: {error}"
            )),
        };
    }
    if has_symbol(" nft_do_chain") {
        good("the kernel has nftables")
    } else {
        bad(
            "the kernel shows no nftables (nf_tables): load the module, or install nft so that it can be tried",
        )
    }
}

fn has_symbol(name: &str) -> bool {
    fs::read_to_string("/proc/kallsyms").is_ok_and(|symbols| symbols.contains(name))
}

fn control_groups() -> Finding {
    let groups = match Groups::of_this_process() {
        Ok(groups) => groups,
        Err(error) => return bad(format!("the control groups cannot be read: {error}")),
    };
    let version = match groups.version {
        Version::V1 => "1 (kubelet is told to accept it)",
        Version::V2 => "2",
    };
    let missing = groups.missing();
    if groups.groups.is_empty() || !missing.is_empty() {
        return bad(format!(
            "control groups, version {version}: these controllers cannot be used: {}",
            if missing.is_empty() {
                "all".to_owned()
            } else {
                missing.join(", ")
            }
        ));
    }
    let trial = groups.child(&trial_name());
    let tried = trial.child("machine").ensure();
    let removed = trial.remove(std::time::Duration::from_secs(1));
    match tried.and(removed) {
        Ok(()) => good(format!("control groups can be made, version {version}")),
        Err(error) => bad(format!("control groups cannot be made: {error}")),
    }
}

/// How much there is of what machines use.
fn amounts(dir: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    findings.push(if processors >= 2 {
        good(format!("there are {processors} processors"))
    } else {
        bad("there is one processor; kubeadm init wants two")
    });
    let instances = fs::read_to_string("/proc/sys/fs/inotify/max_user_instances")
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok());
    if let Some(instances) = instances {
        let machines = instances
            .checked_div(INOTIFY_PER_CONTROL_PLANE)
            .unwrap_or_default();
        findings.push(good(format!(
            "fs.inotify.max_user_instances is {instances}: enough for about {machines} control-plane machines"
        )));
    }
    findings.push(good(if gives_disks(dir) {
        "there are loop devices: etcd gets a small disk of its own"
    } else {
        "loop devices or mkfs.ext4 are missing: etcd's disk cannot be filled as a fault"
    }));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_capabilities_that_are_missing() {
        assert!(missing_capabilities("CapEff:\t000001ffffffffff\n").is_empty());
        // Docker's default set.
        let missing = missing_capabilities("Name:\tx\nCapEff:\t00000000a80425fb\n");
        assert_eq!(missing, ["NET_ADMIN", "SYS_ADMIN"]);
        assert_eq!(missing_capabilities("").len(), CAPABILITIES.len());
    }

    #[test]
    fn every_finding_is_a_sentence_and_the_host_is_as_before() {
        let dir = tempfile::tempdir().unwrap();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let findings = run(&dir.path().join("not/yet/there"));
        assert!(!findings.is_empty());
        for finding in &findings {
            assert!(
                finding.sentence.split_whitespace().count() >= 3,
                "{finding:?}"
            );
        }
        assert_eq!(
            obstacles(&findings).len(),
            findings.iter().filter(|finding| !finding.is_good).count()
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(
            fs::read_to_string("/proc/self/mounts").unwrap_or_default(),
            mounts
        );
    }

    #[test]
    fn a_directory_that_overlayfs_cannot_take_is_named() {
        let findings = trials(Path::new("/tmp/a,b"));
        assert!(obstacles(&findings)[0].starts_with("/tmp/a,b: overlayfs"));
    }
}
