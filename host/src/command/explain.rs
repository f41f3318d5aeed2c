//! `capstan explain`: what a word of a condition or an event means, or what keeps an object, and what to do about it.

mod kind;
mod object;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use capstan_api::name::ObjectKey;
use capstan_api::reason::{self, Word};
use capstan_controllers::kube_api::{ApiError, management};
use clap::Args;

use crate::out;

/// Words that are offered when the one that was asked for is not known.
const OFFERED_MAX: usize = 5;

/// What to explain.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// A condition's type or reason, or an event's reason, such as `TooManyUnhealthy`; all of them when left out. Or an object of the management
    /// cluster, of any kind, such as `machine/NAME` or `localmachine/NAME`: then what keeps it, and what to do.
    #[arg(value_name = "REASON|KIND/NAME")]
    word: Option<String>,
    /// Namespace of the object.
    #[arg(long, short, default_value = "default")]
    namespace: String,
    /// Kubeconfig of the management cluster; without one, the cluster whose Pod this is.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<OsString>,
}

/// Explains, and says so when there is nothing to say.
pub(super) fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let Some(word) = &args.word else {
        let lines: Vec<String> = reason::all().iter().map(line).collect();
        out::result(&lines.join("\n"));
        return Ok(ExitCode::SUCCESS);
    };
    if let Some((kind, name)) = word.split_once('/') {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        out::result(&runtime.block_on(explain_object(args, kind, name))?);
        return Ok(ExitCode::SUCCESS);
    }
    match explain(word) {
        Ok(text) => {
            out::result(&text);
            Ok(ExitCode::SUCCESS)
        }
        Err(text) => {
            out::complaint(&text);
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Reads an object and says what keeps it.
async fn explain_object(args: &ExplainArgs, kind: &str, name: &str) -> anyhow::Result<String> {
    let kubeconfig = args.kubeconfig.as_deref().filter(|list| !list.is_empty());
    let agent = concat!("capstan-explain/", env!("CARGO_PKG_VERSION"));
    let api = management::connect(kubeconfig, agent).await?;
    let resource = kind::find(&*api, kind).await?;
    let namespace = if resource.namespaced {
        &args.namespace
    } else {
        ""
    };
    let key = ObjectKey::new(namespace, name);
    match api.get(&resource, &key).await {
        Ok(found) => Ok(object::explain(&found)),
        Err(ApiError::NotFound(_)) => bail!("{} {key} does not exist", resource.kind),
        Err(error) => Err(error).with_context(|| format!("reading {} {key}", resource.kind)),
    }
}

fn line(word: &Word) -> String {
    format!("{} ({}): {}", word.word, word.of, word.text)
}

fn explain(asked: &str) -> Result<String, String> {
    let meanings = reason::all()
        .iter()
        .filter(|word| word.word.eq_ignore_ascii_case(asked));
    let meanings: Vec<String> = meanings.map(line).collect();
    if !meanings.is_empty() {
        return Ok(meanings.join("\n"));
    }
    let lower = asked.to_ascii_lowercase();
    let mut near: Vec<&str> = reason::all()
        .iter()
        .map(|word| word.word)
        .filter(|word| word.to_ascii_lowercase().contains(&lower))
        .collect();
    near.dedup();
    near.truncate(OFFERED_MAX);
    let offer = if near.is_empty() {
        "`capstan explain` alone lists all".to_owned()
    } else {
        format!("there are {}", near.join(", "))
    };
    Err(format!(
        "{asked:?} is no word of this host: {offer}. A plugin's words are its own: the condition's message has them, and the \
         plugin's README says more"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_explained_in_all_its_meanings() {
        let text = explain("remediationallowed").unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("condition type") && text.contains("MachineHealthCheck"));
    }

    #[test]
    fn an_unknown_word_is_answered_with_those_like_it() {
        let text = explain("ToDrain").unwrap_err();
        assert!(text.contains("capstan explain"), "{text}");
        let text = explain("drain").unwrap_err();
        assert!(text.contains("DrainingNode"), "{text}");
    }
}
