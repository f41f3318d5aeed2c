//! Rotations in a world of their own: whatever is killed or taken back, nobody meets anybody whom he does not trust.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::control_plane::rotation::plan::{Turn, turn};
use crate::control_plane::rotation::{Hold, Record, SecretSeen, Seen, Stage, Worker};

const REPLICAS: usize = 3;
const WORKERS: usize = 2;
/// `ca`, `etcd`, `proxy`, `sa`.
const SECRETS: usize = 4;

/// Authorities, by number: 0 is there before.
type Set = BTreeSet<usize>;

#[derive(Clone, Debug, PartialEq)]
struct Material {
    trusted: Set,
    signer: usize,
}

#[derive(Clone, Debug)]
struct Machine {
    name: String,
    made: Timestamp,
    material: Vec<Material>,
    /// Whom its kubelet trusts, who signed the kubelet's certificate and its pods' tokens.
    roots: Set,
    issuer: usize,
    token: usize,
    /// Whom its pods were told to trust when they started.
    pods: Set,
}

#[derive(Clone, Debug)]
struct World {
    now: Timestamp,
    asked: Option<&'static str>,
    record: Option<Record>,
    secrets: Vec<(Material, Option<(Hold, String)>)>,
    published: Set,
    kubeconfig: Material,
    planes: Vec<Machine>,
    workers: Vec<Machine>,
    serial: usize,
    said: Vec<(Stage, bool)>,
    /// There is a connection to the workload cluster.
    connected: bool,
}

impl World {
    fn new() -> Self {
        let old = Material {
            trusted: Set::from([0]),
            signer: 0,
        };
        let mut world = Self {
            now: now(),
            asked: Some("first"),
            record: None,
            secrets: vec![(old.clone(), None); SECRETS],
            published: old.trusted.clone(),
            kubeconfig: old,
            planes: vec![],
            workers: vec![],
            serial: 0,
            said: vec![],
            connected: true,
        };
        for _ in 0..REPLICAS {
            let machine = world.machine();
            world.planes.push(machine);
        }
        for _ in 0..WORKERS {
            let machine = world.machine();
            world.workers.push(machine);
        }
        world.now += SignedDuration::from_secs(60);
        world
    }

    /// A machine that joins now. The oldest member's controller manager acts.
    fn machine(&mut self) -> Machine {
        self.serial += 1;
        let made = Timestamp::from_second(self.now.as_second()).unwrap();
        let leader = self.planes.first();
        let signer = |at: usize| leader.map_or(0, |leader| leader.material[at].signer);
        Machine {
            name: format!("m{}", self.serial),
            made,
            material: self
                .secrets
                .iter()
                .map(|(material, _)| material.clone())
                .collect(),
            roots: self.published.clone(),
            issuer: signer(0),
            token: signer(3),
            pods: leader.map_or(Set::from([0]), |leader| leader.material[0].trusted.clone()),
        }
    }

    fn observed(&self) -> Observed {
        let members = self.planes.iter().map(|machine| {
            let mut member = member(&machine.name, "a");
            let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(machine.made);
            member.machine.metadata.creation_timestamp = Some(time);
            member
        });
        let mut seen = running(u32::try_from(REPLICAS).unwrap(), members.collect());
        seen.object["status"] = json!({"initialization": {"controlPlaneInitialized": true}});
        seen.connected = self.connected;
        if let Some(asked) = self.asked {
            seen.object["metadata"]["annotations"] = json!({annotation::ROTATE_CA: asked});
        }
        if let (Some(record), Lookup::Found(cluster)) = (&self.record, &mut seen.cluster) {
            let annotations = cluster.metadata.annotations.get_or_insert_default();
            annotations.insert(annotation::CA_ROTATION.to_owned(), record.text());
        }
        let ca = &self.secrets[0].0;
        if let Lookup::Found(material) = &mut seen.material {
            material.kubeconfig_due = self.kubeconfig != *ca;
        }
        let names = ["c-ca", "c-etcd", "c-proxy", "c-sa"];
        let secrets = names
            .iter()
            .zip(&self.secrets)
            .map(|(name, (_, hold))| SecretSeen {
                name: (*name).to_owned(),
                hold: hold.clone(),
                obstacle: None,
            });
        let workers = self.workers.iter().map(|machine| Worker {
            name: machine.name.clone(),
            created: machine.made,
            is_deployed: true,
        });
        seen.rotation = Seen {
            is_supported: true,
            secrets: secrets.collect(),
            kubeconfig_obstacle: None,
            published: Lookup::Found(self.published == ca.trusted),
            workers: workers.collect(),
        };
        seen
    }

    fn hold(&mut self, hold: Hold, id: &str, at_most: usize) {
        for (material, is) in self.secrets.iter_mut().take(at_most) {
            if is.as_ref() == Some(&(hold, id.to_owned())) {
                continue;
            }
            let current = material.trusted.iter().copied();
            let (old, new) = match is {
                Some((before, of)) if before.is_both() && of == id => {
                    (current.clone().min().unwrap(), current.max().unwrap())
                }
                // It never came to this Secret.
                _ if hold == Hold::Old => {
                    *is = Some((hold, id.to_owned()));
                    continue;
                }
                _ => {
                    assert_eq!(hold, Hold::OldSigns, "nothing to do {hold:?} with");
                    let one = Set::from([material.signer]);
                    assert_eq!(
                        material.trusted, one,
                        "{id} begins in the middle of another"
                    );
                    (material.signer, material.signer + 1)
                }
            };
            let (trusted, signer) = match hold {
                Hold::OldSigns => (Set::from([old, new]), old),
                Hold::NewSigns => (Set::from([old, new]), new),
                Hold::New => (Set::from([new]), new),
                Hold::Old => (Set::from([old]), old),
            };
            *material = Material { trusted, signer };
            *is = Some((hold, id.to_owned()));
        }
    }

    /// One look of the control plane's controller; it is killed after so many Secrets.
    fn act(&mut self, killed_after: usize) {
        let seen = self.observed();
        let found = turn(&seen, self.now);
        if seen.material.found().unwrap().kubeconfig_due {
            self.kubeconfig = self.secrets[0].0.clone();
            self.check();
        }
        if let Turn::Active {
            step: Some(step), ..
        } = found
        {
            match step {
                Step::HoldAuthorities { hold, id } => self.hold(hold, &id, killed_after),
                Step::PublishAuthorities => self.published = self.secrets[0].0.trusted.clone(),
                Step::RecordRotation { record } => {
                    if record.workers.is_none() {
                        self.said.push((record.stage, record.undo));
                    }
                    self.record = Some(record);
                }
                other => panic!("{other:?}"),
            }
            self.check();
        }
        let now = self.now;
        let due = |machine: &Machine| {
            self.record
                .as_ref()
                .is_some_and(|r| r.is_machine_due(machine.made, now))
        };
        if self.planes.len() > REPLICAS {
            let at = self.planes.iter().position(due).unwrap_or(0);
            self.planes.remove(at);
        } else if self.planes.iter().any(due) {
            let machine = self.machine();
            self.planes.push(machine);
        }
        self.check();
        let due = |machine: &Machine| {
            self.record
                .as_ref()
                .is_some_and(|r| r.are_workers_due(machine.made, now))
        };
        if let Some(at) = self.workers.iter().position(due) {
            self.workers[at] = self.machine();
            self.check();
        }
        self.now += SignedDuration::from_millis(700);
    }

    /// Everybody accepts everybody.
    fn check(&self) {
        let trusts = |set: &Set, signer: usize, what: &str| {
            assert!(
                set.contains(&signer),
                "{what}: {signer} not in {set:?}\n{self:#?}"
            );
        };
        for server in &self.planes {
            for (at, material) in server.material.iter().enumerate() {
                for client in &self.planes {
                    trusts(
                        &material.trusted,
                        client.material[at].signer,
                        "member and member",
                    );
                }
            }
            let (ca, sa) = (&server.material[0], &server.material[3]);
            for kubelet in self.planes.iter().chain(&self.workers) {
                trusts(&kubelet.roots, ca.signer, "kubelet and server");
                trusts(&kubelet.pods, ca.signer, "pod and server");
                trusts(&ca.trusted, kubelet.issuer, "server and kubelet");
                trusts(&sa.trusted, kubelet.token, "server and token");
            }
            trusts(
                &self.kubeconfig.trusted,
                ca.signer,
                "administrator and server",
            );
            trusts(
                &ca.trusted,
                self.kubeconfig.signer,
                "server and administrator",
            );
        }
    }

    /// Runs until it is over.
    fn finish(&mut self) {
        for _ in 0..400 {
            if matches!(turn(&self.observed(), self.now), Turn::Done(_) | Turn::Idle) {
                return;
            }
            self.act(SECRETS);
        }
        panic!("it does not end: {:#?}", turn(&self.observed(), self.now));
    }

    /// All that anybody trusts, signs with or was signed by.
    fn in_use(&self) -> Set {
        let mut set = self.published.clone();
        for machine in self.planes.iter().chain(&self.workers) {
            set.extend(&machine.roots);
            set.extend([machine.issuer, machine.token]);
        }
        for machine in &self.planes {
            set.extend(
                machine
                    .material
                    .iter()
                    .flat_map(|material| material.trusted.iter()),
            );
        }
        set.extend(&self.kubeconfig.trusted);
        set.insert(self.kubeconfig.signer);
        set.extend(
            self.secrets
                .iter()
                .flat_map(|(material, _)| material.trusted.iter()),
        );
        set
    }
}

#[test]
fn a_rotation_goes_through_its_stages_and_leaves_the_new_authorities_only() {
    let mut world = World::new();
    world.finish();
    let stages = [
        Stage::Trust,
        Stage::Learn,
        Stage::Sign,
        Stage::Renew,
        Stage::Drop,
        Stage::Done,
    ];
    assert_eq!(world.said, stages.map(|stage| (stage, false)));
    assert_eq!(world.in_use(), Set::from([1]));
    // The same name rotates once, another one again.
    world.said.clear();
    world.act(SECRETS);
    assert_eq!(world.said, []);
    world.asked = Some("second");
    world.finish();
    assert_eq!(world.said, stages.map(|stage| (stage, false)));
    assert_eq!(world.in_use(), Set::from([2]));
}

fn until(stage: Stage) -> World {
    let mut world = World::new();
    while world
        .record
        .as_ref()
        .is_none_or(|record| record.stage != stage)
    {
        world.act(SECRETS);
    }
    world
}

#[test]
fn a_rotation_that_is_taken_back_ends_with_the_old_authorities() {
    for (stage, way) in [
        (Stage::Trust, vec![Stage::Drop, Stage::Done]),
        (Stage::Learn, vec![Stage::Drop, Stage::Done]),
        (
            Stage::Sign,
            vec![Stage::Sign, Stage::Renew, Stage::Drop, Stage::Done],
        ),
        (
            Stage::Renew,
            vec![Stage::Sign, Stage::Renew, Stage::Drop, Stage::Done],
        ),
    ] {
        let mut world = until(stage);
        world.said.clear();
        world.asked = None;
        world.finish();
        let way: Vec<(Stage, bool)> = way.into_iter().map(|stage| (stage, true)).collect();
        assert_eq!(world.said, way);
        assert_eq!(world.in_use(), Set::from([0]), "{stage:?}");
    }
}

#[test]
fn one_that_is_taken_back_at_once_replaces_no_machine_that_knows_nothing_of_it() {
    let mut world = World::new();
    let before: Vec<String> = world
        .planes
        .iter()
        .map(|machine| machine.name.clone())
        .collect();
    // The Secrets, what is published and the kubeconfig have changed; nothing is recorded.
    for _ in 0..2 {
        world.act(SECRETS);
    }
    assert_eq!(world.record, None);
    world.asked = None;
    world.finish();
    let after: Vec<String> = world
        .planes
        .iter()
        .map(|machine| machine.name.clone())
        .collect();
    assert_eq!(before, after);
    assert_eq!(world.in_use(), Set::from([0]));
}

#[test]
fn one_that_is_given_another_name_before_its_record_is_taken_back_first() {
    for killed_after in 1..=SECRETS {
        let mut world = World::new();
        world.act(killed_after);
        assert_eq!(world.record, None);
        world.asked = Some("second");
        world.finish();
        let record = world.record.as_ref().unwrap();
        assert_eq!((record.id.as_str(), record.undo), ("second", false));
        assert_eq!(
            world.said.first(),
            Some(&(Stage::Done, true)),
            "the first one is over"
        );
        assert_eq!(world.in_use().len(), 1);
    }
}

#[test]
fn a_host_that_finds_the_next_stage_begun_goes_on_with_it_also_when_it_sees_nothing_else() {
    for killed_after in 1..=SECRETS {
        let mut world = until(Stage::Renew);
        while !world
            .secrets
            .iter()
            .any(|(_, hold)| matches!(hold, Some((Hold::New, _))))
        {
            world.act(killed_after);
        }
        world.connected = false;
        for _ in 0..10 {
            if let Turn::Active {
                step: Some(step), ..
            } = turn(&world.observed(), world.now)
            {
                let is_back =
                    matches!(step, Step::HoldAuthorities { hold, .. } if hold != Hold::New);
                assert!(!is_back, "{step:?}");
            }
            world.act(SECRETS);
        }
        assert_eq!(world.record.as_ref().unwrap().stage, Stage::Drop);
        world.connected = true;
        world.finish();
        assert_eq!(world.in_use(), Set::from([1]));
    }
}

#[test]
fn taking_it_back_too_late_is_said_and_changes_nothing() {
    let mut world = until(Stage::Drop);
    world.asked = None;
    let seen = world.observed();
    assert!(matches!(
        turn(&seen, world.now),
        Turn::Active { is_late: true, .. }
    ));
    let report = crate::control_plane::rotation::condition::report(&seen, world.now).unwrap();
    assert_eq!(report.reason, "DroppingOldAuthorities");
    assert!(
        report.message.contains("removed too late"),
        "{}",
        report.message
    );
    world.finish();
    assert_eq!(world.in_use(), Set::from([1]));
}

#[test]
fn what_cannot_be_rotated_is_refused_before_anything_changes() {
    let world = World::new();
    let mut seen = world.observed();
    seen.rotation.is_supported = false;
    seen.rotation.secrets[1].obstacle = Some("Secret n/c-etcd was brought".to_owned());
    seen.rotation.kubeconfig_obstacle =
        Some("Secret n/c-kubeconfig is not the control plane's".to_owned());
    let Turn::Refused { why } = turn(&seen, world.now) else {
        panic!("it is not refused")
    };
    assert_eq!(why.len(), 3, "{why:?}");
    let report = crate::control_plane::rotation::condition::report(&seen, world.now).unwrap();
    assert_eq!(report.reason, "RotationRefused");
    let plan = decide(&seen, world.now);
    assert!(
        !plan
            .steps
            .iter()
            .any(|step| matches!(step, Step::HoldAuthorities { .. }))
    );
}

#[test]
fn workers_that_nobody_replaces_are_named() {
    let mut world = until(Stage::Learn);
    while world.record.as_ref().unwrap().workers.is_none() {
        world.act(SECRETS);
    }
    world.now += SignedDuration::from_secs(5);
    let mut seen = world.observed();
    seen.rotation.workers[0].created = now();
    seen.rotation.workers[0].is_deployed = false;
    let Turn::Active {
        wait, step: None, ..
    } = turn(&seen, world.now)
    else {
        panic!("it goes on")
    };
    assert!(
        wait.contains("of no MachineDeployment") && wait.contains(&seen.rotation.workers[0].name),
        "{wait}"
    );
}

#[test]
fn a_record_that_cannot_be_read_is_said() {
    let world = World::new();
    let mut seen = world.observed();
    if let Lookup::Found(cluster) = &mut seen.cluster {
        let annotations = cluster.metadata.annotations.get_or_insert_default();
        annotations.insert(annotation::CA_ROTATION.to_owned(), "{".to_owned());
    }
    assert!(matches!(turn(&seen, world.now), Turn::Blocked { .. }));
}

#[test]
fn what_is_stored_stays_readable() {
    let text = r#"{"id":"a","stage":"renew","undo":true,"since":"2026-01-01T00:00:00Z","workers":"2026-01-01T00:01:00Z"}"#;
    let record: Record = serde_json::from_str(text).unwrap();
    assert_eq!(record.text(), text);
    for hold in [Hold::OldSigns, Hold::NewSigns, Hold::New, Hold::Old] {
        assert_eq!(
            Hold::parse(&hold.text("a/b")),
            Some((hold, "a/b".to_owned()))
        );
    }
    assert_eq!(Hold::parse("other/a"), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Kills between any two writes, and a request that is taken away, put back and renamed at any time.
    #[test]
    fn nobody_meets_anybody_whom_he_does_not_trust(events in prop::collection::vec(0..13_u8, 1..160)) {
        let mut world = World::new();
        for event in events {
            match event {
                0 => world.asked = None,
                1 | 2 => world.asked = Some("first"),
                3..=6 => world.act(usize::from(event - 3)),
                7 => world.asked = Some("second"),
                _ => world.act(SECRETS),
            }
        }
        world.finish();
        let record = world.record.clone();
        let left = world.in_use();
        prop_assert_eq!(left.len(), 1, "{:?} {:?}", left, record);
    }
}
