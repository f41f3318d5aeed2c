//! Every bound of the engine, each with the reason for its value.

use std::time::Duration;

use capstan_core::call::STATE_BYTES_MAX;

/// Largest component source as it is stored, packed or not. A Python guest is about 18 MB and belongs in a registry; whatever
/// fits in ConfigMaps is far below this.
pub const SOURCE_BYTES_MAX: usize = 16 << 20;

/// Largest component after unpacking: twice the packed limit, so that big guests can come compressed.
pub const COMPONENT_BYTES_MAX: usize = 32 << 20;

/// Unpacked bytes per packed byte above which a source counts as a bomb. Real components pack 3 to 10 times.
pub const UNPACK_RATIO_MAX: usize = 100;

/// Below this an unpacked source is never a bomb: small files of zeros are harmless.
pub const UNPACK_RATIO_FREE_BYTES: usize = 1 << 20;

/// Largest zstd window, as a power of two: 8 MiB is what the format asks decoders to support.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Period of the epoch ticker: how exactly CPU time is measured and how soon a spinning guest lets others run.
pub const TICK: Duration = Duration::from_millis(10);

/// Calls in flight in the whole engine; the instance pool has room for as many.
pub const CALLS_MAX: usize = 128;

/// Ticks of processor time after which a call counts as long, and runs only in its plugin's turn. A usual call takes a thirtieth of a
/// tick, one of a Python guest a third.
pub const SHORT_TICKS: u64 = 3;

/// How long the calls of a plugin may hold a thread as a rule, until they step aside, wait for the host or end, before all of them count as
/// long: half a tick. Calls of Go guests take 3 to 4 ms.
pub const HOLD_USUAL_MAX: Duration = Duration::from_millis(5);

/// How long a call may wait for its turn before it is refused as busy: long enough to ride out a burst, short enough that a
/// controller's worker is not lost to one slow plugin.
pub const QUEUE_WAIT: Duration = Duration::from_secs(10);

/// Component instances in the pool: twice the calls, as a dropped store gives its slot back a little later.
pub const POOL_COMPONENT_INSTANCES: u32 = 256;

/// Core instances in the pool. JavaScript, Python and Go components have many each.
pub const POOL_CORE_INSTANCES: u32 = 8192;

/// Core instances of one component.
pub const POOL_CORE_INSTANCES_PER_COMPONENT: u32 = 64;

/// Linear memories in the pool: [`POOL_MEMORIES_PER_COMPONENT`] for each call in flight. A slot reserves 4 GiB of addresses.
pub const POOL_MEMORIES: u32 = 512;

/// Linear memories of one component: its own, those of adapters, and of a few components that it is composed of.
pub const POOL_MEMORIES_PER_COMPONENT: u32 = 4;

/// Tables in the pool: [`POOL_TABLES_PER_COMPONENT`] for each call in flight. A slot reserves 800 KB of addresses.
pub const POOL_TABLES: u32 = 1024;

/// Tables of one component: usual ones have two, those of languages that link at run time three or four.
pub const POOL_TABLES_PER_COMPONENT: u32 = 8;

// Whatever all calls in flight are of, none finds the pool empty: a call's slots are free again before its place is.
const _: () = {
    assert!(CALLS_MAX * POOL_MEMORIES_PER_COMPONENT as usize <= POOL_MEMORIES as usize);
    assert!(CALLS_MAX * POOL_TABLES_PER_COMPONENT as usize <= POOL_TABLES as usize);
    assert!(CALLS_MAX * POOL_CORE_INSTANCES_PER_COMPONENT as usize <= POOL_CORE_INSTANCES as usize);
    assert!(CALLS_MAX <= POOL_COMPONENT_INSTANCES as usize);
};

/// Largest linear memory that the pool can hold, and so the ceiling of [`Limits::memory_bytes`].
pub const MEMORY_BYTES_CEILING: usize = 256 << 20;

/// Slots of the pool that stay mapped when unused.
pub const POOL_WARM_SLOTS: u32 = 32;

/// Bytes of a memory that stay resident for the next instance: saves the page faults of a usual call.
pub const POOL_MEMORY_RESIDENT_BYTES: usize = 1 << 20;

/// The same for a table.
pub const POOL_TABLE_RESIDENT_BYTES: usize = 64 << 10;

/// Elements of all tables of an instance together: each costs the host a pointer.
pub const TABLE_ELEMENTS_MAX: usize = 100_000;

/// Bytes that one host call, or one answer, may make the host allocate while it is read out of the guest.
pub const HOSTCALL_FUEL_BYTES: usize = 4 << 20;

/// Resource handles that a guest may hold; the ambient world has a few streams and clocks.
pub const HANDLES_MAX: usize = 1000;

/// Longest that a call may take, whatever an operator allows: a reconcile has 120 s for all that it does, and what is dropped then ends
/// without a word about whose fault it was.
pub const WALL_CEILING: Duration = Duration::from_secs(100);

/// Suggested grant of one capability in a manifest, as JSON: with what the host adds it fits where the status shows it.
pub const SUGGESTION_BYTES_MAX: usize = 4 << 10;

/// Memory that the Deployment of `capstan manifests` has. An eighth is the host's own (its watch caches are some tens of MiB), three are
/// the guests', four the compiler's, whose peak was 655 MB.
pub const CONTAINER_MEMORY_BYTES: usize = 2 << 30;

/// See [`CONTAINER_MEMORY_BYTES`].
pub const GUESTS_EIGHTHS: usize = 3;

/// See [`CONTAINER_MEMORY_BYTES`].
pub const COMPILER_EIGHTHS: usize = 4;

/// What the compiler gets at least: with less no real component is compiled.
pub const COMPILER_BYTES_MIN: usize = 256 << 20;

/// Times that a host may be killed while it compiles a component before that component is not compiled any more.
pub const COMPILE_KILLS_MAX: u32 = 2;

/// Memory for asking a component for its manifest, whose own limit is not known yet: the runtimes of interpreted languages fit.
pub const DESCRIBE_MEMORY_BYTES: usize = 128 << 20;

/// Frames kept of a trap's backtrace.
pub const BACKTRACE_FRAMES_MAX: usize = 20;

/// Bytes of standard error that are kept of one call: a panic's message is short.
pub const STDERR_BYTES_MAX: usize = 4 << 10;

/// Random bytes that a guest may ask for at once.
pub const RANDOM_BYTES_MAX: u64 = 64 << 10;

/// JSON text of one object, in either direction: what a Kubernetes object can hold.
pub const JSON_BYTES_MAX: usize = 1 << 20;

/// Values in the JSON text of one object: ten bytes each. A value costs the host up to 100 bytes when it is read, so that a text of
/// empty lists could make 1 MiB into 50.
pub const JSON_VALUES_MAX: usize = 100_000;

/// Bytes of a secret that stands for a real one when a call is made again: what fits into a Secret.
pub const SECRET_BYTES_MAX: usize = 1 << 20;

/// A reason, as Kubernetes conditions have it here.
pub const REASON_CHARS_MAX: usize = 256;

/// A message for a person.
pub const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// Any other text that a plugin answers with: names, versions, addresses.
pub const TEXT_BYTES_MAX: usize = 512;

/// Entries of any list that a plugin answers with.
pub const LIST_ENTRIES_MAX: usize = 1000;

/// Soonest that a waiting answer is looked at again.
pub const CHECK_AFTER_MIN: Duration = Duration::from_millis(100);

/// Latest that a waiting answer is looked at again.
pub const CHECK_AFTER_MAX: Duration = Duration::from_secs(600);

/// Longest wait that a failure may ask for before the next try.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Writes to the `state` capability in one call: a note before and after each of a few effects.
pub const STATE_PUTS_MAX: u32 = 16;

/// Requests of one call.
pub const HTTP_REQUESTS_MAX: u32 = 64;

/// Body of a request or of a response.
pub const HTTP_BODY_BYTES_MAX: usize = 4 << 20;

/// Headers of a request, and of a response as the guest sees it.
pub const HTTP_HEADERS_MAX: usize = 64;

/// Bytes of all header names and values of a request.
pub const HTTP_HEADER_BYTES_MAX: usize = 32 << 10;

/// Length of a URL.
pub const HTTP_URL_BYTES_MAX: usize = 8 << 10;

/// Redirects that are followed for one request.
pub const HTTP_REDIRECTS_MAX: u32 = 5;

/// Time for one request when the guest names none.
pub const HTTP_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// Time to resolve a name and to connect.
pub const HTTP_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an unused connection is kept for the plugin's next call.
pub const HTTP_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Threads of the host that look up names and read files for guests at the same time: half of the eight that it has for what blocks.
pub const GUEST_BLOCKING_MAX: usize = 4;

/// Open connections of one plugin, unused ones included: its calls in flight, and some that are kept for each of many origins.
pub const HTTP_CONNECTIONS_MAX: usize = 256;

/// Lines of the metrics about one plugin's requests: six for each of the 32 origins of a few grants.
pub const HTTP_COUNTS_MAX: usize = 512;

/// Unused connections kept for one origin.
pub const HTTP_IDLE_PER_HOST_MAX: usize = 8;

/// What a log message costs of the call's budget beyond its bytes: empty messages are not free.
pub const LOG_MESSAGE_COST_BYTES: usize = 64;

/// Fields of one log message.
pub const LOG_FIELDS_MAX: usize = 16;

/// Secrets known to a call that are shorter than this are not looked for in its log: the search would hit by chance.
pub const REDACT_BYTES_MIN: usize = 8;

/// Reads of Secrets in one call: a provider needs one or two.
pub const SECRET_READS_MAX: u32 = 32;

/// Requests of one call to the workload cluster.
pub const WORKLOAD_REQUESTS_MAX: u32 = 64;

/// Requests of one plugin to workload clusters, all its calls together: this many at once after a pause, then
/// [`WORKLOAD_RATE_PER_S`]. A host with 500 clusters asks each a few times per rollout.
pub const WORKLOAD_BURST: u32 = 200;

/// See [`WORKLOAD_BURST`].
pub const WORKLOAD_RATE_PER_S: u32 = 50;

/// JSON text of one answer of a workload cluster, as the guest gets it: its memory is limited as well.
pub const WORKLOAD_ANSWER_BYTES_MAX: usize = 4 << 20;

/// Objects of one page: 250 usual objects of 8 KiB are half of [`WORKLOAD_ANSWER_BYTES_MAX`].
pub const WORKLOAD_PAGE_MAX: u32 = 250;

/// A label or field selector.
pub const WORKLOAD_SELECTOR_BYTES_MAX: usize = 1 << 10;

/// Where a list goes on, as API servers say it: an encoded key with a revision.
pub const WORKLOAD_NEXT_BYTES_MAX: usize = 4 << 10;

/// Reads of files and directories in one call.
pub const FILES_OPERATIONS_MAX: u32 = 64;

/// One file. Sixteen of the largest fit in a guest's memory.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// A path below the granted directory.
pub const FILE_PATH_BYTES_MAX: usize = 1 << 10;

/// Events of one call: a few transitions.
pub const EVENTS_MAX: u32 = 8;

/// Message of an event: the API server's own limit.
pub const EVENT_MESSAGE_BYTES_MAX: usize = 1 << 10;

/// Reason of an event: the API server's own limit.
pub const EVENT_REASON_CHARS_MAX: usize = 128;

/// Time for everything that one pull asks of a registry: 16 MiB over a slow line.
pub const REGISTRY_TIMEOUT: Duration = Duration::from_secs(120);

/// A manifest, a token, a statement of a signature.
pub const REGISTRY_DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// Redirects of one request: registries send people to their storage once.
pub const REGISTRY_REDIRECTS_MAX: u32 = 3;

/// Signatures of one component that are looked at.
pub const REGISTRY_SIGNATURES_MAX: usize = 8;

/// Time for one request to a bucket: 8 MiB over a slow line.
pub const BUCKET_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What a store may answer: a page of a thousand names, each with what the store says of it.
pub const BUCKET_ANSWER_BYTES_MAX: usize = 2 << 20;

/// Names in one list: stores give no more on a page.
pub const BUCKET_NAMES_MAX: usize = 1000;

/// Parts of one object: stores take no more.
pub const BUCKET_PARTS_MAX: usize = 10_000;

/// Wall-clock time of one compilation. 1.1 MB of the worst kind of Rust takes 14 s on two slow cores.
pub const COMPILE_WALL: Duration = Duration::from_secs(60);

/// How long a component that was not compiled in that time is left alone: doubled each time, as somebody may have given the host a better
/// machine, and up to an hour, in which it takes a sixtieth of the compiler's time.
pub const COMPILE_PAUSE_FIRST: Duration = Duration::from_secs(60);
/// The longest such pause.
pub const COMPILE_PAUSE_MAX: Duration = Duration::from_secs(3600);

/// Components that this is remembered of: more than a host has plugins.
pub const COMPILE_GIVEN_UP_MAX: usize = 256;

/// CPU time of one compilation, over all threads.
pub const COMPILE_CPU: Duration = Duration::from_secs(240);

/// Address space of the compiling process. Peaks of 655 MB resident were measured; threads' stacks and allocators reserve more
/// than they use.
pub const COMPILE_ADDRESS_SPACE_BYTES: u64 = 4 << 30;

/// Largest compiled file: code is about three times the component.
pub const COMPILED_BYTES_MAX: u64 = 256 << 20;

/// Bytes of the compiler's complaint that are kept.
pub const COMPILE_MESSAGE_BYTES_MAX: usize = 2 << 10;

/// All compiled files together; the least recently used go first.
pub const CACHE_BYTES_MAX: u64 = 512 << 20;

/// Strikes (traps, deadlines, memory) within [`BREAKER_WINDOW`] that stop a plugin's calls.
pub const BREAKER_STRIKES: usize = 5;

/// See [`BREAKER_STRIKES`].
pub const BREAKER_WINDOW: Duration = Duration::from_secs(60);

/// First pause of a stopped plugin; each further one is twice as long.
pub const BREAKER_PAUSE_MIN: Duration = Duration::from_secs(10);

/// Longest pause of a stopped plugin.
pub const BREAKER_PAUSE_MAX: Duration = Duration::from_secs(300);

/// A value in the record of a call, as JSON before bytes are made readable: four characters for a byte of a 256 KiB body.
pub const RECORD_VALUE_BYTES_MAX: usize = 1 << 20;

/// All values in the record of a call: some bodies of the largest size, or thousands of usual ones.
pub const RECORD_BYTES_MAX: usize = 4 << 20;

/// Imports in the record of a call: every HTTP and workload request that a call may send, and log lines between them.
pub const RECORD_EXCHANGES_MAX: usize = 1000;

/// What one call may use. The defaults suit Rust guests; a Plugin object may say otherwise, within the engine's ceilings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all linear memories of the instance together.
    pub memory_bytes: usize,
    /// CPU time, to within a few ticks of 10 ms.
    pub cpu: Duration,
    /// Time from the start of the guest to its answer, host calls included.
    pub wall: Duration,
    /// HTTP requests, redirects included.
    pub http_requests: u32,
    /// Bytes of one HTTP body, in either direction.
    pub http_body_bytes: usize,
    /// Bytes of log, with names and values of fields.
    pub log_bytes: usize,
    /// Bytes of one answer, as JSON; a byte of its state counts as one.
    pub answer_bytes: usize,
    /// Bytes of the state that is kept for an object.
    pub state_bytes: usize,
    /// Calls of one plugin at the same time.
    pub concurrency: usize,
}

impl Default for Limits {
    /// 64 MiB, 2 s of CPU, 60 s, 64 requests of 4 MiB, 64 KiB of log, answers of 4 MiB, 64 KiB of state, 16 calls at once.
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            cpu: Duration::from_secs(2),
            wall: Duration::from_secs(60),
            http_requests: HTTP_REQUESTS_MAX,
            http_body_bytes: HTTP_BODY_BYTES_MAX,
            log_bytes: 64 << 10,
            answer_bytes: HOSTCALL_FUEL_BYTES,
            state_bytes: STATE_BYTES_MAX,
            concurrency: 16,
        }
    }
}

impl Limits {
    /// The most that any Plugin object can ask for unless the operator of the host says otherwise.
    #[must_use]
    pub fn ceilings() -> Self {
        Self {
            memory_bytes: MEMORY_BYTES_CEILING,
            cpu: Duration::from_secs(30),
            wall: WALL_CEILING,
            http_requests: 256,
            http_body_bytes: HTTP_BODY_BYTES_MAX,
            log_bytes: 1 << 20,
            answer_bytes: HOSTCALL_FUEL_BYTES,
            state_bytes: STATE_BYTES_MAX,
            concurrency: 64,
        }
    }

    /// The smaller of each.
    #[must_use]
    pub fn within(self, ceilings: Self) -> Self {
        Self {
            memory_bytes: self
                .memory_bytes
                .min(ceilings.memory_bytes)
                .min(MEMORY_BYTES_CEILING),
            cpu: self.cpu.min(ceilings.cpu),
            wall: self.wall.min(ceilings.wall).min(WALL_CEILING),
            http_requests: self.http_requests.min(ceilings.http_requests),
            http_body_bytes: self
                .http_body_bytes
                .min(ceilings.http_body_bytes)
                .min(HTTP_BODY_BYTES_MAX),
            log_bytes: self.log_bytes.min(ceilings.log_bytes),
            answer_bytes: self
                .answer_bytes
                .min(ceilings.answer_bytes)
                .min(HOSTCALL_FUEL_BYTES),
            state_bytes: self
                .state_bytes
                .min(ceilings.state_bytes)
                .min(STATE_BYTES_MAX),
            concurrency: self.concurrency.clamp(1, ceilings.concurrency.max(1)),
        }
    }

    /// What [`Limits::within`] takes away, in words for people, with the names of the Plugin's `spec.limits`.
    #[must_use]
    pub fn cuts(self, ceilings: Self) -> Vec<String> {
        let left = self.within(ceilings).named();
        let both = self.named().into_iter().zip(left);
        both.filter(|((_, asked), (_, left))| asked > left)
            .map(|(_, (name, left))| format!("limits {name} above {left}"))
            .collect()
    }

    /// Each by its name in a Plugin's `spec.limits`, in that unit.
    fn named(self) -> [(&'static str, u128); 9] {
        [
            ("memoryBytes", self.memory_bytes as u128),
            ("cpuMs", self.cpu.as_millis()),
            ("wallMs", self.wall.as_millis()),
            ("httpCalls", self.http_requests.into()),
            ("httpBodyBytes", self.http_body_bytes as u128),
            ("logBytes", self.log_bytes as u128),
            ("answerBytes", self.answer_bytes as u128),
            ("stateBytes", self.state_bytes as u128),
            ("concurrency", self.concurrency as u128),
        ]
    }
}
