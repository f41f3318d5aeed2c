//! What a light machine does when kubeadm has failed and its user data has a script for that: it posts as the script would.

use http::Method;

use super::boot::Boot;
use super::client::Client;
use super::pki;

/// The end of the console that is sent, as the script sends the end of its log.
const LOG_BYTES_MAX: usize = 4096;

/// What kubeadm ends with when it could not do it.
const EXIT_CODE: &str = "1";

/// Runs `sh <script> <phase> $?`. What comes of it is on the console and changes nothing.
pub(crate) async fn run(boot: &Boot<'_>, command: &str) {
    let mut words = command.split_whitespace();
    let (Some("sh"), Some(script), Some(phase)) = (words.next(), words.next(), words.next()) else {
        return;
    };
    let said = match post(boot, script, phase).await {
        Ok(code) => format!("runcmd: {script}: the answer was {code}"),
        Err(why) => format!("runcmd: {script}: {why}"),
    };
    boot.console.line(said);
}

async fn post(boot: &Boot<'_>, script: &str, phase: &str) -> Result<u16, String> {
    let text = |path: &str| {
        boot.data
            .text(path)
            .ok_or_else(|| format!("{path}: no such file or directory"))
    };
    let script = text(script)?;
    let quoted = |before: &str, after: &[char]| {
        let (_, rest) = script.split_once(before)?;
        rest.split(after).next().filter(|found| !found.is_empty())
    };
    let authority = quoted("--cacert ", &[' ', '\n']).ok_or("curl: no --cacert")?;
    let token = quoted("$(cat ", &[')']).ok_or("cat: no token")?;
    let url = quoted("\"https://", &['?', '"']).ok_or("curl: no URL")?;
    let (endpoint, path) = url.split_once('/').unwrap_or((url, ""));
    let authority = pki::certificates(text(authority)?);
    let bearer = text(token)?.trim().to_owned();
    let client = Client::trusting(endpoint, &authority, Some(bearer), None)
        .map_err(|error| error.to_string())?;
    let console = boot.console.read().map_err(|error| error.to_string())?;
    let bytes = console.into_bytes();
    let log = bytes.get(bytes.len().saturating_sub(LOG_BYTES_MAX)..);
    let path = format!("/{path}?phase={phase}&exitCode={EXIT_CODE}");
    let body = log.unwrap_or_default().to_vec();
    let reply = client
        .send_bytes(Method::POST, &path, "text/plain", body)
        .await?;
    Ok(reply.code)
}
