//! The smallest pre-delete hook: machines rest for a while before they go.

use std::time::Duration;

use capstan_sdk::pre_delete_hook::{HookInput, PreDeleteHook, Verdict};
use capstan_sdk::{Failure, Manifest, Plugin};
use serde::Deserialize;

/// The operator's settings.
#[derive(Clone, Debug, Deserialize)]
pub struct Settings {
    /// How long a machine rests.
    pub seconds: u64,
}

/// The plugin.
pub struct Rest;

impl Plugin for Rest {
    fn manifest() -> Manifest {
        Manifest::new("pre-delete-rest", env!("CARGO_PKG_VERSION"))
            .description("Lets a machine rest before it goes.")
    }
}

impl PreDeleteHook for Rest {
    type Settings = Settings;

    fn run(input: HookInput<Settings>) -> Result<Verdict, Failure> {
        let rested = input.context.now_ms.saturating_sub(input.first_run_ms);
        let left = Duration::from_secs(input.settings.seconds)
            .saturating_sub(Duration::from_millis(rested));
        if left.is_zero() || input.cluster_deleting {
            return Ok(Verdict::Proceed);
        }
        let message = format!("{} s of rest are left", left.as_secs());
        Ok(Verdict::waiting(
            "Resting",
            message,
            left.min(Duration::from_secs(60)),
        ))
    }
}

capstan_sdk::export_pre_delete_hook!(Rest);

#[cfg(test)]
mod tests {
    use super::*;
    use capstan_sdk::pre_delete_hook::Phase;
    use capstan_sdk::testing::hook_input;

    #[test]
    fn rests_and_then_lets_go() {
        let mut input = hook_input(Phase::PreDrain, Settings { seconds: 90 }).unwrap();
        assert!(matches!(Rest::run(input.clone()), Ok(Verdict::Waiting(_))));
        input.context.now_ms += 90_000;
        assert_eq!(Rest::run(input), Ok(Verdict::Proceed));
    }
}
