//! Snapshots that are being taken: one at a time of each control plane, beside its reconciles, for as long as it takes.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use capstan_core::control_plane::etcd::Address;
use capstan_core::control_plane::snapshot::{State, Taken, Taking};
use tokio::sync::watch;

use super::Snapshot;
use crate::ctx::{Clock, Ctx};
use crate::etcd::EtcdError;
use crate::object::Locator;

/// How far a snapshot is.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    from: Mutex<String>,
}

impl Progress {
    /// It is taken from this member, from its beginning.
    pub(crate) fn begins(&self, from: &str) {
        self.bytes.store(0, Ordering::Relaxed);
        let mut name = self.from.lock().unwrap_or_else(PoisonError::into_inner);
        from.clone_into(&mut name);
    }

    /// So much more has come.
    pub(crate) fn came(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or_default();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn state(&self) -> State {
        let from = self.from.lock().unwrap_or_else(PoisonError::into_inner);
        State::Running {
            from: from.clone(),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// What is being taken, by control plane. Clones share it.
#[derive(Clone, Default)]
pub struct Snapshots {
    shared: Arc<Shared>,
}

type Listener = Box<dyn Fn(&Locator) + Send + Sync>;

#[derive(Default)]
struct Shared {
    begun: Mutex<HashMap<Locator, Begun>>,
    listener: OnceLock<Listener>,
}

struct Begun {
    taking: Taking,
    progress: Arc<Progress>,
    /// How many have failed in a row.
    failures: u32,
    /// Dropped, it ends.
    _stop: watch::Sender<()>,
}

impl fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshots({} begun)", self.shared.begun().len())
    }
}

impl Shared {
    fn begun(&self) -> MutexGuard<'_, HashMap<Locator, Begun>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Snapshots {
    /// Calls this with the control plane whose snapshot has come to an end. The first listener counts.
    pub fn listen(&self, listener: impl Fn(&Locator) + Send + Sync + 'static) {
        // A second listener would be a programming error without consequence: the first stays.
        let _ = self.shared.listener.set(Box::new(listener));
    }

    /// The snapshot of this control plane that was begun last and is not noted yet.
    #[must_use]
    pub fn of(&self, control_plane: &Locator) -> Option<Taking> {
        let begun = self.shared.begun();
        let begun = begun.get(control_plane)?;
        let mut taking = begun.taking.clone();
        if matches!(taking.state, State::Running { .. }) {
            taking.state = begun.progress.state();
        }
        Some(taking)
    }

    /// Begins one, unless one is being taken, in a task that ends with the host, with its Lease, and with the control plane. After each
    /// failure another member is the first that is asked.
    pub fn begin<F>(
        &self,
        ctx: &Ctx,
        control_plane: &Locator,
        before: &str,
        from: &[Address],
        take: impl FnOnce(Vec<Address>, Arc<Progress>) -> F,
    ) where
        F: Future<Output = Result<Snapshot, EtcdError>> + Send + 'static,
    {
        let progress = Arc::<Progress>::default();
        let (stop, mut stopped) = watch::channel(());
        let mut from = from.to_vec();
        {
            let mut all = self.shared.begun();
            let last = all.get(control_plane);
            if last.is_some_and(|last| matches!(last.taking.state, State::Running { .. })) {
                return;
            }
            let failures = last.map_or(0, |last| last.failures);
            let failed_before = last.and_then(|last| match &last.taking.state {
                State::Failed { why, .. } => Some(why.clone()),
                State::Running { .. } | State::Taken(_) => None,
            });
            let turns = usize::try_from(failures).unwrap_or_default();
            let turns = turns.checked_rem(from.len()).unwrap_or_default();
            from.rotate_left(turns);
            let begun = Begun {
                taking: Taking {
                    before: before.to_owned(),
                    since: ctx.now(),
                    state: progress.state(),
                    failed_before,
                },
                progress: Arc::clone(&progress),
                failures,
                _stop: stop,
            };
            all.insert(control_plane.clone(), begun);
        }
        let end = End {
            shared: Arc::clone(&self.shared),
            control_plane: control_plane.clone(),
            progress: Arc::clone(&progress),
            clock: Arc::clone(&ctx.clock),
            outcome: None,
        };
        let work = take(from, progress);
        let fence = ctx.fence.clone();
        ctx.tasks.spawn("etcd snapshot", async move {
            // Dropped with this, it says how it ended.
            let mut end = end;
            tokio::select! {
                biased;
                _ = stopped.changed() => {}
                done = fence.guard(work) => {
                    end.outcome = Some(done.map_err(|shut| shut.to_string()).and_then(|taken| {
                        taken.map_err(|error| format!("{error}. {}", advice(&error)))
                    }));
                }
            }
        });
    }

    /// Keeps nothing of a control plane any more; what is being taken ends.
    pub fn forget(&self, control_plane: &Locator) {
        self.shared.begun().remove(control_plane);
    }
}

/// What a person does about it.
fn advice(error: &EtcdError) -> &'static str {
    match error {
        EtcdError::Store(_) => {
            "See that the host can write to the place that --etcd-snapshots names, and that there is room; it is tried again"
        }
        _ => "See that a member of etcd answers; it is tried again",
    }
}

/// Notes how a snapshot ended, also when its task is cut off.
struct End {
    shared: Arc<Shared>,
    control_plane: Locator,
    progress: Arc<Progress>,
    clock: Arc<dyn Clock>,
    outcome: Option<Result<Snapshot, String>>,
}

impl Drop for End {
    fn drop(&mut self) {
        let at = self.clock.now();
        {
            let mut all = self.shared.begun();
            let begun = all.get_mut(&self.control_plane);
            let own = begun.filter(|begun| Arc::ptr_eq(&begun.progress, &self.progress));
            // Forgotten.
            let Some(begun) = own else {
                return;
            };
            let outcome = self.outcome.take();
            begun.taking.state = match outcome.unwrap_or_else(|| Err("it was cut off".to_owned())) {
                Ok(Snapshot {
                    path,
                    bytes,
                    not_pruned,
                }) => State::Taken(Taken {
                    path,
                    bytes,
                    not_pruned,
                    at,
                }),
                Err(why) => {
                    begun.failures = begun.failures.saturating_add(1);
                    State::Failed {
                        why,
                        at,
                        times: begun.failures,
                    }
                }
            };
        }
        if let Some(listener) = self.shared.listener.get() {
            listener(&self.control_plane);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use capstan_api::name::ObjectKey;
    use tokio::sync::oneshot;

    use super::*;
    use crate::fence::Fence;
    use crate::kube_api::GroupKind;
    use crate::workloads::tests::host_behind;

    struct World {
        ctx: Ctx,
        ended: mpsc::Receiver<Locator>,
    }

    fn world(fence: Fence) -> World {
        let (sender, ended) = mpsc::channel();
        let ctx = host_behind(fence);
        ctx.taking
            .listen(move |control_plane| sender.send(control_plane.clone()).unwrap());
        World { ctx, ended }
    }

    fn own() -> Locator {
        Locator {
            kind: GroupKind {
                group: "controlplane.cluster.x-k8s.io".to_owned(),
                kind: "KubeadmControlPlane".to_owned(),
            },
            key: ObjectKey::new("n", "c"),
        }
    }

    fn members() -> Vec<Address> {
        let member = |name: &str| Address {
            name: name.to_owned(),
            pod: ObjectKey::new("kube-system", name),
            port: 2379,
        };
        ["a", "b", "c"].map(member).to_vec()
    }

    type Outcome = Result<Snapshot, EtcdError>;

    impl World {
        /// Begins one that says whom it asks first, and ends as it is told.
        fn begin(&self) -> (Option<String>, oneshot::Sender<Outcome>) {
            let (end, ends) = oneshot::channel::<Outcome>();
            let mut first = None;
            self.ctx
                .taking
                .begin(&self.ctx, &own(), "b 2", &members(), |from, progress| {
                    first = from.first().map(|member| member.name.clone());
                    async move {
                        progress.begins(&from[0].name);
                        progress.came(5);
                        match ends.await {
                            Ok(outcome) => outcome,
                            Err(_) => std::future::pending().await,
                        }
                    }
                });
            (first, end)
        }

        fn state(&self) -> Option<State> {
            self.ctx.taking.of(&own()).map(|taking| taking.state)
        }

        /// Lets tasks come as far as they can.
        async fn settle(&self) {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_is_taken_at_a_time_and_says_how_far_it_is() {
        let world = world(Fence::default());
        let (first, end) = world.begin();
        assert_eq!(first.as_deref(), Some("a"));
        world.settle().await;
        let running = State::Running {
            from: "a".to_owned(),
            bytes: 5,
        };
        assert_eq!(world.state(), Some(running.clone()));
        assert_eq!(world.begin().0, None, "one is being taken");
        world.settle().await;
        assert_eq!(world.state(), Some(running));
        assert!(world.ended.try_recv().is_err());
        let snapshot = Snapshot {
            path: "p".to_owned(),
            bytes: 7,
            not_pruned: None,
        };
        end.send(Ok(snapshot)).unwrap();
        world.settle().await;
        assert!(
            matches!(world.state(), Some(State::Taken(Taken { bytes: 7, .. }))),
            "{:?}",
            world.state()
        );
        assert_eq!(world.ended.try_recv(), Ok(own()));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failure_it_begins_with_another_member() {
        let world = world(Fence::default());
        for (times, first) in [(1, "a"), (2, "b"), (3, "c"), (4, "a")] {
            let (asked, end) = world.begin();
            assert_eq!(asked.as_deref(), Some(first));
            let full = EtcdError::Store("the disk is full".to_owned());
            end.send(Err(full)).unwrap();
            world.settle().await;
            let Some(State::Failed {
                why,
                times: so_often,
                ..
            }) = world.state()
            else {
                panic!("{:?}", world.state())
            };
            assert_eq!(so_often, times);
            assert!(
                why.contains("the disk is full. See that the host can write"),
                "{why}"
            );
            assert_eq!(world.ended.try_recv(), Ok(own()));
        }
        let (_, _end) = world.begin();
        let taking = world.ctx.taking.of(&own()).unwrap();
        assert!(taking.failed_before.unwrap().contains("the disk is full"));
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_the_control_plane_and_with_the_host() {
        let world = world(Fence::default());
        let (_, end) = world.begin();
        world.settle().await;
        world.ctx.taking.forget(&own());
        world.settle().await;
        assert!(end.is_closed());
        assert_eq!(world.state(), None);
        assert!(world.ended.try_recv().is_err(), "nobody is there to look");
        let (_, end) = world.begin();
        world.settle().await;
        world.ctx.tasks.stop();
        world.settle().await;
        assert!(end.is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_the_lease() {
        let fence = Fence::shut();
        let now = tokio::time::Instant::now();
        fence.open_until(now + std::time::Duration::from_secs(10));
        let world = world(fence);
        let (_, end) = world.begin();
        world.settle().await;
        assert!(!end.is_closed());
        tokio::time::sleep(std::time::Duration::from_secs(10)).await;
        assert!(end.is_closed());
        let Some(State::Failed { why, .. }) = world.state() else {
            panic!("{:?}", world.state())
        };
        assert!(why.contains("does not hold the lease"), "{why}");
    }
}
