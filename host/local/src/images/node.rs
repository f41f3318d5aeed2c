//! What a Kubernetes version adds to the Debian root: its programs, the container runtime and the
//! runtime's configuration. What depends on the single machine is not here.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::recipe::Binaries;
use super::{Error, file};

/// Stands for the name of the pause image in the runtime's configuration.
const PAUSE: &str = "PAUSE_IMAGE";
const CONTAINERD: &str = include_str!("../../image/containerd.toml");
const CRICTL: &str = include_str!("../../image/crictl.yaml");
/// What the layer depends on beside the binaries.
pub(super) const TEXTS: [&str; 2] = [CONTAINERD, CRICTL];

/// Directory, names of binaries.
const PROGRAMS: [(&str, &[&str]); 2] = [
    ("usr/bin", &["kubelet", "kubeadm", "kubectl"]),
    (
        "usr/local/bin",
        &["containerd", "containerd-shim-runc-v2", "ctr"],
    ),
];
/// Directories that programs expect.
const DIRS: [&str; 6] = [
    "etc/cni/net.d",
    "etc/containerd",
    "etc/kubernetes/manifests",
    "var/lib/containerd",
    "var/lib/etcd",
    "var/lib/kubelet",
];

/// Makes the layer in `dir`.
pub(super) fn make(dir: &Path, binaries: &Binaries, pause: &str) -> Result<(), Error> {
    for (place, names) in PROGRAMS {
        let place = dir.join(place);
        make_dirs(dir, &place)?;
        for name in names {
            let target = place.join(name);
            share(binaries.path(name)?, &target).map_err(|source| file(&target, source))?;
        }
    }
    for place in DIRS {
        make_dirs(dir, &dir.join(place))?;
    }
    for (place, text) in [
        (
            "etc/containerd/config.toml",
            CONTAINERD.replace(PAUSE, pause),
        ),
        ("etc/crictl.yaml", CRICTL.to_owned()),
    ] {
        let path = dir.join(place);
        write(&path, &text).map_err(|source| file(&path, source))?;
    }
    Ok(())
}

/// Makes a directory with all between it and `top`, readable by everybody whatever the caller's
/// umask says: in an overlay they take the place of the lower ones.
fn make_dirs(top: &Path, dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(|source| file(dir, source))?;
    for made in dir.ancestors().take_while(|made| made.starts_with(top)) {
        fs::set_permissions(made, fs::Permissions::from_mode(0o755))
            .map_err(|source| file(made, source))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

/// Gives a file another name, or copies it where that is on another disk.
fn share(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(failure) if failure.kind() == io::ErrorKind::CrossesDevices => {
            fs::copy(from, to).map(drop)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layer_holds_the_programs_and_pins_the_pause_image() {
        let root = tempfile::tempdir().unwrap();
        let names = PROGRAMS.iter().flat_map(|(_, names)| names.iter());
        let built = names.map(|name| {
            let path = root.path().join(name);
            fs::write(&path, name).unwrap();
            (*name, path)
        });
        let binaries = Binaries {
            own: built.collect(),
            ..Binaries::default()
        };
        let dir = root.path().join("layer");
        make(&dir, &binaries, "registry.example/pause:1").unwrap();
        let kubelet = fs::read_to_string(dir.join("usr/bin/kubelet")).unwrap();
        assert_eq!(kubelet, "kubelet");
        let config = fs::read_to_string(dir.join("etc/containerd/config.toml")).unwrap();
        assert!(config.contains("sandbox = \"registry.example/pause:1\""));
        assert!(!config.contains(PAUSE));
        let mode = fs::metadata(dir.join("etc")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
    }
}
