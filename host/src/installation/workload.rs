//! What runs the host in a cluster: a Deployment of which one Pod works and the others stand by, and what is around it.

use std::path::{Component, Path};

use capstan_api::annotation;
use capstan_engine::METADATA_V6;
use capstan_engine::limit::CONTAINER_MEMORY_BYTES;
use serde_json::{Value, json};

use super::{Claim, Installation, NAME, Reports};

/// The user of the image.
const USER: u32 = 65532;

/// Where the host answers for its health and its metrics.
pub(crate) const PORT: u16 = 9440;

/// Name of the port at which machines report, and of its Service.
const REPORT_PORT: &str = "reports";
const REPORT_SERVICE: &str = "capstan-bootstrap-report";

/// Name of the volume with snapshots of etcd.
const SNAPSHOTS: &str = "etcd-snapshots";

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

/// Whether a volume may be mounted at a path: it is an absolute one, and nothing else of the host is there, above or below.
pub(crate) fn is_free(path: &Path) -> bool {
    let is_plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let taken = [CACHE, CEILING_DIR, PLUGIN_DIR].map(Path::new);
    path.is_absolute()
        && path.components().all(is_plain)
        && !path.to_string_lossy().contains(':')
        && !taken
            .iter()
            .any(|taken| taken.starts_with(path) || path.starts_with(taken))
}

/// Claim and Service, where they are wanted; Deployment, PodDisruptionBudget, NetworkPolicy.
pub(super) fn documents(installation: &Installation) -> Vec<Value> {
    let labels = json!({"app.kubernetes.io/name": NAME});
    let metadata = json!({"namespace": installation.namespace, "name": NAME, "labels": labels});
    let mut spec = json!({
        "replicas": installation.replicas,
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels, "annotations": annotations(installation)},
            "spec": pod(installation, &labels),
        },
    });
    let volume = volume(installation);
    // The next Pod may be on another node, where the volume cannot be before it has left this one.
    let strategy =
        (volume.is_some() && is_alone(installation)).then(|| json!({"type": "Recreate"}));
    set(&mut spec, "strategy", strategy);
    let let_in = [Some(PORT), installation.reports.as_ref().map(|it| it.port)];
    let let_in = let_in.into_iter().flatten();
    let let_in: Vec<Value> = let_in
        .map(|port| json!({"port": port, "protocol": "TCP"}))
        .collect();
    let around = [
        volume.and_then(|volume| claim(installation, volume)),
        installation
            .reports
            .as_ref()
            .map(|reports| service(installation, reports, &labels)),
    ];
    let mut documents: Vec<Value> = around.into_iter().flatten().collect();
    documents.extend([
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec,
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
                "ingress": [{"ports": let_in}],
                // API servers, registries and clouds may be anywhere; what clouds tell a machine about itself is nobody's business here.
                "egress": [
                    {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]},
                    {"to": [
                        {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}},
                        {"ipBlock": {"cidr": "::/0", "except": metadata_v6()}},
                    ]},
                ],
            },
        }),
    ]);
    documents
}

/// Sets a field of an object, if there is something to set.
fn set(object: &mut Value, field: &str, value: Option<Value>) {
    if let (Some(value), Some(object)) = (value, object.as_object_mut()) {
        object.insert(field.to_owned(), value);
    }
}

fn volume(installation: &Installation) -> Option<&Claim> {
    installation.snapshots.as_ref()?.volume.as_ref()
}

fn is_alone(installation: &Installation) -> bool {
    installation.replicas <= 1
}

/// Links, and where clouds tell a machine about itself by IPv6.
fn metadata_v6() -> Vec<String> {
    let addresses = METADATA_V6.iter().map(|address| format!("{address}/128"));
    std::iter::once("fe80::/10".to_owned())
        .chain(addresses)
        .collect()
}

/// The claim to a volume, when it is to be made. Of several hosts each has it mounted, and one writes.
fn claim(installation: &Installation, claim: &Claim) -> Option<Value> {
    let size = claim.size.as_ref()?;
    let mode = if is_alone(installation) {
        "ReadWriteOnce"
    } else {
        "ReadWriteMany"
    };
    let mut spec = json!({
        "accessModes": [mode], "resources": {"requests": {"storage": size}},
    });
    set(
        &mut spec,
        "storageClassName",
        claim.class.as_ref().map(|class| json!(class)),
    );
    Some(json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"namespace": installation.namespace, "name": claim.name},
        "spec": spec,
    }))
}

/// How machines reach the hosts. One that stands by sends them away, and they come again.
fn service(installation: &Installation, reports: &Reports, labels: &Value) -> Value {
    let of_nodes = (reports.service == "NodePort").then_some(reports.public_port);
    let own = of_nodes.map_or(reports.public_port, |_| reports.port);
    let mut port = json!({
        "name": REPORT_PORT, "targetPort": REPORT_PORT, "protocol": "TCP", "port": own,
    });
    set(&mut port, "nodePort", of_nodes.map(|port| json!(port)));
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": installation.namespace, "name": REPORT_SERVICE, "labels": labels},
        "spec": {"type": reports.service, "selector": labels, "ports": [port]},
    })
}

fn annotations(installation: &Installation) -> Value {
    let mut annotations = json!({"kubectl.kubernetes.io/default-container": "manager"});
    let ceiling = installation.ceiling.as_ref().map(|text| json!(text));
    set(&mut annotations, annotation::CEILING, ceiling);
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
    let snapshots = volume(installation).map(|claim| {
        (
            json!({"name": SNAPSHOTS, "persistentVolumeClaim": {"claimName": claim.name}}),
            json!({"name": SNAPSHOTS, "mountPath": claim.mount}),
        )
    });
    [Some(cache), ceiling, plugins, snapshots]
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
    let mut ports = vec![json!({"name": "admin", "containerPort": PORT, "protocol": "TCP"})];
    ports.extend(installation.reports.as_ref().map(
        |reports| json!({"name": REPORT_PORT, "containerPort": reports.port, "protocol": "TCP"}),
    ));
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
            "ports": ports,
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
    let snapshots = installation.snapshots.iter().flat_map(|it| &it.flags);
    let reports = installation.reports.iter().flat_map(|it| &it.flags);
    let others = snapshots.chain(reports).chain(&installation.node_sync);
    args.extend(others.cloned());
    let collector = installation.otlp_endpoint.as_ref();
    args.extend(collector.map(|endpoint| format!("--otlp-endpoint={endpoint}")));
    args
}
