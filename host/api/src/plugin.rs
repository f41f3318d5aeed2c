//! `capstan.dev/v1alpha1` Plugin: where a WebAssembly component is, what it may do, and how it is doing.

mod grant;
mod spec;
mod status;

pub use grant::*;
pub use spec::*;
pub use status::*;

/// API group of our own kinds.
pub const GROUP: &str = "capstan.dev";

/// Version of our own kinds.
pub const VERSION: &str = "v1alpha1";

/// `apiVersion` of our own kinds.
pub const API_VERSION: &str = "capstan.dev/v1alpha1";
