//! Whole rollouts, told minute by minute: what each set has, and what the strategy says. `UPDATE_GOLDEN=1` writes them anew.

use std::path::Path;

use serde_json::{Value, json};

use capstan_strategy_tests::world::{Shape, World, strategy};

/// Turns until nothing that is shown changes any more for so long.
const QUIET_TURNS: usize = 20;

fn shape(replicas: u32, surge: Value, unavailable: Value, settings: Value) -> Shape {
    Shape {
        replicas,
        surge,
        unavailable,
        settings,
    }
}

/// Lets everybody move until nothing happens any more; in between, `happens` at each turn.
fn tell(world: &mut World, mut happens: impl FnMut(&mut World, usize)) -> String {
    let mut lines = vec![format!("{:>4}  {}", 0, world.picture())];
    let mut shown = String::new();
    let mut quiet = 0;
    for minute in 1..500 {
        happens(world, minute);
        world.turn();
        let line = format!("{}   {}", world.picture(), world.words());
        if line == shown {
            quiet += 1;
            if quiet > QUIET_TURNS {
                break;
            }
            continue;
        }
        quiet = 0;
        lines.push(format!("{minute:>4}  {line}"));
        shown = line;
    }
    lines.join("\n") + "\n"
}

fn golden(name: &str, story: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("stories")
        .join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, story).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(
        story,
        expected,
        "{}: UPDATE_GOLDEN=1 writes it",
        file.display()
    );
}

fn canary_settings() -> Value {
    json!({
        "steps": [{"replicas": 1, "pauseSeconds": 300}, {"replicas": "50%", "pauseSeconds": 120}],
        "abort": {"unavailableSeconds": 120, "progressSeconds": 600},
    })
}

#[test]
fn a_canary_goes_in_steps_with_pauses() {
    let shape = shape(6, json!(1), json!(0), canary_settings());
    let mut world = World::upgrading(&shape, strategy("canary"), 0);
    let story = tell(&mut world, |_, _| {});
    assert!(world.is_all("v1.36.0"), "{story}");
    golden("canary", &story);
}

#[test]
fn a_canary_that_breaks_is_rolled_back_and_stays_so_until_the_template_changes() {
    let shape = shape(6, json!(1), json!(0), canary_settings());
    let mut world = World::upgrading(&shape, strategy("canary"), 0);
    let story = tell(&mut world, |world, minute| {
        if minute > 4 {
            let machines = world.simulation.machines().iter();
            let new: Vec<String> = machines
                .filter(|(_, machine)| machine["spec"]["version"] == "v1.36.0")
                .map(|(name, _)| name.clone())
                .collect();
            for name in new {
                world.simulation.report_machine(&name, false);
            }
        }
    });
    assert!(world.is_all("v1.35.0"), "{story}");
    golden("canary_rolled_back", &story);
    world.change_version("v1.36.1");
    let story = tell(&mut world, |_, _| {});
    assert!(world.is_all("v1.36.1"), "{story}");
}

#[test]
fn a_gate_that_fails_rolls_back_and_one_that_passes_goes_on() {
    let settings = json!({
        "steps": [{"replicas": 2, "pauseSeconds": 60}],
        "gates": [{"annotation": "metrics"}, {"machineCondition": "ProbesSucceeded"}],
    });
    let shape = shape(4, json!(1), json!(0), settings);
    let with_probes = |world: &mut World, _: usize| {
        for machine in world.simulation.machines_mut().values_mut() {
            let conditions = machine["status"]["conditions"].as_array_mut();
            let Some(conditions) = conditions.filter(|all| all.len() == 3) else {
                continue;
            };
            conditions.push(json!({
                "type": "ProbesSucceeded", "status": "True", "reason": "R", "message": "",
                "lastTransitionTime": "2026-06-01T00:00:00Z",
            }));
        }
    };
    let mut world = World::upgrading(&shape, strategy("canary"), 0);
    // What was said about another revision does not count.
    world.annotate("canary.capstan.dev/metrics", "1=pass");
    let story = tell(&mut world, with_probes);
    assert_eq!(world.picture(), "v1.35.0 2/2/2  v1.36.0 2/2/2", "{story}");
    assert!(world.words().ends_with("[Gate]"), "{story}");
    world.annotate("canary.capstan.dev/metrics", "2=pass");
    let story = tell(&mut world, with_probes);
    assert!(world.is_all("v1.36.0"), "{story}");

    let mut world = World::upgrading(&shape, strategy("canary"), 0);
    let story = tell(&mut world, |world, minute| {
        with_probes(world, minute);
        if minute == 10 {
            world.annotate("canary.capstan.dev/metrics", "2=fail");
        }
    });
    assert!(world.is_all("v1.35.0"), "{story}");
    golden("canary_gate", &story);
}

#[test]
fn blue_green_fills_switches_keeps_and_lets_go() {
    let settings = json!({
        "soakSeconds": 120, "keepSeconds": 300,
        "taint": {"key": "example.org/idle", "effect": "NoSchedule"},
    });
    let shape = shape(3, json!("100%"), json!(0), settings);
    let mut world = World::upgrading(&shape, strategy("blue-green"), 0);
    let label = |world: &World, version: &str| {
        let machines = world.simulation.machines().values();
        let of_it = machines.filter(|m| m["spec"]["version"] == version);
        let label = "node.cluster.x-k8s.io/blue-green";
        let mut values: Vec<String> = of_it
            .map(|m| {
                let value = m["metadata"]["labels"][label].as_str().unwrap_or("-");
                format!(
                    "{value}/{}",
                    m["spec"]["taints"].as_array().map_or(0, Vec::len)
                )
            })
            .collect();
        values.dedup();
        values
    };
    let mut labels = Vec::new();
    let story = tell(&mut world, |world, _| {
        let now = (label(world, "v1.35.0"), label(world, "v1.36.0"));
        if labels.last() != Some(&now) {
            labels.push(now);
        }
    });
    assert!(world.is_all("v1.36.0"), "{story}");
    golden("blue_green", &story);
    let pair = |old: &[&str], new: &[&str]| {
        let owned = |all: &[&str]| all.iter().map(|&s| s.to_owned()).collect::<Vec<String>>();
        (owned(old), owned(new))
    };
    assert_eq!(
        labels,
        [
            pair(&["live/0"], &[]),
            pair(&["live/0"], &["idle/1"]),
            pair(&["idle/1"], &["live/0"]),
            pair(&[], &["live/0"]),
        ]
    );
}

#[test]
fn blue_green_switches_back_while_the_old_machines_are_kept() {
    let settings = json!({"switch": "Manual", "keepSeconds": 3600, "unavailableSeconds": 60});
    let shape = shape(3, json!("100%"), json!(0), settings);
    let mut world = World::upgrading(&shape, strategy("blue-green"), 0);
    let story = tell(&mut world, |_, _| {});
    assert_eq!(world.picture(), "v1.35.0 3/3/3  v1.36.0 3/3/3", "{story}");
    world.annotate("blue-green.capstan.dev/switch", "2");
    let story = tell(&mut world, |world, minute| {
        if minute > 5 {
            let machines = world.simulation.machines().iter();
            let new: Vec<String> = machines
                .filter(|(_, machine)| machine["spec"]["version"] == "v1.36.0")
                .map(|(name, _)| name.clone())
                .collect();
            for name in new {
                world.simulation.report_machine(&name, false);
            }
        }
    });
    assert!(world.is_all("v1.35.0"), "{story}");
    golden("blue_green_back", &story);
}

#[test]
fn blue_green_says_that_it_needs_room_for_a_second_set() {
    let shape = shape(3, json!(1), json!(0), json!({}));
    let mut world = World::upgrading(&shape, strategy("blue-green"), 0);
    world.turn();
    assert!(
        world.words().contains("maxSurge: 100%"),
        "{}",
        world.words()
    );
}

#[test]
fn zones_have_their_turn_one_after_another() {
    let settings = json!({"order": ["zone-b"], "pauseSeconds": 180});
    let shape = shape(6, json!(1), json!(0), settings);
    let mut world = World::upgrading(&shape, strategy("zone-by-zone"), 0);
    let mut order: Vec<String> = Vec::new();
    let story = tell(&mut world, |world, _| {
        let count = |zone: &str| {
            let machines = world.simulation.machines().values();
            machines
                .filter(|m| {
                    m["spec"]["version"] == "v1.35.0" && m["status"]["failureDomain"] == zone
                })
                .count()
        };
        let begun = ["zone-a", "zone-b", "zone-c"].into_iter();
        for zone in begun.filter(|zone| count(zone) < 2) {
            if !order.iter().any(|known| known == zone) {
                order.push(zone.to_owned());
            }
        }
        // Never two zones with some machines old and some gone.
        let mixed = ["zone-a", "zone-b", "zone-c"].map(&count);
        assert!(
            mixed.iter().filter(|left| **left == 1).count() <= 1,
            "{mixed:?}"
        );
    });
    assert!(world.is_all("v1.36.0"), "{story}");
    assert_eq!(order, ["zone-b", "zone-a", "zone-c"], "{story}");
    golden("zone_by_zone", &story);
}

#[test]
fn a_gang_goes_and_comes_together_without_surge_where_devices_are_scarce() {
    let settings = json!({"groupBy": "nothing", "size": 3, "surge": "Never"});
    let shape = shape(6, json!(3), json!(3), settings);
    let mut world = World::upgrading(&shape, strategy("gang"), 0);
    let mut most = 0;
    let story = tell(&mut world, |world, _| {
        most = most.max(world.simulation.machines().len());
    });
    assert!(world.is_all("v1.36.0"), "{story}");
    assert_eq!(most, 6, "never more machines than devices\n{story}");
    golden("gang_scarce", &story);
}

#[test]
fn a_gang_is_made_before_another_goes_where_there_is_room() {
    let settings = json!({"groupBy": "failureDomain"});
    let shape = shape(6, json!(2), json!(0), settings);
    let mut world = World::upgrading(&shape, strategy("gang"), 0);
    let story = tell(&mut world, |_, _| {});
    assert!(world.is_all("v1.36.0"), "{story}");
    golden("gang_surge", &story);
}

#[test]
fn a_gang_that_is_too_large_says_what_to_change() {
    let settings = json!({"groupBy": "nothing", "size": 3, "surge": "Never"});
    let shape = shape(6, json!(0), json!(2), settings);
    let mut world = World::upgrading(&shape, strategy("gang"), 0);
    world.turn();
    assert!(
        world
            .words()
            .contains("maxUnavailable (it is 2) must be at least 3"),
        "{}",
        world.words()
    );
}
