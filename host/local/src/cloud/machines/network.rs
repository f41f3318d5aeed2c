//! A network on this host: a router in a network namespace of its own, with a bridge for each zone and one link to the host.
//!
//! The host gets one link, one address on it and one route to the network's range; whether it forwards stays as it is, and the
//! router has no default route: nothing in the network reaches anything but the host's end of that link.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::range::{self, BLOCKS, Block, Cidr, ZONES_MAX};
use crate::cloud::backend::NetworkSpec;
use crate::cloud::disk;
use crate::machine::layout::Machine;
use crate::machine::tool;
use crate::process::{self, Record};

/// Pods' range when the user data does not say another.
const POD_RANGE: &str = "10.244.0.0/16";

/// How long the router's process may take to get its namespace, and a link to go.
const PATIENCE: Duration = Duration::from_secs(10);

/// A network; `network.json` in its directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Network {
    /// Identity.
    pub(super) id: String,
    /// Name.
    pub(super) name: String,
    /// Zones in order; the place of each is its subnet's.
    pub(super) zones: Vec<String>,
    /// Its addresses.
    pub(super) block: Block,
    /// The host's end of the link.
    pub(super) link: String,
    /// The process that keeps the router's namespace.
    router: Option<Record>,
    /// The range that its pods are in.
    pub(super) pods: String,
}

impl Network {
    /// What is known about a network, from its directory.
    pub(super) fn load(dir: &Path) -> io::Result<Option<Self>> {
        disk::load(&file(dir))
    }

    /// Writes it down.
    pub(super) fn save(&self, dir: &Path) -> io::Result<()> {
        disk::save(&file(dir), self)
    }

    /// Makes a network, or what is missing of it. `machines` are those that are on: a new router is plugged into them again.
    pub(super) fn ensure(dir: &Path, spec: &NetworkSpec) -> io::Result<(Self, bool)> {
        if spec.zones.len() > ZONES_MAX {
            return Err(io::Error::other(format!(
                "the network {} has {} zones; there is room for {ZONES_MAX}",
                spec.name,
                spec.zones.len()
            )));
        }
        let before = Self::load(dir)?;
        if let Some(network) = &before
            && network.zones == spec.zones
            && network.router.as_ref().is_some_and(process::is_alive)
            && link_exists(&network.link)
        {
            return Ok((network.clone(), false));
        }
        fs::create_dir_all(dir)?;
        if let Some(network) = &before {
            network.tear_down()?;
        }
        let link = link_name(dir);
        remove_link(&link)?;
        let mut network = Self {
            id: spec.id.clone(),
            name: spec.name.clone(),
            zones: spec.zones.clone(),
            block: before
                .as_ref()
                .map_or(first_block(&link), |known| known.block),
            link,
            router: None,
            pods: before.map_or_else(|| POD_RANGE.to_owned(), |known| known.pods),
        };
        let router = hold_namespace(dir)?;
        network.router = Some(router.clone());
        network.save(dir)?;
        if let Err(error) = network.build(&router) {
            // Half a network is none: the next try begins anew.
            network.tear_down()?;
            return Err(error);
        }
        network.save(dir)?;
        Ok((network, true))
    }

    fn build(&mut self, router: &Record) -> io::Result<()> {
        let link = &self.link;
        tool::feed(
            "ip",
            &["-batch", "-"],
            &format!(
                "link add {link} type veth peer name up0 netns {}\nlink set {link} up\n",
                router.pid
            ),
        )?;
        self.claim()?;
        let block = self.block;
        let mut lines = format!(
            "link set lo up\naddr add {}/30 dev up0\nlink set up0 up\n",
            block.router()
        );
        for place in 0..self.zones.len() {
            let Some(gateway) = block.gateway(place) else {
                continue;
            };
            let bridge = bridge(place);
            lines.push_str(&format!(
                "link add {bridge} type bridge\naddr add {gateway}/24 dev {bridge}\nlink set {bridge} up\n"
            ));
        }
        ip_in(router.pid, &lines)?;
        // Of the router's namespace: the host's settings are others.
        let settings = "echo 1 >/proc/sys/net/ipv4/ip_forward\n\
            for dir in /proc/sys/net/ipv4/conf/*; do echo 0 >$dir/send_redirects; echo 0 >$dir/rp_filter; done\n";
        in_network(router.pid, "sh", &["-ec", settings]).map(drop)
    }

    /// Takes the first block from this network's on that the host has no other use for: the route says whose it is.
    fn claim(&mut self) -> io::Result<()> {
        let mut last = None;
        for step in 0..BLOCKS {
            let block = self.block.after(step);
            let taken = range::routed(&tool::run(
                "ip",
                &["-4", "-o", "route", "show", "table", "all"],
            )?);
            if taken.iter().any(|range| range.overlaps(block.range())) {
                continue;
            }
            let (host, router, range, link) =
                (block.host(), block.router(), block.range(), &self.link);
            let lines = format!(
                "addr add {host}/30 dev {link}\nroute add {range} via {router} dev {link}\n"
            );
            match tool::feed("ip", &["-batch", "-"], &lines) {
                Ok(_) => {
                    self.block = block;
                    return Ok(());
                }
                // Another run was quicker.
                Err(error) => last = Some(error),
            }
            tool::run("ip", &["-4", "addr", "flush", "dev", &self.link])?;
        }
        Err(last.unwrap_or_else(|| {
            io::Error::other(
                "this host has routes into every part of 198.18.0.0/15, from which networks of machines get their addresses",
            )
        }))
    }

    /// Removes everything that it has on this host but its directory.
    pub(super) fn tear_down(&self) -> io::Result<()> {
        if let Some(router) = &self.router {
            process::kill(router).map_err(io::Error::other)?;
        }
        remove_link(&self.link)
    }

    fn router(&self) -> io::Result<u32> {
        let router = self
            .router
            .as_ref()
            .filter(|router| process::is_alive(router));
        router.map(|router| router.pid).ok_or_else(|| {
            io::Error::other(format!("the router of network {} does not run", self.name))
        })
    }

    /// The place of a zone.
    pub(super) fn place(&self, zone: &str) -> io::Result<usize> {
        self.zones
            .iter()
            .position(|known| known == zone)
            .ok_or_else(|| {
                io::Error::other(format!("the network {} has no zone {zone}", self.name))
            })
    }

    /// The subnet of the pods of a machine.
    pub(super) fn pods_of(&self, index: u8) -> io::Result<Cidr> {
        let range: Cidr = self.pods.parse().map_err(io::Error::other)?;
        Ok(range.subnet(24, u32::from(index)))
    }

    /// Plugs a machine in: its link, its address, the ways to it and its pods. `outer` is a process in its network namespace.
    pub(super) fn plug(&self, machine: &Machine, outer: u32) -> io::Result<()> {
        let router = self.router()?;
        let place = self.place(&machine.zone)?;
        let (port, bridge, address) = (port(machine.index), bridge(place), machine.address);
        let (pods, mac) = (&machine.pods, mac(&machine.instance));
        // A port of that name is what an earlier machine with this number has left, and is about to go by itself.
        let _: io::Result<String> = in_network(router, "ip", &["link", "del", &port]);
        ip_in(
            router,
            &format!(
                "link add {port} type veth peer name eth0 address {mac} netns {outer}\nlink set {port} master {bridge} up\n\
                 route replace {pods} via {address}\n"
            ),
        )?;
        let gateway = machine.gateway;
        ip_in(
            outer,
            &format!(
                "link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\nroute add default via {gateway}\n"
            ),
        )
    }

    /// Takes back what [`Network::plug`] has made in the router.
    pub(super) fn unplug(&self, machine: &Machine) -> io::Result<()> {
        let Ok(router) = self.router() else {
            return Ok(());
        };
        // The link goes with the machine's namespace, the route with the link's address; both may be gone already.
        let _: io::Result<String> =
            in_network(router, "ip", &["link", "del", &port(machine.index)]);
        let _: io::Result<String> = in_network(router, "ip", &["route", "del", &machine.pods]);
        Ok(())
    }

    /// Cuts a machine off, or lets it in again, at the router's end of its link.
    pub(super) fn set_link(&self, machine: &Machine, is_up: bool) -> io::Result<()> {
        let state = if is_up { "up" } else { "down" };
        let port = port(machine.index);
        in_network(self.router()?, "ip", &["link", "set", &port, state]).map(drop)
    }
}

fn file(dir: &Path) -> PathBuf {
    dir.join("network.json")
}

/// The host's end of a network's link. The digest of the directory keeps runs on one host apart; 15 letters are the most that a link's name may have.
fn link_name(dir: &Path) -> String {
    let digest = Sha256::digest(dir.as_os_str().as_encoded_bytes());
    let digits: String = digest
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("capstan{digits}")
}

/// Where the search for a free block begins: somewhere else for each network, so that runs seldom meet.
fn first_block(link: &str) -> Block {
    let digest = Sha256::digest(link.as_bytes());
    Block::new(digest.first().copied().unwrap_or_default())
}

/// A zone's bridge in the router.
fn bridge(place: usize) -> String {
    format!("zone{place}")
}

/// The router's end of a machine's link.
fn port(index: u8) -> String {
    format!("machine{index}")
}

/// A machine's hardware address: the same after a reboot, so that nobody remembers an old one.
fn mac(instance: &str) -> String {
    let digest = Sha256::digest(instance.as_bytes());
    let digits: Vec<String> = digest
        .iter()
        .take(5)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("02:{}", digits.join(":"))
}

fn link_exists(link: &str) -> bool {
    Path::new("/sys/class/net").join(link).exists()
}

fn remove_link(link: &str) -> io::Result<()> {
    if link_exists(link)
        && let Err(error) = tool::run("ip", &["link", "del", link])
        && link_exists(link)
    {
        return Err(error);
    }
    Ok(())
}

/// Starts a process that does nothing in a network namespace of its own, and outlives this one.
fn hold_namespace(dir: &Path) -> io::Result<Record> {
    let argv = ["unshare", "--net", "--", "sleep", "infinity"].map(str::to_owned);
    let spec = process::Spec {
        name: "router".to_owned(),
        argv: argv.to_vec(),
        cwd: Some(PathBuf::from("/")),
        env: vec![("PATH".to_owned(), tool::path())],
        log: dir.join("router.log"),
        ports: Vec::new(),
    };
    let (mut child, record) = process::spawn(&spec, None).map_err(io::Error::other)?;
    let own = fs::read_link("/proc/self/ns/net")?;
    let start = Instant::now();
    loop {
        let ended = child.try_wait()?;
        let theirs = fs::read_link(format!("/proc/{}/ns/net", record.pid));
        if ended.is_none() && theirs.is_ok_and(|theirs| theirs != own) {
            break;
        }
        if ended.is_some() || start.elapsed() >= PATIENCE {
            let said = process::log_tail(&spec.log, 3);
            return Err(io::Error::other(format!(
                "no network namespace could be made for the router: {said}"
            )));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    // Reaped when it ends, for as long as this process is its parent.
    std::thread::spawn(move || child.wait());
    Ok(record)
}

/// Runs a program in the network namespace of a process.
fn in_network(pid: u32, program: &str, arguments: &[&str]) -> io::Result<String> {
    let namespace = format!("--net=/proc/{pid}/ns/net");
    let words: Vec<&str> = [namespace.as_str(), "--", program]
        .into_iter()
        .chain(arguments.iter().copied())
        .collect();
    tool::run("nsenter", &words)
}

/// Runs lines of `ip` in the network namespace of a process.
fn ip_in(pid: u32, lines: &str) -> io::Result<()> {
    let namespace = format!("--net=/proc/{pid}/ns/net");
    tool::feed(
        "nsenter",
        &[namespace.as_str(), "--", "ip", "-batch", "-"],
        lines,
    )
    .map(drop)
}

/// The pods' range that a cluster's configuration in some user data names.
pub(super) fn pod_range<'a>(files: impl Iterator<Item = &'a str>) -> Option<String> {
    files
        .flat_map(str::lines)
        .filter_map(|line| line.trim().strip_prefix("podSubnet:"))
        .map(|value| value.trim().trim_matches(['"', '\'']).to_owned())
        .find(|value| value.parse::<Cidr>().is_ok())
}

/// An address of a zone that is none of those.
pub(super) fn free_address(
    network: &Network,
    zone: &str,
    is_taken: impl Fn(Ipv4Addr) -> bool,
) -> io::Result<Ipv4Addr> {
    let place = network.place(zone)?;
    network
        .block
        .machines(place)
        .find(|address| !is_taken(*address))
        .ok_or_else(|| {
            io::Error::other(format!(
                "no address is free in zone {zone} of network {}",
                network.name
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_pods_range_of_a_cluster_configuration() {
        let files = [
            "kind: JoinConfiguration\n",
            "networking:\n  podSubnet: \"192.168.0.0/16\"\n",
        ];
        assert_eq!(pod_range(files.into_iter()), Some("192.168.0.0/16".into()));
        assert_eq!(pod_range(["podSubnet: fd00::/56"].into_iter()), None);
    }

    #[test]
    fn names_fit_and_tell_directories_apart() {
        let (one, other) = (link_name(Path::new("/a/1")), link_name(Path::new("/a/2")));
        assert!(one.len() <= 15 && one != other);
        assert_eq!(mac("i-1").len(), 17);
        assert_ne!(mac("i-1"), mac("i-2"));
    }

    #[test]
    fn hands_out_addresses_of_the_zone_that_nobody_has() {
        let network = Network {
            id: "net-1".into(),
            name: "n".into(),
            zones: vec!["zone-a".into(), "zone-b".into()],
            block: Block::new(0),
            link: "capstan0".into(),
            router: None,
            pods: POD_RANGE.into(),
        };
        let first: Ipv4Addr = "198.18.2.10".parse().unwrap();
        let address = free_address(&network, "zone-b", |address| address == first).unwrap();
        assert_eq!(address.to_string(), "198.18.2.11");
        assert!(free_address(&network, "zone-b", |_| true).is_err());
        let error = free_address(&network, "zone-x", |_| false).unwrap_err();
        assert_eq!(error.to_string(), "the network n has no zone zone-x");
        assert_eq!(network.pods_of(7).unwrap().to_string(), "10.244.7.0/24");
    }
}
