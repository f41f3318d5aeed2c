//! Bootstrap plugin for machines that kubeadm turns into nodes: KubeadmConfig in, cloud-config out.

pub mod cloud_config;
pub mod files;
pub mod kubeadm;
pub mod needs;
pub mod question;
pub mod refusal;
pub mod yaml;

#[cfg(test)]
mod tests;
