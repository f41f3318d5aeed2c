//! The machine's PID 1: its boot, its supervision, its end.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::cgroup::Version;
use super::children::{self, Children};
use super::control::{self, Fulfil, Wish};
use super::execute::Executor;
use super::installed;
use super::layout::{BEGUN, Layout, Machine, OUTCOME, Outcome, REBOOT, Running, SOCKET, STATE};
use super::plan::Power;
use super::root::{self, ETCD_DISK};
use super::units::{self, Units, clean};
use crate::cloud::console::Console;
use crate::cloud::disk;
use crate::process;

/// How long the network may take to be plugged in by the host's side.
const NETWORK_PATIENCE: Duration = Duration::from_secs(60);

/// How long containerd may take until it is ready.
const CONTAINERD_PATIENCE: Duration = Duration::from_secs(60);

/// How long processes may take to end by themselves when the machine is turned off.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(10);

/// How much of a unit's log is let grow, and how much of it is kept then.
const LOG_BYTES: (u64, usize) = (16 << 20, 4 << 20);

/// Between two looks at how much the units have logged.
const LOG_LOOK: Duration = Duration::from_secs(10);

/// Runs the machine. Returns when it cannot be built; otherwise the process ends with the machine.
pub(super) fn run(dir: &Path) -> anyhow::Result<ExitCode> {
    let layout = Layout::new(dir);
    let machine = layout
        .load()?
        .with_context(|| format!("{} holds no machine", dir.display()))?;
    let user_data = fs::read(layout.user_data())?;
    record(&layout).context("could not record the machine's processes")?;
    // The path is out of reach once the root is another; the open file is not.
    let file = File::options()
        .append(true)
        .create(true)
        .open(&machine.console)?;
    let console = Console::at(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let early = Console::at(&machine.console);
    early.line(format!(
        "booting {} ({}) with image {}",
        machine.hostname, machine.instance, machine.version
    ));
    if let Err(error) = root::build(&layout, &machine) {
        early.line(format!(
            "boot: ERROR: the root file system cannot be built: {error}"
        ));
        return Err(error.into());
    }
    let code = live(&machine, &user_data, &console);
    if let Err(error) = &code {
        console.line(format!("boot: ERROR: {error}"));
    }
    drop(file);
    code.map_err(Into::into)
}

/// Writes down, for the host's side, which processes these are. `/proc` is still the host's, and so are the numbers in it.
fn record(layout: &Layout) -> anyhow::Result<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    let number = |key: &str| -> Option<u32> {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let known = |name: &str, pid: Option<u32>| {
        pid.and_then(|pid| process::recognise(name, pid, &layout.dir().join("console.log")))
            .with_context(|| format!("{name}: not in /proc"))
    };
    let running = Running {
        outer: known("machine", number("PPid:"))?,
        init: known("init", number("Pid:"))?,
    };
    Ok(disk::save(&layout.running(), &running)?)
}

/// From here on the root is the machine's own.
fn live(machine: &Machine, user_data: &[u8], console: &Console) -> io::Result<ExitCode> {
    let children = Arc::new(Children::default());
    std::thread::spawn({
        let children = Arc::clone(&children);
        move || children.reap()
    });
    let of_version = match machine.groups.version {
        Version::V1 => "--fail-cgroupv1=false",
        Version::V2 => "",
    };
    // What a cloud's own controller would write into the Node; user data may say otherwise, since the last one of a flag counts.
    let flags = format!("{of_version} --provider-id='{}'", machine.provider_id);
    let units = Units::start(&children, console, &flags);
    let listener = UnixListener::bind(Path::new("/").join(SOCKET))?;
    fs::set_permissions(
        Path::new("/").join(SOCKET),
        fs::Permissions::from_mode(0o600),
    )?;
    let fulfil = fulfil(machine, &units, console);
    std::thread::spawn({
        let (units, fulfil, console) = (Arc::clone(&units), Arc::clone(&fulfil), console.clone());
        move || control::serve(&listener, &units, &fulfil, &console)
    });
    std::thread::spawn(trim_logs);
    let containerd = readiness()?;
    units.want("containerd");
    boot(
        machine,
        user_data,
        console,
        &children,
        &units,
        &fulfil,
        &containerd,
    )?;
    loop {
        std::thread::park();
    }
}

/// Hears each time containerd says that it is ready.
fn readiness() -> io::Result<mpsc::Receiver<()>> {
    let socket = UnixDatagram::bind(units::NOTIFY)?;
    let (ready, heard) = mpsc::channel();
    std::thread::spawn(move || {
        let mut message = [0; 4096];
        while let Ok(length) = socket.recv(&mut message) {
            let text = message.get(..length).unwrap_or_default();
            if text
                .split(|byte| *byte == b'\n')
                .any(|line| line == b"READY=1")
            {
                // Only the boot listens; a later start is nobody's business.
                let _: Result<(), mpsc::SendError<()>> = ready.send(());
            }
        }
    });
    Ok(heard)
}

fn boot(
    machine: &Machine,
    user_data: &[u8],
    console: &Console,
    children: &Children,
    units: &Arc<Units>,
    fulfil: &Arc<Fulfil>,
    containerd: &mpsc::Receiver<()>,
) -> io::Result<()> {
    wait("the network is not plugged in", NETWORK_PATIENCE, || {
        fs::read_to_string("/proc/net/route").is_ok_and(|routes| has_default(&routes))
    })?;
    // Of this machine's own network namespace; pods need it, and kubeadm looks.
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    let rules = Path::new("/run/capstan/rules.nft");
    fs::write(rules, installed::masquerade(machine))?;
    let ended =
        children.run(clean(Command::new("nft").arg("-f").arg(rules)).stderr(Stdio::null()))?;
    if !ended.is_success() {
        console.line("network: the rule that lets pods reach load balancers cannot be set");
    }
    if containerd.recv_timeout(CONTAINERD_PATIENCE).is_err() {
        console.line("boot: containerd is not ready; see /var/log/containerd.log");
    }
    let state = Path::new("/").join(STATE);
    let executor = Executor {
        machine,
        console,
        children,
    };
    if state.join(OUTCOME).exists() {
        executor.again(user_data);
        if Path::new("/var/lib/kubelet/config.yaml").exists()
            && units.get("kubelet").is_some_and(|unit| unit.enabled)
        {
            units.want("kubelet");
        }
        console.line("boot: finished");
        return Ok(());
    }
    let (outcome, power) = if state.join(BEGUN).exists() {
        let outcome = Outcome {
            done: false,
            message: "the machine went off while its user data ran; it is not run again".to_owned(),
        };
        (outcome, None)
    } else {
        fs::write(state.join(BEGUN), "")?;
        executor.first(user_data)
    };
    let (word, message) = (
        if outcome.done {
            "finished"
        } else {
            "finished with errors"
        },
        &outcome.message,
    );
    console.line(format!("cloud-init: {word}: {message}"));
    disk::save(&state.join(OUTCOME), &outcome)?;
    match power {
        Some(Power::Off) => drop(fulfil(Wish::PowerOff)),
        Some(Power::Reboot) => drop(fulfil(Wish::Reboot)),
        None => {}
    }
    Ok(())
}

/// Whether a kernel's table of routes has a default route.
fn has_default(routes: &str) -> bool {
    routes.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace();
        fields.next() == Some("eth0") && fields.next() == Some("00000000")
    })
}

fn wait(what: &str, patience: Duration, is_so: impl Fn() -> bool) -> io::Result<()> {
    let start = Instant::now();
    while !is_so() {
        if start.elapsed() >= patience {
            let seconds = patience.as_secs();
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{what} after {seconds} s"),
            ));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

fn fulfil(machine: &Machine, units: &Arc<Units>, console: &Console) -> Arc<Fulfil> {
    let (units, console, has_disk) = (Arc::clone(units), console.clone(), machine.etcd_disk);
    Arc::new(move |wish| match wish {
        Wish::PowerOff | Wish::Reboot => {
            let (units, console) = (Arc::clone(&units), console.clone());
            std::thread::spawn(move || end(wish, &units, &console));
            (0, String::new())
        }
        Wish::FillDisk | Wish::FreeDisk if !has_disk => {
            (2, "etcd has no disk of its own on this machine".to_owned())
        }
        Wish::FillDisk => told(fill_disk()),
        Wish::FreeDisk => told(free_disk()),
    })
}

fn told(result: io::Result<()>) -> (i32, String) {
    match result {
        Ok(()) => (0, String::new()),
        Err(error) => (1, error.to_string()),
    }
}

/// Ends everything, and the machine with it.
#[expect(
    clippy::disallowed_methods,
    reason = "a machine ends with its PID 1: every other process is gone, and main waits for ever"
)]
fn end(wish: Wish, units: &Units, console: &Console) {
    let what = if wish == Wish::Reboot {
        "reboot"
    } else {
        "power off"
    };
    console.line(format!("shutdown: {what}"));
    if wish == Wish::Reboot {
        let marker = Path::new("/").join(STATE).join(REBOOT);
        if let Err(error) = fs::write(marker, "") {
            console.line(format!("shutdown: it will stay off: {error}"));
        }
    }
    units.stop_all();
    children::end_all(END_PATIENCE);
    std::process::exit(0);
}

/// A file that takes all that is left of etcd's disk; nothing is written to the host's.
fn fill_disk() -> io::Result<()> {
    let disk = Path::new("/").join(ETCD_DISK);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(disk.join("filler"))?;
    // Large pieces first; what is smaller than the smallest is no room for anything.
    for piece in [64 << 20, 1 << 20, 64 << 10, 4 << 10] {
        loop {
            let at = file.metadata()?.len();
            match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), at, piece) {
                Ok(()) => {}
                Err(rustix::io::Errno::NOSPC) => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

fn free_disk() -> io::Result<()> {
    disk::remove(&Path::new("/").join(ETCD_DISK).join("filler"))
}

/// Keeps the units' logs from growing without end.
fn trim_logs() {
    loop {
        std::thread::sleep(LOG_LOOK);
        for unit in ["kubelet", "containerd"] {
            // A log that cannot be trimmed now is looked at again.
            let _: io::Result<()> = trim(Path::new(&units::log_path(unit)), LOG_BYTES);
        }
    }
}

/// Keeps the end of a file that has grown over the first size. Whoever appends to it goes on; what it writes at this very moment is lost.
fn trim(path: &Path, (max, kept): (u64, usize)) -> io::Result<()> {
    if fs::metadata(path)?.len() <= max {
        return Ok(());
    }
    let content = fs::read(path)?;
    let from = content.len().saturating_sub(kept);
    fs::write(path, content.get(from..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_when_the_network_is_plugged_in() {
        let head = "Iface\tDestination\tGateway\n";
        assert!(!has_default(head));
        assert!(!has_default(&format!("{head}eth0\t0001A8C0\t00000000\n")));
        assert!(has_default(&format!("{head}eth0\t00000000\t0109C612\n")));
    }

    #[test]
    fn a_long_log_keeps_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "0123456789").unwrap();
        trim(&path, (10, 4)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "0123456789");
        trim(&path, (9, 4)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "6789");
    }
}
