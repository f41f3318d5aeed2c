//! infrastructure-local.
