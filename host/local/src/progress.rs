//! How long work tells whoever started it what it is doing: one line at a time, through a callback.

use std::fmt;
use std::sync::Arc;

type Receive = dyn Fn(&str) + Send + Sync;

/// Receives one finished line of progress at a time. Silent unless made with [`Progress::new`].
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<Receive>>);

impl Progress {
    /// Reports every line to `receive`, which must be quick and must not block.
    pub fn new(receive: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(receive)))
    }

    /// Says one line.
    pub fn say(&self, line: impl AsRef<str>) {
        if let Some(receive) = &self.0 {
            receive(line.as_ref());
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.0.is_some() {
            "callback"
        } else {
            "silent"
        };
        formatter.debug_tuple("Progress").field(&kind).finish()
    }
}
