//! Looks at a control plane all the time while it is broken, and has judged whether a step of the host's went below a majority, and
//! whether a member of a live machine went away.

mod judge;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use self::judge::Judge;
use super::Known;
use crate::cloud::TestCloud;
use crate::cluster::TestCluster;
use crate::etcd::TestEtcd;
use crate::host::TestHost;
use crate::kube_client::{Kube, MACHINE};

/// How often it looks at Machines, and at etcd.
const INTERVAL: Duration = Duration::from_millis(400);

/// How long it may see nothing: many times what a server needs to answer while many cells play.
const BLIND_MAX: Duration = Duration::from_secs(30);

/// Whoever looks.
pub(super) struct Guard {
    watch: Arc<Watch>,
    task: JoinHandle<()>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What it looks at, and what it has seen.
struct Watch {
    kube: Kube,
    cloud: TestCloud,
    cluster: TestCluster,
    known: Arc<Mutex<Known>>,
    seen: Mutex<Seen>,
}

/// What it has seen.
#[derive(Default)]
struct Seen {
    judge: Judge,
    /// What went wrong.
    wrong: BTreeSet<String>,
    /// Since when the Machines, or what the cloud counts, cannot be read; and why not.
    blind: Option<(Instant, String)>,
}

impl Seen {
    /// A look is over. Servers may fail for a moment, and are asked again.
    fn looked(&mut self, outcome: Result<Vec<String>, String>, now: Instant) {
        match outcome {
            Ok(wrong) => {
                self.wrong.extend(wrong);
                self.blind = None;
            }
            Err(why) => {
                let (since, _) = self.blind.get_or_insert((now, why.clone()));
                if now.duration_since(*since) > BLIND_MAX {
                    self.wrong
                        .insert(format!("the guard could not look: {why}"));
                }
            }
        }
    }
}

impl Watch {
    /// Looks at the Machines and at what the cloud counts, for ever.
    async fn machines(&self) {
        loop {
            let outcome = self.look().await;
            self.seen.lock().unwrap().looked(outcome, Instant::now());
            tokio::time::sleep(INTERVAL).await;
        }
    }

    async fn look(&self) -> Result<Vec<String>, String> {
        let known = self.known.lock().unwrap().clone();
        let machines = self.kube.try_list(MACHINE, &self.cluster.namespace).await;
        let machines = machines.map_err(|refusal| format!("listing Machines: {refusal}"))?;
        let refusals = self.cloud.etcd_refusals().await?;
        let judge = &mut self.seen.lock().unwrap().judge;
        let mut wrong = judge.machines(&machines, &known, Instant::now());
        wrong.extend(judge.refusals(&refusals));
        Ok(wrong)
    }

    /// Looks at etcd, for ever. That it does not answer is what faults are for.
    async fn etcd(&self) {
        loop {
            let known = self.known.lock().unwrap().clone();
            let etcd = TestEtcd::try_of_cluster(&self.kube, &self.cluster).await;
            let view = match etcd {
                Ok(etcd) => etcd.view().await,
                Err(why) => Err(why),
            };
            if let Ok(view) = view {
                let mut seen = self.seen.lock().unwrap();
                let wrong = seen.judge.etcd(view, &known);
                seen.wrong.extend(wrong);
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

impl Guard {
    /// Looks from now on, knowing what faults do.
    pub(super) fn start(host: &TestHost, cluster: &TestCluster, known: Arc<Mutex<Known>>) -> Self {
        let watch = Arc::new(Watch {
            kube: host.kube().clone(),
            cloud: TestCloud::connect(host.cloud.access().clone()),
            cluster: cluster.clone(),
            known,
            seen: Mutex::default(),
        });
        let looking = Arc::clone(&watch);
        let task = tokio::spawn(async move {
            tokio::join!(looking.machines(), looking.etcd());
        });
        Self { watch, task }
    }

    /// What went wrong until now, looked at a last time. A guard that did not look to the end is wrong itself.
    pub(super) async fn end(self) -> Vec<String> {
        let ended = fate(&self.task);
        let last = self.watch.look().await;
        let mut seen = self.watch.seen.lock().unwrap();
        seen.looked(last, Instant::now());
        seen.wrong.iter().cloned().chain(ended).collect()
    }
}

/// What is wrong with a task that is to look for ever.
fn fate(task: &JoinHandle<()>) -> Option<String> {
    let ended = || "the guard ended before its cell: it panicked, see above".to_owned();
    task.is_finished().then(ended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run;

    fn blind() -> Result<Vec<String>, String> {
        Err("503".to_owned())
    }

    #[test]
    fn a_guard_that_ended_early_is_wrong() {
        run(async {
            let looks: JoinHandle<()> = tokio::spawn(std::future::pending());
            assert_eq!(fate(&looks), None);
            looks.abort();
            let panicked: JoinHandle<()> = tokio::spawn(async { panic!("on purpose") });
            while !panicked.is_finished() {
                tokio::task::yield_now().await;
            }
            assert!(fate(&panicked).is_some());
        });
    }

    #[test]
    fn a_guard_that_cannot_look_asks_again_and_says_so_in_the_end() {
        let mut seen = Seen::default();
        let begun = Instant::now();
        seen.looked(blind(), begun);
        seen.looked(blind(), begun + BLIND_MAX);
        seen.looked(Ok(Vec::new()), begun + BLIND_MAX);
        seen.looked(blind(), begun + 2 * BLIND_MAX);
        assert!(seen.wrong.is_empty(), "{:?}", seen.wrong);
        seen.looked(blind(), begun + 4 * BLIND_MAX);
        let wrong: Vec<&String> = seen.wrong.iter().collect();
        assert_eq!(wrong, ["the guard could not look: 503"]);
    }
}
