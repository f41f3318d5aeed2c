//! What a machine does when kubeadm fails, or a command before or after it: it tells the management cluster, if it was told where. It is
//! never worse off for it.

use crate::cloud_config::SENTINEL;
use crate::file::{Content, File};
use crate::question::{Question, Report, Role};

/// Gone with the next boot, like the token in it.
const DIR: &str = "/run/cluster-api";
/// Where Ignition's machines have it: their `/run` is mounted later.
const IGNITION_DIR: &str = "/etc/cluster-api";

const SCRIPT: &str = "bootstrap-report.sh";
const AUTHORITY: &str = "bootstrap-report.crt";
const TOKEN: &str = "bootstrap-report.token";

fn dir(question: &Question<'_>) -> &'static str {
    if question.is_ignition() {
        IGNITION_DIR
    } else {
        DIR
    }
}

/// Where to report; nowhere on Windows, which has neither this shell nor these logs.
fn invitation<'q, 'a>(question: &'q Question<'a>) -> Option<&'q Report<'a>> {
    let section = match question.role {
        Role::Init => "initConfiguration",
        Role::JoinControlPlane | Role::JoinWorker => "joinConfiguration",
    };
    let socket = question.text(&format!("/{section}/nodeRegistration/criSocket"));
    let is_windows = socket.is_some_and(|socket| socket.starts_with("npipe:"));
    question.report.as_ref().filter(|_| !is_windows)
}

/// Where exit codes are kept: commands of one machine share a shell, so that the name is one that nobody else uses.
const CODE: &str = "capstan_exit_code";

/// What follows the command that makes a node of the machine: empty when there is nowhere to report.
pub(crate) fn otherwise(question: &Question<'_>) -> String {
    if invitation(question).is_none() {
        return String::new();
    }
    let phase = match question.role {
        Role::Init => "kubeadm-init",
        Role::JoinControlPlane | Role::JoinWorker => "kubeadm-join",
    };
    format!(" || sh {}/{SCRIPT} {phase} $?", dir(question))
}

/// What commands after kubeadm are called. The host knows that the machine is a node then.
const AFTER: &str = "post-kubeadm-commands";

/// What comes before all other commands: when one of them ends the script, this is told, unless something has been told already. What
/// would tell it goes away with the script. Empty when there is nowhere to report.
pub(crate) fn first(question: &Question<'_>) -> Option<String> {
    invitation(question)?;
    let dir = dir(question);
    let told = format!("[ ! -e {dir}/{TOKEN} ]");
    Some(format!(
        "trap '{CODE}=$?; if [ ! -e {SENTINEL} ]; then {told} || sh {dir}/{SCRIPT} commands ${CODE}; \
         elif [ ${CODE} -ne 0 ]; then {told} || sh {dir}/{SCRIPT} {AFTER} ${CODE}; fi; rm -f {dir}/{TOKEN}' EXIT"
    ))
}

/// What follows each command after kubeadm where the commands go on after one that fails: it is told, once, and the next command finds
/// the same `$?` as without this. Empty when there is nowhere to report.
pub(crate) fn between(question: &Question<'_>) -> Option<String> {
    invitation(question)?;
    let dir = dir(question);
    Some(format!(
        "{CODE}=$?; [ ${CODE} -eq 0 ] || [ ! -e {SENTINEL} ] || [ ! -e {dir}/{TOKEN} ] || sh {dir}/{SCRIPT} {AFTER} ${CODE}; (exit ${CODE})"
    ))
}

/// The script with what it needs.
pub(crate) fn files(question: &Question<'_>) -> Vec<File> {
    let Some(report) = invitation(question) else {
        return Vec::new();
    };
    let dir = dir(question);
    let path = |name: &str| format!("{dir}/{name}");
    vec![
        File::of_root(
            path(AUTHORITY),
            "0600",
            Content::Text(report.authority.to_owned()),
        ),
        File::of_root(path(TOKEN), "0600", Content::Secret(report.token)),
        File::of_root(path(SCRIPT), "0700", Content::Text(script(report, dir))),
    ]
}

/// The log is the one of cloud-init, else the journal's. The token is read by a builtin, so that no list of processes shows it. The
/// exit code stays that of what failed.
fn script(report: &Report<'_>, dir: &str) -> String {
    format!(
        "#!/bin/sh\n\
         # Tells the management cluster what ended how on this machine, and the end of the log.\n\
         log=/var/log/cloud-init-output.log\n\
         if [ -s $log ]; then tail -c 4096 $log; else journalctl -b -o cat -n 200 2>/dev/null | tail -c 4096; fi > {dir}/bootstrap-report.log\n\
         printf 'header = \"Authorization: Bearer %s\"\\n' \"$(cat {dir}/{TOKEN})\" |\n\
         \x20 curl --config - --silent --show-error --max-time 10 --retry 5 --retry-connrefused --retry-delay 2 --retry-max-time 60 --cacert {dir}/{AUTHORITY} \\\n\
         \x20   --header 'Content-Type: text/plain' --data-binary @{dir}/bootstrap-report.log \"{url}?phase=$1&exitCode=$2\"\n\
         rm -f {dir}/{TOKEN} {dir}/bootstrap-report.log\n\
         exit \"$2\"\n",
        url = report.url,
    )
}
