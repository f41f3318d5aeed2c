//! Integration tests: the whole host against real servers and the local cloud. One binary, so that tests share what they can.

mod adoption;
mod autoscaler;
mod bad_objects;
mod bootstrap;
mod bootstrap_report;
mod cluster_lifecycle;
mod clusterctl;
mod control_plane;
mod crash;
mod drain;
mod etcd;
mod health_check;
mod hooks;
mod in_cluster;
mod kubectl;
mod plugin_capabilities;
mod plugin_loading;
mod plugin_sources;
mod resource_sets;
mod rollout;
mod strategies;
mod writes;
