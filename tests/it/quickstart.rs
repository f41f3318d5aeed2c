//! The quickstart runs the host as the account that an installation has, with the rights of that account and nothing else.

use std::path::Path;
use std::process::Stdio;

use capstan_tests::host::NAMESPACE;
use capstan_tests::installation::ACCOUNT;
use capstan_tests::{run, wasm};
use serde_json::Value;
use tokio::process::Command;

/// Runs `capstan local`, and says what it printed.
async fn local(dir: &Path, words: &[&str]) -> Result<String, String> {
    let output = Command::new(wasm::program())
        .arg("local")
        .args(words)
        .arg("--dir")
        .arg(dir)
        .current_dir(wasm::root())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    output.status.success().then_some(said.clone()).ok_or(said)
}

/// What was started is stopped however the test ends.
struct Down<'a>(&'a Path);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        let mut program = std::process::Command::new(wasm::program());
        let down = program.args(["local", "down", "--dir"]).arg(self.0);
        let _: std::io::Result<_> = down.output();
    }
}

#[test]
fn the_quickstart_runs_the_host_as_its_installed_account_to_which_nothing_is_forbidden() {
    run(async {
        let own = tempfile::tempdir().unwrap();
        let dir = own.path().join("dev");
        let _down = Down(&dir);
        let plugins = wasm::target_dir().join("wasm32-wasip2/plugin");
        let plugins = plugins.to_str().unwrap();
        let words = [
            "quickstart",
            "--backend",
            "light",
            "--audit",
            "--plugins",
            plugins,
        ];
        let said = local(&dir, &words)
            .await
            .unwrap_or_else(|said| panic!("{said}"));
        assert!(said.contains("its account and rights"), "{said}");

        let log = std::fs::read_to_string(dir.join("control-plane/audit.log")).unwrap();
        let events: Vec<Value> = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let account = format!("system:serviceaccount:{NAMESPACE}:{ACCOUNT}");
        let is_own = |event: &&Value| event["user"]["username"] == account.as_str();
        let refused: Vec<&Value> = events
            .iter()
            .filter(is_own)
            .filter(|event| {
                event["responseStatus"]["code"] == 403
                    || event["annotations"]["authorization.k8s.io/decision"] == "forbid"
            })
            .collect();
        assert!(refused.is_empty(), "{refused:#?}");
        // Everything that the host has written, it has written as this account.
        let written = |event: &&Value| {
            let uri = event["requestURI"].as_str().unwrap_or_default();
            // The quickstart itself applies what a person would.
            uri.contains("fieldManager=capstan-") && !uri.contains("=capstan-quickstart")
        };
        let (own, others): (Vec<&Value>, Vec<&Value>) =
            events.iter().filter(written).partition(is_own);
        assert!(!own.is_empty(), "the host has written nothing");
        assert!(others.is_empty(), "{others:#?}");
    });
}
