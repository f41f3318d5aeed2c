//! What strategy tests share: a world for a strategy, and a way to ask one without wasm between.

pub mod ask;
pub mod world;
