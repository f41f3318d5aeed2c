//! Annotations of Cluster API and where they are found.

/// Stops reconciliation of the object; any value.
pub const PAUSED: &str = "cluster.x-k8s.io/paused";
/// On a Machine: delete it first when there are too many; any value.
pub const DELETE_MACHINE: &str = "cluster.x-k8s.io/delete-machine";
/// On a MachineSet: `true` keeps it from creating Machines.
pub const DISABLE_MACHINE_CREATE: &str = "cluster.x-k8s.io/disable-machine-create";
/// On a Machine: have its health check replace it; any value.
pub const REMEDIATE_MACHINE: &str = "cluster.x-k8s.io/remediate-machine";
/// On a Machine: health checks leave it alone; any value.
pub const SKIP_REMEDIATION: &str = "cluster.x-k8s.io/skip-remediation";
/// On a copy of a template: name of the template.
pub const CLONED_FROM_NAME: &str = "cluster.x-k8s.io/cloned-from-name";
/// On a copy of a template: `<Kind>.<group>` of the template.
pub const CLONED_FROM_GROUP_KIND: &str = "cluster.x-k8s.io/cloned-from-groupkind";
/// On an infrastructure object that something outside of Cluster API looks after.
pub const MANAGED_BY: &str = "cluster.x-k8s.io/managed-by";
/// On a MachinePool whose replicas something else decides.
pub const REPLICAS_MANAGED_BY: &str = "cluster.x-k8s.io/replicas-managed-by";
/// On a Node: name of its Cluster.
pub const CLUSTER_NAME: &str = "cluster.x-k8s.io/cluster-name";
/// On a Node: namespace of its Cluster.
pub const CLUSTER_NAMESPACE: &str = "cluster.x-k8s.io/cluster-namespace";
/// On a Node: name of its Machine.
pub const MACHINE: &str = "cluster.x-k8s.io/machine";
/// On a Node: kind of its Machine's owner.
pub const OWNER_KIND: &str = "cluster.x-k8s.io/owner-kind";
/// On a Node: name of its Machine's owner.
pub const OWNER_NAME: &str = "cluster.x-k8s.io/owner-name";
/// On a Node: keys of the labels that come from its Machine, sorted, joined by commas.
pub const LABELS_FROM_MACHINE: &str = "cluster.x-k8s.io/labels-from-machine";
/// On a Node: keys of the annotations that come from its Machine, sorted, joined by commas.
pub const ANNOTATIONS_FROM_MACHINE: &str = "cluster.x-k8s.io/annotations-from-machine";
/// On a Node: `key:effect` of the taints that its Machine keeps there, sorted, joined by commas.
pub const TAINTS_FROM_MACHINE: &str = "cluster.x-k8s.io/taints-from-machine";
/// On a group of machines: the autoscaler's lower limit.
pub const AUTOSCALER_MIN_SIZE: &str = "cluster.x-k8s.io/cluster-api-autoscaler-node-group-min-size";
/// On a group of machines: the autoscaler's upper limit.
pub const AUTOSCALER_MAX_SIZE: &str = "cluster.x-k8s.io/cluster-api-autoscaler-node-group-max-size";
/// On a Machine: its Node is not drained; any value.
pub const EXCLUDE_NODE_DRAINING: &str = "machine.cluster.x-k8s.io/exclude-node-draining";
/// On a Machine: its deletion does not wait for volumes; any value.
pub const EXCLUDE_WAIT_FOR_NODE_VOLUME_DETACH: &str =
    "machine.cluster.x-k8s.io/exclude-wait-for-node-volume-detach";
/// On a control-plane Machine or its bootstrap object: when its certificates expire (RFC 3339).
pub const CERTIFICATES_EXPIRY: &str = "machine.cluster.x-k8s.io/certificates-expiry";
/// Prefix of annotations on a Machine that hold back its drain.
pub const PRE_DRAIN_HOOK_PREFIX: &str = "pre-drain.delete.hook.machine.cluster.x-k8s.io";
/// Prefix of annotations on a Machine that hold back the deletion of its host.
pub const PRE_TERMINATE_HOOK_PREFIX: &str = "pre-terminate.delete.hook.machine.cluster.x-k8s.io";
/// On control-plane Machines: holds the host until its etcd member is removed.
pub const KCP_CLEANUP_HOOK: &str = "pre-terminate.delete.hook.machine.cluster.x-k8s.io/kcp-cleanup";
/// Prefix of annotations on a Cluster with a topology that hold back its upgrade. This host has no topologies, and does not look at it.
pub const BEFORE_UPGRADE_HOOK_PREFIX: &str = "before-upgrade.hook.cluster.cluster.x-k8s.io";
/// On a MachineDeployment and its MachineSets: number of the template's revision.
pub const REVISION: &str = "machinedeployment.clusters.x-k8s.io/revision";
/// On a MachineSet: the revisions that it stood for before, joined by commas.
pub const REVISION_HISTORY: &str = "machinedeployment.clusters.x-k8s.io/revision-history";
/// On a MachineSet: replicas of its MachineDeployment when it was last scaled.
pub const DESIRED_REPLICAS: &str = "machinedeployment.clusters.x-k8s.io/desired-replicas";
/// On a MachineSet: replicas and surge of its MachineDeployment when it was last scaled.
pub const MAX_REPLICAS: &str = "machinedeployment.clusters.x-k8s.io/max-replicas";
/// On a MachineSet or MachineDeployment: preflight checks to leave out, joined by commas.
pub const SKIP_PREFLIGHT_CHECKS: &str = "machineset.cluster.x-k8s.io/skip-preflight-checks";
/// On a control-plane Machine: which Machine it replaces, as JSON.
pub const REMEDIATION_FOR: &str = "controlplane.cluster.x-k8s.io/remediation-for";
/// On a control-plane object: which Machine is being replaced, as JSON.
pub const REMEDIATION_IN_PROGRESS: &str = "controlplane.cluster.x-k8s.io/remediation-in-progress";
/// On a control-plane object: CoreDNS is left alone; any value.
pub const SKIP_COREDNS: &str = "controlplane.cluster.x-k8s.io/skip-coredns";
/// On a control-plane object: kube-proxy is left alone; any value.
pub const SKIP_KUBE_PROXY: &str = "controlplane.cluster.x-k8s.io/skip-kube-proxy";
/// On a MachineDeployment of a topology: it is not upgraded yet; any value. This host has no topologies, and does not look at it.
pub const DEFER_UPGRADE: &str = "topology.cluster.x-k8s.io/defer-upgrade";
/// On a MachineDeployment of a topology: it and those after it are not upgraded yet; any value. This host has no topologies, and does not
/// look at it.
pub const HOLD_UPGRADE_SEQUENCE: &str = "topology.cluster.x-k8s.io/hold-upgrade-sequence";
/// On a Cluster: how many groups of workers are upgraded at the same time, at least 1.
pub const UPGRADE_CONCURRENCY: &str = "topology.cluster.x-k8s.io/upgrade-concurrency";
/// On objects of a topology's dry run; any value. This host has no topologies.
pub const TOPOLOGY_DRY_RUN: &str = "topology.cluster.x-k8s.io/dry-run";
/// On a control-plane object of a topology: the version that an upgrade has reached.
pub const TOPOLOGY_UPGRADE_STEP: &str = "topology.internal.cluster.x-k8s.io/upgrade-step";
/// On a Cluster: the check of class changes is off; any value.
pub const DISABLE_UPDATE_CLASS_NAME_CHECK: &str =
    "unsafe.topology.cluster.x-k8s.io/disable-update-class-name-check";
/// On a Cluster: the check of version changes is off; any value.
pub const DISABLE_UPDATE_VERSION_CHECK: &str =
    "unsafe.topology.cluster.x-k8s.io/disable-update-version-check";
/// On an object: hooks of runtime extensions that still have to run, joined by commas. This host has no runtime extensions, and does not
/// look at it.
pub const PENDING_HOOKS: &str = "runtime.cluster.x-k8s.io/pending-hooks";
/// On a Cluster: runtime extensions have let it be deleted. This host has none, and does not look at it.
pub const OK_TO_DELETE: &str = "runtime.cluster.x-k8s.io/ok-to-delete";
/// On an ExtensionConfig: `namespace/name` of the Secret whose CA it trusts. This host has no runtime extensions, and does not look at it.
pub const INJECT_CA_FROM_SECRET: &str = "runtime.cluster.x-k8s.io/inject-ca-from-secret";
/// On a Machine and its objects: it is being changed in place.
pub const UPDATE_IN_PROGRESS: &str =
    "in-place-updates.internal.cluster.x-k8s.io/update-in-progress";
/// On an object: `clusterctl move` waits for it; any value.
pub const BLOCK_MOVE: &str = "clusterctl.cluster.x-k8s.io/block-move";
/// On an object that `clusterctl move` is about to delete; the value is empty.
pub const DELETE_FOR_MOVE: &str = "clusterctl.cluster.x-k8s.io/delete-for-move";
/// On a CustomResourceDefinition: `clusterctl` does not check its name; any value.
pub const SKIP_CRD_NAME_PREFLIGHT_CHECK: &str =
    "clusterctl.cluster.x-k8s.io/skip-crd-name-preflight-check";
/// On a CustomResourceDefinition: the generation whose stored objects were migrated.
pub const CRD_MIGRATION_OBSERVED_GENERATION: &str =
    "crd-migration.cluster.x-k8s.io/observed-generation";
/// Prefix of annotations that tell the autoscaler the size of a machine that does not exist yet.
pub const AUTOSCALER_CAPACITY_PREFIX: &str = "capacity.cluster-autoscaler.kubernetes.io/";
/// On a Machine that is being deleted: what bound hooks have answered, as JSON by name of the MachineHook. Written by the host.
pub const HOOKS: &str = "capstan.dev/hooks";
/// On a MachineDeployment, or on a Namespace for all RollingUpdate deployments in it: name of the plugin that plans rollouts.
pub const STRATEGY: &str = "capstan.dev/upgrade-strategy";
/// Beside it: settings for that plugin, a JSON object.
pub const STRATEGY_SETTINGS: &str = "capstan.dev/upgrade-strategy-settings";
/// On a MachineDeployment: what its strategy keeps between calls, as JSON. Written by the host.
pub const STRATEGY_STATE: &str = "capstan.dev/upgrade-strategy-state";
/// A plugin's state of its own object: base64 of at most 64 KiB. Written by the host for the plugin.
pub const PLUGIN_STATE: &str = "capstan.dev/state";
/// On an object that plugins are called about, or on a Plugin for all its calls: `true` has a host that was given a directory for them
/// write records of the calls.
pub const RECORD: &str = "capstan.dev/record";
/// On the host's Pod: the most that plugins may be granted, as the file of `--ceiling`. Its volume shows it to the host.
pub const CEILING: &str = "capstan.dev/ceiling";
/// On a Plugin: names of CustomResourceDefinitions that somebody else has installed, joined by commas; the plugin's own may take their
/// place when they are of kinds of its manifest.
pub const REPLACES_DEFINITIONS: &str = "capstan.dev/replaces-definitions";
/// On a ConfigMap that holds a plugin, or a part: signatures of the component in base64, with white space between them.
pub const PLUGIN_SIGNATURE: &str = "capstan.dev/signature";
/// On a control plane: where the last snapshot of its etcd is, its size and its time, as JSON.
pub const ETCD_SNAPSHOT: &str = "capstan.dev/etcd-snapshot";
/// On a control plane: rotate its certificate authorities and service account key; a name for the rotation, such as the day. Another name rotates again; removing it
/// before the old authorities are dropped goes back.
pub const ROTATE_CA: &str = "capstan.dev/rotate-ca";
/// On a Cluster: how far the rotation of its certificate authorities is, as JSON. On their Secrets: what they hold. Written by the host.
pub const CA_ROTATION: &str = "capstan.dev/ca-rotation";
/// On a bootstrap config: what its machine said when it did not become a node, as JSON: `phase`, `exitCode`, `time`, `log`.
pub const BOOTSTRAP_REPORT: &str = "capstan.dev/bootstrap-report";
/// On a bootstrap config, its Machine or its Cluster: machines are not told where to report a failed bootstrap; any value.
pub const NO_BOOTSTRAP_REPORT: &str = "capstan.dev/no-bootstrap-report";
/// On a MachineSet that was made because the time of a rollout had come (`rollout.after`, a rotation of authorities): that time. The set
/// counts as made since then, also where the server's clock is behind the host's.
pub const ROLLED_OUT_AFTER: &str = "capstan.dev/rolled-out-after";
/// On what a template's labels and annotations were passed on to: which keys, so that those that leave the template can be taken back
/// while everything that others set stays. A JSON object of two lists, `labels` and `annotations`.
pub const PROPAGATED: &str = "capstan.dev/propagated-keys";
/// On definitions and policies that the host installed: hash of what it installed last. The same is not installed twice.
pub const INSTALLED: &str = "capstan.dev/installed";
