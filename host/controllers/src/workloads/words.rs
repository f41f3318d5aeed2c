//! What people are told of a connection that fails: the cause and the way out, in words that stay the same while the cause does. What
//! passes by itself, such as a server that does not answer, is not told: how long it has lasted is known anyway.

use capstan_api::name::ObjectKey;
use capstan_core::material::{CLUSTER_CA, KUBECONFIG, secret_key};

/// So many failures with the same cause, one after the other, are no accident.
const TIMES: u32 = 3;

/// The longest words of others, such as of a kubeconfig's parser.
const BYTES_MAX: usize = 300;

/// The cause that is told, and the one that may take its place.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    next: Option<String>,
    times: u32,
}

impl Words {
    /// Takes a failure into account; `told` is what is told so far. Answers whether that has changed.
    pub(super) fn failed(&mut self, cause: Option<String>, told: &mut Option<String>) -> bool {
        if self.times == 0 || self.next != cause {
            self.next = cause;
            self.times = 0;
        }
        self.times = self.times.saturating_add(1);
        if self.times < TIMES || *told == self.next {
            return false;
        }
        told.clone_from(&self.next);
        true
    }
}

/// The cause of an error, if a person has to act; `server` is the URL that was asked.
pub(super) fn cause(cluster: &ObjectKey, server: &str, error: &str) -> Option<String> {
    let secret = |purpose: &str| format!("Secret {}", secret_key(cluster, purpose).name);
    let server = server.trim_start_matches("https://").trim_end_matches('/');
    let shows = format!("the server at {server} shows a certificate that");
    let has = |word: &str| error.contains(word);
    // The names of the TLS library's errors.
    if has("UnknownIssuer") || has("BadSignature") {
        return Some(format!(
            "{shows} {} does not vouch for: correct the Secret or spec.controlPlaneEndpoint",
            secret(CLUSTER_CA)
        ));
    }
    if has("NotValidForName") || has("certificate not valid for name") {
        return Some(format!(
            "{shows} is not for that name or address: add it to the names of its certificate (certSANs), or correct spec.controlPlaneEndpoint"
        ));
    }
    if error == "Unauthorized" {
        return Some(format!(
            "the server at {server} refuses the credentials in {}: correct the Secret, or delete it to have it made again",
            secret(KUBECONFIG)
        ));
    }
    let of_kubeconfig = error.strip_prefix(&format!("Secret {}", secret_key(cluster, KUBECONFIG)));
    let said = of_kubeconfig?.strip_prefix(": ")?;
    let end = said.floor_char_boundary(BYTES_MAX);
    Some(format!(
        "{}: {}",
        secret(KUBECONFIG),
        said.get(..end).unwrap_or_default()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(error: &str) -> Option<String> {
        let cluster = ObjectKey::new("n", "c");
        cause(&cluster, "https://10.0.0.1:6443", error)
    }

    #[test]
    fn causes_that_somebody_has_to_end_are_told_with_what_to_do() {
        for (error, words) in [
            (
                "error trying to connect: invalid peer certificate: UnknownIssuer",
                "the server at 10.0.0.1:6443 shows a certificate that Secret c-ca does not vouch for",
            ),
            (
                "invalid peer certificate: BadSignature",
                "Secret c-ca does not vouch for",
            ),
            (
                "Unauthorized",
                "refuses the credentials in Secret c-kubeconfig",
            ),
            (
                "Secret n/c-kubeconfig: the kubeconfig uses an exec credential plugin, which is not accepted",
                "Secret c-kubeconfig: the kubeconfig uses an exec credential plugin",
            ),
            (
                "Secret n/c-kubeconfig: the kubeconfig cannot be read",
                "Secret c-kubeconfig: the kubeconfig cannot be read",
            ),
        ] {
            let said = of(error).unwrap_or_default();
            assert!(said.contains(words), "{error}: {said}");
        }
        for passing in [
            "tcp connect error: Connection refused (os error 111)",
            "no answer within 5 s",
            "Secret n/c-kubeconfig does not exist yet",
            "etcdserver: request timed out",
        ] {
            assert_eq!(of(passing), None, "{passing}");
        }
        let long = format!("Secret n/c-kubeconfig: {}", "x".repeat(5000));
        assert!(of(&long).unwrap().len() < 400);
    }

    #[test]
    fn a_cause_is_told_the_third_time_and_stays_until_another_is() {
        let mut words = Words::default();
        let mut told = None;
        let one = || Some("one".to_owned());
        let changed: Vec<bool> = [one(), one(), None, one(), one(), one(), one(), None, None]
            .into_iter()
            .map(|cause| words.failed(cause, &mut told))
            .collect();
        let expected = [false, false, false, false, false, true, false, false, false];
        assert_eq!(changed, expected);
        assert_eq!(told, one());
        assert!(words.failed(None, &mut told));
        assert_eq!(told, None);
    }
}
