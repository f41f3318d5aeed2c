//! Files that a machine puts into its own layer at every boot: who it is, and the programs that stand between its image and this host.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::cgroup::Version;
use super::layout::{Machine, STATE};

/// Asks PID 1. The first line of the answer is the exit code, the rest is the output.
const SYSTEMCTL: &str = r#"#!/bin/sh
# Asks this machine's PID 1, which runs its units; there is no systemd here.
answer=$(printf '%s\n' "$*" | socat -t 90 - UNIX-CONNECT:/run/capstan/init.sock) || exit 1
code=${answer%%
*}
case $answer in
*'
'*) printf '%s\n' "${answer#*
}" ;;
esac
exit "$code"
"#;

/// Shows the log of a unit, since there is no journal.
const JOURNALCTL: &str = r#"#!/bin/sh
# There is no journal here: shows the log file of the unit that is asked for with -u.
unit=
while [ $# -gt 0 ]; do
  case $1 in
  -u | --unit | -*u) unit=$2; shift ;;
  --unit=*) unit=${1#--unit=} ;;
  esac
  shift
done
case ${unit%.service} in
kubelet | containerd) exec cat "/var/log/${unit%.service}.log" ;;
esac
echo "journalctl: only -u kubelet and -u containerd have logs here" >&2
exit 1
"#;

/// Stands before kubeadm: what this kind of machine needs from it beyond what user data says. Its first line of substance is
/// the list of checks that are left out, by `install`.
const KUBEADM: &str = r#"#!/bin/sh
# Stands before /usr/bin/kubeadm on a namespace machine; user data need not know where it runs.
# The kernel's connection table belongs to the host, so kube-proxy must leave its size alone; and a
# check of the host's control groups can fail that kubelet passes.
verb=$1
case $verb in
init | join) ;;
*) exec /usr/bin/kubeadm "$@" ;;
esac
[ "$2" != phase ] || exec /usr/bin/kubeadm "$@"
shift
file=
given=$#
while [ "$given" -gt 0 ]; do
  word=$1
  shift
  given=$((given - 1))
  case $word in
  --config) file=$1; shift; given=$((given - 1)) ;;
  --config=*) file=${word#--config=} ;;
  *) set -- "$@" "$word" ;;
  esac
done
if [ -n "$file" ]; then
  if [ "$verb" = init ] && [ -f "$file" ] && ! grep -q '^ *kind: *KubeProxyConfiguration' "$file"; then
    own=/run/capstan/kubeadm.yaml
    (umask 077 && cat "$file" - >"$own" <<'END'

---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
conntrack:
  maxPerCore: 0
END
    ) && file=$own
  fi
  set -- --config "$file" "$@"
fi
exec /usr/bin/kubeadm "$verb" @CHECKS@"$@"
"#;

/// Writes them below `root`.
pub(super) fn install(root: &Path, machine: &Machine) -> io::Result<()> {
    let put = |path: &str, content: &str, mode: u32| -> io::Result<()> {
        let path = root.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        // It may be a link to something that is not there.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::write(&path, content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
    };
    let checks = match machine.groups.version {
        Version::V1 => "--ignore-preflight-errors=SystemVerification ",
        Version::V2 => "",
    };
    put("usr/local/bin/systemctl", SYSTEMCTL, 0o755)?;
    put("usr/local/bin/journalctl", JOURNALCTL, 0o755)?;
    put(
        "usr/local/bin/kubeadm",
        &KUBEADM.replace("@CHECKS@", checks),
        0o755,
    )?;
    put("etc/hostname", &format!("{}\n", machine.hostname), 0o644)?;
    put("etc/hosts", &hosts(machine), 0o644)?;
    put("etc/resolv.conf", &resolver(machine), 0o644)?;
    put("etc/machine-id", &machine_id(&machine.instance), 0o444)?;
    put(
        "etc/cni/net.d/10-capstan.conflist",
        &pod_network(machine),
        0o644,
    )?;
    fs::create_dir_all(root.join("run/capstan"))?;
    fs::create_dir_all(root.join("var/log"))?;
    fs::create_dir_all(root.join(STATE))
}

fn hosts(machine: &Machine) -> String {
    let (address, name) = (machine.address, &machine.hostname);
    format!("127.0.0.1 localhost\n{address} {name}\n")
}

/// Names outside of the cluster go to the router, which refuses at once: nothing here reaches the world. An address of the machine itself
/// would be a loop to CoreDNS.
fn resolver(machine: &Machine) -> String {
    format!(
        "nameserver {}\noptions timeout:1 attempts:1\n",
        machine.gateway
    )
}

/// The same at every boot of a machine, another for each.
fn machine_id(instance: &str) -> String {
    format!("{:.32}\n", hex(instance))
}

fn hex(text: &str) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A UUID made of a name.
pub(super) fn uuid_of(name: &str) -> String {
    let digits = hex(name);
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-4{}-8{}-{}",
        part(0, 8),
        part(8, 12),
        part(13, 16),
        part(17, 20),
        part(20, 32)
    )
}

/// A UUID that nobody has had.
pub(super) fn fresh_uuid() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/uuid")?
        .trim()
        .to_owned())
}

/// Pods on a bridge in the machine's own subnet; the router knows the way to each. Leases are forgotten at a reboot, as pods are.
fn pod_network(machine: &Machine) -> String {
    let bridge = json!({
        "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
        "ipam": {"type": "host-local", "dataDir": "/run/cni-leases", "ranges": [[{"subnet": machine.pods}]], "routes": [{"dst": "0.0.0.0/0"}]},
    });
    let ports = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    format!(
        "{:#}\n",
        json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, ports]})
    )
}

/// nftables rules that hide pods behind their machine when they talk to something that is neither a pod nor a machine: only the router knows
/// where pods are.
pub(super) fn masquerade(machine: &Machine) -> String {
    let (pods, range) = (&machine.pod_range, &machine.range);
    let uplink = &machine.uplink;
    format!(
        "table ip capstan {{\n  chain leave {{\n    type nat hook postrouting priority 110;\n    \
         ip saddr {pods} ip daddr != {{ {pods}, {range} }} masquerade\n    \
         ip saddr {pods} ip daddr {uplink} masquerade\n  }}\n}}\n"
    )
}
