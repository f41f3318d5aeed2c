//! How many machines a rollout may add and miss: counts and percentages become numbers (contract: upstream
//! `util/intstr`, `mdutil.MaxSurge` and `mdutil.MaxUnavailable`).

use capstan_api::annotation;
use capstan_api::v1beta2::{MachineDeployment, MachineDeploymentRolloutStrategyType};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The limits of one MachineDeployment, in machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Wanted machines.
    pub replicas: u32,
    /// How many more there may be.
    pub max_surge: u32,
    /// How many of the wanted ones may be unavailable; at most `replicas`.
    pub max_unavailable: u32,
}

impl Limits {
    /// The most machines there may be.
    #[must_use]
    pub fn ceiling(&self) -> u32 {
        self.replicas.saturating_add(self.max_surge)
    }

    /// The fewest machines that must stay available.
    #[must_use]
    pub fn floor(&self) -> u32 {
        self.replicas.saturating_sub(self.max_unavailable)
    }
}

/// How a percentage becomes a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Up.
    Up,
    /// Down.
    Down,
}

/// A count, or a percentage of `of`. `None` when it is neither; the schema refuses such values.
#[must_use]
pub fn scaled(value: &IntOrString, of: u32, rounding: Rounding) -> Option<u32> {
    match value {
        IntOrString::Int(count) => u32::try_from(*count).ok(),
        IntOrString::String(text) => {
            let percent: u64 = text.strip_suffix('%')?.parse().ok()?;
            let product = percent.saturating_mul(u64::from(of));
            let whole = match rounding {
                Rounding::Up => product.div_ceil(100),
                Rounding::Down => product.checked_div(100).unwrap_or_default(),
            };
            u32::try_from(whole).ok()
        }
    }
}

/// The kind of rollout; `RollingUpdate` when left out.
#[must_use]
pub fn strategy_type(deployment: &MachineDeployment) -> MachineDeploymentRolloutStrategyType {
    let rollout = deployment.spec.rollout.as_ref();
    rollout
        .and_then(|rollout| rollout.strategy.as_ref())
        .map_or(
            MachineDeploymentRolloutStrategyType::RollingUpdate,
            |strategy| strategy.type_,
        )
}

/// The limits of a MachineDeployment. Left out: surge 1, unavailable 0. Both 0 would never move, so one may then be
/// unavailable. Strategies other than `RollingUpdate` have neither.
#[must_use]
pub fn of(deployment: &MachineDeployment) -> Limits {
    let replicas = replicas(deployment);
    if strategy_type(deployment) != MachineDeploymentRolloutStrategyType::RollingUpdate {
        return Limits {
            replicas,
            ..Limits::default()
        };
    }
    let rolling = deployment
        .spec
        .rollout
        .as_ref()
        .and_then(|rollout| rollout.strategy.as_ref())
        .and_then(|strategy| strategy.rolling_update.as_ref());
    let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref());
    let max_surge = surge.map_or(Some(1), |value| scaled(value, replicas, Rounding::Up));
    let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
    let max_unavailable =
        unavailable.map_or(Some(0), |value| scaled(value, replicas, Rounding::Down));
    let max_surge = max_surge.unwrap_or(1);
    let max_unavailable = match (max_surge, max_unavailable.unwrap_or(0)) {
        (0, 0) => 1,
        (_, unavailable) => unavailable,
    };
    Limits {
        replicas,
        max_surge,
        max_unavailable: max_unavailable.min(replicas),
    }
}

/// Wanted machines; when left out, what [`default_replicas`] says.
#[must_use]
pub fn replicas(deployment: &MachineDeployment) -> u32 {
    let replicas = deployment
        .spec
        .replicas
        .unwrap_or_else(|| default_replicas(&deployment.metadata));
    u32::try_from(replicas).unwrap_or_default()
}

/// Replicas of an object that does not say: the autoscaler's lower limit where it has both, else 1 (contract 3.16; admission does the same
/// where the server can).
#[must_use]
pub fn default_replicas(metadata: &ObjectMeta) -> i32 {
    let size = |name| {
        let size = super::count::annotation(metadata, name)?;
        size.parse::<i32>().ok().filter(|size| *size >= 0)
    };
    let minimum = size(annotation::AUTOSCALER_MIN_SIZE);
    let is_sized = size(annotation::AUTOSCALER_MAX_SIZE).is_some();
    minimum.filter(|_| is_sized).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn limits(replicas: i64, strategy: serde_json::Value) -> Limits {
        let deployment = json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachineDeployment", "metadata": {"name": "d"},
            "spec": {
                "clusterName": "c", "replicas": replicas, "selector": {}, "rollout": {"strategy": strategy},
                "template": {"spec": {"clusterName": "c", "bootstrap": {}, "infrastructureRef": {"apiGroup": "g", "kind": "KTemplate", "name": "n"}}},
            },
        });
        of(&serde_json::from_value(deployment).expect("a deployment"))
    }

    #[test]
    fn surge_is_rounded_up_and_unavailability_down() {
        let some = |surge, unavailable| json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}});
        assert_eq!(
            limits(3, some(json!("25%"), json!("50%"))),
            Limits {
                replicas: 3,
                max_surge: 1,
                max_unavailable: 1
            }
        );
        assert_eq!(
            limits(3, some(json!(2), json!(9))),
            Limits {
                replicas: 3,
                max_surge: 2,
                max_unavailable: 3
            }
        );
        assert_eq!(
            limits(3, some(json!("0%"), json!("10%"))),
            Limits {
                replicas: 3,
                max_surge: 0,
                max_unavailable: 1
            }
        );
        assert_eq!(
            limits(3, json!({"type": "RollingUpdate"})),
            Limits {
                replicas: 3,
                max_surge: 1,
                max_unavailable: 0
            }
        );
        assert_eq!(
            limits(3, json!({"type": "OnDelete"})),
            Limits {
                replicas: 3,
                max_surge: 0,
                max_unavailable: 0
            }
        );
    }

    #[test]
    fn replicas_that_are_left_out_are_the_autoscalers_minimum_where_it_has_both_limits() {
        let of = |minimum: Option<&str>, maximum: Option<&str>| {
            let named = [
                (annotation::AUTOSCALER_MIN_SIZE, minimum),
                (annotation::AUTOSCALER_MAX_SIZE, maximum),
            ];
            let annotations = named
                .iter()
                .filter_map(|(name, size)| Some(((*name).to_owned(), (*size)?.to_owned())));
            default_replicas(&ObjectMeta {
                annotations: Some(annotations.collect()),
                ..ObjectMeta::default()
            })
        };
        assert_eq!(of(Some("3"), Some("5")), 3);
        assert_eq!(of(Some("3"), None), 1);
        assert_eq!(of(None, Some("5")), 1);
        assert_eq!(of(Some("-3"), Some("5")), 1);
    }
}
