//! How much of an answer is read, and how it becomes JSON.

use serde_json::Value;

use super::ApiError;

/// One answer of the management cluster's API server, which is trusted: a page of 500 objects of 512 KiB.
const MANAGEMENT_BYTES_MAX: usize = 256 << 20;

/// One answer of a workload cluster's API server, which is not: a page of 500 Pods or Nodes of 32 KiB is half of it.
const WORKLOAD_BYTES_MAX: usize = 32 << 20;

/// Values in a page of a workload cluster's API server, managed fields included: one of 500 Nodes of 1000 is half of it. A value costs from 32 bytes
/// to 640, for an object of one field, so that a text of such objects becomes eighty times as large when it is read.
const WORKLOAD_PAGE_VALUES_MAX: usize = 1_000_000;

/// Values in one of its objects, which is an answer or an event of a watch: a Node has a thousand, the largest CustomResourceDefinitions some ten
/// thousand.
const WORKLOAD_OBJECT_VALUES_MAX: usize = 100_000;

/// What is read of a server.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of one answer.
    pub(super) answer_bytes: usize,
    /// Values in a page of a list.
    pub(super) page_values: usize,
    /// Values in one object.
    pub(super) object_values: usize,
}

/// Of one that is trusted, only the size counts.
pub(super) const MANAGEMENT: Limits = Limits {
    answer_bytes: MANAGEMENT_BYTES_MAX,
    page_values: usize::MAX,
    object_values: usize::MAX,
};

/// Of one that is not, every text becomes only so large in memory.
pub(super) const WORKLOAD: Limits = Limits {
    answer_bytes: WORKLOAD_BYTES_MAX,
    page_values: WORKLOAD_PAGE_VALUES_MAX,
    object_values: WORKLOAD_OBJECT_VALUES_MAX,
};

/// JSON that has at most so many values.
pub(super) fn parse(text: &[u8], values_max: usize) -> Result<Value, ApiError> {
    // Counting costs a server that is trusted its time for nothing.
    if values_max < text.len() && capstan_engine::json_values(text) > values_max {
        return Err(ApiError::Unavailable(format!(
            "the API server's answer has more than {values_max} values"
        )));
    }
    serde_json::from_slice(text).map_err(not_json)
}

fn not_json(error: serde_json::Error) -> ApiError {
    ApiError::Unavailable(format!("the API server's answer is not JSON: {error}"))
}
