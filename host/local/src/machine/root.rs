//! Builds a machine's root file system and leaves the host's behind. Runs once, in the machine's namespaces, before anything else.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::layout::{Layout, Machine};
use super::{installed, memory, tool};

/// Directories of the machine that lie beside its root file system: containerd's snapshots cannot be on overlayfs, and the others write much.
pub(crate) const DATA: [&str; 3] = ["containerd", "kubelet", "etcd"];

/// Where etcd's disk is mounted in the machine, when it has one.
pub(super) const ETCD_DISK: &str = "var/lib/capstan/etcd-disk";

/// Device nodes of a machine: name, major and minor number.
const NODES: [(&str, &str, &str); 6] = [
    ("null", "1", "3"),
    ("zero", "1", "5"),
    ("full", "1", "7"),
    ("random", "1", "8"),
    ("urandom", "1", "9"),
    ("tty", "5", "0"),
];

/// Settings of the kernel that kubelet makes for the whole host; a machine has files there instead.
const SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1\n"),
    ("vm/panic_on_oom", "0\n"),
    ("kernel/panic", "10\n"),
    ("kernel/panic_on_oops", "1\n"),
    ("kernel/keys/root_maxkeys", "1000000\n"),
    ("kernel/keys/root_maxbytes", "25000000\n"),
];

/// Puts the root together and makes it this process's, with the host's root out of sight.
pub(super) fn build(layout: &Layout, machine: &Machine) -> io::Result<()> {
    let root = layout.root();
    overlay(layout, machine)?;
    for name in DATA {
        let point = root.join("var/lib").join(name);
        fs::create_dir_all(&point)?;
        if name == "etcd" && machine.etcd_disk {
            etcd_disk(layout, &root, &point)?;
        } else {
            bind(&layout.data(name), &point)?;
        }
    }
    kernel_files(layout, machine, &root)?;
    devices(&root)?;
    for (name, mode) in [("run", "mode=755"), ("tmp", "mode=1777")] {
        fs::create_dir_all(root.join(name))?;
        mount("tmpfs", name, mode, &root.join(name))?;
    }
    fs::create_dir_all(root.join("run/lock"))?;
    installed::install(&root, machine)?;
    pivot(&root)
}

fn overlay(layout: &Layout, machine: &Machine) -> io::Result<()> {
    let (upper, work) = (layout.upper(), layout.work());
    let own = [upper.as_path(), work.as_path()];
    let lower = machine.lower.iter().map(PathBuf::as_path);
    let special = |path: &&Path| path.to_string_lossy().contains([',', ':', '\\']);
    if let Some(path) = lower.chain(own).find(special) {
        return Err(io::Error::other(format!(
            "{}: overlayfs takes no path with a comma, a colon or a backslash; use another directory",
            path.display()
        )));
    }
    let lower: Vec<String> = machine
        .lower
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let lower = lower.join(":");
    let [upper, work] = own.map(Path::display);
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    mount("overlay", "overlay", &options, &layout.root())
}

/// A file system of its own, so that it can be full while the machine's others are not.
fn etcd_disk(layout: &Layout, root: &Path, point: &Path) -> io::Result<()> {
    let disk = root.join(ETCD_DISK);
    fs::create_dir_all(&disk)?;
    tool::run(
        "mount",
        &[
            OsStr::new("-o"),
            OsStr::new("loop"),
            layout.etcd_image().as_os_str(),
            disk.as_os_str(),
        ],
    )?;
    // etcd's directory is one in it: kubeadm wants it empty at first, and a file system has a lost+found.
    let data = disk.join("data");
    fs::create_dir_all(&data)?;
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700))?;
    bind(&data, point)
}

/// proc, sys and the control groups: nothing that is the host's can be changed through them, except what a network namespace has of its own.
fn kernel_files(layout: &Layout, machine: &Machine, root: &Path) -> io::Result<()> {
    let proc = root.join("proc");
    mount("proc", "proc", "nosuid,nodev,noexec", &proc)?;
    let settings = proc.join("sys");
    // Of this machine's own UTS namespace.
    fs::write(settings.join("kernel/hostname"), &machine.hostname)?;
    bind(&settings, &settings)?;
    remount(&settings, "ro")?;
    let net = settings.join("net");
    bind(&net, &net)?;
    remount(&net, "rw")?;
    let faces = layout.faces();
    fs::create_dir_all(&faces)?;
    let face = |name: &str, content: &str, over: &Path| -> io::Result<()> {
        if !over.exists() {
            return Ok(());
        }
        let file = faces.join(name);
        fs::write(&file, content)?;
        bind(&file, over)
    };
    for (name, value) in SETTINGS {
        face(&name.replace('/', "."), value, &settings.join(name))?;
    }
    let host_memory = fs::read_to_string(proc.join("meminfo"))?;
    let own_memory = memory::meminfo(&host_memory, machine.memory_bytes);
    face("meminfo", &own_memory, &proc.join("meminfo"))?;
    face("swaps", memory::SWAPS, &proc.join("swaps"))?;
    let boot = installed::fresh_uuid()?;
    face(
        "boot_id",
        &format!("{boot}\n"),
        &settings.join("kernel/random/boot_id"),
    )?;
    let sys = root.join("sys");
    // Read only: below it are settings of the host's devices and kernel modules, which no namespace covers.
    mount("sysfs", "sysfs", "ro,nosuid,nodev,noexec", &sys)?;
    let uuid = sys.join("class/dmi/id/product_uuid");
    let own = installed::uuid_of(&machine.instance);
    face("product_uuid", &format!("{own}\n"), &uuid)?;
    machine.groups.mount(root)
}

fn devices(root: &Path) -> io::Result<()> {
    // A host may keep its kernel's log to itself: kubelet then follows one in which nothing happens.
    let log_is_readable = fs::File::open("/dev/kmsg").is_ok();
    let dev = root.join("dev");
    fs::create_dir_all(&dev)?;
    mount("tmpfs", "dev", "mode=755,size=1m", &dev)?;
    let log = log_is_readable.then_some(("kmsg", "1", "11"));
    for (name, major, minor) in NODES.into_iter().chain(log) {
        let path = dev.join(name);
        tool::run(
            "mknod",
            &[
                OsStr::new("-m"),
                OsStr::new("666"),
                path.as_os_str(),
                OsStr::new("c"),
                OsStr::new(major),
                OsStr::new(minor),
            ],
        )?;
    }
    for name in ["pts", "shm", "mqueue"] {
        fs::create_dir(dev.join(name))?;
    }
    mount(
        "devpts",
        "devpts",
        "newinstance,ptmxmode=0666,mode=620",
        &dev.join("pts"),
    )?;
    mount("tmpfs", "shm", "mode=1777,size=64m", &dev.join("shm"))?;
    mount("mqueue", "mqueue", "nosuid,nodev", &dev.join("mqueue"))?;
    if !log_is_readable {
        symlink("null", dev.join("kmsg"))?;
    }
    for (name, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
    ] {
        symlink(target, dev.join(name))?;
    }
    Ok(())
}

/// Makes the new root this process's own and lets go of the old one. Mounts in the machine are shared from here on: pods' volumes need it.
fn pivot(root: &Path) -> io::Result<()> {
    const OLD: &str = ".host";
    fs::create_dir_all(root.join(OLD))?;
    std::env::set_current_dir(root)?;
    // The system call moves every process of the namespace whose root this was, so a program can make it for its caller.
    tool::run("pivot_root", &[".", OLD])?;
    std::env::set_current_dir("/")?;
    tool::run("umount", &["-l", "/.host"])?;
    fs::remove_dir(Path::new("/").join(OLD))?;
    tool::run("mount", &["--make-rshared", "/"]).map(drop)
}

fn mount(kind: &str, source: &str, options: &str, point: &Path) -> io::Result<()> {
    let words = ["-t", kind, "-o", options, source].map(OsStr::new);
    let words: Vec<&OsStr> = words.into_iter().chain([point.as_os_str()]).collect();
    tool::run("mount", &words).map(drop)
}

fn bind(source: &Path, point: &Path) -> io::Result<()> {
    tool::run(
        "mount",
        &[OsStr::new("--bind"), source.as_os_str(), point.as_os_str()],
    )
    .map(drop)
}

/// Changes what may be done through this mount, not the file system behind it.
fn remount(point: &Path, access: &str) -> io::Result<()> {
    let options = format!("remount,bind,{access}");
    tool::run(
        "mount",
        &[OsStr::new("-o"), OsStr::new(&options), point.as_os_str()],
    )
    .map(drop)
}
