//! Reasons that only a ClusterResourceSet has.

words! {
    /// All resources are applied to all selected Clusters. Nothing to do.
    APPLIED = "Applied",
    /// Something could not be applied, or is not ready yet. The message and status.problems name the Cluster, the resource and why.
    NOT_APPLIED = "NotApplied",
    /// A Secret among the resources has another type than addons.cluster.x-k8s.io/resource-set. Make it anew with that type.
    WRONG_SECRET_TYPE = "WrongSecretType",
}
