//! The table of what became of each cell, as text and as JSON.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use capstan_tests::faults::{Cell, Fault, Outcome};
use capstan_tests::wasm;
use serde_json::json;

/// What a light machine cannot show, and who does.
const ELSEWHERE: [&str; 3] = [
    "a disk so full that etcd itself ends, and machines that hang: real machines have them (fill-disk, freeze; tests/machines)",
    "a clock that runs wrong under a kubelet and under etcd's elections: light machines have neither, and real ones share the clock of their kernel",
    "a host killed between any two of its writes: tests/sim plays that",
];

/// Cells with their outcomes. Those without one are left out.
pub(crate) struct Table {
    cells: Vec<(Cell, Option<Outcome>)>,
}

impl Table {
    /// Of these.
    pub(crate) fn of(cells: Vec<Cell>, outcomes: Vec<Option<Outcome>>) -> Self {
        Self {
            cells: cells.into_iter().zip(outcomes).collect(),
        }
    }

    /// Whether one is red.
    pub(crate) fn is_red(&self) -> bool {
        self.outcomes()
            .any(|outcome| matches!(outcome, Outcome::Red(_)))
    }

    fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.cells
            .iter()
            .filter_map(|(_, outcome)| outcome.as_ref())
    }

    /// A row for each fault, a column for each size and phase.
    pub(crate) fn text(&self, faults: &[Fault]) -> String {
        let singles = || self.cells.iter().filter(|(cell, _)| cell.faults.len() == 1);
        let mut columns: Vec<String> = Vec::new();
        for (cell, _) in singles() {
            let column = column(cell);
            if !columns.contains(&column) {
                columns.push(column);
            }
        }
        let mut text = row("", &columns);
        for fault in faults {
            let words: Vec<String> = columns
                .iter()
                .map(|wanted| {
                    let mut found = singles()
                        .filter(|(cell, _)| cell.faults == [*fault] && column(cell) == *wanted);
                    found
                        .next()
                        .map_or_else(String::new, |(cell, outcome)| word(cell, outcome.as_ref()))
                })
                .collect();
            text.push_str(&row(&fault.to_string(), &words));
        }
        for (cell, outcome) in self.cells.iter().filter(|(cell, _)| cell.faults.len() > 1) {
            text.push_str(&format!("{cell}: {}\n", word(cell, outcome.as_ref())));
        }
        text.push_str(&self.notes());
        text.push_str(&self.counts());
        text
    }

    fn notes(&self) -> String {
        let mut text = String::from("\n");
        let mut upstream: BTreeMap<(u32, &str), usize> = BTreeMap::new();
        for (cell, outcome) in &self.cells {
            if let (Some(issue), Some(Outcome::Whole(_))) = (issue(cell), outcome) {
                *upstream.entry(issue).or_default() += 1;
            }
        }
        for ((number, what), cells) in upstream {
            text.push_str(&format!(
                "* kubernetes-sigs/cluster-api#{number} ({what}): {cells} cells that Cluster API v1.14 does not pass\n"
            ));
        }
        let mut left_out: BTreeMap<(String, &str), Vec<String>> = BTreeMap::new();
        for (cell, _) in &self.cells {
            let [fault] = cell.faults.as_slice() else {
                continue;
            };
            let (what, why) = match cell.phase.left_out(cell.size) {
                Some(why) => ("all".to_owned(), Some(why)),
                None => (fault.to_string(), cell.left_out()),
            };
            if let Some(why) = why {
                let columns = left_out.entry((what, why)).or_default();
                if !columns.contains(&column(cell)) {
                    columns.push(column(cell));
                }
            }
        }
        for ((what, why), columns) in left_out {
            text.push_str(&format!("- {what} ({}): {why}\n", columns.join(", ")));
        }
        for elsewhere in ELSEWHERE {
            text.push_str(&format!("- not here: {elsewhere}\n"));
        }
        text
    }

    fn counts(&self) -> String {
        let count =
            |is: fn(&Outcome) -> bool| self.outcomes().filter(|outcome| is(outcome)).count();
        format!(
            "{} cells: {} whole again, {} said what a person must do, {} red; {} left out\n",
            self.cells.len(),
            count(|outcome| matches!(outcome, Outcome::Whole(_))),
            count(|outcome| matches!(outcome, Outcome::Said(..))),
            count(|outcome| matches!(outcome, Outcome::Red(_))),
            self.cells
                .iter()
                .filter(|(_, outcome)| outcome.is_none())
                .count(),
        )
    }

    /// Writes it as JSON below the target directory.
    pub(crate) fn write(&self) -> io::Result<PathBuf> {
        let cells = self.cells.iter().map(|(cell, outcome)| {
            let faults: Vec<String> = cell.faults.iter().map(ToString::to_string).collect();
            json!({
                "size": cell.size,
                "phase": cell.phase.to_string(),
                "faults": faults,
                "outcome": match outcome {
                    None => "left out",
                    Some(Outcome::Whole(_)) => "whole",
                    Some(Outcome::Said(..)) => "said",
                    Some(Outcome::Red(_)) => "red",
                },
                "seconds": match outcome {
                    Some(Outcome::Whole(after) | Outcome::Said(_, Some(after))) => Some(after.as_secs()),
                    _ => None,
                },
                "said": match outcome {
                    Some(Outcome::Said(what, _) | Outcome::Red(what)) => Some(what.as_str()),
                    None => cell.left_out(),
                    Some(Outcome::Whole(_)) => None,
                },
                "upstreamIssue": issue(cell).map(|(number, _)| number),
            })
        });
        let directory = wasm::target_dir().join("faults");
        std::fs::create_dir_all(&directory)?;
        let path = directory.join("faults.json");
        let report = json!({"cells": cells.collect::<Vec<_>>()});
        std::fs::write(&path, format!("{report:#}\n"))?;
        Ok(path)
    }
}

/// What Cluster API does not get by here.
fn issue(cell: &Cell) -> Option<(u32, &'static str)> {
    cell.faults
        .iter()
        .find_map(|fault| fault.upstream(cell.size))
}

fn column(cell: &Cell) -> String {
    format!("{} {}", cell.size, cell.phase)
}

fn word(cell: &Cell, outcome: Option<&Outcome>) -> String {
    let word = outcome.map_or_else(|| "-".to_owned(), Outcome::word);
    let is_beyond = issue(cell).is_some() && matches!(outcome, Some(Outcome::Whole(_)));
    if is_beyond { format!("{word}*") } else { word }
}

fn row(first: &str, rest: &[String]) -> String {
    let rest: Vec<String> = rest.iter().map(|text| format!("{text:<12}")).collect();
    let line = format!("{first:<16}{}", rest.join(""));
    format!("{}\n", line.trim_end())
}
