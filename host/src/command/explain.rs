//! `capstan explain`: what a word of a condition or an event means, and what to do about it.

use std::process::ExitCode;

use capstan_api::reason::{self, Word};
use clap::Args;

use crate::out;

/// Words that are offered when the one that was asked for is not known.
const OFFERED_MAX: usize = 5;

/// What to explain.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// A condition's type or reason, or an event's reason, such as `TooManyUnhealthy`; all of them when left out.
    #[arg(value_name = "REASON")]
    word: Option<String>,
}

/// Explains, and says so when there is nothing to say.
pub(super) fn run(args: &ExplainArgs) -> ExitCode {
    let Some(word) = &args.word else {
        let lines: Vec<String> = reason::all().iter().map(line).collect();
        out::result(&lines.join("\n"));
        return ExitCode::SUCCESS;
    };
    match explain(word) {
        Ok(text) => {
            out::result(&text);
            ExitCode::SUCCESS
        }
        Err(text) => {
            out::complaint(&text);
            ExitCode::FAILURE
        }
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
