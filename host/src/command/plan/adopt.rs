//! `capstan plan adopt`: whether a control plane can take over machines that others made, and what it would do with them then.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use capstan_api::name::ObjectKey;
use capstan_controllers::adoption_plan::{self, AdoptionPlan};
use capstan_controllers::tasks::Tasks;
use serde_json::Value;

use super::{OBJECT_BYTES_MAX, Surroundings};
use crate::input;

/// Which control plane, and which machines.
#[derive(Debug, clap::Args)]
pub(in crate::command) struct AdoptArgs {
    /// The control plane as YAML or JSON, `-` for standard input; it need not exist yet.
    #[arg(long, short, value_name = "FILE")]
    filename: PathBuf,
    /// Name of the Cluster that the machines belong to.
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// Its namespace.
    #[arg(long, short, default_value = "default")]
    namespace: String,
    #[command(flatten)]
    surroundings: Surroundings,
}

/// A refusal makes the exit code 2, so that scripts notice.
pub(super) async fn adopt(args: AdoptArgs) -> anyhow::Result<ExitCode> {
    let path = args.filename.display();
    let text = input::text(&args.filename, OBJECT_BYTES_MAX)?;
    let object: Value =
        serde_saphyr::from_str(&text).with_context(|| format!("{path} is not YAML"))?;
    let tasks = Tasks::default();
    let (ctx, engine) = args.surroundings.start(&tasks).await?;
    let cluster = ObjectKey::new(args.namespace, args.cluster);
    let planned = Box::pin(adoption_plan::plan(&ctx, &engine, &cluster, object)).await;
    tasks.stop();
    let plan = planned?;
    args.surroundings.output.print(&plan, || shown(&plan))?;
    Ok(if plan.verdict.refused.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(2)
    })
}

fn shown(plan: &AdoptionPlan) -> String {
    let mut text = String::new();
    let machines = plan.verdict.machines.join(", ");
    // Writing into a String does not fail.
    let _ = match (
        plan.verdict.machines.is_empty(),
        plan.verdict.refused.is_empty(),
    ) {
        (true, _) => writeln!(
            text,
            "{}: the cluster has no control-plane machines",
            plan.control_plane
        ),
        (_, true) => writeln!(text, "{} takes over: {machines}", plan.control_plane),
        (_, false) => writeln!(
            text,
            "{} takes over none of: {machines}",
            plan.control_plane
        ),
    };
    for why in &plan.verdict.refused {
        let _ = writeln!(text, "* {why}");
    }
    for replacement in &plan.replaced {
        let why = replacement.why.join("; ");
        let _ = writeln!(text, "then replaces {}: {why}", replacement.machine);
    }
    text
}

#[cfg(test)]
mod tests {
    use capstan_controllers::adoption_plan::Replacement;
    use capstan_core::control_plane::adoption::Verdict;

    use super::*;

    #[test]
    fn a_plan_says_which_machines_what_is_in_the_way_and_what_follows() {
        let mut plan = AdoptionPlan {
            control_plane: "KubeadmControlPlane cp".to_owned(),
            verdict: Verdict {
                machines: vec!["a".to_owned(), "b".to_owned()],
                ..Verdict::default()
            },
            replaced: vec![Replacement {
                machine: "b".to_owned(),
                why: vec!["Version v1, v2 required".to_owned()],
            }],
        };
        assert_eq!(
            shown(&plan),
            "KubeadmControlPlane cp takes over: a, b\nthen replaces b: Version v1, v2 required\n"
        );
        plan.verdict.refused.push("Machine a: because".to_owned());
        plan.replaced.clear();
        assert_eq!(
            shown(&plan),
            "KubeadmControlPlane cp takes over none of: a, b\n* Machine a: because\n"
        );
    }
}
