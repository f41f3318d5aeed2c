//! upgrade-rolling-update.
