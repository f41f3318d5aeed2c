//! What a machine does with its user data, and in which order: the order of cloud-init's modules.

use serde_json::Value;

use crate::cloud::userdata::{User, UserData, UserFile};

/// The file with which bootstrap data says that it has come to its end.
pub(super) const SENTINEL: &str = "/run/cluster-api/bootstrap-success.complete";

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The commands of every boot, as one script.
    BootCommands(Vec<String>),
    /// A file system to mount: source, mount point, type and options.
    Mount([String; 4]),
    /// A file.
    Write(String, UserFile),
    /// A user.
    User(User),
    /// The commands of the first boot, as one script.
    Commands(Vec<String>),
    /// A restart, or the end.
    Power(Power),
}

/// What `power_state` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Power {
    /// Off.
    Off,
    /// Off and on.
    Reboot,
}

/// All steps in their order, and what is left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// The steps.
    pub(super) steps: Vec<Step>,
    /// Lines for the console about parts that have no effect.
    pub(super) notes: Vec<String>,
    /// Whether the user data says by the sentinel file that it has come to its end.
    pub(super) has_sentinel: bool,
}

impl Plan {
    /// The plan of a machine's first boot.
    pub(super) fn of(data: UserData) -> Self {
        let mut plan = Self::default();
        if !data.boot_commands.is_empty() {
            plan.steps.push(Step::BootCommands(data.boot_commands));
        }
        plan.has_sentinel = data
            .commands
            .iter()
            .any(|command| command.contains(SENTINEL));
        let (late, early): (Vec<_>, Vec<_>) =
            data.files.into_iter().partition(|(_, file)| file.deferred);
        let write = |(path, file)| Step::Write(path, file);
        plan.steps.extend(early.into_iter().map(write));
        let mut power = None;
        for (name, part) in &data.others {
            match name.as_str() {
                "mounts" => plan.mounts(part),
                "power_state" => power = power_of(part),
                _ => plan.notes.push(note(name)),
            }
        }
        plan.steps.extend(data.users.into_iter().map(Step::User));
        plan.steps.extend(late.into_iter().map(write));
        if !data.commands.is_empty() {
            plan.steps.push(Step::Commands(data.commands));
        }
        plan.steps.extend(power.map(Step::Power));
        plan
    }

    /// What can be mounted without a disk.
    fn mounts(&mut self, part: &Value) {
        for row in part.as_array().into_iter().flatten() {
            let field = |at: usize, default: &str| {
                row.get(at)
                    .and_then(Value::as_str)
                    .unwrap_or(default)
                    .to_owned()
            };
            let mount = [
                field(0, ""),
                field(1, ""),
                field(2, "auto"),
                field(3, "defaults"),
            ];
            let [source, point, kind, options] = &mount;
            let is_bind = source.starts_with('/')
                && !source.starts_with("/dev/")
                && options
                    .split(',')
                    .any(|option| option == "bind" || option == "rbind");
            if point.starts_with('/') && (kind == "tmpfs" || is_bind) {
                self.steps.push(Step::Mount(mount));
            } else {
                self.notes.push(format!(
                    "mounts: {source}: noted, without effect: a namespace machine has no disks of its own"
                ));
            }
        }
    }
}

fn power_of(part: &Value) -> Option<Power> {
    match part.get("mode").and_then(Value::as_str)? {
        "reboot" => Some(Power::Reboot),
        "poweroff" | "halt" => Some(Power::Off),
        _ => None,
    }
}

/// Why a part has no effect.
fn note(name: &str) -> String {
    let why = match name {
        "ntp" | "timezone" => "the clock is the host's",
        "disk_setup" | "fs_setup" | "growpart" | "resize_rootfs" | "swap" => {
            "a namespace machine has no disks of its own"
        }
        "hostname" | "fqdn" | "preserve_hostname" | "manage_etc_hosts" => {
            "the host name is the instance's"
        }
        "packages" | "package_update" | "package_upgrade" | "apt" | "yum_repos" => {
            "a namespace machine has no way to a package registry"
        }
        "output" | "final_message" | "ssh_pwauth" | "disable_root" => {
            return format!("{name}: noted");
        }
        _ => "not a key that this machine knows",
    };
    format!("{name}: noted, without effect: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::userdata::MachineFacts;

    fn plan(text: &str) -> Plan {
        let facts = MachineFacts {
            hostname: "m-1".into(),
            instance_id: "i-1".into(),
            provider_id: "local:///zone-a/i-1".into(),
            address: "198.18.1.10".into(),
            zone: "zone-a".into(),
        };
        Plan::of(UserData::parse(text.as_bytes(), &facts).unwrap())
    }

    #[test]
    fn keeps_the_order_of_cloud_init_whatever_the_order_in_the_text() {
        let plan = plan(
            "#cloud-config\nruncmd: [\"kubeadm init && echo success > /run/cluster-api/bootstrap-success.complete\"]\n\
             users: [{name: ops}]\nwrite_files:\n- {path: /late, defer: true}\n- {path: /early}\nbootcmd: [date]\n\
             power_state: {mode: reboot}\nmounts: [[tmpfs, /scratch, tmpfs]]\n",
        );
        let kinds: Vec<String> = plan
            .steps
            .iter()
            .map(|step| match step {
                Step::Write(path, _) => path.clone(),
                Step::Mount([_, point, ..]) => point.clone(),
                other => format!("{other:?}")
                    .split(['(', ' '])
                    .next()
                    .unwrap()
                    .to_owned(),
            })
            .collect();
        assert_eq!(
            kinds,
            [
                "BootCommands",
                "/early",
                "/scratch",
                "User",
                "/late",
                "Commands",
                "Power"
            ]
        );
        assert!(plan.has_sentinel && plan.notes.is_empty());
    }

    #[test]
    fn says_what_has_no_effect_and_why() {
        let plan = plan(
            "#cloud-config\nntp: {enabled: true}\nmounts: [[LABEL=etcd_disk, /var/lib/etcd]]\nfrobnicate: 1\n",
        );
        assert!(plan.steps.is_empty() && !plan.has_sentinel);
        let notes = plan.notes.join("\n");
        for words in [
            "ntp: noted, without effect: the clock is the host's",
            "mounts: LABEL=etcd_disk: noted",
            "frobnicate: noted, without effect: not a key",
        ] {
            assert!(notes.contains(words), "{notes}");
        }
    }
}
