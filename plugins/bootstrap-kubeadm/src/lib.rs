//! bootstrap-kubeadm.
