//! Cases of the list of certificates.

use super::*;

#[test]
fn every_certificate_is_listed_the_first_to_end_first() {
    let mut seen = running(1, vec![member("a", "a")]);
    let end = |text: &str| text.parse::<Timestamp>().unwrap();
    seen.members[0].config = Lookup::Found(
        json!({"metadata": {"annotations": {annotation::CERTIFICATES_EXPIRY: "2027-01-01T00:00:00Z"}}}).into(),
    );
    seen.material = Lookup::Found(MaterialState {
        certificates: vec![
            ("ca".to_owned(), end("2036-01-01T00:00:00.25Z")),
            ("kubeconfig".to_owned(), end("2026-06-01T00:00:00Z")),
        ],
        ..MaterialState::default()
    });
    let listed = reported(&seen).status["certificates"].clone();
    let expected = json!([
        {"name": "kubeconfig", "expirationDate": "2026-06-01T00:00:00Z"},
        {"name": "apiserver of a", "expirationDate": "2027-01-01T00:00:00Z"},
        {"name": "ca", "expirationDate": "2036-01-01T00:00:00Z"},
    ]);
    assert_eq!(listed, expected);
    // What cannot be read now is not gone.
    seen.object["status"]["certificates"] = expected.clone();
    seen.material = Lookup::Unknown("no answer".to_owned());
    assert_eq!(reported(&seen).status["certificates"], expected);
}
