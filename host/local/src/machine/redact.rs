//! Keeps secrets of output off the console: bootstrap tokens, kubeadm's certificate keys and private keys; and colours.

/// Reads output line by line; a private key is longer than a line.
#[derive(Debug, Default)]
pub(super) struct Redactor {
    in_key: bool,
}

/// Letters of the two parts of a bootstrap token.
const TOKEN: (usize, usize) = (6, 16);

/// Digits of a certificate key of kubeadm.
const CERTIFICATE_KEY: usize = 64;

impl Redactor {
    /// A line as it may be shown.
    pub(super) fn line(&mut self, line: &str) -> Option<String> {
        let line = &without_colours(line);
        if self.in_key {
            self.in_key = !(line.contains("-----END") && line.contains("PRIVATE KEY-----"));
            return None;
        }
        if line.contains("-----BEGIN") && line.contains("PRIVATE KEY-----") {
            self.in_key = !line.contains("-----END");
            return Some("(a private key, not shown)".to_owned());
        }
        let mut out = String::with_capacity(line.len());
        let mut rest = line.as_str();
        while let Some(start) = rest.find(is_word) {
            let (before, from) = rest.split_at(start);
            let end = from.find(|c| !is_word(c)).unwrap_or(from.len());
            let (word, after) = from.split_at(end);
            out.push_str(before);
            let is_digest = out.ends_with("sha256:");
            out.push_str(if !is_digest && is_secret(word) {
                "(not shown)"
            } else {
                word
            });
            rest = after;
        }
        out.push_str(rest);
        Some(out)
    }
}

/// The text without a terminal's escape sequences.
fn without_colours(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        // Parameters, and then one letter.
        let end = part.find(|c: char| c.is_ascii_alphabetic());
        out.push_str(
            end.and_then(|end| part.get(end.saturating_add(1)..))
                .unwrap_or_default(),
        );
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '.'
}

fn is_secret(word: &str) -> bool {
    let is_lower = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    if let Some((id, secret)) = word.split_once('.') {
        return (id.len(), secret.len()) == TOKEN && is_lower(id) && is_lower(secret);
    }
    word.len() == CERTIFICATE_KEY && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hides_what_lets_a_machine_join_and_nothing_else() {
        let mut redactor = Redactor::default();
        let digest = "8cb2de97839780a412b93877f8507ad6c94f73add17d5d7058e91741c9d5ec78";
        let line = format!(
            "kubeadm join 198.18.0.1:6443 --token abcdef.0123456789abcdef --discovery-token-ca-cert-hash sha256:{digest} \
             --certificate-key {digest}"
        );
        assert_eq!(
            redactor.line(&line).unwrap(),
            format!(
                "kubeadm join 198.18.0.1:6443 --token (not shown) --discovery-token-ca-cert-hash sha256:{digest} \
                 --certificate-key (not shown)"
            )
        );
        assert_eq!(
            redactor.line("\u{1b}[0;37mOS\u{1b}[0m: Linux").unwrap(),
            "OS: Linux"
        );
        for harmless in [
            "v1.36.3",
            "kube-system.svc",
            "",
            "a.b.c",
            "wrote 12 files: done.",
        ] {
            assert_eq!(redactor.line(harmless).unwrap(), harmless);
        }
    }

    #[test]
    fn hides_the_whole_of_a_private_key() {
        let mut redactor = Redactor::default();
        let shown: Vec<String> = [
            "before",
            "-----BEGIN RSA PRIVATE KEY-----",
            "MIIE",
            "-----END RSA PRIVATE KEY-----",
            "after",
        ]
        .into_iter()
        .filter_map(|line| redactor.line(line))
        .collect();
        assert_eq!(shown, ["before", "(a private key, not shown)", "after"]);
    }
}
