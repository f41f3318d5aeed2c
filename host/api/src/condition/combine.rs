//! Makes one condition out of others: mirror (of another object), summary (of one object's) and
//! aggregate (the same one of many objects).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{ConditionStatus, Report, get, status_of};
use crate::reason::common::NO_REASON_REPORTED;
pub use crate::v1beta2::ConditionPolarity as Polarity;

/// What a condition means for the one that is made from it, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Something is wrong.
    Issue,
    /// It is not known whether something is wrong.
    Unknown,
    /// Nothing is wrong.
    Info,
}

impl Class {
    /// The class of a status, given which status is the good one.
    pub fn of(status: ConditionStatus, polarity: Polarity) -> Self {
        match (status, polarity) {
            (ConditionStatus::Unknown, _) => Self::Unknown,
            (ConditionStatus::True, Polarity::Positive)
            | (ConditionStatus::False, Polarity::Negative) => Self::Info,
            (ConditionStatus::False, Polarity::Positive)
            | (ConditionStatus::True, Polarity::Negative) => Self::Issue,
        }
    }

    /// The status that a condition of a polarity gets for this class.
    pub fn status(self, polarity: Polarity) -> ConditionStatus {
        match (self, polarity) {
            (Self::Unknown, _) => ConditionStatus::Unknown,
            (Self::Info, Polarity::Positive) | (Self::Issue, Polarity::Negative) => {
                ConditionStatus::True
            }
            (Self::Issue, Polarity::Positive) | (Self::Info, Polarity::Negative) => {
                ConditionStatus::False
            }
        }
    }
}

/// The reasons of a combined condition, one for each status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reasons<'a> {
    /// Reason when it is True.
    pub on_true: &'a str,
    /// Reason when it is False.
    pub on_false: &'a str,
    /// Reason when it is Unknown.
    pub on_unknown: &'a str,
}

impl<'a> Reasons<'a> {
    /// The reason for a status.
    pub fn of(&self, status: ConditionStatus) -> &'a str {
        match status {
            ConditionStatus::True => self.on_true,
            ConditionStatus::False => self.on_false,
            ConditionStatus::Unknown => self.on_unknown,
        }
    }
}

/// What stands in for a source condition that is not reported.
#[derive(Clone, Copy, Debug)]
pub struct Fallback<'a> {
    /// What the object's initialization says.
    pub done: bool,
    /// Reason when it is done, such as `Ready`; also replaces a missing reason of a True source.
    pub reason_when_done: &'a str,
    /// Reason while it is not done, such as `NotReady`.
    pub reason_until_done: &'a str,
    /// Message while it is not done.
    pub message_until_done: &'a str,
}

/// A condition of another object under a name of our own: status, reason, message and transition time
/// are those of the source.
pub fn mirror(target: &str, source: Option<&Condition>, fallback: &Fallback<'_>) -> Report {
    let Some(source) = source else {
        return if fallback.done {
            Report::yes(target, fallback.reason_when_done)
        } else {
            Report::no(target, fallback.reason_until_done).with_message(fallback.message_until_done)
        };
    };
    let status = status_of(source);
    let unnamed = source.reason.is_empty() || source.reason == NO_REASON_REPORTED;
    let reason = match (unnamed, status) {
        (true, ConditionStatus::True) => fallback.reason_when_done,
        (true, _) => NO_REASON_REPORTED,
        (false, _) => &source.reason,
    };
    let time = source.last_transition_time.0;
    Report {
        transition: (time.as_second() > 0).then_some(time),
        ..Report::new(target, status, reason).with_message(source.message.clone())
    }
}

/// One condition that a summary looks at.
#[derive(Clone, Debug)]
pub struct Part {
    /// Type of the condition.
    pub type_: String,
    /// What it means; `None` leaves it out.
    pub class: Option<Class>,
    /// What is said about it; may be empty.
    pub message: String,
}

impl Part {
    /// A condition as it is found in a list. One that is missing is Unknown.
    pub fn of(conditions: &[Condition], type_: &str, polarity: Polarity) -> Self {
        match get(conditions, type_) {
            Some(condition) => {
                let class = Class::of(status_of(condition), polarity);
                let message = match (condition.message.is_empty(), class) {
                    (true, Class::Issue | Class::Unknown) => condition.reason.clone(),
                    _ => condition.message.clone(),
                };
                Self {
                    type_: type_.to_owned(),
                    class: Some(class),
                    message,
                }
            }
            None => Self {
                type_: type_.to_owned(),
                class: Some(Class::Unknown),
                message: "Condition not yet reported".to_owned(),
            },
        }
    }

    /// Like [`Part::of`], but a condition that is missing is left out.
    pub fn if_reported(conditions: &[Condition], type_: &str, polarity: Polarity) -> Self {
        let mut part = Self::of(conditions, type_, polarity);
        if get(conditions, type_).is_none() {
            part.class = None;
        }
        part
    }

    /// The same condition counted as nothing being wrong.
    #[must_use]
    pub fn as_info(mut self) -> Self {
        self.class = self.class.map(|_| Class::Info);
        self
    }

    /// The same condition with another message.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }
}

/// One condition that says how an object's listed conditions are, in the order of the list: False if
/// there is an issue, else Unknown if anything is unknown, else True.
///
/// Issues and unknowns are listed one per line; what else the conditions say only when all is well.
pub fn summary(target: &str, parts: &[Part], reasons: &Reasons<'_>) -> Report {
    let class = parts
        .iter()
        .filter_map(|part| part.class)
        .min()
        .unwrap_or(Class::Info);
    let lines: Vec<String> = parts
        .iter()
        .filter(|part| match part.class {
            Some(Class::Issue | Class::Unknown) => true,
            Some(Class::Info) => class == Class::Info && !part.message.is_empty(),
            None => false,
        })
        .map(|part| bullet(&part.type_, &part.message))
        .collect();
    let status = class.status(Polarity::Positive);
    Report::new(target, status, reasons.of(status)).with_message(lines.join("\n"))
}

/// `* head: text`, with a text of several lines, or a list, on lines of its own, indented by two.
fn bullet(head: &str, text: &str) -> String {
    if !text.contains('\n') && !text.starts_with("* ") {
        return format!("* {head}: {text}");
    }
    let mut bullet = format!("* {head}:");
    for line in text.lines() {
        bullet.push_str("\n  ");
        bullet.push_str(line);
    }
    bullet
}

/// One object that an aggregate looks at.
#[derive(Clone, Debug)]
pub struct Source<'a> {
    /// Kind of the object.
    pub kind: &'a str,
    /// Name of the object.
    pub name: &'a str,
    /// Whether it is a control-plane Machine; these are listed first.
    pub is_control_plane: bool,
    /// The condition; `None` while it is not reported.
    pub condition: Option<Condition>,
}

/// How many groups of objects an aggregate's message lists; the rest is only counted.
const GROUPS_MAX: usize = 3;

/// How many objects of a group are named.
const NAMES_MAX: usize = 3;

/// Objects of one kind about which the same is said.
struct Group<'a> {
    class: Class,
    kind: &'a str,
    message: String,
    names: Vec<&'a str>,
    has_control_plane: bool,
}

/// One condition that says how the same condition of many objects is.
///
/// `polarity` is that of the sources and of the target. Objects about which the same is said are one
/// line; at most three lines are written, others are only counted.
pub fn aggregate(
    target: &str,
    source_type: &str,
    sources: &[Source<'_>],
    polarity: Polarity,
    reasons: &Reasons<'_>,
) -> Report {
    let mut groups: BTreeMap<(Class, &str, String), Group<'_>> = BTreeMap::new();
    let mut worst = Class::Info;
    for source in sources {
        let (class, message) = said(source, source_type, polarity);
        worst = worst.min(class);
        let group = groups
            .entry((class, source.kind, message.clone()))
            .or_insert_with(|| Group {
                class,
                kind: source.kind,
                message,
                names: Vec::new(),
                has_control_plane: false,
            });
        group.names.push(source.name);
        group.has_control_plane |= source.is_control_plane;
    }
    let mut groups: Vec<Group<'_>> = groups
        .into_values()
        .filter(|group| {
            group.class != Class::Info || (worst == Class::Info && !group.message.is_empty())
        })
        .collect();
    for group in &mut groups {
        group.names.sort_unstable();
    }
    groups.sort_by(|a, b| {
        (
            !a.has_control_plane,
            a.class,
            std::cmp::Reverse(a.names.len()),
            &a.names,
        )
            .cmp(&(
                !b.has_control_plane,
                b.class,
                std::cmp::Reverse(b.names.len()),
                &b.names,
            ))
    });
    let status = worst.status(polarity);
    Report::new(target, status, reasons.of(status)).with_message(lines(&groups).join("\n"))
}

/// The class of a source and what is said about it.
fn said(source: &Source<'_>, source_type: &str, polarity: Polarity) -> (Class, String) {
    let Some(condition) = &source.condition else {
        return (
            Class::Unknown,
            format!("Condition {source_type} not yet reported"),
        );
    };
    let class = Class::of(status_of(condition), polarity);
    let message = match (condition.message.is_empty(), class) {
        (true, Class::Issue | Class::Unknown) => condition.reason.clone(),
        _ => condition.message.clone(),
    };
    (class, message)
}

/// The lines of an aggregate's message.
fn lines(groups: &[Group<'_>]) -> Vec<String> {
    let mut lines: Vec<String> = groups
        .iter()
        .take(GROUPS_MAX)
        .map(|group| {
            bullet(
                &format!(
                    "{} {}",
                    plural(group.kind, group.names.len()),
                    names(&group.names)
                ),
                &group.message,
            )
        })
        .collect();
    let mut rest: BTreeMap<(Class, &str), usize> = BTreeMap::new();
    for group in groups.iter().skip(GROUPS_MAX) {
        let count = rest.entry((group.class, group.kind)).or_default();
        *count = count.saturating_add(group.names.len());
    }
    for ((class, kind), count) in rest {
        let what = match class {
            Class::Issue => "with other issues",
            Class::Unknown => "with status unknown",
            Class::Info => "with additional info",
        };
        lines.push(format!("And {count} {} {what}", plural(kind, count)));
    }
    lines
}

/// The kind's name for a number of objects.
fn plural(kind: &str, count: usize) -> String {
    if count == 1 {
        kind.to_owned()
    } else {
        format!("{kind}s")
    }
}

/// The first names, and how many more there are.
pub fn names(names: &[&str]) -> String {
    let more = names.len().saturating_sub(NAMES_MAX);
    let mut text = names
        .iter()
        .take(NAMES_MAX)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    if more > 0 {
        text.push_str(&format!(", ... ({more} more)"));
    }
    text
}

#[cfg(test)]
mod tests;
