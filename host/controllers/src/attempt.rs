//! How often something was tried without success: what plugins are told as `attempt`.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::object::Locator;

tokio::task_local! {
    static NUMBER: u32;
}

/// Does something as the try with this number.
pub(crate) async fn numbered<F: Future>(number: u32, work: F) -> F::Output {
    NUMBER.scope(number, work).await
}

/// The number of the try that this is; the first where nobody counts.
pub(crate) fn number() -> u32 {
    NUMBER.try_with(|number| *number).unwrap_or(1)
}

/// Tries of a controller, by object. Only those without success since the object changed are remembered.
#[derive(Default)]
pub(crate) struct Attempts(Mutex<HashMap<Locator, Tries>>);

#[derive(Clone, Copy)]
struct Tries {
    generation: i64,
    count: u32,
}

impl Attempts {
    /// One more try for an object of this generation; its number.
    pub(crate) fn begin(&self, locator: &Locator, generation: i64) -> u32 {
        let mut all = self.lock();
        let tries = all.entry(locator.clone()).or_insert(Tries {
            generation,
            count: 0,
        });
        if tries.generation != generation {
            *tries = Tries {
                generation,
                count: 0,
            };
        }
        tries.count = tries.count.saturating_add(1);
        tries.count
    }

    /// It was a success, or there is nothing more to try.
    pub(crate) fn over(&self, locator: &Locator) {
        self.lock().remove(locator);
    }

    /// It was none: a race was lost before anything could succeed or fail.
    pub(crate) fn was_none(&self, locator: &Locator) {
        if let Some(tries) = self.lock().get_mut(locator) {
            tries.count = tries.count.saturating_sub(1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Locator, Tries>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use capstan_api::name::ObjectKey;

    use super::*;
    use crate::kinds;

    #[tokio::test]
    async fn tries_are_counted_until_one_succeeds_or_the_object_changes() {
        let (attempts, key) = (Attempts::default(), ObjectKey::new("ns", "m"));
        let machine = Locator::new(&kinds::MACHINE, &key);
        let begin = |generation| attempts.begin(&machine, generation);
        assert_eq!([begin(1), begin(1), begin(1)], [1, 2, 3]);
        attempts.was_none(&machine);
        assert_eq!(begin(1), 3);
        assert_eq!([begin(2), begin(2)], [1, 2], "another object of its own");
        attempts.over(&machine);
        assert_eq!(begin(2), 1);
        attempts.over(&machine);
        assert!(attempts.lock().is_empty());
        assert_eq!(numbered(7, async { number() }).await, 7);
        assert_eq!(number(), 1);
    }
}
