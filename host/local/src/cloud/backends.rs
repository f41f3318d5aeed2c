//! Which backends this cloud has, which one it takes when nobody chose, and why.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use super::backend::{Backend, BackendDir, Counts};
use super::light::Light;
use super::machines::{self, Files, Machines};
use crate::images;
use crate::machine::layout::Runner;
use crate::probe;

/// What runs instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum BackendChoice {
    /// Machines that exist only as far as their APIs show.
    Light,
    /// Real machines, in namespaces of this host.
    Machines,
    /// `machines` where this host can run them, else `light`.
    #[default]
    Auto,
}

impl BackendChoice {
    /// As on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Light => LIGHT,
            Self::Machines => MACHINES,
            Self::Auto => "auto",
        }
    }
}

/// Name of the backend that is always there.
pub(crate) const LIGHT: &str = "light";

/// Name of the backend with real machines.
pub(crate) const MACHINES: &str = "machines";

/// Whether this host can run real machines with files in this directory; otherwise everything that is in the way, a sentence each. Takes some
/// 100 ms and must not be called where that is too long.
///
/// # Errors
///
/// What is in the way.
pub fn can_run_machines(dir: &Path) -> Result<(), Vec<String>> {
    let missing: Vec<String> = probe::run(dir)
        .into_iter()
        .filter(|finding| !finding.is_good)
        .map(|finding| finding.sentence)
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(missing)
    }
}

/// Removes all real machines and networks of the cloud that has this directory, whether or not it runs.
///
/// # Errors
///
/// When something of them cannot be removed.
pub fn remove_machines(dir: &Path) -> io::Result<()> {
    machines::remove_all(&dir.join(MACHINES))
}

/// What machines of a version are made of, from the cache.
fn files(version: &str, runner: Runner) -> Result<Files, String> {
    let image = images::find(version).map_err(|error| error.to_string())?;
    let lower = match runner {
        Runner::Builtin => image.lower,
        Runner::CloudInit => image.lower_cloud_init.ok_or_else(|| {
            "there is no image with cloud-init: run `capstan local images build --cloud-init`"
                .to_owned()
        })?,
    };
    Ok(Files {
        lower,
        store: image.store,
    })
}

/// Opens the backend with real machines, or says why this host cannot have it.
fn open_machines(dir: &BackendDir, program: &Path) -> Result<Arc<dyn Backend>, String> {
    // Before anything is made.
    can_run_machines(&dir.0).map_err(|missing| missing.join("; "))?;
    std::fs::create_dir_all(&dir.0).map_err(|error| error.to_string())?;
    let machines = Machines::open(dir.clone(), program.to_owned(), files);
    let machines = machines.map_err(|error| error.to_string())?;
    Ok(Arc::new(machines))
}

/// The backends of a cloud.
pub(crate) struct Backends {
    light: Arc<Light>,
    /// Opened when it is first needed: finding out whether it can be had takes a moment.
    machines: OnceLock<Result<Arc<dyn Backend>, String>>,
    machines_dir: BackendDir,
    program: PathBuf,
    /// The one that is taken when nobody chose.
    default: &'static str,
    /// Why.
    reason: String,
}

impl Backends {
    /// Chooses, and opens what the records of the cloud need: `has_machines` when there are some of real machines. May take some 100 ms.
    pub(crate) fn open(
        light: Arc<Light>,
        machines_dir: BackendDir,
        program: PathBuf,
        choice: BackendChoice,
        has_machines: bool,
    ) -> Result<Self, String> {
        let mut backends = Self {
            light,
            machines: OnceLock::new(),
            machines_dir,
            program,
            default: LIGHT,
            reason: "it was chosen".into(),
        };
        if has_machines && let Err(reason) = backends.machines() {
            tracing::error!(
                reason,
                "real machines of an earlier run cannot be looked after"
            );
        }
        match choice {
            BackendChoice::Light => {}
            BackendChoice::Machines => {
                backends.get(MACHINES)?;
                backends.default = MACHINES;
            }
            BackendChoice::Auto => match backends.machines() {
                Ok(_) => {
                    backends.default = MACHINES;
                    backends.reason = "this host can run real machines".into();
                }
                Err(reason) => backends.reason = reason,
            },
        }
        Ok(backends)
    }

    /// Real machines, or why there cannot be any.
    fn machines(&self) -> Result<Arc<dyn Backend>, String> {
        self.machines
            .get_or_init(|| open_machines(&self.machines_dir, &self.program))
            .clone()
    }

    /// The backend that is taken when nobody chose.
    pub(crate) fn default(&self) -> &'static str {
        self.default
    }

    /// A backend, or why it cannot be had. May take some 100 ms the first time.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<dyn Backend>, String> {
        match name {
            LIGHT => Ok(Arc::clone(&self.light) as Arc<dyn Backend>),
            MACHINES => self
                .machines()
                .map_err(|reason| format!("this host cannot run real machines: {reason}")),
            other => Err(format!("{other:?} is not one of: {LIGHT}, {MACHINES}")),
        }
    }

    /// The ones that are open.
    pub(crate) fn opened(&self) -> Vec<Arc<dyn Backend>> {
        let mut all = vec![Arc::clone(&self.light) as Arc<dyn Backend>];
        if let Some(Ok(machines)) = self.machines.get() {
            all.push(Arc::clone(machines));
        }
        all
    }

    /// What there is in all of them.
    pub(crate) fn counts(&self) -> Counts {
        let all = self.opened();
        all.iter()
            .map(|backend| backend.counts())
            .fold(Counts::default(), |mut sum, counts| {
                sum.etcd_refusals.extend(counts.etcd_refusals);
                Counts {
                    clusters: sum.clusters.saturating_add(counts.clusters),
                    nodes: sum.nodes.saturating_add(counts.nodes),
                    etcd_refusals: sum.etcd_refusals,
                }
            })
    }

    /// As clients see them.
    pub(crate) fn view(&self) -> Value {
        let machines = self.machines();
        let row = |name: &str, message: String| {
            json!({
                "name": name, "available": message.is_empty(), "message": message, "default": name == self.default,
            })
        };
        json!({
            "items": [row(LIGHT, String::new()), row(MACHINES, machines.err().unwrap_or_default())],
            "reason": self.reason,
        })
    }
}
