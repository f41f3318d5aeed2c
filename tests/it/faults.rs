//! Some cells of the table of faults (`./dev faults`), so that neither it nor what it looks at rots.

use std::sync::Arc;

use capstan_tests::faults::{Cell, Fault, Outcome, Phase, Stage, run as play};
use capstan_tests::run;

async fn outcome(stage: &mut Stage, at: usize, size: u32, phase: Phase, fault: Fault) -> Outcome {
    let cell = Cell {
        size,
        phase,
        faults: vec![fault],
    };
    let outcome = Box::pin(play(stage, at, &cell)).await;
    println!("{cell}: {outcome}");
    outcome
}

#[test]
fn control_planes_that_are_broken_become_whole_or_say_what_to_do() {
    run(async {
        let mut stage = Stage::Shared(Arc::new(Box::pin(Stage::host()).await));
        for (at, (phase, fault)) in [
            (Phase::Rest, Fault::Kubelet),
            (Phase::Roll, Fault::Instance),
            (Phase::Grow, Fault::Split),
        ]
        .into_iter()
        .enumerate()
        {
            let outcome = outcome(&mut stage, at, 3, phase, fault).await;
            assert!(matches!(outcome, Outcome::Whole(_)), "{outcome}");
        }
        let outcome = outcome(&mut stage, 3, 3, Phase::Rest, Fault::Disk).await;
        assert!(
            matches!(outcome, Outcome::Said(_, Some(_))),
            "room was made as it said: {outcome}"
        );
    });
}
