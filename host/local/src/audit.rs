//! Counts API requests by user, verb, resource and answer, from the API server's audit log.
//!
//! Counting reads the log from a mark on, once, line by line: its cost is that of the new lines,
//! however long the log is. The server writes a request's line before it finishes the answer.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::PathBuf;

use serde::Deserialize;

/// Why the log could not be counted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("could not read the audit log {path}", path = path.display())]
    Read {
        /// The log.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A complete line is not an audit event.
    #[error("the audit log {path} has a line at byte {offset} that is no event", path = path.display())]
    Line {
        /// The log.
        path: PathBuf,
        /// Where the line begins.
        offset: u64,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// A place in the log: everything before it has been counted or does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

/// One kind of request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// Who asked, as the server authenticated it; the impersonated user where there is one.
    pub user: String,
    /// The API verb: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, ...
    pub verb: String,
    /// `machines.cluster.x-k8s.io`, `secrets`; with a subresource `machines.cluster.x-k8s.io/status`.
    /// The path (without query) of a request that is for no resource.
    pub resource: String,
    /// The HTTP status of the answer; 0 when the log does not say.
    pub code: u16,
}

impl Request {
    /// Whether the verb changes something.
    pub fn is_write(&self) -> bool {
        matches!(
            self.verb.as_str(),
            "create" | "update" | "patch" | "delete" | "deletecollection"
        )
    }
}

/// How often each kind of request was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    requests: BTreeMap<Request, u64>,
    /// Where counting stopped: start from here to count what comes next.
    pub end: Mark,
}

impl Counts {
    /// Every kind of request with its count, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Request, u64)> {
        self.requests
            .iter()
            .map(|(request, count)| (request, *count))
    }

    /// How many requests `select` picks.
    pub fn count(&self, select: impl Fn(&Request) -> bool) -> u64 {
        self.iter()
            .filter(|(request, _)| select(request))
            .map(|(_, count)| count)
            .sum()
    }

    /// How many requests this user made.
    pub fn of_user(&self, user: &str) -> u64 {
        self.count(|request| request.user == user)
    }

    /// How many writes this user made, leases left out: what a settled system keeps at zero.
    pub fn writes_of(&self, user: &str) -> u64 {
        self.count(|request| {
            request.user == user
                && request.is_write()
                && request.resource != "leases.coordination.k8s.io"
        })
    }

    /// Adds what `other` counted; `end` becomes the later of the two.
    pub fn add(&mut self, other: &Self) {
        for (request, count) in other.iter() {
            self.bump(request.clone(), count);
        }
        self.end = self.end.max(other.end);
    }

    fn bump(&mut self, request: Request, by: u64) {
        let count = self.requests.entry(request).or_default();
        *count = count.saturating_add(by);
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (
            Request {
                user,
                verb,
                resource,
                code,
            },
            count,
        ) in self.iter()
        {
            writeln!(formatter, "{count:>7}  {user}  {verb}  {resource}  {code}")?;
        }
        Ok(())
    }
}

/// The audit log of one API server.
#[derive(Clone, Debug)]
pub struct AuditLog {
    path: PathBuf,
}

impl AuditLog {
    /// The log at `path`, which need not exist yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The end of the log as it is now.
    pub fn mark(&self) -> Result<Mark, Error> {
        match std::fs::metadata(&self.path) {
            Ok(metadata) => Ok(Mark(metadata.len())),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(Mark(0)),
            Err(source) => Err(self.unreadable(source)),
        }
    }

    /// Counts the requests logged since `mark`. A line still being written is left for next time.
    pub fn counts_since(&self, mark: Mark) -> Result<Counts, Error> {
        let mut counts = Counts {
            end: mark,
            ..Counts::default()
        };
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(counts),
            Err(source) => return Err(self.unreadable(source)),
        };
        file.seek(SeekFrom::Start(mark.0))
            .map_err(|source| self.unreadable(source))?;
        let mut reader = BufReader::with_capacity(1 << 18, file);
        let mut line = Vec::with_capacity(4096);
        loop {
            line.clear();
            let read = reader
                .read_until(b'\n', &mut line)
                .map_err(|source| self.unreadable(source))?;
            if line.last() != Some(&b'\n') {
                return Ok(counts);
            }
            let event: Event<'_> = serde_json::from_slice(&line).map_err(|source| Error::Line {
                path: self.path.clone(),
                offset: counts.end.0,
                source,
            })?;
            if event.counts() {
                counts.bump(event.request(), 1);
            }
            let read = u64::try_from(read).unwrap_or(u64::MAX);
            counts.end = Mark(counts.end.0.saturating_add(read));
        }
    }

    fn unreadable(&self, source: io::Error) -> Error {
        Error::Read {
            path: self.path.clone(),
            source,
        }
    }
}

/// The parts of an audit event (`audit.k8s.io/v1`) that counting needs.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    #[serde(borrow)]
    stage: Cow<'a, str>,
    #[serde(borrow)]
    verb: Cow<'a, str>,
    #[serde(borrow, rename = "requestURI")]
    request_uri: Cow<'a, str>,
    #[serde(borrow)]
    user: User<'a>,
    #[serde(borrow)]
    impersonated_user: Option<User<'a>>,
    #[serde(borrow)]
    object_ref: Option<ObjectRef<'a>>,
    response_status: Option<ResponseStatus>,
}

#[derive(Deserialize)]
struct User<'a> {
    #[serde(borrow, default)]
    username: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRef<'a> {
    #[serde(borrow, default)]
    resource: Cow<'a, str>,
    #[serde(borrow, default)]
    subresource: Cow<'a, str>,
    #[serde(borrow, default)]
    api_group: Cow<'a, str>,
}

#[derive(Deserialize)]
struct ResponseStatus {
    #[serde(default)]
    code: u16,
}

impl Event<'_> {
    fn code(&self) -> u16 {
        self.response_status
            .as_ref()
            .map_or(0, |status| status.code)
    }

    /// Each request counts once: a watch when it begins (it may not end for hours) or is refused,
    /// everything else when it has been answered.
    fn counts(&self) -> bool {
        let is_over = matches!(&*self.stage, "ResponseComplete" | "Panic");
        if self.verb == "watch" {
            self.stage == "ResponseStarted" || (is_over && self.code() >= 400)
        } else {
            is_over
        }
    }

    fn request(&self) -> Request {
        let path = || {
            self.request_uri
                .split('?')
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        let resource = self
            .object_ref
            .as_ref()
            .filter(|object| !object.resource.is_empty());
        let resource = resource.map_or_else(path, |object| {
            let mut name = object.resource.to_string();
            for (separator, part) in [('.', &object.api_group), ('/', &object.subresource)] {
                if !part.is_empty() {
                    name.push(separator);
                    name.push_str(part);
                }
            }
            name
        });
        let user = self.impersonated_user.as_ref().unwrap_or(&self.user);
        Request {
            user: user.username.to_string(),
            verb: self.verb.to_string(),
            resource,
            code: self.code(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn line(stage: &str, verb: &str, code: u16) -> String {
        format!(
            r#"{{"kind":"Event","stage":"{stage}","verb":"{verb}","requestURI":"/apis/x?a=b","user":{{"username":"u"}},"objectRef":{{"resource":"machines","apiGroup":"cluster.x-k8s.io","subresource":"status"}},"responseStatus":{{"code":{code}}}}}"#
        ) + "\n"
    }

    #[test]
    fn counts_only_whole_lines_after_the_mark() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let log = AuditLog::new(path.clone());
        assert_eq!(
            log.counts_since(log.mark().unwrap())
                .unwrap()
                .iter()
                .count(),
            0
        );
        std::fs::write(&path, line("ResponseComplete", "get", 200)).unwrap();
        let mark = log.mark().unwrap();
        let patch = line("ResponseComplete", "patch", 200);
        let (head, tail) = patch.split_at(20);
        let mut file = File::options().append(true).open(&path).unwrap();
        write!(file, "{patch}{head}").unwrap();
        let mut counts = log.counts_since(mark).unwrap();
        assert_eq!(
            counts.to_string().trim(),
            "1  u  patch  machines.cluster.x-k8s.io/status  200"
        );
        write!(file, "{tail}").unwrap();
        let more = log.counts_since(counts.end).unwrap();
        counts.add(&more);
        assert_eq!((counts.of_user("u"), counts.writes_of("u")), (2, 2));
        assert_eq!(counts.end, log.mark().unwrap());
    }

    #[test]
    fn a_watch_counts_once_whether_it_lasts_ends_or_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let text = line("ResponseStarted", "watch", 200)
            + &line("ResponseComplete", "watch", 200)
            + &line("ResponseStarted", "watch", 200)
            + &line("ResponseComplete", "watch", 403);
        std::fs::write(&path, text).unwrap();
        assert_eq!(
            AuditLog::new(path)
                .counts_since(Mark(0))
                .unwrap()
                .of_user("u"),
            3
        );
    }
}
