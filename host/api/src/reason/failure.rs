//! Why a reconcile could not do something. Where nothing better is known, these are the reasons of conditions; the host's log always has them.

words! {
    /// The API server was asked to change something that somebody else had just changed. The host looks again at once; nothing to do.
    CONFLICT = "Conflict",
    /// The API server refused an object as it is. The message has its words; correct the field that they name.
    REFUSED = "Refused",
    /// The host may not do this in the management cluster. Give its ServiceAccount the right that the message names.
    FORBIDDEN = "Forbidden",
    /// The API server has too much to do. The host waits as long as it asked for; if it stays look at the server's load.
    TOO_MANY_REQUESTS = "TooManyRequests",
    /// The API server did not answer as it should. The host tries again; if it stays look at the server.
    REQUEST_FAILED = "RequestFailed",
    /// The workload cluster's API server refused or did not answer. The message says which request; the host tries again.
    WORKLOAD_REQUEST_FAILED = "WorkloadRequestFailed",
    /// A member of the workload cluster's etcd did not answer. The message says which request; the host tries again.
    ETCD_REQUEST_FAILED = "EtcdRequestFailed",
    /// There is no connection to the workload cluster. Look at the Cluster's condition RemoteConnectionProbe.
    NOT_CONNECTED = "NotConnected",
    /// The workload cluster's server refused the eviction of a Pod. The message names it; the host tries again.
    DRAIN_REFUSED = "DrainRefused",
    /// A reconcile took too long and was broken off. The host tries again; if it stays look for a plugin or server that does not answer.
    RECONCILE_DEADLINE_EXCEEDED = "ReconcileDeadlineExceeded",
    /// The host decided on more steps than it takes at a time, which is a mistake of the host. Report it.
    PLAN_TOO_LONG = "PlanTooLong",
    /// An object lacks something that every object has, or holds what its kind does not allow. The message names it.
    INVALID_OBJECT = "InvalidObject",
    /// No CustomResourceDefinition serves the kind that a reference names. Install its provider or correct the reference.
    KIND_NOT_INSTALLED = "KindNotInstalled",
    /// The API server does not list the objects of a kind that a reference names, so nothing is known of them. The message has its words: give the
    /// host the right, or look at the CustomResourceDefinition's conditions and versions.
    KIND_NOT_LISTED = "KindNotListed",
    /// A kind that the host installed is not served after a while. Look at the CustomResourceDefinition's conditions.
    KIND_NOT_SERVED = "KindNotServed",
    /// The CustomResourceDefinition of a provider lacks the label cluster.x-k8s.io/v1beta2 with a version. Upgrade the provider.
    CONTRACT_NOT_SUPPORTED = "ContractNotSupported",
    /// The Cluster that spec.clusterName names does not exist. Create it or correct the field.
    CLUSTER_NOT_FOUND = "ClusterNotFound",
    /// A control plane has no Cluster yet. Create one whose controlPlaneRef names it.
    WAITING_FOR_CLUSTER = "WaitingForCluster",
    /// The MachineDeployment that owns a MachineSet does not exist. The garbage collector removes the set; wait.
    MACHINE_DEPLOYMENT_NOT_FOUND = "MachineDeploymentNotFound",
    /// The Secret with the Machine's bootstrap data is not there yet or is gone. Look at the bootstrap object.
    BOOTSTRAP_DATA_MISSING = "BootstrapDataMissing",
    /// A template cannot be copied. The message says what is wrong with it.
    INVALID_TEMPLATE = "InvalidTemplate",
    /// Content from a Secret that should be a template is none. The message names the file and the place.
    TEMPLATE_INVALID = "TemplateInvalid",
    /// An object of another owner has the name that a new Machine needs. Delete it or change the naming strategy.
    NAME_TAKEN = "NameTaken",
    /// A Secret that the host should make exists and is another's. Give the object that it is made for another name, or delete the Secret if nobody needs it.
    SECRET_EXISTS = "SecretExists",
    /// A Secret that an object refers to does not exist. Create it or correct the reference.
    SECRET_NOT_FOUND = "SecretNotFound",
    /// A Secret's content goes into a place that takes text only, and is none. The message names the Secret, the key, and the encodings that do.
    SECRET_NOT_TEXT = "SecretNotText",
    /// A machine's data would not fit into a Secret. The message names what is largest; let a command on the machine fetch it.
    BOOTSTRAP_DATA_TOO_LARGE = "BootstrapDataTooLarge",
    /// A Secret lacks what a rotation of the authorities keeps in it. Restore the Secret that the message names from a backup.
    SECRET_INCOMPLETE = "SecretIncomplete",
    /// A Secret of a Cluster's name belongs to another Cluster. Delete it, or give the Cluster another name.
    SECRET_OF_ANOTHER_CLUSTER = "SecretOfAnotherCluster",
    /// A Secret is not what it is named for, such as a kubeconfig as a machine's data. The message names the field that names it; correct that.
    SECRET_REFUSED = "SecretRefused",
    /// An object that was planned for went away meanwhile. Plan again.
    GONE = "Gone",
    /// The upgrade strategy has not been asked yet. Wait.
    NOT_ASKED = "NotAsked",
    /// The object that was given is no MachineDeployment that the server knows. Correct the name.
    NOT_A_MACHINE_DEPLOYMENT = "NotAMachineDeployment",
    /// The plugin that the plan needs is not loaded. Look at its Plugin object's conditions.
    NOT_LOADED = "NotLoaded",
    /// An object cannot be read as its kind. Look at what another client wrote there.
    UNREADABLE = "Unreadable",
    /// Objects that are in no resource of a ClusterResourceSet any more could not be deleted. The message names them; it is tried again.
    NOT_PRUNED = "NotPruned",
    /// The hook that a Machine waited for is bound no more. Nothing to do.
    HOOK_GONE = "HookGone",
    /// No active plugin serves the kind. Install the one that the message names, or look at its Plugin object.
    PLUGIN_MISSING = "PluginMissing",
    /// A plugin's answer broke a rule, so nothing of it was done. The message names the field; report it to the plugin's author.
    PLUGIN_BAD_ANSWER = "PluginBadAnswer",
    /// A plugin crashed in a call. Read status.lastError of its Plugin object and report it to the plugin's author.
    PLUGIN_TRAPPED = "PluginTrapped",
    /// A plugin did not answer in time. Look at what it calls, or raise the time in spec.limits of its Plugin object.
    PLUGIN_DEADLINE_EXCEEDED = "PluginDeadlineExceeded",
    /// A plugin computed for longer than it may. Raise the limit in spec.limits of its Plugin object or report it to the plugin's author.
    PLUGIN_CPU_EXCEEDED = "PluginCpuExceeded",
    /// A plugin needed more memory than it may use. Raise the limit in spec.limits of its Plugin object.
    PLUGIN_OUT_OF_MEMORY = "PluginOutOfMemory",
    /// A plugin said no without a reason that can be shown. Its words are in the message.
    PLUGIN_REFUSED = "PluginRefused",
    /// What a plugin should be asked is larger than a question may be. Look for something very large in the objects that the message names.
    PLUGIN_INPUT_TOO_LARGE = "PluginInputTooLarge",
    /// A plugin does not offer the interface that it is asked through. Correct which plugin is named, or install another version.
    PLUGIN_INTERFACE_MISSING = "PluginInterfaceMissing",
    /// More calls of a plugin wait than may. It is asked again in a moment; if it stays look for calls that take long.
    PLUGIN_BUSY = "PluginBusy",
    /// A plugin failed so often that it is not asked for a while. Read status.lastError of its Plugin object.
    PLUGIN_STOPPED = "PluginStopped",
    /// The host could not carry out a call of a plugin, which is no mistake of the plugin. Look into the host's log.
    PLUGIN_HOST_FAILED = "PluginHostFailed",
    /// The host lost its lease, and another one may be at work. It ends and stands by when it is started again.
    LEASE_LOST = "LeaseLost",
}
