//! `capstan local up` and `down`: all or nothing, and again without harm.

use std::path::Path;

use anyhow::{Context as _, bail};

use super::extra::{self, Extra, stop_one};
use super::{HOST_GROUPS, HOST_KUBECONFIG, HOST_USER, Programs, UpArgs, status};
use crate::cloud;
use crate::control_plane::watchdog::Watchdog;
use crate::control_plane::{ControlPlane, Options, make_dir, write_private};
use crate::out;
use crate::process::{self, Record};
use crate::progress::Progress;
use crate::state::{Home, Phase, State};

/// `capstan local up`.
pub(super) async fn up(
    args: UpArgs,
    programs: Programs<'_>,
    progress: &Progress,
) -> anyhow::Result<()> {
    let (state, is_new) = bring_up(&args, programs, progress).await?;
    let headline = if is_new {
        "the management cluster is up"
    } else {
        "the management cluster is already up"
    };
    announce(headline, &args.home.dir, &state);
    Ok(())
}

/// Starts what is not running; whether it was everything.
pub(super) async fn bring_up(
    args: &UpArgs,
    programs: Programs<'_>,
    progress: &Progress,
) -> anyhow::Result<(State, bool)> {
    let home = Home::create(&args.home.dir, progress)?;
    let extras = [(programs.cloud)(programs.program, home.dir(), args.backend)];
    if let Some(state) = home.load()? {
        let dead: Vec<&Record> = state
            .control_plane
            .iter()
            .filter(|record| !process::is_alive(record))
            .collect();
        if state.phase == Phase::Up && dead.is_empty() {
            return Ok((again(&home, state, &extras, progress).await?, false));
        }
        progress.say(match (state.phase, dead.first()) {
            (Phase::Up, Some(record)) => format!(
                "{} is not running any more (log {}); removing what is left and starting anew",
                record.name,
                record.log.display()
            ),
            _ => "an earlier start did not finish; removing what is left of it".to_owned(),
        });
        for record in state.processes().rev() {
            process::stop(record, extra::STOP_PATIENCE)?;
        }
        remove_machines(home.dir())?;
        home.clear()?;
    }
    // From here on the marker is there, and the watchdog undoes everything if this process ends
    // in any way before the end.
    home.save(&State::starting())?;
    let watchdog = Watchdog::start(Some(home.dir()), Some(home.share_lock()?))?;
    let state = tokio::select! {
        state = Box::pin(start_all(args, &home, &extras, &watchdog, progress)) => state?,
        _ = tokio::signal::ctrl_c() => bail!("interrupted; what had been started is stopped again"),
    };
    watchdog.keep()?;
    Ok((state, true))
}

async fn start_all(
    args: &UpArgs,
    home: &Home,
    extras: &[Extra],
    watchdog: &Watchdog,
    progress: &Progress,
) -> anyhow::Result<State> {
    let dir = home.dir().join("control-plane");
    make_dir(&dir)?;
    let options = Options {
        dir: Some(dir.clone()),
        persistent: true,
        fsync: !args.unsafe_no_fsync,
        audit: args.audit,
        port: args.port,
        progress: progress.clone(),
    };
    let plane = ControlPlane::start_in(&options, dir, watchdog.group()).await?;
    let kubeconfig = plane.kubeconfig_text("admin", &["system:masters"])?;
    write_private(&home.dir().join("kubeconfig"), &kubeconfig)?;
    let kubeconfig = plane.kubeconfig_text(HOST_USER, &HOST_GROUPS)?;
    write_private(&home.dir().join(HOST_KUBECONFIG), &kubeconfig)?;
    let mut state = State {
        phase: Phase::Starting,
        server: Some(plane.url()),
        control_plane: plane.processes().to_vec(),
        extras: Vec::new(),
    };
    home.save(&state)?;
    for extra in extras {
        progress.say(format!("starting {}", extra.name));
        let record = extra::launch(extra, home.dir(), Some(watchdog.group())).await?;
        state.extras.push(record);
        home.save(&state)?;
    }
    state.phase = Phase::Up;
    home.save(&state)?;
    Ok(state)
}

/// It is up already: starts only those extra processes that have ended.
async fn again(
    home: &Home,
    mut state: State,
    extras: &[Extra],
    progress: &Progress,
) -> anyhow::Result<State> {
    for extra in extras {
        let known = state
            .extras
            .iter()
            .position(|record| record.name == extra.name);
        let running = known.and_then(|index| state.extras.get(index));
        if running.is_some_and(process::is_alive) {
            continue;
        }
        progress.say(format!("{} is not running; starting it", extra.name));
        let watchdog = Watchdog::start(None, Some(home.share_lock()?))?;
        let record = tokio::select! {
            record = extra::launch(extra, home.dir(), Some(watchdog.group())) => record?,
            _ = tokio::signal::ctrl_c() => bail!("interrupted; {} was stopped", extra.name),
        };
        match known.and_then(|index| state.extras.get_mut(index)) {
            Some(place) => *place = record,
            None => state.extras.push(record),
        }
        home.save(&state)?;
        watchdog.keep()?;
    }
    Ok(state)
}

fn announce(headline: &str, dir: &Path, state: &State) {
    let dir_option = if dir == Path::new(".dev") {
        String::new()
    } else {
        format!(" --dir {}", dir.display())
    };
    let kubeconfig = dir.join("kubeconfig");
    let kubeconfig = kubeconfig.display();
    out::result(format!(
        "{headline}: {}",
        state.server.as_deref().unwrap_or_default()
    ));
    out::result(format!("  kubeconfig  {kubeconfig}"));
    out::result(format!(
        "  look        kubectl --kubeconfig {kubeconfig} get namespaces"
    ));
    out::result(format!("  processes   capstan local status{dir_option}"));
    out::result(format!("  stop        capstan local down{dir_option}"));
}

/// Real machines outlive the cloud's process, and their directories hold what they run on.
fn remove_machines(dir: &Path) -> anyhow::Result<()> {
    let cloud = dir.join("cloud");
    if cloud.is_dir() {
        cloud::remove_machines(&cloud).context("the cloud's machines could not be removed")?;
    }
    Ok(())
}

/// `capstan local down`.
pub(super) fn down(dir: &Path, progress: &Progress) -> anyhow::Result<()> {
    let Some(home) = Home::open(dir, progress)? else {
        out::result(status::nothing(dir));
        return Ok(());
    };
    if let Some(state) = home.load()? {
        for record in state.processes().rev() {
            stop_one(record)?;
        }
    }
    remove_machines(home.dir())?;
    home.remove()?;
    out::result(format!("removed {}", dir.display()));
    Ok(())
}
