//! control-plane-kubeadm.
