//! The `state` capability: notes of a plugin about the object of its call, durable before an effect.

use std::sync::Arc;

use capstan_core::call::{Mode, State};

use super::{Capabilities, StateStore, on_host};
use crate::limit::STATE_PUTS_MAX;

/// What one call knows of its object's state.
pub(crate) struct ObjectState {
    store: Option<Arc<dyn StateStore>>,
    /// What this call has put.
    written: Option<State>,
    puts: u32,
    bytes_max: usize,
}

impl ObjectState {
    pub(crate) fn new(store: Option<Arc<dyn StateStore>>, bytes_max: usize) -> Self {
        Self {
            store,
            written: None,
            puts: 0,
            bytes_max,
        }
    }

    /// Whether a state is small enough, put now or with the answer.
    pub(crate) fn fits(&self, state: &[u8]) -> Result<(), String> {
        let (max, bytes) = (self.bytes_max, state.len());
        if bytes <= max {
            return Ok(());
        }
        Err(format!("a state has at most {max} bytes, not {bytes}"))
    }
}

/// Why nothing was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StateRefusal {
    Planned,
    Limit(String),
    Failed(String),
}

impl Capabilities {
    /// What this call has put, or else what is kept. What cannot be read ends the call: a plugin must not take it for nothing.
    pub(crate) async fn state_get(&mut self) -> Result<Option<State>, String> {
        if self.state.written.is_some() {
            return Ok(self.state.written.clone());
        }
        let Some(store) = self.state.store.clone() else {
            return Ok(None);
        };
        on_host(&self.host, async move { store.get().await }).await?
    }

    /// Keeps the value now.
    pub(crate) async fn state_put(&mut self, value: State) -> Result<(), StateRefusal> {
        self.state.fits(&value).map_err(StateRefusal::Limit)?;
        if self.state.puts >= STATE_PUTS_MAX {
            return Err(StateRefusal::Limit(format!(
                "a call puts at most {STATE_PUTS_MAX} times"
            )));
        }
        self.state.puts = self.state.puts.saturating_add(1);
        if self.mode == Mode::Plan {
            self.planned
                .add("state", format!("put {} bytes", value.len()));
            return Err(StateRefusal::Planned);
        }
        let Some(store) = self.state.store.clone() else {
            return Err(StateRefusal::Failed(
                "this call has no object to keep state for".to_owned(),
            ));
        };
        let kept = value.clone();
        on_host(&self.host, async move { store.put(kept).await })
            .await
            .and_then(|stored| stored)
            .map_err(StateRefusal::Failed)?;
        self.state.written = Some(value);
        Ok(())
    }
}
