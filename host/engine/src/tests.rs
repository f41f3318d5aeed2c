//! The engine against a real component, which does on demand what the engine must survive.

mod anatomy;
mod answers;
mod calls;
mod capabilities;
mod credential;
mod files;
mod fuzz;
mod hostile;
mod http;
mod loading;
mod module;
mod probe;
mod records;
mod registry;
mod response;
