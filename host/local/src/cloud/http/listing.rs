//! Finding and listing resources.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::cloud::answer::Refusal;
use crate::cloud::records::Record;

pub(super) fn find<T: Record>(records: &BTreeMap<String, T>, id: &str) -> Result<T, Refusal> {
    records
        .get(id)
        .cloned()
        .ok_or_else(|| Refusal::not_found(T::KIND, id))
}

pub(super) fn list<'a, T: Record + 'a>(
    records: impl Iterator<Item = &'a T>,
    query: &[(String, String)],
) -> Result<Value, Refusal> {
    let mut limit = 100_usize;
    let mut after = 0_u64;
    let mut name = None;
    let mut tags = Vec::new();
    for (key, value) in query {
        match key.as_str() {
            "limit" => {
                limit = value
                    .parse()
                    .ok()
                    .filter(|limit| (1..=500).contains(limit))
                    .ok_or_else(|| Refusal::invalid("limit: must be 1 to 500"))?;
            }
            "pageToken" => {
                after = value
                    .parse()
                    .map_err(|_| Refusal::invalid("pageToken: is not one of this cloud's"))?
            }
            "name" => name = Some(value.as_str()),
            "tag" => tags.push(
                value
                    .split_once('=')
                    .ok_or_else(|| Refusal::invalid("tag: must be key=value"))?,
            ),
            other => {
                return Err(Refusal::invalid(format!(
                    "{other}: there is no such query parameter"
                )));
            }
        }
    }
    let mut found: Vec<&T> = records
        .filter(|record| {
            let head = record.head();
            head.serial > after
                && name.is_none_or(|name| head.name == name)
                && tags
                    .iter()
                    .all(|(key, value)| head.tags.get(*key).is_some_and(|found| found == value))
        })
        .collect();
    found.sort_by_key(|record| record.head().serial);
    let has_more = found.len() > limit;
    found.truncate(limit);
    let items: Vec<Value> = found.iter().map(|record| record.view()).collect();
    match found.last().filter(|_| has_more) {
        Some(last) => Ok(json!({"items": items, "nextPageToken": last.head().serial.to_string()})),
        None => Ok(json!({"items": items})),
    }
}
