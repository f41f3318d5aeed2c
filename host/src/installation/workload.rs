//! What runs the host in a cluster: a Deployment of which one Pod works and the others stand by, and what is around it.

use capstan_api::annotation;
use capstan_engine::limit::CONTAINER_MEMORY_BYTES;
use serde_json::{Value, json};

use super::{Installation, NAME};

/// The user of the image.
const USER: u32 = 65532;

/// Where the host answers for its health and its metrics.
const PORT: u16 = 9440;

/// Where compiled plugins are kept: each Pod compiles for itself, and keeps it while its container restarts.
const CACHE: &str = "/var/cache/capstan";

/// The most that the cache takes; the host itself stays below half of it.
const CACHE_SIZE: &str = "1Gi";

/// Where the ceiling is. It comes from an annotation of the Pod: whoever may write ConfigMaps or Secrets cannot raise it.
const CEILING_DIR: &str = "/etc/capstan";

/// See [`CEILING_DIR`].
const CEILING_FILE: &str = "ceiling.yaml";

/// Where components are that Plugin objects name by their path.
const PLUGIN_DIR: &str = "/var/lib/capstan/plugins";

/// What the host finishes takes at most 20 s, giving the Lease back 2 s.
const GRACE_S: u32 = 30;

/// Deployment, PodDisruptionBudget, NetworkPolicy.
pub(super) fn documents(installation: &Installation) -> Vec<Value> {
    let labels = json!({"app.kubernetes.io/name": NAME});
    let metadata = json!({"namespace": installation.namespace, "name": NAME, "labels": labels});
    vec![
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
            "spec": {
                "replicas": installation.replicas,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels, "annotations": annotations(installation)},
                    "spec": pod(installation, &labels),
                },
            },
        }),
        json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata,
            "spec": {
                "maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": labels},
            },
        }),
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata,
            "spec": {
                "podSelector": {"matchLabels": labels},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"ports": [{"port": PORT, "protocol": "TCP"}]}],
                // API servers, registries and clouds may be anywhere; what clouds tell a machine about itself is nobody's business here.
                "egress": [
                    {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]},
                    {"to": [
                        {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}},
                        {"ipBlock": {"cidr": "::/0", "except": ["fe80::/10", "fd00:ec2::254/128"]}},
                    ]},
                ],
            },
        }),
    ]
}

fn annotations(installation: &Installation) -> Value {
    let mut annotations = json!({"kubectl.kubernetes.io/default-container": "manager"});
    if let (Some(text), Some(all)) = (&installation.ceiling, annotations.as_object_mut()) {
        all.insert(annotation::CEILING.to_owned(), json!(text));
    }
    annotations
}

/// What is mounted: each volume with its mount.
fn volumes(installation: &Installation) -> (Vec<Value>, Vec<Value>) {
    let cache = (
        json!({"name": "cache", "emptyDir": {"sizeLimit": CACHE_SIZE}}),
        json!({"name": "cache", "mountPath": CACHE}),
    );
    let ceiling = installation.ceiling.as_ref().map(|_| {
        let field = format!("metadata.annotations['{}']", annotation::CEILING);
        let item = json!({"path": CEILING_FILE, "fieldRef": {"fieldPath": field}});
        (
            json!({"name": "ceiling", "downwardAPI": {"items": [item]}}),
            json!({"name": "ceiling", "mountPath": CEILING_DIR, "readOnly": true}),
        )
    });
    let plugins = installation.plugin_claim.as_ref().map(|claim| {
        (
            json!({"name": "plugins", "persistentVolumeClaim": {"claimName": claim, "readOnly": true}}),
            json!({"name": "plugins", "mountPath": PLUGIN_DIR, "readOnly": true}),
        )
    });
    [Some(cache), ceiling, plugins]
        .into_iter()
        .flatten()
        .unzip()
}

fn pod(installation: &Installation, labels: &Value) -> Value {
    let (volumes, mounts) = volumes(installation);
    let probe = |path: &str, period_s: u32, failures: u32| {
        json!({
            "httpGet": {"path": path, "port": "admin"},
            "periodSeconds": period_s, "timeoutSeconds": 5, "failureThreshold": failures,
        })
    };
    let own = |name: &str, field: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": field}}});
    json!({
        "serviceAccountName": NAME,
        "automountServiceAccountToken": true,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": GRACE_S,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": labels},
        }],
        "containers": [{
            "name": "manager",
            "image": installation.image,
            "command": ["/capstan"],
            "args": args(installation),
            // By these the host sees that it runs on a cluster that it manages.
            "env": [
                own("POD_NAMESPACE", "metadata.namespace"),
                own("POD_NAME", "metadata.name"),
                own("POD_UID", "metadata.uid"),
            ],
            "ports": [{"name": "admin", "containerPort": PORT, "protocol": "TCP"}],
            "startupProbe": probe("/healthz", 2, 30),
            "livenessProbe": probe("/healthz", 10, 3),
            "readinessProbe": probe("/readyz", 5, 3),
            "resources": {
                "requests": {"cpu": "100m", "memory": "256Mi", "ephemeral-storage": CACHE_SIZE},
                // What guests and the compiler may use is counted from this. Processor time is not limited: renewing the Lease must
                // not wait for a quota.
                "limits": {"memory": format!("{}Mi", CONTAINER_MEMORY_BYTES >> 20)},
            },
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": mounts,
        }],
        "volumes": volumes,
    })
}

fn args(installation: &Installation) -> Vec<String> {
    let mut args: Vec<String> = ["run", "--leader-elect", "--log-format=json"]
        .map(str::to_owned)
        .to_vec();
    args.push(format!("--namespace={}", installation.namespace));
    // The directory below the mount is the host's own: it sets its mode.
    args.push(format!("--cache-dir={CACHE}/compiled"));
    args.push(format!("--admin-listen=0.0.0.0:{PORT}"));
    args.extend(
        installation
            .signatures
            .map(|policy| format!("--signatures={policy}")),
    );
    if installation.ceiling.is_some() {
        args.push(format!("--ceiling={CEILING_DIR}/{CEILING_FILE}"));
    }
    if installation.plugin_claim.is_some() {
        args.push(format!("--plugin-dir={PLUGIN_DIR}"));
    }
    if installation.record {
        args.push(format!("--record-dir={CACHE}/records"));
    }
    let collector = installation.otlp_endpoint.as_ref();
    args.extend(collector.map(|endpoint| format!("--otlp-endpoint={endpoint}")));
    args
}
