//! How much of a list is taken: a server that is not trusted may page without end, and small texts make large objects.

use serde_json::Value;

use super::{ApiError, Page, Resource};

/// All objects that a list of a workload cluster brings, and all Nodes that are kept of it, as they are in memory: 10,000 Nodes of 200 values, or
/// as many volumes. Of a cluster that has more, the host says so and keeps nothing.
pub const WORKLOAD_LIST_BYTES_MAX: usize = 256 << 20;

/// What a page counts at least, so that empty ones come to an end: 4096 of them.
const PAGE_BYTES_MIN: usize = 64 << 10;

/// A value, and what an entry of an object costs beside its name: nodes of a map have room for eleven entries, and are half full.
const VALUE_BYTES: usize = 32;
const ENTRY_BYTES: usize = 128;
/// The first node of a map, however few entries it has.
const MAP_BYTES: usize = 640;

/// What may still come of one list.
#[derive(Debug)]
pub(crate) struct Room {
    /// As they are in memory; `None` for a server that is trusted.
    bytes_max: Option<usize>,
    bytes: usize,
    next: Option<String>,
}

impl Room {
    /// For a list of so much.
    pub(crate) fn new(bytes_max: Option<usize>) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            next: None,
        }
    }

    /// Takes a page in.
    ///
    /// # Errors
    /// When the list has become too large, or would begin again where it was.
    pub(crate) fn take(&mut self, resource: &Resource, page: &Page) -> Result<(), ApiError> {
        if page.next.is_some() && page.next == self.next {
            let message = format!(
                "the list of {} goes on where it has been: the API server repeats its continue token",
                resource.plural
            );
            return Err(ApiError::Unavailable(message));
        }
        self.next.clone_from(&page.next);
        let Some(bytes_max) = self.bytes_max else {
            return Ok(());
        };
        let bytes = page.items.iter().map(memory_bytes);
        let bytes = bytes.fold(0, usize::saturating_add).max(PAGE_BYTES_MIN);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > bytes_max {
            return Err(too_large(resource, bytes_max));
        }
        Ok(())
    }
}

/// A cluster has more of a kind than the host takes.
pub(crate) fn too_large(resource: &Resource, bytes_max: usize) -> ApiError {
    ApiError::TooLarge(format!(
        "the {} of the cluster are more than the host takes of one: {} MiB in memory",
        resource.plural,
        bytes_max >> 20
    ))
}

/// What a value costs in memory, about.
pub(crate) fn memory_bytes(value: &Value) -> usize {
    let inner = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(items) => items
            .iter()
            .map(memory_bytes)
            .fold(0, usize::saturating_add),
        Value::Object(fields) => {
            let entries = fields.iter().map(|(name, value)| {
                let entry = ENTRY_BYTES.saturating_add(name.len());
                entry.saturating_add(memory_bytes(value))
            });
            let entries = entries.fold(0, usize::saturating_add);
            if fields.is_empty() {
                0
            } else {
                entries.max(MAP_BYTES)
            }
        }
    };
    VALUE_BYTES.saturating_add(inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds;

    fn page(next: Option<&str>, items: Vec<Value>) -> Page {
        Page {
            items,
            resource_version: "1".to_owned(),
            next: next.map(str::to_owned),
        }
    }

    #[test]
    fn a_list_without_end_comes_to_an_end() {
        let mut room = Room::new(Some(1 << 20));
        let large = || vec![json!({"x": "y".repeat(300 << 10)})];
        let mut take = |token: &str| room.take(&kinds::NODE, &page(Some(token), large()));
        for token in ["a", "b", "c"] {
            assert_eq!(take(token), Ok(()));
        }
        assert!(matches!(take("d"), Err(ApiError::TooLarge(why)) if why.contains("nodes")));
        // Pages with nothing on them, too.
        let mut room = Room::new(Some(1 << 20));
        let empty = |n: usize| page(Some(&n.to_string()), Vec::new());
        let taken = (0..100).take_while(|n| room.take(&kinds::NODE, &empty(*n)).is_ok());
        assert_eq!(taken.count(), 16);
        // Also a server that is trusted does not begin again.
        let mut room = Room::new(None);
        assert_eq!(room.take(&kinds::NODE, &page(Some("a"), large())), Ok(()));
        assert!(room.take(&kinds::NODE, &page(Some("a"), large())).is_err());
    }

    #[test]
    fn small_texts_that_make_large_objects_are_counted_as_they_are_in_memory() {
        let small = json!(vec![json!({"a": 0}); 1000]);
        assert!(memory_bytes(&small) > 80 * small.to_string().len());
        let node = json!({"metadata": {"name": "n", "labels": {"a": "b", "c": "d"}}});
        assert!(memory_bytes(&node) < 4096);
    }
}
