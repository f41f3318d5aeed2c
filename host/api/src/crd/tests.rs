//! What a provider's definition holds, and which kinds are refused.

use super::*;

fn machine() -> OwnedKind {
    OwnedKind {
        role: Role::InfraMachine,
        group: "infrastructure.cluster.x-k8s.io".to_owned(),
        version: "v1alpha1".to_owned(),
        kind: "LocalMachine".to_owned(),
        plural: "localmachines".to_owned(),
        short_names: vec!["lm".to_owned()],
        spec_schema: json!({"type": "object", "properties": {"size": {"type": "string"}}}),
        status_schema: json!({"type": "object", "properties": {"instance": {"type": "string"}}}),
        columns: vec![Column {
            name: "Size".to_owned(),
            json_path: ".spec.size".to_owned(),
            type_: "string".to_owned(),
            priority: 0,
        }],
        plugin: "infrastructure-local".to_owned(),
    }
}

fn template() -> OwnedKind {
    OwnedKind {
        role: Role::InfraMachineTemplate,
        kind: "LocalMachineTemplate".to_owned(),
        plural: "localmachinetemplates".to_owned(),
        short_names: Vec::new(),
        status_schema: Value::Null,
        columns: Vec::new(),
        ..machine()
    }
}

fn control_plane() -> OwnedKind {
    OwnedKind {
        role: Role::ControlPlane,
        kind: "LocalControlPlane".to_owned(),
        plural: "localcontrolplanes".to_owned(),
        short_names: Vec::new(),
        spec_schema: json!({"type": "object", "properties": {"replicas": {"type": "integer", "format": "int32"}}}),
        ..machine()
    }
}

fn built(owned: &OwnedKind) -> Value {
    serde_json::to_value(provider_crd(owned).unwrap()).unwrap()
}

fn schema(crd: &Value) -> &Value {
    &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
}

#[test]
fn a_kind_without_a_status_of_its_own_has_the_contracts() {
    for none in [Value::Null, json!({})] {
        let crd = built(&OwnedKind {
            status_schema: none,
            ..machine()
        });
        let status = &schema(&crd)["status"];
        assert_eq!(status["type"], "object");
        assert!(status["properties"].get("initialization").is_some());
    }
}

#[test]
fn contract_fields_and_labels_are_added_to_the_providers_own() {
    let crd = built(&machine());
    assert_eq!(
        crd["metadata"]["name"],
        "localmachines.infrastructure.cluster.x-k8s.io"
    );
    assert_eq!(
        crd["metadata"]["labels"]["cluster.x-k8s.io/v1beta2"],
        "v1alpha1"
    );
    assert_eq!(
        crd["metadata"]["labels"]["cluster.x-k8s.io/provider"],
        "infrastructure-local"
    );
    assert_eq!(crd["metadata"]["labels"]["clusterctl.cluster.x-k8s.io"], "");
    let properties = schema(&crd);
    for field in ["size", "providerID"] {
        assert!(
            properties["spec"]["properties"][field].is_object(),
            "{field}"
        );
    }
    for field in [
        "instance",
        "initialization",
        "addresses",
        "failureDomain",
        "interruptible",
        "conditions",
    ] {
        assert!(
            properties["status"]["properties"][field].is_object(),
            "{field}"
        );
    }
}

#[test]
fn templates_wrap_the_spec_and_carry_capacity() {
    let crd = built(&template());
    let properties = schema(&crd);
    assert!(
        properties["spec"]["properties"]["template"]["properties"]["spec"]["properties"]["size"]
            .is_object()
    );
    assert!(properties["status"]["properties"]["capacity"].is_object());
    assert!(crd["spec"]["versions"][0]["subresources"]["status"].is_object());
}

#[test]
fn control_planes_with_replicas_can_be_scaled() {
    let crd = built(&control_plane());
    assert_eq!(
        crd["spec"]["versions"][0]["subresources"]["scale"]["labelSelectorPath"],
        ".status.selector"
    );
    let mut hosted = control_plane();
    hosted.spec_schema = json!({"type": "object"});
    assert!(built(&hosted)["spec"]["versions"][0]["subresources"]["scale"].is_null());
}

/// Whatever the engine reports has a place in each control plane's kind: a server drops what it does not know.
#[test]
fn control_planes_of_all_plugins_show_remediations_and_certificates() {
    let crd = built(&control_plane());
    let status = &schema(&crd)["status"]["properties"];
    assert_eq!(
        status["lastRemediation"]["required"],
        json!(["machine", "retryCount", "time"])
    );
    for field in ["certificates", "selector", "versions"] {
        assert!(status[field].is_object(), "{field}");
    }
}

#[test]
fn unusable_kinds_are_refused_with_the_path() {
    let path = |change: &dyn Fn(&mut OwnedKind)| {
        let mut owned = machine();
        change(&mut owned);
        let error = provider_crd(&owned).unwrap_err();
        assert!(error.to_string().contains(&owned.kind), "{error}");
        error.path
    };
    assert_eq!(path(&|owned| owned.plural = "boxes".to_owned()), "plural");
    assert_eq!(
        path(&|owned| owned.kind = "localMachine".to_owned()),
        "kind"
    );
    assert_eq!(
        path(&|owned| owned.role = Role::InfraMachineTemplate),
        "kind"
    );
    assert_eq!(
        path(&|owned| owned.group = "cluster.x-k8s.io".to_owned()),
        "group"
    );
    assert_eq!(
        path(&|owned| owned.spec_schema = json!({"type": "array"})),
        "specSchema"
    );
    assert_eq!(
        path(&|owned| owned.spec_schema["properties"]["size"] = json!({"$ref": "#/x"})),
        "specSchema.properties.size"
    );
    assert_eq!(
        path(&|owned| owned.spec_schema["properties"]["providerID"] = json!({"type": "object"})),
        "specSchema.properties.providerID"
    );
    assert_eq!(
        path(&|owned| owned.status_schema =
            json!({"type": "object", "description": "x".repeat(SCHEMA_MAX_BYTES)})),
        "statusSchema"
    );
}

/// Prints the definitions of this test, to be tried on a server by hand.
#[test]
fn definitions_print_as_yaml() {
    for owned in [machine(), template(), control_plane()] {
        let printed = crate::yaml::print(&built(&owned));
        let read: Value = serde_saphyr::from_str(&printed).unwrap();
        assert_eq!(read, built(&owned));
        if let Some(directory) = std::env::var_os("PRINT_CRDS") {
            std::fs::write(
                std::path::Path::new(&directory).join(format!("{}.yaml", owned.plural)),
                printed,
            )
            .unwrap();
        }
    }
}
