//! Several effects of one step at the same time.

use capstan_core::plan::Failure;
use futures::StreamExt;
use futures::future::BoxFuture;

/// Requests of one step that are under way at the same time: enough to hide the server's latency, few enough for many objects
/// to be worked on beside each other.
const PARALLEL: usize = 10;

/// Waits for effects, several at a time; tries all, and answers the first failure.
pub(crate) async fn all(effects: Vec<BoxFuture<'_, Result<(), Failure>>>) -> Result<(), Failure> {
    let effects = futures::stream::iter(effects).buffer_unordered(PARALLEL);
    let results: Vec<Result<(), Failure>> = effects.collect().await;
    results.into_iter().collect()
}
