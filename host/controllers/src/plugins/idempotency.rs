//! The keys by which clouds and hooks find the work of an earlier call again.

use sha2::{Digest, Sha256};

/// Characters of a key, of `[a-z0-9-]` (`wit/v0.1/types.wit`): what clouds take as a name.
const KEY_MAX: usize = 64;

/// Bytes of a digest that stand for an operation: among the few of one object no two are the same.
const DIGEST_BYTES: usize = 8;

/// The key of an operation on the object with this UID. An operation that is too long or has other characters, as the name of a
/// MachineHook may, is replaced by its digest.
pub(super) fn key(uid: &str, operation: &str) -> String {
    let key = format!("{uid}-{operation}");
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if key.len() <= KEY_MAX && key.bytes().all(fits) {
        return key;
    }
    let digest = Sha256::digest(operation);
    let digest = digest.iter().take(DIGEST_BYTES);
    let digest: String = digest.map(|byte| format!("{byte:02x}")).collect();
    format!("{uid}-{digest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "3f0c6a52-6a9e-4a53-8f2c-0d6d7a3c9b1e";

    #[test]
    fn a_key_is_as_long_as_the_interface_says_and_the_same_for_the_same_work() {
        assert_eq!(key(UID, "machine"), format!("{UID}-machine"));
        let long = format!("pre-drain-{}", "a".repeat(253));
        let dotted = "pre-drain-a.b";
        for operation in [long.as_str(), dotted] {
            let made = key(UID, operation);
            assert_eq!(made, key(UID, operation));
            assert_eq!(made.len(), UID.len() + 17);
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(made.chars().all(fits), "{made}");
        }
        assert_ne!(key(UID, &long), key(UID, dotted));
        assert_ne!(key(UID, "pre-drain-a.b"), key(UID, "pre-terminate-a.b"));
    }
}
