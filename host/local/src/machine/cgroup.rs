//! Control groups of a machine, for both versions of the kernel's interface: which there are, where a machine's own are, and what it sees of them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::tool;

/// The controllers without which kubelet does not start. In version 1 each may be in a hierarchy of its own.
pub(crate) const NEEDED_V1: [&str; 7] = [
    "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "pids",
];

/// The same for version 2; devices and freezing are not controllers there.
pub(crate) const NEEDED_V2: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// A group that PID 1 moves into, so that the machine's topmost group has no process and may have controllers (version 2 only).
const INIT_LEAF: &str = "init";

/// A group for the process outside of the machine, for the same reason.
const OUTER_LEAF: &str = "outer";

/// Version of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Version {
    /// A hierarchy for each controller, or for some of them together.
    V1,
    /// One hierarchy.
    V2,
}

/// A directory in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    /// The hierarchy as `mount -o` takes it: `cpu,cpuacct`, `name=systemd`; empty in version 2.
    pub(crate) hierarchy: String,
    /// The directory on the host.
    pub(crate) dir: PathBuf,
}

impl Group {
    fn has(&self, controller: &str) -> bool {
        self.hierarchy.split(',').any(|name| name == controller)
    }

    /// The name of the directory that a hierarchy is mounted on.
    fn mount_name(&self) -> &str {
        self.hierarchy
            .strip_prefix("name=")
            .unwrap_or(&self.hierarchy)
    }
}

/// One directory in every hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Groups {
    /// Version of the interface.
    pub(crate) version: Version,
    /// The directories.
    pub(crate) groups: Vec<Group>,
}

impl Groups {
    /// The groups that new ones of this process may be put in.
    pub(crate) fn of_this_process() -> io::Result<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup")?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        Ok(Self::parse(&groups, &mounts))
    }

    /// From `/proc/self/cgroup` and `/proc/self/mountinfo`: below the process's own groups in version 1; below the topmost visible
    /// group in version 2, since a group with processes in it cannot give controllers to others.
    pub(crate) fn parse(groups: &str, mounts: &str) -> Self {
        let mounts: Vec<Mount> = mounts.lines().filter_map(Mount::parse).collect();
        let mut found = Vec::new();
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(hierarchy), Some(path)) = (parts.next(), parts.next()) else {
                continue;
            };
            let mount = mounts
                .iter()
                .find(|mount| mount.kind == "cgroup" && mount.carries(hierarchy));
            if let (false, Some(mount)) = (hierarchy.is_empty(), mount) {
                found.push(Group {
                    hierarchy: hierarchy.to_owned(),
                    dir: mount.dir(path),
                });
            }
        }
        if found
            .iter()
            .any(|group| !group.hierarchy.starts_with("name="))
        {
            return Self {
                version: Version::V1,
                groups: found,
            };
        }
        let top = mounts.iter().find(|mount| mount.kind == "cgroup2");
        Self {
            version: Version::V2,
            groups: top
                .map(|mount| Group {
                    hierarchy: String::new(),
                    dir: mount.point.clone(),
                })
                .into_iter()
                .collect(),
        }
    }

    /// The groups of this name below these.
    pub(crate) fn child(&self, name: &str) -> Self {
        let mut child = self.clone();
        for group in &mut child.groups {
            group.dir.push(name);
        }
        child
    }

    /// The needed controllers that are not there.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        match self.version {
            Version::V1 => NEEDED_V1
                .into_iter()
                .filter(|name| !self.groups.iter().any(|group| group.has(name)))
                .collect(),
            Version::V2 => {
                let offered = self
                    .groups
                    .first()
                    .and_then(|group| fs::read_to_string(group.dir.join("cgroup.controllers")).ok())
                    .unwrap_or_default();
                NEEDED_V2
                    .into_iter()
                    .filter(|name| !offered.split_whitespace().any(|found| found == *name))
                    .collect()
            }
        }
    }

    /// Makes the directories, inside those of `parent`, which is made as well.
    pub(crate) fn ensure(&self) -> io::Result<()> {
        for group in &self.groups {
            let parent = group.dir.parent().unwrap_or(Path::new("/"));
            if self.version == Version::V2 {
                if let Some(top) = parent.parent() {
                    delegate(top)?;
                }
                fs::create_dir_all(parent)?;
                delegate(parent)?;
            }
            fs::create_dir_all(&group.dir)?;
            if group.has("cpuset") {
                for dir in [parent, &group.dir] {
                    inherit_cpuset(dir)?;
                }
            }
            if self.version == Version::V2 {
                fs::create_dir_all(group.dir.join(OUTER_LEAF))?;
            }
        }
        Ok(())
    }

    /// Moves a process into these groups; 0 is the caller.
    pub(crate) fn enter(&self, pid: u32) -> io::Result<()> {
        self.groups
            .iter()
            .try_for_each(|group| fs::write(group.dir.join("cgroup.procs"), pid.to_string()))
    }

    /// Moves the process outside of the machine out of the machine's topmost group; needed in version 2 only.
    pub(crate) fn set_aside(&self, pid: u32) -> io::Result<()> {
        match self.version {
            Version::V1 => Ok(()),
            Version::V2 => self.child(OUTER_LEAF).enter(pid),
        }
    }

    /// Bounds the memory of all processes together.
    pub(crate) fn limit_memory(&self, bytes: u64) -> io::Result<()> {
        let (group, file) = match self.version {
            Version::V1 => (
                self.groups.iter().find(|group| group.has("memory")),
                "memory.limit_in_bytes",
            ),
            Version::V2 => (self.groups.first(), "memory.max"),
        };
        group.map_or(Ok(()), |group| {
            fs::write(group.dir.join(file), bytes.to_string())
        })
    }

    /// Stops all processes where they are, or lets them go on.
    pub(crate) fn freeze(&self, frozen: bool) -> io::Result<()> {
        let (group, file, word) = match self.version {
            Version::V1 => (
                self.groups.iter().find(|group| group.has("freezer")),
                "freezer.state",
                if frozen { "FROZEN" } else { "THAWED" },
            ),
            Version::V2 => (
                self.groups.first(),
                "cgroup.freeze",
                if frozen { "1" } else { "0" },
            ),
        };
        let Some(group) = group else {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the kernel has no freezer",
            ));
        };
        match fs::write(group.dir.join(file), word) {
            // Nothing is there that could be frozen.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !frozen => Ok(()),
            other => other,
        }
    }

    /// Everything that is in these groups or below, by pid.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut found = Vec::new();
        for group in &self.groups {
            collect(&group.dir, &mut found);
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Removes the directories with all below them; they must be empty of processes.
    pub(crate) fn remove(&self, patience: Duration) -> io::Result<()> {
        let start = Instant::now();
        loop {
            let failure = self
                .groups
                .iter()
                .filter_map(|group| remove_tree(&group.dir).err())
                .next_back();
            match failure {
                None => return Ok(()),
                // The kernel takes a moment to forget processes that have ended.
                Some(_) if start.elapsed() < patience => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Some(error) => return Err(error),
            }
        }
    }

    /// Mounts what the machine sees below `root/sys/fs/cgroup`. The caller is in the machine's control group namespace.
    pub(super) fn mount(&self, root: &Path) -> io::Result<()> {
        let top = root.join("sys/fs/cgroup");
        if self.version == Version::V2 {
            tool::run(
                "mount",
                &[
                    "-t".as_ref(),
                    "cgroup2".as_ref(),
                    "cgroup2".as_ref(),
                    top.as_os_str(),
                ],
            )?;
            return make_room(&top);
        }
        tool::run(
            "mount",
            &[
                "-t".as_ref(),
                "tmpfs".as_ref(),
                "-o".as_ref(),
                "mode=755,size=1m".as_ref(),
                "cgroup".as_ref(),
                top.as_os_str(),
            ],
        )?;
        for group in &self.groups {
            let point = top.join(group.mount_name());
            fs::create_dir(&point)?;
            let options = if group.hierarchy.starts_with("name=") {
                format!("none,{}", group.hierarchy)
            } else {
                group.hierarchy.clone()
            };
            tool::run(
                "mount",
                &[
                    "-t".as_ref(),
                    "cgroup".as_ref(),
                    "-o".as_ref(),
                    options.as_ref(),
                    "cgroup".as_ref(),
                    point.as_os_str(),
                ],
            )?;
            if group.hierarchy.contains(',') {
                for name in group.hierarchy.split(',') {
                    std::os::unix::fs::symlink(group.mount_name(), top.join(name))?;
                }
            }
        }
        Ok(())
    }
}

/// Lets groups below `dir` have the controllers that kubelet needs, as far as they are not there yet.
fn delegate(dir: &Path) -> io::Result<()> {
    let file = dir.join("cgroup.subtree_control");
    let Ok(present) = fs::read_to_string(&file) else {
        return Ok(());
    };
    for name in NEEDED_V2 {
        if !present.split_whitespace().any(|found| found == name) {
            fs::write(&file, format!("+{name}")).map_err(|error| {
                let file = file.display();
                io::Error::new(
                    error.kind(),
                    format!(
                        "{file}: the controller {name} cannot be given to groups below: {error}"
                    ),
                )
            })?;
        }
    }
    Ok(())
}

/// Version 2, in the machine: PID 1 leaves the topmost group, which then may have controllers. The process outside leaves it at the same time,
/// by the hand of the host's side.
fn make_room(top: &Path) -> io::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let leaf = top.join(INIT_LEAF);
    fs::create_dir_all(&leaf)?;
    fs::write(leaf.join("cgroup.procs"), "0")?;
    let start = Instant::now();
    loop {
        match delegate(top) {
            Err(_) if start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(10)),
            other => return other,
        }
    }
}

/// A cpuset of version 1 has neither processors nor memory until it is told.
fn inherit_cpuset(dir: &Path) -> io::Result<()> {
    let Some(parent) = dir.parent() else {
        return Ok(());
    };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if fs::read_to_string(dir.join(file))?.trim().is_empty() {
            fs::write(
                dir.join(file),
                fs::read_to_string(parent.join(file))?.trim(),
            )?;
        }
    }
    Ok(())
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn collect(dir: &Path, found: &mut Vec<u32>) {
    let listed = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    // 0 is a process that has no number here; it cannot be in a machine that this host started.
    found.extend(
        listed
            .lines()
            .filter_map(|line| line.parse::<u32>().ok())
            .filter(|pid| *pid != 0),
    );
    for child in children(dir) {
        collect(&child, found);
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    let below = children(dir)
        .iter()
        .filter_map(|child| remove_tree(child).err())
        .next_back();
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(below.unwrap_or(error)),
        _ => Ok(()),
    }
}

/// A line of `mountinfo`, as far as it matters here.
struct Mount {
    kind: String,
    root: String,
    point: PathBuf,
    options: String,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, point) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        let kind = after.next()?;
        Some(Self {
            kind: kind.to_owned(),
            root: root.to_owned(),
            point: PathBuf::from(point),
            options: after.nth(1).unwrap_or_default().to_owned(),
        })
    }

    /// Whether this is where a hierarchy is mounted.
    fn carries(&self, hierarchy: &str) -> bool {
        hierarchy
            .split(',')
            .all(|name| self.options.split(',').any(|option| option == name))
    }

    /// Where a group of the hierarchy is seen.
    fn dir(&self, path: &str) -> PathBuf {
        let below = path.strip_prefix(self.root.trim_end_matches('/'));
        self.point
            .join(below.unwrap_or_default().trim_start_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1_GROUPS: &str =
        "4:memory:/sessions/a\n3:cpu,cpuacct:/\n2:freezer:/\n1:name=systemd:/x\n0::/\n";
    const V1_MOUNTS: &str = "\
        25 20 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        27 25 0:24 /sessions /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        28 25 0:25 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
        29 25 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn finds_each_hierarchy_of_version_1_where_it_is_mounted() {
        let groups = Groups::parse(V1_GROUPS, V1_MOUNTS);
        assert_eq!(groups.version, Version::V1);
        let dirs: Vec<(&str, &str)> = groups
            .groups
            .iter()
            .map(|group| (group.hierarchy.as_str(), group.dir.to_str().unwrap()))
            .collect();
        // The freezer is not mounted anywhere, and memory's mount shows only a part of its hierarchy.
        assert_eq!(
            dirs,
            [
                ("memory", "/sys/fs/cgroup/memory/a"),
                ("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/"),
                ("name=systemd", "/sys/fs/cgroup/systemd/x"),
            ]
        );
        assert_eq!(groups.missing(), ["cpuset", "devices", "freezer", "pids"]);
        let child = groups.child("run").child("i-1");
        assert_eq!(
            child.groups.first().unwrap().dir,
            Path::new("/sys/fs/cgroup/memory/a/run/i-1")
        );
    }

    #[test]
    fn version_2_is_one_directory_at_the_top() {
        let groups = Groups::parse(
            "0::/user.slice/session-1.scope\n",
            "30 20 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n",
        );
        assert_eq!(groups.version, Version::V2);
        assert_eq!(
            groups.groups,
            [Group {
                hierarchy: String::new(),
                dir: "/sys/fs/cgroup".into()
            }]
        );
    }

    #[test]
    fn groups_of_version_2_are_made_given_controllers_frozen_and_removed() {
        let top = tempfile::tempdir().unwrap();
        fs::write(
            top.path().join("cgroup.controllers"),
            "cpuset cpu memory pids\n",
        )
        .unwrap();
        fs::write(
            top.path().join("cgroup.subtree_control"),
            "memory cpu cpuset pids\n",
        )
        .unwrap();
        let groups = Groups {
            version: Version::V2,
            groups: vec![Group {
                hierarchy: String::new(),
                dir: top.path().to_owned(),
            }],
        };
        assert!(groups.missing().is_empty());
        let machine = groups.child("run").child("i-1");
        machine.ensure().unwrap();
        machine.limit_memory(4096).unwrap();
        machine.freeze(true).unwrap();
        machine.set_aside(7).unwrap();
        let read = |file: &str| fs::read_to_string(top.path().join("run/i-1").join(file)).unwrap();
        assert_eq!(
            (read("memory.max"), read("cgroup.freeze")),
            ("4096".into(), "1".into())
        );
        assert_eq!(read("outer/cgroup.procs"), "7");
        assert_eq!(machine.processes(), [7]);
    }
}
