//! Which container images a version of Kubernetes needs, and what is in them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::archive::{ContainerImage, Content};
use super::recipe::{Binaries, Recipe};
use super::step::Work;
use super::{Error, file};

/// The workload to prove a cluster with; nobody serves it, it is only in stores.
pub(super) const SAMPLE: &str = "capstan.dev/sample:v1";
/// Whoever is nobody else: the sample needs no rights.
const NOBODY: &str = "65532";

/// What kube-proxy runs, as one program with many names.
const IPTABLES: &str = "/usr/sbin/xtables-nft-multi";
/// Those names.
const IPTABLES_NAMES: [&str; 8] = [
    "/usr/sbin/ip6tables",
    "/usr/sbin/ip6tables-nft",
    "/usr/sbin/ip6tables-restore",
    "/usr/sbin/ip6tables-save",
    "/usr/sbin/iptables",
    "/usr/sbin/iptables-nft",
    "/usr/sbin/iptables-restore",
    "/usr/sbin/iptables-save",
];
const NFT: &str = "/usr/sbin/nft";
/// A root file system has a few dozen modules of iptables; more than this is not one.
const MODULES_MAX: usize = 1000;

/// What the images depend on beside binaries and the base.
pub(super) fn inputs() -> Vec<String> {
    let mut inputs = vec![SAMPLE, NOBODY, IPTABLES, NFT];
    inputs.extend(IPTABLES_NAMES);
    inputs.iter().map(|text| (*text).to_owned()).collect()
}

/// The names of the images that kubeadm asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted(Vec<String>);

impl Wanted {
    /// From what `kubeadm config images list` prints.
    fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim);
        let names = lines.filter(|line| component(line).is_some());
        Self(names.map(str::to_owned).collect())
    }

    /// The name of the image that holds a pod's namespaces.
    pub(super) fn pause(&self) -> Result<&str, Error> {
        self.of("pause")
    }

    /// The name of the image of a component.
    fn of(&self, wanted: &str) -> Result<&str, Error> {
        let found = self
            .0
            .iter()
            .find(|name| component(name).is_some_and(|(component, _)| component == wanted));
        found.map(String::as_str).ok_or_else(|| Error::Block {
            what: format!("the name of the {wanted} image"),
            why: "kubeadm does not list one".to_owned(),
            fix: "report this as a bug".to_owned(),
        })
    }

    /// The name that kubeadm of another version has for the image of a component, whose tag is the component's version.
    fn named_as(&self, wanted: &str, version: &str) -> Result<String, Error> {
        let own = self.of(wanted)?;
        let path = own.rsplit_once(':').map_or(own, |(path, _)| path);
        Ok(format!("{path}:{version}"))
    }

    /// Fails where what would be made is not what is asked for.
    fn check(self, recipe: &Recipe) -> Result<Self, Error> {
        for name in &self.0 {
            let Some((component, tag)) = component(name) else {
                continue;
            };
            let made = match component {
                "etcd" => recipe.etcd.version,
                "coredns" => recipe.coredns.version,
                // What kubeadm needs of it has not changed since there are pods.
                "pause" => continue,
                _ => recipe.kubernetes.version,
            };
            // The tag of etcd's image ends with its own revision: 3.6.8-0.
            let asked = tag.split_once('-').map_or(tag, |(version, _)| version);
            if asked.trim_start_matches('v') != made.trim_start_matches('v') {
                return Err(Error::Block {
                    what: format!("the container image {name}"),
                    why: format!("this program builds {component} {made}"),
                    fix: "report this as a bug".to_owned(),
                });
            }
        }
        Ok(self)
    }
}

/// `host/path/component:tag` taken apart; `None` for another text.
fn component(name: &str) -> Option<(&str, &str)> {
    let (path, tag) = name.rsplit_once(':')?;
    let (_, component) = path.rsplit_once('/')?;
    let is_name = !tag.is_empty() && !component.is_empty() && !name.contains(char::is_whitespace);
    is_name.then_some((component, tag))
}

/// Asks kubeadm what it wants.
pub(super) fn wanted(work: &Work, recipe: &Recipe, binaries: &Binaries) -> Result<Wanted, Error> {
    let text = work.read(
        "asking kubeadm for the names of its images",
        Command::new(binaries.path("kubeadm")?)
            .args(["config", "images", "list", "--kubernetes-version"])
            .arg(recipe.kubernetes.version),
    )?;
    Wanted::parse(&text).check(recipe)
}

/// What is put into the store.
pub(super) fn images(
    work: &Work,
    wanted: &Wanted,
    binaries: &Binaries,
    base: &Path,
) -> Result<Vec<ContainerImage>, Error> {
    let firewall = firewall(work, base)?;
    let mut images = Vec::new();
    for name in &wanted.0 {
        let Some((component, _)) = component(name) else {
            continue;
        };
        let program = binaries.path(component)?;
        let mut image = image(name.clone(), component, program, &firewall);
        if component == "etcd" {
            // Who recovers etcd takes them from here.
            for tool in ["etcdctl", "etcdutl"] {
                let program = Content::Disk(binaries.path(tool)?.to_owned(), true);
                image
                    .files
                    .insert(format!("/usr/local/bin/{tool}"), program);
            }
        }
        images.push(image);
    }
    for (addon, program) in &binaries.addons {
        let name = wanted.named_as(addon.name, addon.version)?;
        if images.iter().all(|image| image.name != name) {
            images.push(image(name, addon.name, program, &firewall));
        }
    }
    let place = "/usr/local/bin/capstan-sample".to_owned();
    let program = Content::Disk(binaries.path("capstan-sample")?.to_owned(), true);
    images.push(ContainerImage {
        name: SAMPLE.to_owned(),
        entrypoint: Some(place.clone()),
        user: Some(NOBODY),
        files: BTreeMap::from([(place, program)]),
    });
    Ok(images)
}

/// The image of one component.
fn image(
    name: String,
    component: &str,
    program: &Path,
    firewall: &BTreeMap<String, Content>,
) -> ContainerImage {
    // Where kubeadm gives arguments only, the image has to say what they are for.
    let (place, is_entrypoint) = match component {
        "coredns" | "pause" => (format!("/{component}"), true),
        _ => (format!("/usr/local/bin/{component}"), false),
    };
    let mut files = BTreeMap::from([(place.clone(), Content::Disk(program.to_owned(), true))]);
    if component == "kube-proxy" {
        files.extend(firewall.clone());
    }
    ContainerImage {
        name,
        entrypoint: is_entrypoint.then_some(place),
        user: None,
        files,
    }
}

/// iptables and nft of the base with everything that they load.
fn firewall(work: &Work, base: &Path) -> Result<BTreeMap<String, Content>, Error> {
    let modules = modules(base)?;
    let mut programs = vec![IPTABLES.to_owned(), NFT.to_owned()];
    programs.extend(modules.iter().cloned());
    let text = work.read(
        "looking for the libraries of iptables and nft",
        Command::new("chroot").arg(base).arg("ldd").args(&programs),
    )?;
    let mut files = BTreeMap::new();
    for path in programs.into_iter().chain(libraries(&text)) {
        let place = base.join(path.trim_start_matches('/'));
        files.insert(path, Content::Disk(place, true));
    }
    for name in IPTABLES_NAMES {
        files.insert(name.to_owned(), Content::Link(IPTABLES.to_owned()));
    }
    Ok(files)
}

/// The paths in the base of the modules that iptables loads when a rule needs them.
fn modules(base: &Path) -> Result<BTreeSet<String>, Error> {
    let libraries = base.join("usr/lib");
    let mut found = BTreeSet::new();
    for dir in entries(&libraries)? {
        let dir = dir.join("xtables");
        if !dir.is_dir() {
            continue;
        }
        for module in entries(&dir)?.into_iter().take(MODULES_MAX) {
            let inside = module.strip_prefix(base).ok().and_then(Path::to_str);
            let is_module = module
                .extension()
                .is_some_and(|extension| extension == "so");
            found.extend(inside.filter(|_| is_module).map(|path| format!("/{path}")));
        }
    }
    Ok(found)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
    };
    read().map_err(|source| file(dir, source))
}

/// The paths of libraries in what `ldd` prints.
fn libraries(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter_map(|line| {
        // "  libc.so.6 => /lib/libc.so.6 (0x00007f)" or "  /lib64/ld-linux-x86-64.so.2 (0x00007f)"
        let (words, _) = line.trim().rsplit_once(" (0x")?;
        let path = words.rsplit_once(" => ").map_or(words, |(_, path)| path);
        path.starts_with('/').then(|| path.to_owned())
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::super::recipe;
    use super::*;

    const LIST: &str = "W0102 could not read the version file\n\
        registry.example/kube-apiserver:v1.36.3\nregistry.example/kube-proxy:v1.36.3\n\
        registry.example/coredns/coredns:v1.14.2\nregistry.example/pause:3.10.2\n\
        registry.example/etcd:3.6.8-0\n";

    #[test]
    fn names_are_those_that_kubeadm_lists() {
        let newest = recipe::find(super::super::VERSIONS[0]).unwrap();
        let wanted = Wanted::parse(LIST).check(newest).unwrap();
        assert_eq!(wanted.0.len(), 5);
        assert_eq!(wanted.pause().unwrap(), "registry.example/pause:3.10.2");
        assert!(Wanted::parse("nothing").pause().is_err());
    }

    #[test]
    fn addons_of_other_versions_are_named_as_their_own_kubeadm_would() {
        let wanted = Wanted::parse(LIST);
        for (component, version, name) in [
            (
                "kube-proxy",
                "v1.35.8",
                "registry.example/kube-proxy:v1.35.8",
            ),
            (
                "coredns",
                "v1.13.1",
                "registry.example/coredns/coredns:v1.13.1",
            ),
        ] {
            assert_eq!(wanted.named_as(component, version).unwrap(), name);
        }
        assert!(wanted.named_as("flannel", "v1").is_err());
    }

    #[test]
    fn an_image_of_another_version_is_refused_by_name() {
        let newest = recipe::find(super::super::VERSIONS[0]).unwrap();
        let other = LIST.replace("etcd:3.6.8-0", "etcd:3.6.9-0");
        let failure = Wanted::parse(&other).check(newest).unwrap_err();
        let text = failure.to_string();
        assert!(
            text.contains("registry.example/etcd:3.6.9-0") && text.contains("etcd v3.6.8"),
            "{text}"
        );
    }

    #[test]
    fn libraries_are_found_in_what_ldd_prints() {
        let text = "/usr/sbin/nft:\n\tlinux-vdso.so.1 (0x00007ffd)\n\
            \tlibnftables.so.1 => /lib/x86_64-linux-gnu/libnftables.so.1 (0x00007f03)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f04)\n/usr/sbin/other:\n\tstatically linked\n";
        let expected = [
            "/lib/x86_64-linux-gnu/libnftables.so.1",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(libraries(text), expected.map(str::to_owned).into());
    }
}
