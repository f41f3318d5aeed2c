# Every command that a person or CI runs. On a fresh machine: ./dev RECIPE.

# Directories whose crates are built as components.
guests := `printf -- '-p %s ' $(for f in plugins/*/Cargo.toml examples/*/Cargo.toml tests/guests/*/Cargo.toml; do basename "$(dirname "$f")"; done)`
target := env("CARGO_TARGET_DIR", "target")
plugins := target / "wasm32-wasip2/plugin"
# The program as people run it, and as tests do.
capstan := target / "release/capstan"
capstan_dev := target / "debug/capstan"
# Worlds run several times as fast when our own crates are optimised as well. Cargo keeps those beside the ones for development.
sim_optimised := `printf -- '--config profile.dev.package.%s.opt-level=2 ' capstan-api capstan-core capstan-controllers capstan-simulation capstan-strategy-tests upgrade-rolling-update`

# List the recipes.
default:
    @just --list --unsorted

# A management cluster, a local cloud, the host and a first cluster, on this machine.
quickstart *args: release plugins
    {{capstan}} local quickstart --plugins {{plugins}} {{args}}

# Stop everything that quickstart started, and remove .dev.
down *args: _program
    @"$({{just_executable()}} _any)" local down {{args}}

# Show what quickstart started.
status *args: _program
    @"$({{just_executable()}} _any)" local status {{args}}

# Any subcommand of `capstan local`, such as exec, console, logs, fault, probe and images.
local *args: _program
    @"$({{just_executable()}} _any)" local {{args}}

# All checks and tests; what CI runs. Those on real machines come last, and say why when this machine cannot run them.
test: fmt-check lint build plugins validators
    CAPSTAN_VALIDATORS=required cargo test --workspace
    cargo test --workspace --test machines -- --nocapture

# Show which rules of Cluster API hold, by the tests of each; arguments choose rules, such as 3.3 or 3.6.
conformance *args: build plugins validators
    CAPSTAN_VALIDATORS=required {{target}}/debug/conformance {{args}}

# Break control planes in every way and print what became of each; arguments choose, such as --size 3 --phase rest.
faults *args: build plugins
    {{target}}/debug/faults {{args}}

# Make the programs that read bootstrap data, with which its tests check it: kubeadm, Ignition's validator, cloud-init.
validators: build
    {{target}}/debug/validators

# Measure: times, API writes, processor time and memory for 1, 10 and 30 clusters, or one of many machines: --machines 300.
bench *args: release plugins
    {{target}}/release/bench {{args}}

# Measure the engine: calls, compilation, cold starts, memory, misbehaviour, swaps; beside what trial code cost. --few: only to see that it runs.
bench-engine *args: release plugins
    {{target}}/release/bench-engine {{args}}

# Measure real machines: seconds and memory of clusters of 1 + 2 and 3 + 3, cold and warm. Needs what tests on real machines need.
machine-figures: build plugins
    CAPSTAN_MACHINE_FIGURES=1 cargo test --workspace --test machines -- --nocapture printed_on_request

# Simulate: the controllers in worlds that follow from seeds, such as --seeds 1000, or --seed 17 --trace for one of them.
sim *args:
    cargo build --workspace --bin sim {{sim_optimised}}
    {{target}}/debug/sim {{args}}

# Fuzz what reads foreign bytes (sources, manifests, answers, references), each for so many seconds; CAPSTAN_SEED chooses the seed.
fuzz seconds="60":
    CAPSTAN_FUZZ_S={{seconds}} cargo test -p capstan-engine --lib -- --nocapture --test-threads 1 tests::fuzz

# Build the host for development.
build:
    cargo build --workspace --all-targets

# Build the host as it is released.
release:
    cargo build --release --workspace --bins

# Build the host's image, with podman or docker; a name may follow.
image name="capstan":
    "$(command -v podman || command -v docker)" build --file host/Containerfile --tag {{name}} .

# Build all plugins, examples and test guests as components.
plugins:
    cargo build --profile plugin --target wasm32-wasip2 {{guests}}

# Format everything.
fmt:
    cargo fmt --all

# Fail when something is not formatted.
fmt-check:
    cargo fmt --all --check

# All lints, warnings are errors; licences and sources where cargo-deny is installed.
lint: && deny
    cargo clippy --workspace --all-targets -- -D warnings

# Check licences, bans and sources of dependencies, if cargo-deny is installed.
deny:
    @if cargo deny --version >/dev/null 2>&1; then cargo deny --offline check licenses bans sources; else echo "cargo-deny is not installed: licences are not checked"; fi

# Write the kinds and admission policies that the host installs to host/api/crds, from the Rust types.
crd:
    UPDATE_GOLDEN=1 cargo test -p capstan-api --lib manifests

# Write the page of labels and annotations from the constants.
labels:
    UPDATE_GOLDEN=1 cargo test -p capstan-tests --test tidy the_page_of_labels

# The documentation of all crates.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Remove what is built for all of this user's checkouts: Kubernetes servers, machine images, compiled plugins, just.
clean-cache:
    rm -rf "${XDG_CACHE_HOME:-$HOME/.cache}/capstan"

# A program that can stop and show things: the newest there is, built only when there is none.
_program:
    @test -x {{capstan}} || test -x {{capstan_dev}} || cargo build --workspace

# The newest program.
_any:
    @ls -t {{capstan}} {{capstan_dev}} 2>/dev/null | head -n 1
