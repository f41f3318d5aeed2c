//! Bootstrap plugin for machines that kubeadm turns into nodes: KubeadmConfig in, cloud-config or Ignition out.

mod cloud_config;
mod data;
mod discovery;
mod file;
mod files;
mod ignition;
mod kinds;
mod kubeadm;
mod needs;
mod plugin;
mod question;
mod refusal;
mod report;
mod rule;
mod signer;
mod template;

use capstan_sdk::yaml;

#[cfg(test)]
mod tests;

pub use plugin::Kubeadm;

capstan_sdk::export_bootstrap!(Kubeadm);
