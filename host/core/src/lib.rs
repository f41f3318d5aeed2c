//! What to do: pure decisions. No async, no I/O, no clock, no wasmtime, no Kubernetes client.
