//! A management cluster and a small cloud on one machine. Knows none of the other host crates.

pub mod cloud;
