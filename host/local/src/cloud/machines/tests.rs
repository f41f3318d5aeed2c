//! Networks on a real host, where the host allows it: what is made is removed, and nothing else is touched.

use super::*;
use crate::machine::tool;
use crate::probe;

/// Whether this host can run machines; says why not, so that a skipped test is seen.
fn can_run() -> bool {
    let findings = probe::run(Path::new("/tmp"));
    let obstacles = probe::obstacles(&findings);
    for obstacle in &obstacles {
        let line = format!("skipped: {obstacle}\n");
        let _: io::Result<()> = io::Write::write_all(&mut io::stderr(), line.as_bytes());
    }
    obstacles.is_empty()
}

/// Everything of the host that a network could have changed. Other tests may run beside: links of theirs are left out.
fn host() -> String {
    let mut out = String::new();
    for arguments in [
        ["-o", "link", "show"].as_slice(),
        &["-o", "addr", "show"],
        &["-4", "-o", "route", "show", "table", "all"],
    ] {
        let text = tool::run("ip", arguments).unwrap();
        let own = text.lines().filter(|line| !line.contains("capstan"));
        // What a link has counted and for how long an address holds is no change.
        own.for_each(|line| {
            out.push_str(line.split(" valid_lft").next().unwrap_or_default());
            out.push('\n');
        });
    }
    for file in [
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/net/ipv4/conf/all/rp_filter",
        "/proc/self/mounts",
    ] {
        out.push_str(&fs::read_to_string(file).unwrap());
    }
    out
}

fn spec(id: &str) -> NetworkSpec {
    NetworkSpec {
        id: id.into(),
        name: "test".into(),
        zones: vec!["zone-a".into(), "zone-b".into()],
    }
}

fn links(dir: &Path, id: &str) -> String {
    let network = Network::load(&networks(dir).join(id)).unwrap().unwrap();
    network.link
}

fn open(dir: &Path) -> Machines {
    let none: Find = |version, _| Err(format!("there is no image of {version}"));
    Machines::open(
        BackendDir(dir.to_owned()),
        PathBuf::from("/bin/false"),
        none,
    )
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_is_made_found_again_and_removed_without_a_trace() {
    if !can_run() {
        return;
    }
    let before = host();
    let dir = tempfile::tempdir().unwrap();
    let machines = open(dir.path());
    let (one, other) = tokio::join!(
        machines.ensure_network(spec("net-1")),
        machines.ensure_network(spec("net-1"))
    );
    let host_address = one.unwrap();
    assert_eq!(other.unwrap(), host_address);
    // Load balancers can listen there, and the router answers from its side.
    std::net::TcpListener::bind((host_address, 0)).unwrap();
    let link = links(dir.path(), "net-1");
    let neighbours = tool::run("ip", &["-4", "-o", "route", "show", "dev", &link]).unwrap();
    assert!(neighbours.contains("/21 via 198.1"), "{neighbours}");

    let first = machines
        .address(&spec("net-1"), "zone-b", &BTreeSet::new())
        .unwrap();
    let second = machines
        .address(&spec("net-1"), "zone-b", &BTreeSet::from([first]))
        .unwrap();
    assert_ne!(first, second);

    // Another process finds it, and what it has.
    let again = open(dir.path());
    assert_eq!(
        again.ensure_network(spec("net-1")).await.unwrap(),
        host_address
    );
    assert_eq!(
        again
            .address(&spec("net-1"), "zone-b", &BTreeSet::new())
            .unwrap(),
        first
    );
    again.delete_network("net-1").await.unwrap();
    again.delete_network("net-1").await.unwrap();
    assert!(tool::run("ip", &["link", "show", &link]).is_err());
    assert_eq!(host(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_whose_router_died_is_made_again_with_the_same_addresses() {
    if !can_run() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let machines = open(dir.path());
    let address = machines.ensure_network(spec("net-1")).await.unwrap();
    Network::load(&networks(dir.path()).join("net-1"))
        .unwrap()
        .unwrap()
        .tear_down()
        .unwrap();
    assert_eq!(
        machines.ensure_network(spec("net-1")).await.unwrap(),
        address
    );
    remove_all(dir.path()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_on_one_host_have_different_networks_and_each_removes_its_own() {
    if !can_run() {
        return;
    }
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) = (open(one.path()), open(other.path()));
    let (a, b) = tokio::join!(
        first.ensure_network(spec("net-1")),
        second.ensure_network(spec("net-1"))
    );
    assert_ne!(a.unwrap(), b.unwrap());
    let link = links(other.path(), "net-1");
    // As after a crash: nobody has the first one open any more.
    drop(first);
    remove_all(one.path()).unwrap();
    remove_all(one.path()).unwrap();
    tool::run("ip", &["link", "show", &link]).unwrap();
    remove_all(other.path()).unwrap();
    assert!(tool::run("ip", &["link", "show", &link]).is_err());
}

#[test]
fn a_start_sweeps_what_never_came_to_be() {
    if !can_run() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let half = instances(dir.path()).join("i-1");
    fs::create_dir_all(half.join("upper")).unwrap();
    open(dir.path());
    assert!(!half.exists());
    remove_all(dir.path()).unwrap();
    assert!(!groups_file(dir.path()).exists());
}
