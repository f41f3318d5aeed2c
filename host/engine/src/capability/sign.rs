//! AWS Signature Version 4: a request is signed by the host with a key that the guest never sees.
//!
//! Signed are the method, the path, the query, the body and the headers `host`, `content-type` and all of `x-amz-*`: what a service
//! looks at, and what no proxy on the way changes.

use std::collections::BTreeMap;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use ring::hmac;
use sha2::{Digest, Sha256};
use url::Url;

use crate::source::hex;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// The only service whose paths are signed as they are sent; all others encode them once more.
const PLAIN_PATHS: &str = "s3";

/// Where a signature is good: a region and a service of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsScope {
    /// Such as `eu-central-1`.
    pub region: String,
    /// Such as `ec2`, `sts`, `s3`.
    pub service: String,
}

/// A request that is about to be signed.
pub(crate) struct Unsigned<'a> {
    pub(crate) method: &'a str,
    pub(crate) url: &'a Url,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
}

/// A key, as its Secret has it: `ID:SECRET`, or `ID:SECRET:TOKEN` for one that ends.
pub(crate) struct Key<'a> {
    id: &'a str,
    secret: &'a str,
    token: Option<&'a str>,
}

impl<'a> Key<'a> {
    pub(crate) fn of(secret: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(secret).ok()?.trim();
        let (id, rest) = text.split_once(':')?;
        let (secret, token) = match rest.split_once(':') {
            Some((secret, token)) => (secret, Some(token)),
            None => (rest, None),
        };
        let is_whole = !id.is_empty() && !secret.is_empty() && token != Some("");
        is_whole.then_some(Self { id, secret, token })
    }

    /// The headers that make a request a signed one, in the place of what it has of these names. `None` when the key does not fit
    /// into a header.
    pub(crate) fn sign(
        &self,
        scope: &AwsScope,
        request: &Unsigned<'_>,
        now: Timestamp,
    ) -> Option<Vec<(HeaderName, HeaderValue)>> {
        let time = now
            .to_zoned(TimeZone::UTC)
            .strftime("%Y%m%dT%H%M%SZ")
            .to_string();
        let digest = hex(&Sha256::digest(request.body));
        let mut added = vec![(
            HeaderName::from_static("x-amz-date"),
            HeaderValue::from_str(&time).ok()?,
        )];
        if scope.service == PLAIN_PATHS {
            let name = HeaderName::from_static("x-amz-content-sha256");
            added.push((name, HeaderValue::from_str(&digest).ok()?));
        }
        if let Some(token) = self.token {
            let mut value = HeaderValue::from_str(token).ok()?;
            value.set_sensitive(true);
            added.push((HeaderName::from_static("x-amz-security-token"), value));
        }
        let mut headers = request.headers.clone();
        headers.insert(HOST, HeaderValue::from_str(&host_of(request.url)?).ok()?);
        for (name, value) in &added {
            headers.insert(name, value.clone());
        }
        let signed = signed_headers(&headers);
        let names: Vec<&str> = signed.keys().map(String::as_str).collect();
        let names = names.join(";");
        let date = time.get(..8)?;
        let credential = format!("{date}/{}/{}/aws4_request", scope.region, scope.service);
        let lines: String = signed
            .iter()
            .map(|(name, value)| format!("{name}:{value}\n"))
            .collect();
        let canonical = format!(
            "{}\n{}\n{}\n{lines}\n{names}\n{digest}",
            request.method,
            path_of(request.url, scope.service == PLAIN_PATHS),
            query_of(request.url)
        );
        let canonical = hex(&Sha256::digest(canonical));
        let what = format!("{ALGORITHM}\n{time}\n{credential}\n{canonical}");
        let signature = hex(&self.signature(scope, date, &what));
        let value = format!(
            "{ALGORITHM} Credential={}/{credential}, SignedHeaders={names}, Signature={signature}",
            self.id
        );
        let mut value = HeaderValue::from_str(&value).ok()?;
        value.set_sensitive(true);
        added.push((AUTHORIZATION, value));
        Some(added)
    }

    fn signature(&self, scope: &AwsScope, date: &str, what: &str) -> Vec<u8> {
        let parts = [date, &scope.region, &scope.service, "aws4_request", what];
        let first = format!("AWS4{}", self.secret).into_bytes();
        parts.iter().fold(first, |key, part| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
            hmac::sign(&key, part.as_bytes()).as_ref().to_vec()
        })
    }
}

/// As the client will write it.
fn host_of(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

/// By name: values in the order in which they are sent, joined, without needless spaces.
fn signed_headers(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut signed: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let is_signed = name == HOST || name == CONTENT_TYPE || name.as_str().starts_with("x-amz-");
        if !is_signed {
            continue;
        }
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
        let value = words.join(" ");
        match signed.get_mut(name.as_str()) {
            Some(before) => {
                before.push(',');
                before.push_str(&value);
            }
            None => {
                signed.insert(name.as_str().to_owned(), value);
            }
        }
    }
    signed
}

/// Everything but letters, digits, `-`, `_`, `.`, `~` and what is kept, percent-encoded.
fn encoded(text: &str, kept: &str) -> String {
    let mut to = String::new();
    for byte in text.bytes() {
        let char = char::from(byte);
        if byte.is_ascii_alphanumeric() || "-_.~".contains(char) || kept.contains(char) {
            to.push(char);
        } else {
            to.push('%');
            to.push_str(&hex(&[byte]).to_uppercase());
        }
    }
    to
}

/// A path as it is signed. One that is sent is encoded already.
fn path_of(url: &Url, as_sent: bool) -> String {
    if as_sent {
        return encoded(url.path(), "/%");
    }
    let mut path = encoded(url.path(), "/");
    while path.contains("//") {
        path = path.replace("//", "/");
    }
    path
}

/// A query as it is signed: pairs in the order of their encoded names and values.
fn query_of(url: &Url) -> String {
    let mut pairs: Vec<(String, String)> = url
        .query_pairs()
        .map(|(name, value)| (encoded(&name, ""), encoded(&value, "")))
        .collect();
    pairs.sort_unstable();
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"AKIDEXAMPLE:wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY\n";

    fn signed(key: &[u8], service: &str, method: &str, url: &str, form: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if form.is_some() {
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(CONTENT_TYPE, form);
        }
        let scope = AwsScope {
            region: "us-east-1".to_owned(),
            service: service.to_owned(),
        };
        let request = Unsigned {
            method,
            url: &url.parse().unwrap(),
            headers: &headers,
            body: form.unwrap_or_default().as_bytes(),
        };
        let now = "2015-08-30T12:36:00Z".parse().unwrap();
        let added = Key::of(key).unwrap().sign(&scope, &request, now).unwrap();
        added.into_iter().collect()
    }

    fn signature(headers: &HeaderMap) -> String {
        let value = headers[AUTHORIZATION].to_str().unwrap();
        value.rsplit_once("Signature=").unwrap().1.to_owned()
    }

    /// Cases of the suite that AWS publishes for implementers of the signature.
    #[test]
    fn the_published_cases_are_signed_as_published() {
        for (name, method, query, form, wanted) in [
            (
                "get-vanilla",
                "GET",
                "",
                None,
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "get-vanilla-query-order-key-case",
                "GET",
                "?Param2=value2&Param1=value1",
                None,
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                "get-vanilla-query-order-encoded",
                "GET",
                "?Param-3=Value3&Param=Value2&%E1%88%B4=Value1",
                None,
                "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
            ),
            (
                "get-vanilla-utf8-query",
                "GET",
                "?ሴ=bar",
                None,
                "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
            ),
            (
                "post-vanilla",
                "POST",
                "",
                None,
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                "post-x-www-form-urlencoded",
                "POST",
                "",
                Some("Param1=value1"),
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
        ] {
            let url = format!("https://example.amazonaws.com/{query}");
            let headers = signed(KEY, "service", method, &url, form);
            assert_eq!(signature(&headers), wanted, "{name}");
            assert_eq!(headers["x-amz-date"], "20150830T123600Z");
        }
    }

    #[test]
    fn paths_are_encoded_once_more_but_for_one_service() {
        let url = "https://example.amazonaws.com/a%20b//ሴ".parse().unwrap();
        assert_eq!(path_of(&url, true), "/a%20b//%E1%88%B4");
        assert_eq!(path_of(&url, false), "/a%2520b/%25E1%2588%25B4");
    }

    #[test]
    fn a_token_and_the_bodys_digest_are_signed_with_the_rest() {
        let with_token = [KEY.trim_ascii(), b":TOKEN=="].concat();
        let headers = signed(
            &with_token,
            "s3",
            "GET",
            "https://b.s3.amazonaws.com:8443/k",
            None,
        );
        assert_eq!(headers["x-amz-security-token"], "TOKEN==");
        let value = headers[AUTHORIZATION].to_str().unwrap();
        let names = "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,";
        assert!(value.contains(names), "{value}");
        let plain = signed(KEY, "s3", "GET", "https://b.s3.amazonaws.com:8443/k", None);
        assert_ne!(signature(&headers), signature(&plain));
    }

    #[test]
    fn what_is_no_key_signs_nothing() {
        for odd in [
            &b"only-an-id"[..],
            b":secret",
            b"id:",
            b"id:secret:",
            b"\xff:a",
        ] {
            assert!(Key::of(odd).is_none());
        }
    }
}
