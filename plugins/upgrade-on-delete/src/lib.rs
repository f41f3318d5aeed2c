//! upgrade-on-delete.
