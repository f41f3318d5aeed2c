//! Integration tests: the whole host against real servers and the local cloud. One binary, so that tests share what they can.

mod bad_objects;
mod bootstrap;
mod cluster_lifecycle;
mod control_plane;
mod crash;
mod drain;
mod etcd;
mod health_check;
mod hooks;
mod plugin_capabilities;
mod plugin_loading;
mod plugin_sources;
mod rollout;
mod strategies;
mod writes;
