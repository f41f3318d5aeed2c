//! Snapshots of a control plane's etcd: members that send them part by part, a place that keeps them, and what must be true of the
//! removal that one was taken for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use capstan_api::annotation;
use capstan_controllers::etcd::message::{SNAPSHOT, SnapshotResponse};
use capstan_controllers::etcd::snapshot::{Kept, Place, Target};
use capstan_controllers::etcd::{Answers, EtcdError};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use prost::Message;
use prost::bytes::Bytes;
use serde_json::Value;
use tokio::time::sleep;

use crate::kinds as sim;
use crate::membership::Member;
use crate::object::annotation as annotation_of;
use crate::world::{State, World};

/// How many stay.
pub const KEEP: usize = 2;

/// A removal is decided no later than this after its snapshot was whole.
const FRESH: Duration = Duration::from_secs(120);

/// How long a member says nothing: longer than the host waits for a part.
const SILENCE: Duration = Duration::from_secs(60);

/// How many snapshots in a thousand take longer than a reconcile may.
const SLOW: u32 = 200;

/// Bytes of a part.
const PART: usize = 32 << 10;

/// What the place has.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// When each was whole, by its path.
    whole: BTreeMap<String, Duration>,
    /// How many are being written.
    open: usize,
    /// There is no room until then.
    pub(super) full_until: u64,
}

impl State {
    fn shelf(&mut self) -> Option<&mut Shelf> {
        self.stacked.as_mut()?.shelf.as_mut()
    }

    /// Whether the operator wants snapshots.
    #[must_use]
    pub fn keeps_snapshots(&self) -> bool {
        let stacked = self.stacked.as_ref();
        stacked.is_some_and(|stacked| stacked.shelf.is_some())
    }

    /// A member is asked for a snapshot: in how many parts it sends it, and how long one takes at most, in milliseconds.
    fn snapshot_begins(&mut self, machine: &str) -> (u64, u64) {
        let stacked = self.stacked.as_ref();
        let member = stacked.and_then(|stacked| stacked.etcd.of(machine));
        if member.is_some_and(|member| member.learner) {
            self.violated(format!(
                "a snapshot is taken from {machine}, whose member has no vote and may lack the newest"
            ));
        }
        match self.network.happens(SLOW) {
            true => (self.network.between(5, 30), 20_000),
            false => (self.network.between(1, 3), 200),
        }
    }

    /// The next part, and how long it takes.
    fn snapshot_part(&mut self, machine: &str, most: u64) -> (Duration, Result<Bytes, EtcdError>) {
        let rates = self.rates();
        let broken = |why: &str| EtcdError::Broken {
            call: SNAPSHOT,
            why: why.to_owned(),
        };
        let stacked = self.stacked.as_ref();
        let member = stacked.and_then(|stacked| stacked.etcd.of(machine).cloned());
        let works = member.is_some_and(|member| self.works(&member)) && self.is_reached(machine);
        if !works || self.network.happens(rates.hung) {
            return (SILENCE, Err(broken("no answer")));
        }
        let takes = self.network.millis(5, most);
        if self.network.happens(rates.lost) {
            return (takes, Err(broken("the connection was lost")));
        }
        let blob = vec![0; PART];
        (takes, Ok(SnapshotResponse { blob }.encode_to_vec().into()))
    }

    /// What is wrong with the snapshot before this removal.
    pub(super) fn check_snapshot(&mut self, member: &Member) {
        let Some(stacked) = &self.stacked else {
            return;
        };
        let Some(shelf) = &stacked.shelf else {
            return;
        };
        let plane = self.management.all(&sim::SIM_STACKED_CONTROL_PLANE).next();
        let noted = plane.and_then(|plane| annotation_of(plane, annotation::ETCD_SNAPSHOT));
        let noted = noted.and_then(|text| serde_json::from_str::<Value>(text).ok());
        let noted = noted.unwrap_or_default();
        let began = stacked.look.began;
        let before = noted["before"].as_str().unwrap_or_default();
        let path = noted["path"].as_str().unwrap_or_default();
        let wrong = match shelf.whole.get(path) {
            _ if !before.ends_with(&format!(" {:x}", member.id)) => "without a snapshot",
            None => "after a snapshot that is not there",
            Some(at) if *at > began => "for what was seen before its snapshot was there",
            Some(at) if began.saturating_sub(*at) > FRESH => "after a snapshot that is too old",
            Some(_) => return,
        };
        self.violated(format!("the member {} is removed {wrong}", member.machine));
    }
}

/// What a member sends of its snapshot.
pub(super) fn parts(world: &Arc<World>, machine: &str) -> Answers {
    let (parts, most) = world.lock().snapshot_begins(machine);
    let (world, machine) = (Arc::clone(world), machine.to_owned());
    stream::iter(0..parts)
        .then(move |_| {
            let (takes, part) = world.lock().snapshot_part(&machine, most);
            async move {
                sleep(takes).await;
                part
            }
        })
        .boxed()
}

/// Where the host keeps snapshots in this world.
pub struct SnapshotPlace(pub Arc<World>);

impl fmt::Debug for SnapshotPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SnapshotPlace")
    }
}

impl Place for SnapshotPlace {
    fn begin<'a>(
        &'a self,
        of_cluster: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Target>, EtcdError>> {
        async move {
            self.0.lock().is_there_room()?;
            let mut state = self.0.lock();
            let shelf = state.shelf();
            if shelf.is_some_and(|shelf| std::mem::replace(&mut shelf.open, 1) > 0) {
                state.violated("two snapshots are written at a time".to_owned());
            }
            Ok(Box::new(Written {
                world: Arc::clone(&self.0),
                path: format!("{of_cluster}/{name}"),
            }) as Box<dyn Target>)
        }
        .boxed()
    }
}

impl State {
    /// That the place takes what comes.
    fn is_there_room(&mut self) -> Result<(), EtcdError> {
        let (now, refused) = (self.seconds(), self.rates().refused);
        let is_full = self.shelf().is_none_or(|shelf| shelf.full_until > now);
        if is_full || self.network.happens(refused) {
            return Err(EtcdError::Store("no space left on device".to_owned()));
        }
        Ok(())
    }
}

/// A snapshot that is being written.
struct Written {
    world: Arc<World>,
    path: String,
}

impl Drop for Written {
    fn drop(&mut self) {
        if let Some(shelf) = self.world.lock().shelf() {
            shelf.open = 0;
        }
    }
}

impl Target for Written {
    fn add<'a>(&'a mut self, _: &'a [u8]) -> BoxFuture<'a, Result<(), EtcdError>> {
        async { self.world.lock().is_there_room() }.boxed()
    }

    fn finish(self: Box<Self>, keep: usize) -> BoxFuture<'static, Result<Kept, EtcdError>> {
        async move {
            let mut state = self.world.lock();
            state.is_there_room()?;
            let now = state.now();
            state.note(&format!("etcd: snapshot {} is whole", self.path));
            if let Some(shelf) = state.shelf() {
                shelf.whole.insert(self.path.clone(), now);
                // Their names are times.
                while shelf.whole.len() > keep {
                    shelf.whole.pop_first();
                }
            }
            Ok(Kept {
                path: self.path.clone(),
                not_pruned: None,
            })
        }
        .boxed()
    }
}
