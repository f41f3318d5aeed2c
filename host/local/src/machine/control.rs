//! PID 1's socket: `systemctl` of the machine's programs, and what the host's side asks for.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use super::units::{Unit, Units};
use crate::cloud::console::Console;

/// The longest request that is read: a systemctl with a few units.
const REQUEST_BYTES_MAX: u64 = 4096;

/// What is asked for beyond the units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Turn the machine off.
    PowerOff,
    /// Turn it off and have it started again.
    Reboot,
    /// Fill etcd's disk.
    FillDisk,
    /// Give its space back.
    FreeDisk,
}

/// Fulfils wishes: exit code and output.
pub(super) type Fulfil = dyn Fn(Wish) -> (i32, String) + Send + Sync;

/// A systemctl command line.
#[derive(Debug, Default, PartialEq, Eq)]
struct Request<'a> {
    verb: &'a str,
    units: Vec<&'a str>,
    now: bool,
    quiet: bool,
}

impl<'a> Request<'a> {
    fn parse(line: &'a str) -> Self {
        let mut request = Self::default();
        for word in line.split_whitespace() {
            match word {
                "--now" => request.now = true,
                "--quiet" | "-q" => request.quiet = true,
                "--version" => request.verb = word,
                option if option.starts_with('-') => {}
                verb if request.verb.is_empty() => request.verb = verb,
                unit => request
                    .units
                    .push(unit.strip_suffix(".service").unwrap_or(unit)),
            }
        }
        request
    }
}

/// Answers requests for ever.
pub(super) fn serve(
    listener: &UnixListener,
    units: &Arc<Units>,
    fulfil: &Arc<Fulfil>,
    console: &Console,
) {
    for connection in listener.incoming() {
        let Ok(connection) = connection else {
            continue;
        };
        let (units, fulfil, console) = (Arc::clone(units), Arc::clone(fulfil), console.clone());
        std::thread::spawn(move || {
            if let Err(error) = answer_on(&connection, &units, &*fulfil, &console) {
                console.line(format!("systemctl: an answer could not be given: {error}"));
            }
        });
    }
}

fn answer_on(
    connection: &UnixStream,
    units: &Units,
    fulfil: &Fulfil,
    console: &Console,
) -> std::io::Result<()> {
    let mut line = String::new();
    BufReader::new(connection.take(REQUEST_BYTES_MAX)).read_line(&mut line)?;
    let request = Request::parse(&line);
    let changes = !matches!(
        request.verb,
        "is-active" | "is-enabled" | "is-failed" | "status" | "show" | "cat" | "list-units"
    );
    if changes {
        console.line(format!("systemctl: {}", line.trim()));
    }
    let (code, text) = answer(&request, units, fulfil);
    let mut connection = connection;
    connection.write_all(format!("{code}\n{text}").as_bytes())
}

/// Exit code and output.
fn answer(request: &Request<'_>, units: &Units, fulfil: &Fulfil) -> (i32, String) {
    match request.verb {
        "--version" => return (0, "capstan: PID 1 of a namespace machine".to_owned()),
        "daemon-reload" | "daemon-reexec" | "reset-failed" => return (0, String::new()),
        "is-system-running" => return (0, "running".to_owned()),
        "poweroff" | "halt" => return fulfil(Wish::PowerOff),
        "reboot" => return fulfil(Wish::Reboot),
        "capstan-fill-disk" => return fulfil(Wish::FillDisk),
        "capstan-free-disk" => return fulfil(Wish::FreeDisk),
        _ if request.units.is_empty() => {
            let verb = request.verb;
            return (
                1,
                format!("systemctl: {verb} without a unit is not known on a namespace machine"),
            );
        }
        _ => {}
    }
    let mut code = 0;
    let mut lines = Vec::new();
    for name in &request.units {
        let Some(unit) = units.get(name) else {
            let (unknown, line) = unknown(request.verb, name);
            code = unknown;
            lines.push(line);
            continue;
        };
        if let Some((failed, line)) = told(request.verb, name, &unit) {
            code = code.max(failed);
            lines.push(line);
            continue;
        }
        match request.verb {
            "start" => units.want(name),
            "stop" | "kill" => units.stop(name),
            "restart" | "reload-or-restart" => {
                units.stop(name);
                units.want(name);
            }
            "try-restart" | "condrestart" | "reload" => {
                if unit.pid.is_some() {
                    units.stop(name);
                    units.want(name);
                }
            }
            "enable" | "unmask" | "preset" => {
                units.enable(name, true);
                if request.now {
                    units.want(name);
                }
            }
            "disable" | "mask" => {
                units.enable(name, false);
                if request.now {
                    units.stop(name);
                }
            }
            other => {
                code = 1;
                lines.push(format!(
                    "systemctl: {other} is not known on a namespace machine"
                ));
            }
        }
    }
    let text = if request.quiet {
        String::new()
    } else {
        lines.join("\n")
    };
    (code, text)
}

/// The answer about a unit that is not there.
fn unknown(verb: &str, name: &str) -> (i32, String) {
    match verb {
        "is-active" => (4, "inactive".to_owned()),
        "is-enabled" => (
            4,
            format!("Failed to get unit file state for {name}.service: No such file or directory"),
        ),
        "start" | "restart" | "enable" | "stop" | "disable" => {
            (5, format!("Unit {name}.service not found."))
        }
        _ => (4, format!("Unit {name}.service could not be found.")),
    }
}

/// The answer to a question about a unit; nothing when it is not a question.
fn told(verb: &str, name: &str, unit: &Unit) -> Option<(i32, String)> {
    let state = unit.state();
    let is_active = state == "active";
    Some(match verb {
        "is-active" => (if is_active { 0 } else { 3 }, state.to_owned()),
        "is-failed" => (1, state.to_owned()),
        "is-enabled" if unit.enabled => (0, "enabled".to_owned()),
        "is-enabled" => (1, "disabled".to_owned()),
        "status" | "show" | "cat" | "list-units" => {
            let enabled = if unit.enabled { "enabled" } else { "disabled" };
            let pid = unit
                .pid
                .map_or_else(String::new, |pid| format!("   Main PID: {pid}\n"));
            let text = format!(
                "* {name}.service\n   Loaded: loaded (PID 1; {enabled})\n   Active: {state}\n{pid}   Starts: {}",
                unit.starts
            );
            (if is_active || verb != "status" { 0 } else { 3 }, text)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::children::Children;
    use super::*;

    fn ask(units: &Units, line: &str) -> (i32, String) {
        answer(&Request::parse(line), units, &|wish| {
            (0, format!("{wish:?}"))
        })
    }

    fn units(dir: &std::path::Path) -> Arc<Units> {
        Units::start(
            &Arc::new(Children::default()),
            &Console::new(dir, "test"),
            "",
        )
    }

    #[test]
    fn answers_what_kubeadm_asks_before_anything_runs() {
        let dir = tempfile::tempdir().unwrap();
        let units = units(dir.path());
        let (code, text) = ask(&units, "status kubelet");
        assert_eq!(code, 3);
        assert!(text.contains("Loaded: loaded") && text.contains("Active: inactive"));
        assert_eq!(
            ask(&units, "is-enabled kubelet.service"),
            (0, "enabled".into())
        );
        assert_eq!(ask(&units, "is-active --quiet kubelet"), (3, String::new()));
        assert_eq!(ask(&units, "daemon-reload"), (0, String::new()));
        assert_eq!(
            ask(&units, "status firewalld"),
            (4, "Unit firewalld.service could not be found.".into())
        );
        assert_eq!(
            ask(&units, "is-active systemd-resolved"),
            (4, "inactive".into())
        );
        ask(&units, "disable kubelet");
        assert_eq!(ask(&units, "is-enabled kubelet"), (1, "disabled".into()));
    }

    #[test]
    fn passes_on_what_is_not_about_units() {
        let dir = tempfile::tempdir().unwrap();
        let units = units(dir.path());
        assert_eq!(ask(&units, "reboot"), (0, "Reboot".into()));
        assert_eq!(ask(&units, "poweroff --no-block"), (0, "PowerOff".into()));
        assert_eq!(ask(&units, "list-timers").0, 1);
        assert_eq!(ask(&units, "capstan-fill-disk"), (0, "FillDisk".into()));
        assert_eq!(ask(&units, "capstan-free-disk"), (0, "FreeDisk".into()));
    }
}
