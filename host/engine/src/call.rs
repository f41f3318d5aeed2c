//! One call: a fresh instance on the guests' threads, within its limits, with an answer that was checked or an error that says
//! what happened.

use std::str::Utf8Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use capstan_core::call::strategy::Facts;
use capstan_core::call::{Context, Mode};
use futures::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{JoinError, JoinHandle};
use tracing::{Instrument as _, Span};
use wasmtime::component::{Instance, ResourceTable};
use wasmtime::{Store, Trap, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::capability::ambient::{Stderr, world};
use crate::capability::event::{CallEvents, EventSink};
use crate::capability::http::CallHttp;
use crate::capability::log::LogBudget;
use crate::capability::secret::{CallSecrets, SecretSource};
use crate::capability::state::ObjectState;
use crate::capability::workload::{CallWorkload, WorkloadApi};
use crate::capability::{
    Capabilities, CredentialSource, Identity, NoCredentials, PlannedEffects, StateStore,
};
use crate::error::{CallError, HostTrouble};
use crate::grant::Grants;
use crate::limit::{
    HANDLES_MAX, HOSTCALL_FUEL_BYTES, Limits, MESSAGE_BYTES_MAX, QUEUE_WAIT, TEXT_BYTES_MAX, TICK,
};
use crate::load::Prepared;
use crate::memory::MemoryLimiter;
use crate::secret::SecretTable;
use crate::share::{Fair, Place, step_aside};
use crate::stats::{CallOutcome, Function};
use crate::tape::{About, Exchange, RecordSink, Tape};
use crate::text::{chain_of, clipped, escaped, one_line};
use crate::trace::{self, CallId};

/// Everything about a call that is not its input.
#[derive(Clone)]
pub struct CallEnv {
    /// Name of the Plugin object, for logs.
    pub plugin: String,
    /// Kind, namespace and name of the object that the call is about, for logs.
    pub object: String,
    /// What the plugin may do.
    pub grants: Arc<Grants>,
    /// What the call may use; the engine's ceilings apply on top.
    pub limits: Limits,
    /// Secrets that the input names by handle.
    pub secrets: SecretTable,
    /// Where `state` is kept; none for calls without an object of their own.
    pub state: Option<Arc<dyn StateStore>>,
    /// Where granted credentials are found.
    pub credentials: Arc<dyn CredentialSource>,
    /// Namespace of the object that the call is about: whose Secrets are the call's own.
    pub namespace: String,
    /// Where granted Secrets are read; none for calls without an object of their own.
    pub secret_source: Option<Arc<dyn SecretSource>>,
    /// The workload cluster that the object belongs to, if to any.
    pub workload: Option<Arc<dyn WorkloadApi>>,
    /// Where events about the object go.
    pub events: Option<Arc<dyn EventSink>>,
    /// Receives what a call in plan mode would have done.
    pub planned: PlannedEffects,
    /// Takes a record of the call.
    pub recorder: Option<Arc<dyn RecordSink>>,
}

impl CallEnv {
    /// A call that may do nothing.
    #[must_use]
    pub fn new(plugin: impl Into<String>, object: impl Into<String>) -> Self {
        Self {
            plugin: plugin.into(),
            object: object.into(),
            grants: Arc::default(),
            limits: Limits::default(),
            secrets: SecretTable::new(),
            state: None,
            credentials: Arc::new(NoCredentials),
            namespace: String::new(),
            secret_source: None,
            workload: None,
            events: None,
            planned: PlannedEffects::default(),
            recorder: None,
        }
    }
}

/// What the engine itself needs to know of a call's input.
#[derive(Clone, Debug)]
pub(crate) struct CallFacts {
    pub(crate) now_ms: u64,
    pub(crate) deadline: Duration,
    pub(crate) mode: Mode,
    /// Decides the call's randomness, together with the time.
    pub(crate) seed: String,
    /// The call is one that was recorded.
    pub(crate) replay: Option<Replay>,
    /// Somebody looks at all of it: nothing but secrets is kept from them.
    pub(crate) tried: bool,
}

/// What a replay takes from the record.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    /// What the randomness was made of.
    pub(crate) seed: String,
    /// What the imports answered.
    pub(crate) imports: Vec<Exchange>,
}

impl CallFacts {
    /// What becomes of the call's imports.
    fn tape(&self, recorded: bool) -> Tape {
        match &self.replay {
            Some(replay) => Tape::Replaying(Box::default(), replay.imports.clone()),
            None if recorded => Tape::recording(self.tried),
            None => Tape::Off,
        }
    }

    pub(crate) fn of(context: &Context) -> Self {
        Self {
            now_ms: context.now_ms,
            deadline: context.deadline,
            mode: context.mode,
            seed: context.idempotency_key.clone(),
            replay: None,
            tried: false,
        }
    }

    /// A strategy has no context of its own: it is pure, and has the time that its limits give.
    pub(crate) fn of_strategy(facts: &Facts) -> Self {
        Self {
            now_ms: facts.now_ms,
            deadline: Duration::MAX,
            mode: Mode::Apply,
            seed: facts.deployment.clone(),
            replay: None,
            tried: false,
        }
    }
}

/// What a store carries.
pub(crate) struct CallState {
    table: ResourceTable,
    wasi: WasiCtx,
    pub(crate) capabilities: Capabilities,
    memory: MemoryLimiter,
    /// Ticks of CPU time that are left.
    ticks_left: u64,
    /// What it has used, for whoever decides when it runs.
    ticks: Arc<AtomicU64>,
    /// The same of all calls of the plugin.
    ticks_of_all: Arc<AtomicU64>,
}

impl WasiView for CallState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

/// Why a guest's function did not give an answer to use.
pub(crate) enum Stop {
    /// The guest ended badly.
    Guest(wasmtime::Error),
    /// The guest ended well, with something that is no use.
    Call(CallError),
}

impl<E: Into<CallError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Call(error.into())
    }
}

/// A task that ends when its owner is dropped.
pub(crate) struct AbortOnDrop<T>(pub(crate) JoinHandle<T>);

impl<T> AbortOnDrop<T> {
    pub(crate) async fn join(mut self) -> Result<T, JoinError> {
        (&mut self.0).await
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Settles the breaker's trial when a call is dropped before it has ended.
struct Trial<'a> {
    prepared: &'a Prepared,
    settled: bool,
}

impl Trial<'_> {
    fn settle<T>(mut self, result: &Result<T, CallError>) {
        self.settled = true;
        let mut breaker = self.prepared.breaker();
        match result {
            Err(error) if error.is_strike() => breaker.strike(Instant::now()),
            Ok(_) | Err(CallError::Plugin(_) | CallError::BadAnswer { .. }) => breaker.worked(),
            Err(_) => breaker.undecided(Instant::now()),
        }
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.prepared.breaker().undecided(Instant::now());
        }
    }
}

/// Counts a call, also one that is dropped before it has ended.
struct Counted<'a> {
    prepared: &'a Prepared,
    function: Function,
    started: Instant,
    outcome: CallOutcome,
    instantiate: Duration,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        for counters in [&self.prepared.counters, &*self.prepared.engine.counters] {
            counters.count(self.function, self.outcome, took, self.instantiate);
        }
    }
}

impl Prepared {
    /// Makes one call. Dropping the future drops the call.
    pub(crate) async fn call<R, F>(
        self: &Arc<Self>,
        function: Function,
        env: CallEnv,
        facts: CallFacts,
        body: F,
    ) -> Result<R, CallError>
    where
        R: Send + 'static,
        F: for<'a> FnOnce(
                &'a mut Store<CallState>,
                &'a Instance,
                Duration,
            ) -> BoxFuture<'a, Result<R, Stop>>
            + Send
            + 'static,
    {
        let mut counted = Counted {
            prepared: self,
            function,
            started: Instant::now(),
            outcome: CallOutcome::Dropped,
            instantiate: Duration::ZERO,
        };
        let id = self.engine.call_ids.next();
        let span = trace::call(function, &env, &self.digest, id);
        let call = self.admitted(function, env, facts, id, &span, body);
        let (result, instantiate) = call.instrument(span.clone()).await;
        trace::called(&span, &result, instantiate);
        counted.outcome = CallOutcome::of(&result);
        counted.instantiate = instantiate;
        result
    }

    async fn admitted<R, F>(
        self: &Arc<Self>,
        function: Function,
        env: CallEnv,
        facts: CallFacts,
        id: CallId,
        span: &Span,
        body: F,
    ) -> (Result<R, CallError>, Duration)
    where
        R: Send + 'static,
        F: for<'a> FnOnce(
                &'a mut Store<CallState>,
                &'a Instance,
                Duration,
            ) -> BoxFuture<'a, Result<R, Stop>>
            + Send
            + 'static,
    {
        if let Err(stopped) = self.breaker().admit(Instant::now()) {
            let error = CallError::BreakerOpen {
                retry_after: stopped.retry_after,
            };
            return (Err(error), Duration::ZERO);
        }
        let trial = Trial {
            prepared: self,
            settled: false,
        };
        let limits = env.limits.within(self.engine.options.ceilings);
        let turn = match self.turn(limits.concurrency).await {
            Ok(turn) => turn,
            Err(error) => return (Err(error), Duration::ZERO),
        };
        let Some(guests) = self.engine.guests() else {
            let why = "the engine is stopping".to_owned();
            return (Err(CallError::Host { why }), Duration::ZERO);
        };
        let wall = limits.wall.min(facts.deadline);
        let host = tokio::runtime::Handle::current();
        let run = Run {
            prepared: self.clone(),
            function,
            id,
            limits,
            wall,
            host,
            _turn: turn,
        };
        let ticks = Arc::new(AtomicU64::new(0));
        let guest = run.complete(env, facts, ticks.clone(), body);
        let guest = guest.instrument(span.clone());
        let task = AbortOnDrop(guests.spawn(Fair::new(guest, ticks, self.thread_turns.clone())));
        let (result, instantiate) = match tokio::time::timeout(wall, task.join()).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(error)) => {
                let why = if error.is_panic() {
                    "the engine panicked"
                } else {
                    "the engine is stopping"
                };
                (
                    Err(CallError::Host {
                        why: why.to_owned(),
                    }),
                    Duration::ZERO,
                )
            }
            Err(_) => (Err(CallError::Deadline { limit: wall }), Duration::ZERO),
        };
        trial.settle(&result);
        (result, instantiate)
    }

    /// Waits for the call's turn: first among the plugin's own calls, then for a place of the plugin's share.
    async fn turn(&self, concurrency: usize) -> Result<Turn, CallError> {
        let own = self.turns(concurrency);
        let wait = async {
            let own = own.acquire_owned().await.ok()?;
            let place = self.engine.places.take(&self.own).await;
            Some(Turn {
                _own: own,
                _place: place,
            })
        };
        match tokio::time::timeout(QUEUE_WAIT, wait).await {
            Ok(Some(turn)) => Ok(turn),
            Ok(None) | Err(_) => Err(CallError::Busy { waited: QUEUE_WAIT }),
        }
    }
}

/// Permission to run now.
struct Turn {
    _own: OwnedSemaphorePermit,
    _place: Place,
}

/// A call that has its turn.
struct Run {
    prepared: Arc<Prepared>,
    function: Function,
    id: CallId,
    limits: Limits,
    wall: Duration,
    host: tokio::runtime::Handle,
    _turn: Turn,
}

impl Run {
    /// On the guests' threads, from making the instance to dropping it.
    async fn complete<R, F>(
        self,
        env: CallEnv,
        facts: CallFacts,
        ticks: Arc<AtomicU64>,
        body: F,
    ) -> (Result<R, CallError>, Duration)
    where
        F: for<'a> FnOnce(
            &'a mut Store<CallState>,
            &'a Instance,
            Duration,
        ) -> BoxFuture<'a, Result<R, Stop>>,
    {
        let _active = self.prepared.engine.activity.begin();
        let stderr = Stderr::default();
        let seed = self.seed(&facts);
        let recorder = env.recorder.clone();
        let mut store = self.store(env, &facts, &seed, stderr.clone());
        store.data_mut().ticks = ticks;
        let started = Instant::now();
        let instance = self.prepared.pre.instantiate_async(&mut store).await;
        let instantiate = started.elapsed();
        let ended = match &instance {
            Ok(instance) => body(&mut store, instance, self.wall).await,
            Err(_) => Err(Stop::Guest(wasmtime::Error::msg("no instance"))),
        };
        let result = match (instance, ended) {
            (Err(error), _) => Err(self.instance_error(&store, &error)),
            (_, Ok(answer)) => Ok(answer),
            (_, Err(Stop::Call(error))) => Err(error),
            (_, Err(Stop::Guest(error))) => Err(self.guest_error(&store, &error, &stderr)),
        };
        self.report(&store, &stderr, result.is_err());
        if let Some(recorder) = recorder {
            self.record(&mut store, seed, result.as_ref().err(), &*recorder);
        }
        (result, instantiate)
    }

    /// What the call's randomness is made of.
    fn seed(&self, facts: &CallFacts) -> String {
        match &facts.replay {
            Some(replay) => replay.seed.clone(),
            None => format!("{}/{}/{}", self.prepared.digest, facts.seed, facts.now_ms),
        }
    }

    /// Gives the record of the call away.
    fn record(
        &self,
        store: &mut Store<CallState>,
        seed: String,
        error: Option<&CallError>,
        recorder: &dyn RecordSink,
    ) {
        let capabilities = &mut store.data_mut().capabilities;
        let about = About {
            plugin: &capabilities.identity.plugin,
            object: &capabilities.identity.object,
            call: self.id,
            digest: &self.prepared.digest,
            wit: self.prepared.abi.version(),
            function: self.function,
            seed,
        };
        let tape = std::mem::take(&mut capabilities.tape);
        if let Some(record) = tape.finish(about, &capabilities.secrets, error) {
            recorder.keep(record);
        }
    }

    fn store(
        &self,
        env: CallEnv,
        facts: &CallFacts,
        seed: &str,
        stderr: Stderr,
    ) -> Store<CallState> {
        let tape = facts.tape(env.recorder.is_some());
        let deadline = tokio::time::Instant::now();
        let ticks = self
            .limits
            .cpu
            .as_millis()
            .checked_div(TICK.as_millis())
            .unwrap_or(0);
        let capabilities = Capabilities {
            identity: Identity {
                plugin: env.plugin,
                object: env.object,
                digest: self.prepared.digest.clone(),
                function: self.function.as_str(),
                call: self.id,
            },
            mode: facts.mode,
            grants: env.grants,
            secrets: env.secrets,
            planned: env.planned,
            log: LogBudget::new(self.limits.log_bytes),
            state: ObjectState::new(env.state, self.limits.state_bytes),
            answer_bytes_max: self.limits.answer_bytes,
            http: CallHttp {
                pool: self.prepared.http.clone(),
                credentials: env.credentials,
                requests_left: self.limits.http_requests,
                requests_limit: self.limits.http_requests,
                body_bytes_max: self.limits.http_body_bytes,
                deadline: deadline.checked_add(self.wall).unwrap_or(deadline),
            },
            secret_reads: CallSecrets::new(env.secret_source, env.namespace),
            workload: CallWorkload::new(env.workload, self.prepared.pace.clone()),
            files_operations: 0,
            events: CallEvents::new(env.events),
            tape,
            host: self.host.clone(),
        };
        let state = CallState {
            table: ResourceTable::new(),
            wasi: world(facts.now_ms, seed.as_bytes(), stderr),
            capabilities,
            memory: MemoryLimiter::new(
                self.limits.memory_bytes,
                self.prepared.engine.budget.hold(&self.prepared.own_bytes),
            ),
            ticks_left: u64::try_from(ticks).unwrap_or(u64::MAX).max(1),
            ticks: Arc::default(),
            ticks_of_all: self.prepared.ticks.clone(),
        };
        let mut store = Store::new(&self.prepared.engine.wasm, state);
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(HOSTCALL_FUEL_BYTES);
        store.set_max_component_handles(HANDLES_MAX);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut context| {
            let state = context.data_mut();
            for ticks in [&state.ticks, &state.ticks_of_all] {
                ticks.fetch_add(1, Ordering::Relaxed);
            }
            match state.ticks_left.checked_sub(1) {
                Some(left) => {
                    state.ticks_left = left;
                    Ok(UpdateDeadline::YieldCustom(1, Box::pin(step_aside())))
                }
                None => Ok(UpdateDeadline::Interrupt),
            }
        });
        store
    }

    fn instance_error(&self, store: &Store<CallState>, error: &wasmtime::Error) -> CallError {
        if let Some(denied) = &store.data().memory.denied {
            return denied.clone();
        }
        if error
            .downcast_ref::<wasmtime::PoolConcurrencyLimitError>()
            .is_some()
        {
            return CallError::Busy {
                waited: Duration::ZERO,
            };
        }
        match error.downcast_ref::<Trap>() {
            Some(_) => self.guest_error(store, error, &Stderr::default()),
            None => CallError::Host {
                why: chain_of(error, MESSAGE_BYTES_MAX),
            },
        }
    }

    /// What ended the guest, told by what was recorded rather than by how it looks: a denied allocation ends as an ordinary trap.
    fn guest_error(
        &self,
        store: &Store<CallState>,
        error: &wasmtime::Error,
        stderr: &Stderr,
    ) -> CallError {
        if let Some(trouble) = error.downcast_ref::<HostTrouble>() {
            return CallError::Host {
                why: trouble.0.clone(),
            };
        }
        let trap = error.downcast_ref::<Trap>();
        if trap == Some(&Trap::Interrupt) {
            return CallError::Cpu {
                limit: self.limits.cpu,
            };
        }
        if let Some(denied) = &store.data().memory.denied {
            return denied.clone();
        }
        if trap.is_none() && error.root_cause().to_string().contains("fuel") {
            let rule = format!(
                "it crosses the boundary with more than {HOSTCALL_FUEL_BYTES} bytes at once"
            );
            return CallError::BadAnswer { rule };
        }
        if error.downcast_ref::<Utf8Error>().is_some() {
            let rule = "it crosses the boundary with text that is not UTF-8".to_owned();
            return CallError::BadAnswer { rule };
        }
        let said = stderr.text();
        let message = match trap {
            _ if !said.is_empty() => said,
            Some(trap) => trap.to_string(),
            None => one_line(&error.root_cause().to_string(), MESSAGE_BYTES_MAX),
        };
        let message = store.data().capabilities.secrets.redact(&message);
        CallError::Trap {
            message: clipped(&message, MESSAGE_BYTES_MAX / 4).to_owned(),
            backtrace_last_line: innermost_frame(error),
        }
    }

    /// Into the host's log what the status has no room for.
    fn report(&self, store: &Store<CallState>, stderr: &Stderr, failed: bool) {
        let capabilities = &store.data().capabilities;
        let id = &capabilities.identity;
        let said = capabilities.secrets.redact(&stderr.text());
        if !said.is_empty() {
            tracing::debug!(
                target: "plugin", plugin = %id.plugin, digest = %id.digest, object = %id.object,
                call = id.function, call_id = %id.call, failed, "standard error: {}", escaped(&said)
            );
        }
        if capabilities.log.dropped > 0 {
            tracing::warn!(
                target: "plugin", plugin = %id.plugin, digest = %id.digest, object = %id.object,
                call = id.function, call_id = %id.call, dropped = capabilities.log.dropped, "log messages over the call's budget"
            );
        }
    }
}

/// The first frame with a name that is not the machinery of a panic.
fn innermost_frame(error: &wasmtime::Error) -> String {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else {
        return String::new();
    };
    let machinery = [
        "panic",
        "abort",
        "rust_start",
        "__rust",
        "std::sys",
        "core::ops",
    ];
    backtrace
        .frames()
        .iter()
        .filter_map(|frame| frame.func_name())
        .find(|name| !machinery.iter().any(|part| name.contains(part)))
        .map(|name| one_line(name, TEXT_BYTES_MAX))
        .unwrap_or_default()
}
