//! Tokens that let one machine report once: a time and a signature over it and what the token is for. Nothing is kept for them; that
//! one was used is seen by the report that is there.

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

/// How long after its data was made a machine may report: clouds take minutes to start one, and kubeadm gives up after some more.
const LIFETIME: SignedDuration = SignedDuration::from_hours(1);

/// Bytes of a block of the hash (RFC 2104).
const BLOCK: usize = 64;

/// A token that is good from now on.
pub(super) fn make(key: &[u8], subject: &str, now: Timestamp) -> String {
    let until = now.as_second().saturating_add(LIFETIME.as_secs());
    format!("{until}.{}", signature(key, until, subject))
}

/// Whether a token is for this subject and still good.
pub(super) fn is_good(key: &[u8], subject: &str, token: &str, now: Timestamp) -> bool {
    let Some((until, signed)) = token.split_once('.') else {
        return false;
    };
    let Ok(until) = until.parse::<i64>() else {
        return false;
    };
    let wanted = signature(key, until, subject);
    // As long for a wrong first letter as for a wrong last one.
    let differs = wanted
        .bytes()
        .zip(signed.bytes())
        .fold(0_u8, |sum, (a, b)| sum | (a ^ b));
    wanted.len() == signed.len() && differs == 0 && now.as_second() < until
}

fn signature(key: &[u8], until: i64, subject: &str) -> String {
    let mac = hmac(key, format!("{until} {subject}").as_bytes());
    mac.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// HMAC with SHA-256 (RFC 2104). Keys are shorter than a block.
fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let pad = |with: u8| -> Vec<u8> {
        let padded = key.iter().copied().chain(std::iter::repeat(0));
        padded.take(BLOCK).map(|byte| byte ^ with).collect()
    };
    let inner = Sha256::new()
        .chain_update(pad(0x36))
        .chain_update(text)
        .finalize();
    Sha256::new()
        .chain_update(pad(0x5c))
        .chain_update(inner)
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minutes * 60).unwrap()
    }

    #[test]
    fn a_token_is_for_one_subject_and_an_hour() {
        let token = make(KEY, "g/K/n/c/uid", at(0));
        assert!(is_good(KEY, "g/K/n/c/uid", &token, at(59)));
        assert!(!is_good(KEY, "g/K/n/c/uid", &token, at(60)));
        assert!(!is_good(KEY, "g/K/n/c/other", &token, at(1)));
        assert!(!is_good(
            b"another key of thirty-two bytes.",
            "g/K/n/c/uid",
            &token,
            at(1)
        ));
        let (until, signed) = token.split_once('.').unwrap();
        let later = until.parse::<i64>().unwrap() + 60;
        for forged in [
            format!("{later}.{signed}"),
            format!("{until}."),
            format!("{until}.{}", &signed[1..]),
            signed.to_owned(),
            String::new(),
        ] {
            assert!(!is_good(KEY, "g/K/n/c/uid", &forged, at(1)), "{forged}");
        }
    }

    #[test]
    fn the_signature_is_the_standards() {
        // RFC 4231, test case 2.
        let mac = hmac(b"Jefe", b"what do ya want for nothing?");
        let hex: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
