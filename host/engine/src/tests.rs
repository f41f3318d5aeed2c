//! The engine against a real component, which does on demand what the engine must survive.

mod anatomy;
mod answers;
mod calls;
mod capabilities;
mod files;
mod http;
mod loading;
mod probe;
mod records;
mod registry;
