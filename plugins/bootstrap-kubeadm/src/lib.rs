//! Bootstrap plugin for machines that kubeadm turns into nodes: KubeadmConfig in, cloud-config out.

mod cloud_config;
mod files;
mod kinds;
mod kubeadm;
mod needs;
mod plugin;
mod question;
mod refusal;
mod yaml;

#[cfg(test)]
mod tests;

pub use plugin::Kubeadm;

capstan_sdk::export_bootstrap!(Kubeadm);
