//! Watch, observe, perform, report: the only crate with a Kubernetes client.
