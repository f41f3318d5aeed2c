//! The arithmetic that most strategies share: move replicas from some sets to another, never more than surge allows, never below
//! the availability floor. Contract: upstream `core/reconcilers/machinedeployment`, rollout planner for `RollingUpdate`.

use super::{Answer, Facts, Machine, MachineSet, Target};

/// A set and the replicas that it should have.
struct Intent<'a> {
    set: &'a MachineSet,
    replicas: u32,
}

impl Intent<'_> {
    /// Machines that will be available after all deletions that the intent asks for; a set deletes unavailable machines first,
    /// because the answer names them.
    fn available(&self) -> u32 {
        self.set.available_replicas.min(self.replicas)
    }

    fn changes(&self) -> bool {
        self.replicas != self.set.desired_replicas
    }
}

/// Which machines may go.
type Candidates<'a> = Box<dyn Fn(&Machine) -> bool + 'a>;

/// One move of a rolling update. All of it is worked out anew from the facts at each call.
///
/// ```
/// # use capstan_sdk::upgrade_strategy::{Answer, Facts, Rolling};
/// // Two machines of the new template, and no more for now.
/// fn two_at_first(facts: &Facts<()>) -> Answer {
///     Rolling::new(facts).at_most(2).answer()
/// }
/// ```
pub struct Rolling<'a> {
    replicas: u32,
    max_surge: u32,
    max_unavailable: u32,
    sets: &'a [MachineSet],
    to: Option<&'a MachineSet>,
    at_most: u32,
    candidates: Option<Candidates<'a>>,
}

impl<'a> Rolling<'a> {
    /// From all old sets to the current one.
    pub fn new<S>(facts: &'a Facts<S>) -> Self {
        Self {
            replicas: facts.replicas,
            max_surge: facts.max_surge,
            max_unavailable: facts.max_unavailable,
            sets: &facts.machine_sets,
            to: facts.current(),
            at_most: facts.replicas,
            candidates: None,
        }
    }

    /// To this set instead of the current one: the way back.
    #[must_use]
    pub fn towards(mut self, set: &'a MachineSet) -> Self {
        self.to = Some(set);
        self
    }

    /// The set gets no more than so many; the others keep the rest.
    #[must_use]
    pub fn at_most(mut self, replicas: u32) -> Self {
        self.at_most = replicas.min(self.replicas);
        self
    }

    /// Of the other sets, only machines of which this is true may go; the answer names exactly those that do.
    #[must_use]
    pub fn only(mut self, is_candidate: impl Fn(&Machine) -> bool + 'a) -> Self {
        self.candidates = Some(Box::new(is_candidate));
        self
    }

    /// What each set should have now. Every set has a target, so that a set that another strategy kept from making machines
    /// may make them again.
    #[must_use]
    pub fn answer(&self) -> Answer {
        let Some(to) = self.to else {
            return Answer::unchanged().message("the current MachineSet does not exist yet");
        };
        let mut new = Intent {
            set: to,
            replicas: to.desired_replicas,
        };
        // Oldest first.
        let others = self.sets.iter().rev().filter(|set| set.name != to.name);
        let mut old: Vec<Intent<'_>> = others
            .map(|set| Intent {
                set,
                replicas: set.desired_replicas,
            })
            .collect();
        self.grow(&mut new);
        self.shrink_others(&new, &mut old);
        let stuck = self.candidates.is_none() && self.break_deadlock(&new, &mut old);
        let mut answer = Answer::unchanged();
        for intent in std::iter::once(&new).chain(&old) {
            answer = answer.target(Target::new(&intent.set.name, intent.replicas));
            for machine in self.first(intent, intent.set.name == new.set.name) {
                answer = answer.delete_first(&machine.name);
            }
        }
        if stuck {
            answer =
                answer.message("an old machine that is not available makes room for a new one");
        }
        answer
    }

    /// The set takes what surge leaves free, or gives back what is too much.
    fn grow(&self, new: &mut Intent<'_>) {
        if new.replicas >= self.replicas {
            new.replicas = self.replicas;
            return;
        }
        let most = self.replicas.saturating_add(self.max_surge);
        let exist = sum(self
            .sets
            .iter()
            .map(|s| s.desired_replicas.max(s.actual_replicas)));
        let headroom = most.saturating_sub(exist);
        let missing = self.at_most.saturating_sub(new.replicas);
        new.replicas = new.replicas.saturating_add(headroom.min(missing));
    }

    /// The others give up what is above the availability floor, counting machines that are already going and new ones that are
    /// not available yet. Oldest first; unavailable replicas of all sets before any other.
    fn shrink_others(&self, new: &Intent<'_>, old: &mut [Intent<'_>]) {
        let floor = self.replicas.saturating_sub(self.max_unavailable);
        let desired = sum(self.sets.iter().map(|set| set.desired_replicas));
        let going = |i: &Intent<'_>| {
            i.set
                .actual_replicas
                .saturating_sub(i.set.desired_replicas.min(i.replicas))
        };
        let going = sum(old.iter().map(going)).saturating_add(going(new));
        let not_yet = new
            .set
            .desired_replicas
            .saturating_sub(new.set.available_replicas);
        let mut budget = desired
            .saturating_sub(going)
            .saturating_sub(floor)
            .saturating_sub(not_yet)
            .min(self.to_give(old));
        let available = sum(old.iter().map(Intent::available)).saturating_add(new.available());
        let mut spare = available.saturating_sub(floor);
        for intent in old.iter_mut() {
            let unavailable = intent
                .replicas
                .saturating_sub(intent.set.available_replicas);
            let most = unavailable.min(self.removable(intent, |machine| !machine.available));
            shrink(intent, most, &mut budget, &mut spare);
        }
        for intent in old.iter_mut() {
            let most = intent.replicas.min(self.removable(intent, |_| true));
            shrink(intent, most, &mut budget, &mut spare);
        }
    }

    /// How many replicas the others may give up at all: what is not theirs to keep.
    fn to_give(&self, old: &[Intent<'_>]) -> u32 {
        let keep = self.replicas.saturating_sub(self.at_most);
        sum(old.iter().map(|i| i.replicas)).saturating_sub(keep)
    }

    /// How many replicas a set may lose: without a restriction all, otherwise its candidates that stay so far, and what was
    /// never made.
    fn removable(&self, intent: &Intent<'_>, wanted: impl Fn(&Machine) -> bool) -> u32 {
        let Some(is_candidate) = &self.candidates else {
            return u32::MAX;
        };
        let machines = &intent.set.machines;
        let candidates = machines
            .iter()
            .filter(|m| !m.deleting && is_candidate(m) && wanted(m));
        let staying = count(machines.iter().filter(|m| !m.deleting));
        let gone = staying.saturating_sub(intent.replicas);
        let unmade = intent.replicas.saturating_sub(staying);
        count(candidates)
            .saturating_sub(gone)
            .saturating_add(unmade)
    }

    /// When nothing moves although old machines are left, an old machine that is not available blocks the roll-out: it goes.
    fn break_deadlock(&self, new: &Intent<'_>, old: &mut [Intent<'_>]) -> bool {
        let settled =
            |i: &Intent<'_>| !i.changes() && i.set.desired_replicas == i.set.actual_replicas;
        let new_works = settled(new) && new.set.available_replicas == new.set.desired_replicas;
        if !new_works || !old.iter().all(settled) || self.to_give(old) == 0 {
            return false;
        }
        let broken = |i: &&mut Intent<'_>| i.set.actual_replicas > i.set.available_replicas;
        let Some(intent) = old.iter_mut().find(broken) else {
            return false;
        };
        intent.replicas = intent.replicas.saturating_sub(1);
        true
    }

    /// Machines to name: those that are not available where a set shrinks, or exactly the candidates that go.
    fn first<'m>(&self, intent: &Intent<'m>, is_target: bool) -> Vec<&'m Machine> {
        let machines = &intent.set.machines;
        let staying = || machines.iter().filter(|machine| !machine.deleting);
        let Some(is_candidate) = self.candidates.as_ref().filter(|_| !is_target) else {
            if intent.replicas >= intent.set.actual_replicas {
                return Vec::new();
            }
            return staying().filter(|machine| !machine.available).collect();
        };
        let excess = count(staying()).saturating_sub(intent.replicas);
        let mut chosen: Vec<&Machine> = staying().filter(|machine| is_candidate(machine)).collect();
        chosen.sort_by_key(|machine| (machine.available, machine.name.as_str()));
        chosen.truncate(usize::try_from(excess).unwrap_or(usize::MAX));
        chosen
    }
}

/// Takes up to `most` replicas from a set, within the budget. Replicas without a machine always go; machines of a set that has
/// available ones only as far as the availability floor is not at risk.
fn shrink(intent: &mut Intent<'_>, most: u32, budget: &mut u32, spare: &mut u32) {
    let wanted = most.min(intent.replicas).min(*budget);
    let unmade = intent
        .replicas
        .saturating_sub(intent.set.actual_replicas)
        .min(wanted);
    let mut made = wanted.saturating_sub(unmade);
    if intent.available() > 0 {
        made = made.min(*spare);
        *spare = spare.saturating_sub(made);
    }
    let taken = unmade.saturating_add(made);
    intent.replicas = intent.replicas.saturating_sub(taken);
    *budget = budget.saturating_sub(taken);
}

fn sum(numbers: impl Iterator<Item = u32>) -> u32 {
    numbers.fold(0, u32::saturating_add)
}

fn count<'a>(machines: impl Iterator<Item = &'a Machine>) -> u32 {
    u32::try_from(machines.count()).unwrap_or(u32::MAX)
}
