//! Integration tests: the whole host against real servers and the local cloud. One binary, so that tests share what they can.

mod autoscaler;
mod bad_objects;
mod bootstrap;
mod cluster_lifecycle;
mod clusterctl;
mod control_plane;
mod crash;
mod drain;
mod etcd;
mod failover;
mod health_check;
mod hooks;
mod installation;
mod kubectl;
mod plugin_capabilities;
mod plugin_loading;
mod plugin_sources;
mod plugin_versions;
mod resource_sets;
mod rollout;
mod strategies;
mod writes;
