//! Properties of every strategy, on seeded worlds in which controllers crash and machines come and go when they like: the bounds
//! hold at every step, no answer is refused, and the rollout ends.

use serde_json::{Value, json};

use capstan_strategy_tests::world::{Shape, World, strategy};

/// How many worlds each property is tried on.
const SEEDS: u64 = 60;

/// In so many steps every rollout of these sizes is done.
const STEPS_MAX: usize = 20_000;

/// A shape that follows from the seed, with room for what the strategy needs.
fn shape(name: &str, seed: u64) -> Shape {
    let replicas = 1 + (seed % 6) as u32;
    let (surge, unavailable) = match seed / 6 % 3 {
        0 => (1, 0),
        1 => (0, 1),
        _ => (2, 1.min(replicas)),
    };
    let number = |n: u32| json!(n);
    let (surge, unavailable, settings) = match name {
        "canary" => (
            number(surge),
            number(unavailable),
            json!({
                "steps": [{"replicas": 1, "pauseSeconds": seed % 300}, {"replicas": "60%", "pauseSeconds": 60}],
                "abort": {"progressSeconds": 7200, "unavailableSeconds": 7200},
            }),
        ),
        "blue-green" => (
            json!("100%"),
            number(unavailable),
            json!({"soakSeconds": seed % 200, "keepSeconds": seed % 900, "unavailableSeconds": 7200}),
        ),
        "zone-by-zone" => (
            number(surge),
            number(unavailable),
            json!({"pauseSeconds": seed % 300, "order": ["zone-c"]}),
        ),
        "gang" => {
            let size = 1 + (seed % 3) as u32;
            let (surge, unavailable) = if seed.is_multiple_of(2) {
                (0, size)
            } else {
                (size, 0)
            };
            let settings = json!({"groupBy": "nothing", "size": size});
            (number(surge), number(unavailable), settings)
        }
        _ => (number(surge), number(unavailable), json!({})),
    };
    Shape {
        replicas,
        surge,
        unavailable,
        settings,
    }
}

fn keeps_bounds(world: &World, what: &str) {
    let limits = world.limits();
    let total = world.simulation.machines().len();
    assert!(
        total <= limits.ceiling() as usize,
        "{what}: {total} machines, {}",
        world.picture()
    );
    let available = world.available();
    assert!(
        available >= limits.floor() as usize,
        "{what}: {available} available, {}",
        world.picture()
    );
}

fn never(_: &Value) -> bool {
    false
}

fn ends_within_bounds(name: &str) {
    for seed in 0..SEEDS {
        let shape = shape(name, seed);
        let mut world = World::upgrading(&shape, strategy(name), seed);
        let again = seed % 4 == 0;
        let last = if again { "v1.37.0" } else { "v1.36.0" };
        let what = format!("{name}, seed {seed}, {shape:?}");
        for step in 0.. {
            assert!(
                step < STEPS_MAX,
                "{what} does not end: {} {}",
                world.picture(),
                world.words()
            );
            if again && step == 60 {
                // Another change in the middle of the first.
                world.change_version(last);
            }
            world.step(never);
            keeps_bounds(&world, &what);
            if (!again || step > 60) && world.is_all(last) && world.simulation.sets().len() == 1 {
                break;
            }
        }
    }
}

#[test]
fn rolling_updates_keep_their_bounds_and_end() {
    ends_within_bounds("rolling-update");
}

#[test]
fn canaries_keep_their_bounds_and_end() {
    ends_within_bounds("canary");
}

#[test]
fn blue_green_keeps_its_bounds_and_ends() {
    ends_within_bounds("blue-green");
}

#[test]
fn zones_keep_their_bounds_and_end() {
    ends_within_bounds("zone-by-zone");
}

#[test]
fn gangs_keep_their_bounds_and_end() {
    ends_within_bounds("gang");
}

#[test]
fn canaries_that_never_work_are_rolled_back_within_bounds() {
    for seed in 0..SEEDS {
        let mut shape = shape("canary", seed);
        if shape.unavailable.as_u64() >= Some(u64::from(shape.replicas)) {
            // The limits let the last old machine go first: there is nothing to go back to.
            continue;
        }
        shape.settings["abort"] = json!({"progressSeconds": 600, "unavailableSeconds": 60});
        let mut world = World::upgrading(&shape, strategy("canary"), seed);
        let what = format!("seed {seed}, {shape:?}");
        let broken = |machine: &Value| machine["spec"]["version"] == "v1.36.0";
        for step in 0.. {
            assert!(
                step < STEPS_MAX,
                "{what} does not end: {} {}",
                world.picture(),
                world.words()
            );
            world.step(broken);
            keeps_bounds(&world, &what);
            if step > 200 && world.is_all("v1.35.0") {
                break;
            }
        }
        // It stays so, and a good template is taken.
        for _ in 0..200 {
            world.step(broken);
            assert_eq!(world.with_version("v1.36.0"), 0);
        }
        assert!(world.is_all("v1.35.0"), "{what}: {}", world.picture());
        // Machines of this world take as long as they like: only those that never work are given up now.
        shape.settings["abort"] = json!({"progressSeconds": 72_000, "unavailableSeconds": 72_000});
        let settings = shape.settings.to_string();
        world.annotate("capstan.dev/upgrade-strategy-settings", &settings);
        world.change_version("v1.37.0");
        for step in 0.. {
            assert!(
                step < STEPS_MAX,
                "{what} is not forgotten: {}",
                world.picture()
            );
            world.step(broken);
            if world.is_all("v1.37.0") {
                break;
            }
        }
    }
}
