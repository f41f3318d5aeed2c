//! What a machine says whose bootstrap failed: what ended how, and the end of its log. It comes from a machine that may be in
//! anybody's hands, so that it is cut, cleaned and only ever shown.

use capstan_api::annotation;
use capstan_api::condition::{self, Report};
use capstan_api::reason::{condition_type, kubeadm};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Bytes of the log that are kept: a screen full, which is where tools say what went wrong.
pub const LOG_BYTES_MAX: usize = 4096;

/// Bytes of the log that a condition shows: its message is read in a table.
const SHOWN_BYTES_MAX: usize = 1024;

/// Letters of a phase.
const PHASE_BYTES_MAX: usize = 32;

/// What comes after kubeadm: who fails in it is a node all the same.
const AFTER: &str = "post-kubeadm-commands";
/// What a machine does before it is a node.
const BEFORE_JOINING: [&str; 3] = ["commands", "kubeadm-init", "kubeadm-join"];

/// Letters before and after the point of a join token, which kubeadm may print.
const TOKEN: (usize, usize) = (6, 16);

/// What the base64 of PEM begins with, such as that of `client-key-data` in a kubeconfig.
const PEM_AS_BASE64: &str = "LS0tLS1CRUdJTi";

/// Letters of a word or line of base64 that may be a key: the width of PEM; `base64` prints longer lines.
const BASE64_LINE: usize = 64;

/// Why a machine's bootstrap ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrapFailure {
    /// What it was doing, such as `kubeadm-join`.
    pub phase: String,
    /// How that ended.
    pub exit_code: u8,
    /// The end of the log, without secrets.
    pub log: String,
    /// When it was told.
    pub at: Timestamp,
}

impl BootstrapFailure {
    /// Reads what a machine sent.
    ///
    /// # Errors
    /// Which part of it is not what it should be.
    pub fn read(
        phase: &str,
        exit_code: &str,
        log: &[u8],
        now: Timestamp,
    ) -> Result<Self, &'static str> {
        let is_phase = (1..=PHASE_BYTES_MAX).contains(&phase.len())
            && phase.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        if !is_phase {
            return Err("phase is not a word of lower-case letters and dashes");
        }
        let exit_code: u8 = exit_code
            .parse()
            .map_err(|_| "exitCode is not a number from 0 to 255")?;
        Ok(Self {
            phase: phase.to_owned(),
            exit_code,
            log: last(&cleaned(&String::from_utf8_lossy(log)), LOG_BYTES_MAX).to_owned(),
            at: Timestamp::from_second(now.as_second()).unwrap_or(now),
        })
    }

    /// As the annotation has it.
    #[must_use]
    pub fn record(&self) -> String {
        json!({"phase": self.phase, "exitCode": self.exit_code, "time": self.at.to_string(), "log": self.log})
            .to_string()
    }

    /// What an object's annotation says.
    #[must_use]
    pub fn of(config: &Value) -> Option<Self> {
        let annotations = config.pointer("/metadata/annotations")?;
        let text = annotations.get(annotation::BOOTSTRAP_REPORT)?.as_str()?;
        let record: Value = serde_json::from_str(text).ok()?;
        let text = |field: &str| record.get(field).and_then(Value::as_str);
        Some(Self {
            phase: text("phase")?.to_owned(),
            exit_code: u8::try_from(record.get("exitCode")?.as_u64()?).ok()?,
            log: text("log").unwrap_or_default().to_owned(),
            at: text("time")?.parse().ok()?,
        })
    }

    /// Whether the machine had become a node before.
    #[must_use]
    pub fn is_of_a_node(&self) -> bool {
        self.phase == AFTER
    }

    /// Whether what failed comes before the machine is a node: of a node it says nothing any more.
    #[must_use]
    pub fn is_of_joining(&self) -> bool {
        BEFORE_JOINING.contains(&self.phase.as_str())
    }

    /// The condition on the bootstrap config.
    #[must_use]
    pub fn condition(&self) -> Report {
        let shown = last(self.log.trim_end(), SHOWN_BYTES_MAX);
        let (reason, is_node) = if self.is_of_a_node() {
            let reason = kubeadm::POST_KUBEADM_COMMANDS_FAILED;
            (reason, " on a machine that is a node")
        } else {
            (kubeadm::BOOTSTRAP_FAILED, "")
        };
        let message = format!(
            "{} ended with exit code {}{is_node} at {}; the machine's log ends with:\n{shown}",
            self.phase, self.exit_code, self.at
        );
        Report::no(condition_type::BOOTSTRAP_SUCCEEDED, reason).with_message(message)
    }
}

/// Whether the status of a config still says that its machine failed.
#[must_use]
pub fn is_said(config: &Value) -> bool {
    condition::read(config, condition_type::BOOTSTRAP_SUCCEEDED)
        .is_some_and(|said| said.status == "False")
}

/// The condition on the bootstrap config of a machine that failed, tried again and is a node.
#[must_use]
pub fn overcome() -> Report {
    Report::yes(
        condition_type::BOOTSTRAP_SUCCEEDED,
        kubeadm::BOOTSTRAP_SUCCEEDED,
    )
}

/// The last bytes of a text, beginning with a whole line where one begins there.
fn last(text: &str, bytes_max: usize) -> &str {
    let mut from = text.len().saturating_sub(bytes_max);
    while !text.is_char_boundary(from) {
        from = from.saturating_add(1);
    }
    let end = text.get(from..).unwrap_or_default();
    if from == 0 {
        return end;
    }
    match end.split_once('\n') {
        Some((_, lines)) if !lines.is_empty() => lines,
        _ => end,
    }
}

/// What stands for a key.
const KEY: &str = "[private key]";
/// What stands for what may be one.
const ENCODED: &str = "[base64]";

/// Without what a terminal would act on, and without join tokens and private keys. A machine sends the end of its log, so that a key may
/// have begun before, and be known by its end only.
fn cleaned(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut is_key = false;
    for line in text.lines() {
        let markers = key_markers(line);
        for is_begin in &markers {
            if !is_begin && !is_key {
                lines.clear();
            }
            is_key = *is_begin;
        }
        if !markers.is_empty() {
            if lines.last().is_none_or(|last| last != KEY) {
                lines.push(KEY.to_owned());
            }
        } else if !is_key {
            let plain = line.chars().filter(|c| *c == '\t' || !c.is_control());
            lines.push(plain.collect());
        }
    }
    let shown = without_base64_lines(&lines).into_iter();
    let shown = shown.map(|line| without_tokens(&without_base64_words(line)));
    shown.collect::<Vec<_>>().join("\n")
}

/// Where private keys begin (`true`) and end in a line, in order. What is neither, because its beginning was cut off, ends one.
fn key_markers(line: &str) -> Vec<bool> {
    let mut before: Vec<&str> = line.split("PRIVATE KEY-----").collect();
    before.pop();
    let marker = |before: &str| before.rfind("-----BEGIN") > before.rfind("-----END");
    before.into_iter().map(marker).collect()
}

fn is_base64(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=')
}

/// Lines of nothing but base64 are one thing: when one of them is as long as those of a key, none of them is shown.
fn without_base64_lines(lines: &[String]) -> Vec<&str> {
    let is_encoded = |line: &str| !line.trim().is_empty() && line.trim().chars().all(is_base64);
    let mut shown = Vec::new();
    for block in lines.chunk_by(|a, b| is_encoded(a) && is_encoded(b)) {
        let is_long = |line: &String| is_encoded(line) && may_be_key(line.trim());
        if block.iter().any(is_long) {
            shown.push(ENCODED);
        } else {
            shown.extend(block.iter().map(String::as_str));
        }
    }
    shown
}

/// Whether a word of base64 is as long as a line of a key. Hashes and paths are mostly of one case.
fn may_be_key(word: &str) -> bool {
    word.len() >= BASE64_LINE
        && word.bytes().any(|b| b.is_ascii_lowercase())
        && word.bytes().any(|b| b.is_ascii_uppercase())
}

fn without_base64_words(line: &str) -> String {
    with_words_replaced(line, is_base64, |word| {
        (word.contains(PEM_AS_BASE64) || may_be_key(word)).then(|| ENCODED.to_owned())
    })
}

fn without_tokens(line: &str) -> String {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.';
    let is_token = |word: &str| {
        word.split_once('.')
            .is_some_and(|(id, secret)| (id.len(), secret.len()) == TOKEN && !secret.contains('.'))
    };
    with_words_replaced(line, is_part, |word| {
        // A token may stand at the end of a sentence.
        let trimmed = word.trim_end_matches('.');
        let after = word.get(trimmed.len()..).unwrap_or_default();
        is_token(trimmed).then(|| format!("[token]{after}"))
    })
}

/// The line with another text for some of its words, which consist of such letters.
fn with_words_replaced(
    line: &str,
    is_part: impl Fn(char) -> bool,
    replacement: impl Fn(&str) -> Option<String>,
) -> String {
    let mut written = String::with_capacity(line.len());
    let mut rest = line;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        match replacement(word) {
            Some(other) => written.push_str(&other),
            None => written.push_str(word),
        }
        let next = after.find(&is_part).unwrap_or(after.len());
        let (between, after) = after.split_at(next);
        written.push_str(between);
        rest = after;
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00.5Z".parse().unwrap()
    }

    fn read(log: &str) -> BootstrapFailure {
        BootstrapFailure::read("kubeadm-join", "1", log.as_bytes(), now()).unwrap()
    }

    #[test]
    fn what_is_kept_is_the_end_and_reads_back() {
        let log: String = (0..1000).map(|n| format!("line {n} ü\n")).collect();
        let failure = read(&log);
        assert!(failure.log.len() <= LOG_BYTES_MAX);
        assert!(
            failure.log.starts_with("line "),
            "{:?}",
            failure.log.lines().next()
        );
        assert!(failure.log.ends_with("line 999 ü"));
        let config =
            json!({"metadata": {"annotations": {annotation::BOOTSTRAP_REPORT: failure.record()}}});
        assert_eq!(BootstrapFailure::of(&config).as_ref(), Some(&failure));
        let message = failure.condition().message;
        assert!(message.starts_with("kubeadm-join ended with exit code 1 at 2026-01-01T00:00:00Z"));
        assert!(
            message.ends_with("line 999 ü") && message.len() < 1200,
            "{message}"
        );
        assert_eq!(read(&"x".repeat(9000)).log.len(), LOG_BYTES_MAX);
    }

    #[test]
    fn what_failed_on_a_node_is_called_so() {
        let failure = BootstrapFailure::read("post-kubeadm-commands", "3", b"no", now()).unwrap();
        let condition = failure.condition();
        assert_eq!(condition.reason, "PostKubeadmCommandsFailed");
        assert!(
            condition.message.starts_with(
                "post-kubeadm-commands ended with exit code 3 on a machine that is a node"
            ),
            "{}",
            condition.message
        );
        assert!(failure.is_of_a_node() && !read("").is_of_a_node());
    }

    #[test]
    fn no_token_no_key_and_no_escape_is_kept() {
        let log = "join --token abcdef.0123456789abcdef.\n\u{1b}[31mred a.b v1.36.3 10.0.0.1\n\
                   -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nend";
        assert_eq!(
            read(log).log,
            "join --token [token].\n[31mred a.b v1.36.3 10.0.0.1\n[private key]\nend"
        );
    }

    /// A line of a key's base64.
    fn key_line() -> String {
        "MIGkAgEBBDC3vQ7+/x".repeat(4).chars().take(64).collect()
    }

    #[test]
    fn a_key_whose_beginning_was_cut_off_is_not_kept() {
        let line = key_line();
        let end = "-----END EC PRIVATE KEY-----";
        for log in [
            format!("7+/xMIGk\n{line}\n{line}\nAgEB==\n{end}\nafter"),
            format!("IN EC PRIVATE KEY-----\n{line}\nAgEB==\n{end}\nafter"),
            format!("kubeadm[1]: {line}\nkubeadm[1]: AgEB==\nkubeadm[1]: {end}\nafter"),
            format!(
                "AgEB==\\n{end}\\n-----BEGIN EC PRIVATE KEY-----\\n{line}\n{line}\n{end}\nafter"
            ),
        ] {
            assert_eq!(read(&log).log, "[private key]\nafter", "{log}");
        }
        let whole = format!(
            "before\n-----BEGIN PRIVATE KEY-----\n{line}\n-----END CERTIFICATE-----\nAgEB==\n-----END PRIVATE KEY-----\nafter"
        );
        assert_eq!(read(&whole).log, "before\n[private key]\nafter");
        // Neither beginning nor end.
        let middle = format!("7+/x\n{line}\n  {line}\nAgEB==\nit ends here");
        assert_eq!(read(&middle).log, "[base64]\nit ends here");
    }

    #[test]
    fn encoded_keys_are_not_kept_and_hashes_and_paths_are() {
        let encoded = "LS0tLS1CRUdJTiBFQyBQUklWQVRFIEtFWS0tLS0tCk1JR2s=";
        let log = format!(
            "client-key-data: {encoded}\nx='{}' y\n{}\n",
            key_line(),
            "/var/lib/kubelet/pods/a/volumes/kubernetes/empty/b/c/d/e/f/g/h/i/j/k"
        );
        let hash = format!("sha256:{}", "0123456789abcdef".repeat(4));
        let shown = read(&format!("{log}{hash}\ndone")).log;
        assert!(
            shown.starts_with("client-key-data: [base64]\nx='[base64]' y\n/var/lib/kubelet/"),
            "{shown}"
        );
        assert!(shown.ends_with(&format!("\n{hash}\ndone")), "{shown}");
    }

    #[test]
    fn what_is_no_report_is_refused() {
        for (phase, code) in [
            ("", "1"),
            ("Kubeadm", "1"),
            ("x", "256"),
            ("x", "-1"),
            ("a b", "1"),
        ] {
            assert!(
                BootstrapFailure::read(phase, code, b"", now()).is_err(),
                "{phase} {code}"
            );
        }
        assert!(BootstrapFailure::read(&"x".repeat(33), "0", b"", now()).is_err());
        assert_eq!(
            BootstrapFailure::of(
                &json!({"metadata": {"annotations": {annotation::BOOTSTRAP_REPORT: "{}"}}})
            ),
            None
        );
    }
}
