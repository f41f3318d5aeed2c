//! `capstan plan object`: what controllers and plugins would do with one object now.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::bail;
use capstan_api::name::ObjectKey;
use capstan_controllers::rehearsal::{Effect, Rehearsal, Turn};

use super::Surroundings;

/// Which object.
#[derive(Debug, clap::Args)]
pub(in crate::command) struct ObjectArgs {
    /// Kind and name, as for kubectl: machine/NAME, localmachines/NAME.
    object: String,
    /// Its namespace.
    #[arg(long, short, default_value = "default")]
    namespace: String,
    #[command(flatten)]
    surroundings: Surroundings,
}

pub(super) async fn object(args: ObjectArgs) -> anyhow::Result<ExitCode> {
    let Some((kind, name)) = args.object.split_once('/') else {
        bail!("{}: say kind and name, such as machine/NAME", args.object);
    };
    let (api, engine) = (args.surroundings.api().await?, args.surroundings.engine()?);
    let rehearsal = Rehearsal::start(&api, engine, &args.surroundings.host_namespace).await?;
    let key = ObjectKey::new(args.namespace.clone(), name);
    let planned = Box::pin(rehearsal.plan(kind, &key)).await;
    rehearsal.stop();
    let turns = planned?;
    args.surroundings.output.print(&turns, || shown(&turns))?;
    Ok(ExitCode::SUCCESS)
}

fn shown(turns: &[Turn]) -> String {
    let mut text = String::new();
    // Writing into a String does not fail.
    for turn in turns {
        let _ = writeln!(text, "controller {}:", turn.controller);
        if turn.effects.is_empty() {
            let _ = writeln!(text, "  does nothing");
        }
        for effect in &turn.effects {
            show(&mut text, effect);
        }
        let _ = writeln!(text, "  then: {}", turn.then);
    }
    text
}

fn show(text: &mut String, effect: &Effect) {
    let place = match effect.place.as_str() {
        "management" => String::new(),
        place => format!("{place}: "),
    };
    let _ = writeln!(text, "  {place}{} {}", effect.verb, effect.what);
    if !effect.fields.is_empty() {
        let _ = writeln!(text, "      {}", effect.fields.join(", "));
    }
    for condition in &effect.conditions {
        let _ = writeln!(text, "      {condition}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_reads_as_what_happens_one_after_the_other() {
        let effect = |place: &str, verb: &str, what: &str| Effect {
            place: place.to_owned(),
            verb: verb.to_owned(),
            what: what.to_owned(),
            fields: Vec::new(),
            conditions: Vec::new(),
        };
        let turns = [Turn {
            controller: "machine",
            effects: vec![
                effect("plugin", "http", "POST http://cloud/v1/instances"),
                Effect {
                    fields: vec!["spec.providerID".to_owned()],
                    conditions: vec!["Ready=False (NotReady): wait".to_owned()],
                    ..effect("management", "patch", "Machine default/m")
                },
            ],
            then: "looks again after 5 s".to_owned(),
        }];
        assert_eq!(
            shown(&turns),
            "controller machine:\n  plugin: http POST http://cloud/v1/instances\n  patch Machine default/m\n      spec.providerID\n      \
             Ready=False (NotReady): wait\n  then: looks again after 5 s\n"
        );
    }
}
