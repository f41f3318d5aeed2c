//! Runs the user data inside the machine, once, and says how it went.

use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use super::children::{Children, Ending};
use super::layout::{Machine, Outcome, Runner};
use super::plan::{Plan, Power, SENTINEL, Step};
use super::redact::Redactor;
use super::units::clean;
use super::{script, users};
use crate::cloud::console::Console;
use crate::cloud::userdata::{User, UserData, UserFile};

/// The only region, as our own interpreter has it.
const REGION: &str = "local";

/// Where cloud-init keeps an instance's files; people look there.
const INSTANCE: &str = "/var/lib/cloud/instance";

/// Everything that the commands print.
const OUTPUT: &str = "/var/log/cloud-init-output.log";

/// Lines of output that are kept for the message about a failure.
const TAIL_LINES_MAX: usize = 200;

/// The longest line of output that is taken as one.
const LINE_BYTES_MAX: u64 = 16 * 1024;

/// How long output is waited for after its program has ended: something that goes on in the background may hold it open.
const DRAIN: Duration = Duration::from_secs(1);

/// What runs user data.
pub(super) struct Executor<'a> {
    /// The machine.
    pub(super) machine: &'a Machine,
    /// Its console.
    pub(super) console: &'a Console,
    /// Its processes.
    pub(super) children: &'a Children,
}

/// How it went, and whether the user data wants the machine off or started again.
pub(super) type Ended = (Outcome, Option<Power>);

fn done(message: impl Into<String>) -> Outcome {
    Outcome {
        done: true,
        message: message.into(),
    }
}

fn failed(message: impl Into<String>) -> Outcome {
    Outcome {
        done: false,
        message: message.into(),
    }
}

impl Executor<'_> {
    /// The first boot.
    pub(super) fn first(&self, user_data: &[u8]) -> Ended {
        if user_data.is_empty() {
            self.console.line("cloud-init: no user data, nothing to do");
            return (done("no user data"), None);
        }
        if let Err(error) = keep(user_data, &self.machine.instance) {
            return (
                failed(format!("the user data cannot be kept: {error}")),
                None,
            );
        }
        if self.machine.runner == Runner::CloudInit {
            return (self.real(user_data), None);
        }
        let data = match UserData::parse(user_data, &self.machine.facts()) {
            Ok(data) => data,
            Err(error) => {
                self.console.line(format!("cloud-init: ERROR: {error}"));
                return (failed(error.to_string()), None);
            }
        };
        self.follow(Plan::of(data))
    }

    /// A later boot: only what runs at every boot.
    pub(super) fn again(&self, user_data: &[u8]) {
        if let Ok(data) = UserData::parse(user_data, &self.machine.facts())
            && !data.boot_commands.is_empty()
            && self.machine.runner == Runner::Builtin
        {
            self.script("bootcmd", &data.boot_commands);
        }
    }

    fn follow(&self, plan: Plan) -> Ended {
        for note in &plan.notes {
            self.console.line(format!("cloud-init: {note}"));
        }
        let mut failures = Vec::new();
        let mut power = None;
        for step in plan.steps {
            let failure = match step {
                Step::BootCommands(commands) => self.script("bootcmd", &commands),
                Step::Commands(commands) => self.script("runcmd", &commands),
                Step::Mount([source, point, kind, options]) => {
                    self.console
                        .line(format!("mounts: {source} on {point} type {kind}"));
                    let argv = ["mount", "-t", &kind, "-o", &options, &source, &point];
                    fs::create_dir_all(&point)
                        .and_then(|()| self.program(&argv.map(str::to_owned), ""))
                        .err()
                        .map(|error| format!("mounts: {point}: {error}"))
                }
                Step::Write(path, file) => {
                    self.console.line(format!(
                        "write_files: {path} ({} bytes, mode {}, owner {})",
                        file.content.len(),
                        file.permissions,
                        file.owner
                    ));
                    self.write(&path, &file)
                        .err()
                        .map(|error| format!("write_files: {path}: {error}"))
                }
                Step::User(user) => {
                    self.console.line(format!("users: {}", user.name));
                    self.user(&user)
                        .err()
                        .map(|error| format!("users: {}: {error}", user.name))
                }
                Step::Power(wish) => {
                    power = Some(wish);
                    None
                }
            };
            if let Some(failure) = failure {
                self.console.line(format!("cloud-init: ERROR: {failure}"));
                failures.push(failure);
            }
        }
        let outcome = judge(plan.has_sentinel, Path::new(SENTINEL).exists(), failures);
        (outcome, power)
    }

    /// The image's own cloud-init, in the order in which its units would run.
    fn real(&self, user_data: &[u8]) -> Outcome {
        if !Path::new("/usr/bin/cloud-init").exists() {
            return failed(format!(
                "the image of {} has no cloud-init; make the instance without it",
                self.machine.version
            ));
        }
        let seed = Path::new("/var/lib/cloud/seed/nocloud");
        let (id, name) = (&self.machine.instance, &self.machine.hostname);
        let zone = &self.machine.zone;
        let prepared = fs::create_dir_all(seed)
            .and_then(|()| private(&seed.join("user-data"), user_data))
            .and_then(|()| {
                // The names by which user data may refer to them, as with our own interpreter.
                let about = format!(
                    "instance-id: {id}\nlocal-hostname: {name}\nprovider_id: {}\nlocal_ipv4: {}\navailability_zone: {zone}\nregion: {}\n",
                    self.machine.provider_id, self.machine.address, REGION,
                );
                private(&seed.join("meta-data"), about.as_bytes())
            })
            .and_then(|()| fs::create_dir_all("/etc/cloud/cloud.cfg.d"))
            .and_then(|()| {
                fs::write(
                    "/etc/cloud/cloud.cfg.d/99-capstan.cfg",
                    "datasource_list: [NoCloud]\nnetwork: {config: disabled}\n",
                )
            });
        if let Err(error) = prepared {
            return failed(format!("cloud-init cannot be prepared: {error}"));
        }
        let mut failures = Vec::new();
        for words in [
            ["init", "--local"].as_slice(),
            &["init"],
            &["modules", "--mode=config"],
            &["modules", "--mode=final"],
        ] {
            let mut command = Command::new("/usr/bin/cloud-init");
            let (ending, tail) = match self.shown(command.args(words)) {
                Ok(shown) => shown,
                Err(error) => {
                    failures.push(format!("cloud-init: {error}"));
                    break;
                }
            };
            if !ending.is_success() {
                let said = script::complaint(tail.iter().map(String::as_str));
                failures.push(format!(
                    "cloud-init {} ended with {ending}: {said}",
                    words.join(" ")
                ));
            }
        }
        let text = String::from_utf8_lossy(user_data);
        judge(
            text.contains(SENTINEL),
            Path::new(SENTINEL).exists(),
            failures,
        )
    }

    /// Runs commands as one script; what failed, if something did.
    fn script(&self, part: &str, commands: &[String]) -> Option<String> {
        let path = Path::new(INSTANCE).join("scripts").join(part);
        let report = PathBuf::from(format!("/run/capstan/{part}"));
        let run = || -> io::Result<(Ending, Vec<String>)> {
            for command in commands {
                self.console
                    .line(format!("{part}: {}", script::first_words(command)));
            }
            private(&path, script::traced(commands, &report).as_bytes())?;
            let check = self
                .children
                .run(clean(Command::new("/bin/sh").arg("-n").arg(&path)).stderr(Stdio::null()))?;
            if !check.is_success() {
                private(&path, script::plain(commands).as_bytes())?;
            }
            match fs::remove_file(&report) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut command = Command::new("/bin/sh");
            let shown = self.shown(
                command
                    .arg(&path)
                    .env("INSTANCE_ID", &self.machine.instance),
            )?;
            Ok(shown)
        };
        let (ending, tail) = match run() {
            Ok(ran) => ran,
            Err(error) => return Some(format!("{part}: cannot be run: {error}")),
        };
        let said = || script::complaint(tail.iter().map(String::as_str));
        let noted = script::failures(&fs::read_to_string(&report).unwrap_or_default());
        if let Some((at, code)) = noted.first() {
            let words = commands
                .get(*at)
                .map(|command| script::first_words(command));
            let words = words.unwrap_or_default();
            return Some(format!(
                "{part}: {words:?} ended with exit code {code}: {}",
                said()
            ));
        }
        (!ending.is_success()).then(|| format!("{part}: ended with {ending}: {}", said()))
    }

    /// Runs a program whose output goes to the console and to cloud-init's file; its end, and the last of what it said.
    fn shown(&self, command: &mut Command) -> io::Result<(Ending, Vec<String>)> {
        let (reader, writer) = io::pipe()?;
        let environment: Vec<_> = command
            .get_envs()
            .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())))
            .collect();
        clean(command)
            .envs(environment)
            .stdout(writer.try_clone()?)
            .stderr(writer);
        let pid = self.children.spawn(command)?;
        // The command holds the other end of the pipe until it is given something else to hold.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        let (ended, drained) = mpsc::channel::<()>();
        std::thread::spawn({
            let (console, tail) = (self.console.clone(), Arc::clone(&tail));
            move || {
                show(reader, &console, &tail);
                drop(ended);
            }
        });
        let ending = self.children.wait(pid);
        // Never a message: it ends, or is not waited for any longer.
        let _: Result<(), mpsc::RecvTimeoutError> = drained.recv_timeout(DRAIN);
        let tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((ending, tail.iter().cloned().collect()))
    }

    /// Runs one of the image's programs, quietly.
    fn program(&self, argv: &[String], input: &str) -> io::Result<()> {
        let (program, arguments) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let (reader, mut writer) = io::pipe()?;
        let (mut said, complaints) = io::pipe()?;
        let mut command = Command::new(program);
        clean(command.args(arguments))
            .stdin(reader)
            .stdout(Stdio::null())
            .stderr(complaints);
        let pid = self.children.spawn(&mut command)?;
        drop(command);
        // Short enough for the pipe to hold, so that nobody waits for anybody.
        writer.write_all(input.as_bytes())?;
        drop(writer);
        let ending = self.children.wait(pid);
        if ending.is_success() {
            return Ok(());
        }
        let mut text = String::new();
        (&mut said).take(LINE_BYTES_MAX).read_to_string(&mut text)?;
        let line = text.lines().next().unwrap_or_default();
        Err(io::Error::other(format!("{program}: {ending}: {line}")))
    }

    fn write(&self, path: &str, file: &UserFile) -> io::Result<()> {
        let mode = u32::from_str_radix(file.permissions.trim_start_matches("0o"), 8)
            .map_err(|_| io::Error::other(format!("{:?} is no mode", file.permissions)))?;
        if let Some(parent) = Path::new(path).parent() {
            fs::create_dir_all(parent)?;
        }
        let mut opened = OpenOptions::new()
            .write(true)
            .create(true)
            .append(file.appends)
            .truncate(!file.appends)
            .mode(0o600)
            .open(path)?;
        opened.write_all(&file.content)?;
        if file.owner != "root:root" && file.owner != "root" {
            let argv = ["chown", &file.owner, path].map(str::to_owned);
            self.program(&argv, "")?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    }

    fn user(&self, user: &User) -> io::Result<()> {
        let exists = home(&user.name)?.is_some();
        for (argv, input) in users::commands(user, exists) {
            self.program(&argv, &input)?;
        }
        if !user.sudo.is_empty() {
            fs::create_dir_all("/etc/sudoers.d")?;
            let path = PathBuf::from(format!("/etc/sudoers.d/90-capstan-{}", user.name));
            fs::write(&path, users::sudo_rules(user))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o440))?;
        }
        if user.ssh_keys.is_empty() {
            return Ok(());
        }
        let Some(home) = home(&user.name)? else {
            return Err(io::Error::other("has no home directory for its keys"));
        };
        let dir = home.join(".ssh");
        fs::create_dir_all(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        private(
            &dir.join("authorized_keys"),
            format!("{}\n", user.ssh_keys.join("\n")).as_bytes(),
        )?;
        let owner = format!("{}:", user.name);
        let dir = dir.display().to_string();
        self.program(&["chown".to_owned(), "-R".to_owned(), owner, dir], "")
    }
}

/// Success is the sentinel file, where the user data writes one: a command that fails does not stop the others.
fn judge(has_sentinel: bool, sentinel_is_there: bool, failures: Vec<String>) -> Outcome {
    match (has_sentinel, sentinel_is_there, failures.first()) {
        (true, true, _) => done("the bootstrap data has run to its end"),
        (true, false, None) => failed(format!(
            "the commands ran without a failure, but {SENTINEL} is not there"
        )),
        (false, _, None) => done("the user data has run to its end"),
        (_, _, Some(first)) => failed(first.clone()),
    }
}

/// The home directory of a user who is there.
fn home(user: &str) -> io::Result<Option<PathBuf>> {
    let users = fs::read_to_string("/etc/passwd")?;
    Ok(users.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(user)).then(|| PathBuf::from(fields.nth(4).unwrap_or("/")))
    }))
}

/// Keeps the user data where people look for it.
fn keep(user_data: &[u8], instance: &str) -> io::Result<()> {
    let dir = Path::new("/var/lib/cloud/instances").join(instance);
    fs::create_dir_all(dir.join("scripts"))?;
    private(&dir.join("user-data.txt"), user_data)?;
    match symlink(&dir, INSTANCE) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Writes a file that only root reads.
fn private(path: &Path, content: &[u8]) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?
        .write_all(content)
}

/// Copies output to cloud-init's file as it is, and to the console without secrets.
fn show(reader: io::PipeReader, console: &Console, tail: &Mutex<VecDeque<String>>) {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(OUTPUT)
        .ok();
    let mut redactor = Redactor::default();
    let mut reader = BufReader::new(reader);
    loop {
        let mut bytes = Vec::new();
        match (&mut reader)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut bytes)
        {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if let Some(open) = &mut file
            && open.write_all(&bytes).is_err()
        {
            file = None;
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some(line) = redactor.line(text.trim_end()) else {
            continue;
        };
        console.line(&line);
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.len() >= TAIL_LINES_MAX {
            tail.pop_front();
        }
        tail.push_back(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentinel_decides_where_there_is_one() {
        let failure = || vec!["runcmd: \"kubeadm join\" ended with exit code 1: error".to_owned()];
        assert!(judge(true, true, failure()).done);
        assert!(judge(false, false, Vec::new()).done);
        let outcome = judge(true, false, failure());
        assert!(!outcome.done && outcome.message.contains("kubeadm join"));
        assert!(judge(true, false, Vec::new()).message.contains(SENTINEL));
        assert!(!judge(false, false, failure()).done);
    }
}
