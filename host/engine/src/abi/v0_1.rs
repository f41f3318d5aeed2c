//! WIT v0.1: translates its records to and from the host's own, checking every answer on the way. Nothing else knows the records.

pub(crate) mod bootstrap;
pub(crate) mod capability;
pub(crate) mod check;
pub(crate) mod control_plane;
#[cfg(test)]
pub(crate) mod fuzz;
pub(crate) mod hook;
pub(crate) mod infrastructure;
pub(crate) mod manifest;
pub(crate) mod material;
pub(crate) mod raw;
pub(crate) mod strategy;
pub(crate) mod types;

use std::collections::BTreeSet;

use capstan_core::call::manifest::PluginKind;
use futures::future::BoxFuture;
use wasmtime::component::{HasSelf, InstancePre, Linker};

use crate::call::{CallState, Stop};
use crate::error::{CallError, LoadError};
use crate::limit::TEXT_BYTES_MAX;
use crate::text::chain_of;

/// What bindgen makes of `wit/v0.1`: one world with every interface, so that all share their types.
pub(crate) mod wit {
    wasmtime::component::bindgen!({
        path: "../../wit/v0.1",
        inline: "
            package capstan:engine;
            world v01 {
                include capstan:plugin/capabilities@0.1.0;
                export capstan:plugin/manifest@0.1.0;
                export capstan:plugin/infrastructure@0.1.0;
                export capstan:plugin/bootstrap@0.1.0;
                export capstan:plugin/control-plane@0.1.0;
                export capstan:plugin/pre-delete-hook@0.1.0;
                export capstan:plugin/upgrade-strategy@0.1.0;
            }
        ",
        world: "capstan:engine/v01",
        imports: { default: async | trappable },
        exports: { default: async },
        additional_derives: [serde::Serialize, serde::Deserialize],
    });
}

pub(crate) use wit::capstan::plugin as imports;
pub(crate) use wit::exports::capstan::plugin as exports;

/// What a function's body answers in the end.
pub(crate) type Outcome<'a, T> = BoxFuture<'a, Result<T, Stop>>;

/// Calls an exported function, with its parameters and what it returns on the call's tape.
macro_rules! ask {
    ($store:ident, $guest:ident.$call:ident($($name:literal: $value:ident),*)) => {{
        $($store.data_mut().capabilities.tape.heard($name, &$value);)*
        let answer = $guest
            .$call(&mut *$store $(, &$value)*)
            .await
            .map_err(Stop::Guest)?;
        let limit = $store.data().capabilities.answer_bytes_max;
        $crate::abi::v0_1::check::size(&answer, limit)?;
        if $store.data().capabilities.shows_secrets(&answer) {
            let rule = "it shows bytes of a Secret that the call has read".to_owned();
            return Err(Stop::from(crate::error::BadAnswer(rule)));
        }
        $store.data_mut().capabilities.tape.answered(&answer);
        answer
    }};
}
use ask;

/// What a guest gets of an input. The input itself is gone before the guest runs: as values it takes four times as much as its text, for as
/// long as a call is in flight.
fn lowered<I, L>(input: I, lower: impl FnOnce(&I) -> Result<L, CallError>) -> Result<L, CallError> {
    let lowered = lower(&input);
    drop(input);
    lowered
}

/// The plugin interfaces that one component exports, found once.
#[derive(Clone)]
pub(crate) struct Roles {
    manifest: exports::manifest::GuestIndices,
    infrastructure: Option<exports::infrastructure::GuestIndices>,
    bootstrap: Option<exports::bootstrap::GuestIndices>,
    control_plane: Option<exports::control_plane::GuestIndices>,
    hook: Option<exports::pre_delete_hook::GuestIndices>,
    strategy: Option<exports::upgrade_strategy::GuestIndices>,
}

/// The exports that a kind was found to have, or the error for calling what was not.
fn role<'a, T>(found: Option<&'a T>, interface: &'static str) -> Result<&'a T, CallError> {
    found.ok_or(CallError::NotOffered { interface })
}

impl Roles {
    /// Looks up the exports of these kinds. A name with other types is an error, never an absent kind.
    pub(crate) fn of(
        pre: &InstancePre<CallState>,
        kinds: &BTreeSet<PluginKind>,
    ) -> Result<Self, LoadError> {
        fn find<T>(
            kinds: &BTreeSet<PluginKind>,
            kind: PluginKind,
            look: impl FnOnce() -> wasmtime::Result<T>,
        ) -> Result<Option<T>, LoadError> {
            if !kinds.contains(&kind) {
                return Ok(None);
            }
            look().map(Some).map_err(|e| mismatch(kind.as_str(), &e))
        }
        Ok(Self {
            manifest: exports::manifest::GuestIndices::new(pre)
                .map_err(|e| mismatch("manifest", &e))?,
            infrastructure: find(kinds, PluginKind::Infrastructure, || {
                exports::infrastructure::GuestIndices::new(pre)
            })?,
            bootstrap: find(kinds, PluginKind::Bootstrap, || {
                exports::bootstrap::GuestIndices::new(pre)
            })?,
            control_plane: find(kinds, PluginKind::ControlPlane, || {
                exports::control_plane::GuestIndices::new(pre)
            })?,
            hook: find(kinds, PluginKind::PreDeleteHook, || {
                exports::pre_delete_hook::GuestIndices::new(pre)
            })?,
            strategy: find(kinds, PluginKind::UpgradeStrategy, || {
                exports::upgrade_strategy::GuestIndices::new(pre)
            })?,
        })
    }
}

fn mismatch(interface: &str, error: &wasmtime::Error) -> LoadError {
    LoadError::InterfaceMismatch {
        interface: interface.to_owned(),
        why: chain_of(error, TEXT_BYTES_MAX),
    }
}

/// Offers the capabilities. The interfaces of types only have nothing to offer and need no entry.
pub(crate) fn link(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    type Core = HasSelf<crate::capability::Capabilities>;
    imports::log::add_to_linker::<_, Core>(linker, |state| &mut state.capabilities)?;
    imports::http::add_to_linker::<_, Core>(linker, |state| &mut state.capabilities)?;
    imports::state::add_to_linker::<_, Core>(linker, |state| &mut state.capabilities)?;
    imports::secret::add_to_linker::<_, Core>(linker, |state| &mut state.capabilities)?;
    imports::workload::add_to_linker::<_, Core>(linker, |state| &mut state.capabilities)?;
    imports::files::add_to_linker::<_, Core>(linker, |state| &mut state.capabilities)?;
    imports::event::add_to_linker::<_, Core>(linker, |state| &mut state.capabilities)
}
