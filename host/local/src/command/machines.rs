//! `capstan local exec`, `console`, `logs`, `fault`: looks into the cloud's machines, by name, and hurts them.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::DirArgs;
use crate::cloud::Access;
use crate::control_plane::Client;
use crate::out;
use crate::probe;

/// Machines that are listed when the name is of none.
const NAMES_SHOWN: usize = 20;

/// Faults that can be played, and what ends them.
const ACTIONS: [&str; 10] = [
    "kill",
    "freeze",
    "thaw",
    "link-down",
    "link-up",
    "fill-disk",
    "free-disk",
    "stop",
    "start",
    "reboot",
];

/// Which machine.
#[derive(Clone, Debug, Args)]
pub struct InstanceArgs {
    /// Where everything is kept.
    #[command(flatten)]
    pub home: DirArgs,
    /// Name of the machine, or ID of its instance.
    pub machine: String,
}

/// What to run where.
#[derive(Clone, Debug, Args)]
pub struct ExecArgs {
    /// Which machine.
    #[command(flatten)]
    pub of: InstanceArgs,
    /// Program and arguments, after `--`.
    #[arg(last = true, required = true)]
    pub argv: Vec<String>,
}

/// Whose log.
#[derive(Clone, Debug, Args)]
pub struct LogsArgs {
    /// Which machine.
    #[command(flatten)]
    pub of: InstanceArgs,
    /// Which unit.
    #[arg(value_parser = ["kubelet", "containerd"])]
    pub unit: String,
}

/// What to do to which machine.
#[derive(Clone, Debug, Args)]
pub struct FaultArgs {
    /// Which machine.
    #[command(flatten)]
    pub of: InstanceArgs,
    /// The fault, or what ends it: kill and stop are ended by start, freeze by thaw.
    #[arg(value_parser = ACTIONS)]
    pub fault: String,
}

/// The API of the cloud in a directory.
pub(super) struct Cloud {
    client: Client,
}

impl Cloud {
    /// Reads where it is.
    pub(super) fn of(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("cloud/cloud.json");
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!(
                "no cloud runs in {} ({} cannot be read): `capstan local up` starts one",
                dir.display(),
                path.display()
            )
        })?;
        let access: Access = serde_json::from_str(&text)
            .with_context(|| format!("could not understand {}", path.display()))?;
        let port = url::Url::parse(&access.endpoint)?
            .port()
            .with_context(|| format!("{} names no port", path.display()))?;
        Ok(Self {
            client: Client::plain(port).with_bearer(access.token),
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<String> {
        let path = format!("/v1/{path}");
        let body = body.map(|body| body.to_string());
        let answer = self.client.send(method, &path, body).await;
        let (status, body) = answer.context("the cloud does not answer")?;
        let text = String::from_utf8_lossy(&body).into_owned();
        if status.is_success() {
            return Ok(text);
        }
        let error: Value = serde_json::from_str(&text).unwrap_or_default();
        match error.pointer("/error/message").and_then(Value::as_str) {
            Some(message) => bail!("{message}"),
            None => bail!("the cloud answered {path} with {status}"),
        }
    }

    /// Reads JSON.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let text = self.send(Method::GET, path, None).await?;
        Ok(serde_json::from_str(&text)?)
    }

    /// The ID of the instance that has this name or ID.
    async fn instance(&self, machine: &str) -> anyhow::Result<String> {
        let query: String = url::form_urlencoded::byte_serialize(machine.as_bytes()).collect();
        let found = ids(&self.get(&format!("instances?name={query}")).await?, "id");
        match found.as_slice() {
            [id] => return Ok(id.clone()),
            [] => {}
            several => bail!(
                "there are {} machines named {machine}; say which by ID: {}",
                several.len(),
                several.join(", ")
            ),
        }
        let (status, _) = self
            .client
            .send(Method::GET, &format!("/v1/instances/{query}"), None)
            .await?;
        if status == StatusCode::OK {
            return Ok(machine.to_owned());
        }
        let all = ids(
            &self.get(&format!("instances?limit={NAMES_SHOWN}")).await?,
            "name",
        );
        match all.as_slice() {
            [] => bail!("there is no machine {machine}, nor any other"),
            names => bail!(
                "there is no machine {machine}; there are: {}",
                names.join(", ")
            ),
        }
    }
}

fn ids(list: &Value, field: &str) -> Vec<String> {
    let items = list.get("items").and_then(Value::as_array);
    let texts = items
        .into_iter()
        .flatten()
        .filter_map(|item| item.get(field)?.as_str());
    texts.map(str::to_owned).collect()
}

/// `capstan local probe`: a line for each thing that was looked at. The exit code is 0 when real machines can be had.
pub(super) fn probe(dir: &Path) -> anyhow::Result<ExitCode> {
    let dir = std::path::absolute(dir)?;
    let beside = dir.ancestors().find(|dir| dir.is_dir());
    let findings = probe::run(beside.unwrap_or(&dir));
    for finding in &findings {
        let word = if finding.is_good { "yes" } else { "no " };
        out::result(format!("{word}  {}", finding.sentence));
    }
    let is_possible = findings.iter().all(|finding| finding.is_good);
    out::result(if is_possible {
        "real machines can run here"
    } else {
        "real machines cannot run here; light ones can"
    });
    Ok(if is_possible {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// `capstan local exec`: its exit code is the command's.
pub(super) async fn exec(args: ExecArgs) -> anyhow::Result<ExitCode> {
    let cloud = Cloud::of(&args.of.home.dir)?;
    let id = cloud.instance(&args.of.machine).await?;
    let body = json!({"command": args.argv});
    let answer = cloud
        .send(Method::POST, &format!("instances/{id}/exec"), Some(body))
        .await?;
    let answer: Value = serde_json::from_str(&answer)?;
    let text = |field: &str| {
        answer
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    out::of_program(text("stdout"), text("stderr"));
    let code = answer.get("exitCode").and_then(Value::as_i64);
    Ok(code
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}

/// `capstan local console`.
pub(super) async fn console(args: InstanceArgs) -> anyhow::Result<()> {
    let cloud = Cloud::of(&args.home.dir)?;
    let id = cloud.instance(&args.machine).await?;
    let path = format!("instances/{id}/console");
    out::of_program(&cloud.send(Method::GET, &path, None).await?, "");
    Ok(())
}

/// `capstan local logs`.
pub(super) async fn logs(args: LogsArgs) -> anyhow::Result<()> {
    let cloud = Cloud::of(&args.of.home.dir)?;
    let id = cloud.instance(&args.of.machine).await?;
    let path = format!("instances/{id}/logs/{}", args.unit);
    out::of_program(&cloud.send(Method::GET, &path, None).await?, "");
    Ok(())
}

/// `capstan local fault`.
pub(super) async fn fault(args: FaultArgs) -> anyhow::Result<()> {
    let cloud = Cloud::of(&args.of.home.dir)?;
    let id = cloud.instance(&args.of.machine).await?;
    let path = format!("instances/{id}/actions/{}", args.fault);
    let answer = cloud.send(Method::POST, &path, None).await?;
    let instance: Value = serde_json::from_str(&answer)?;
    let state = instance.get("state").and_then(Value::as_str);
    out::result(format!(
        "{} ({id}): {} done; the instance is {}",
        args.of.machine,
        args.fault,
        state.unwrap_or_default()
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud;

    async fn started(dir: &Path) -> cloud::Cloud {
        cloud::Cloud::start(cloud::Options::new(dir.join("cloud")))
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn machines_are_found_by_name_and_refusals_are_sentences() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Cloud::of(dir.path()).err().unwrap().to_string();
        assert!(missing.contains("no cloud runs in"), "{missing}");
        let _running = started(dir.path()).await;
        let cloud = Cloud::of(dir.path()).unwrap();
        let none = cloud.instance("m").await.unwrap_err().to_string();
        assert!(none.contains("nor any other"), "{none}");
        let network = json!({"name": "n"});
        let network = cloud.send(Method::POST, "networks", Some(network)).await;
        let network: Value = serde_json::from_str(&network.unwrap()).unwrap();
        for name in ["m", "twin", "twin"] {
            let body = json!({"name": name, "networkId": network["id"], "type": "small", "image": "v1.36.3"});
            cloud
                .send(Method::POST, "instances", Some(body))
                .await
                .unwrap();
        }
        let id = cloud.instance("m").await.unwrap();
        assert_eq!(cloud.instance(&id).await.unwrap(), id);
        let twins = cloud.instance("twin").await.unwrap_err().to_string();
        assert!(twins.contains("2 machines named twin"), "{twins}");
        let other = cloud.instance("o").await.unwrap_err().to_string();
        assert!(other.contains("there are: m, twin, twin"), "{other}");
        let of = InstanceArgs {
            home: DirArgs {
                dir: dir.path().to_owned(),
            },
            machine: "m".into(),
        };
        let until_running = async {
            while cloud.get(&format!("instances/{id}")).await.unwrap()["state"] != "running" {
                tokio::task::yield_now().await;
            }
        };
        let patience = std::time::Duration::from_secs(20);
        tokio::time::timeout(patience, until_running).await.unwrap();
        let exec = ExecArgs {
            of: of.clone(),
            argv: vec!["true".into()],
        };
        let refused = self::exec(exec).await.unwrap_err().to_string();
        assert!(refused.contains("\"machines\" does"), "{refused}");
        console(of.clone()).await.unwrap();
        let fault = |fault: &str| FaultArgs {
            of: of.clone(),
            fault: fault.into(),
        };
        assert!(self::fault(fault("freeze")).await.is_err());
        self::fault(fault("kill")).await.unwrap();
        let killed = cloud.get(&format!("instances/{id}")).await.unwrap();
        assert_eq!(
            (&killed["state"], &killed["stateMessage"]),
            (&json!("stopped"), &json!("it was killed"))
        );
        self::fault(fault("start")).await.unwrap();
        let logs = LogsArgs {
            of,
            unit: "kubelet".into(),
        };
        assert!(self::logs(logs).await.is_err());
    }
}
