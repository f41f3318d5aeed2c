//! What authors of plugins use: `capstan plugin` as people run it, on real components, without a cluster.

mod command;
mod compatibility;
mod new;
mod program;
mod records;
