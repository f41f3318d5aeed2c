//! The rules of this repository that a program can check, as tests: each failure says what to do.

mod conformance;
mod dependencies;
mod documents;
mod generated;
mod layout;
mod reasons;
mod sources;
mod tree;
mod wit;
