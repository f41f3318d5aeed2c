//! What a workload API server does to an object before it stores it: defaults, fields that clients may not set, and the rules that it checks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::identity::Identity;
use super::object::{self, as_object, child, list_at, metadata, text_at};
use super::request::Target;
use super::resources::Resource;
use super::status::Status;

/// Makes a request's object ready to be stored for the first time.
pub(crate) fn for_create(
    target: &Target,
    mut value: Value,
    who: &Identity,
) -> Result<Value, Status> {
    check_kind(target, &mut value)?;
    let resource = target.resource;
    let name = name_of(resource, &mut value)?;
    let uid = object::new_uid();
    let meta = metadata(&mut value);
    for gone in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "resourceVersion",
        "generateName",
    ] {
        if gone != "generateName" || meta.get(gone).and_then(Value::as_str) == Some("") {
            meta.remove(gone);
        }
    }
    meta.insert("name".into(), json!(name));
    meta.insert("uid".into(), json!(uid));
    meta.insert("creationTimestamp".into(), json!(object::now_text()));
    if resource.namespaced {
        meta.insert("namespace".into(), json!(target.namespace));
    } else {
        meta.remove("namespace");
    }
    if has_generation(resource) {
        meta.insert("generation".into(), json!(1));
    } else {
        meta.remove("generation");
    }
    if resource.has_status() && resource.plural != "nodes" {
        as_object(&mut value).remove("status");
    }
    defaults(resource, &mut value, who);
    check(resource, &value)?;
    Ok(value)
}

fn has_generation(resource: &Resource) -> bool {
    matches!(resource.group, "apps" | "batch" | "policy") || resource.plural == "pods"
}

fn check_kind(target: &Target, value: &mut Value) -> Result<(), Status> {
    if !value.is_object() {
        return Err(Status::bad_request("the body is not an object"));
    }
    let (api_version, kind) = (target.resource.api_version(), target.resource.kind);
    for (field, wanted) in [("apiVersion", api_version.as_str()), ("kind", kind)] {
        let given = value.get(field).and_then(Value::as_str).unwrap_or_default();
        if !given.is_empty() && given != wanted {
            let message = format!(
                "{field} in the data ({given}) does not match the expected {field} ({wanted})"
            );
            return Err(Status::bad_request(message));
        }
        as_object(value).insert(field.to_owned(), json!(wanted));
    }
    let namespace = object::namespace(value);
    if target.resource.namespaced && !namespace.is_empty() && namespace != target.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

fn name_of(resource: &Resource, value: &mut Value) -> Result<String, Status> {
    let given = object::name(value).to_owned();
    let name = if given.is_empty() {
        let prefix = text_at(value, "/metadata/generateName");
        if prefix.is_empty() {
            return Err(Status::invalid(
                resource,
                "",
                "metadata.name",
                "Required value: name or generateName is required",
            ));
        }
        format!("{prefix}{}", object::random_suffix(5))
    } else {
        given
    };
    let lenient = resource.group == "rbac.authorization.k8s.io";
    let good = if lenient {
        !name.contains('/') && !name.contains('%') && name != "." && name != ".."
    } else {
        name.len() <= 253
            && name.split('.').all(|label| {
                let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
                !label.is_empty()
                    && label.chars().all(inner)
                    && !label.starts_with('-')
                    && !label.ends_with('-')
            })
    };
    if good {
        return Ok(name);
    }
    let why = format!(
        "Invalid value: {name:?}: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'"
    );
    Err(Status::invalid(resource, &name, "metadata.name", &why))
}

fn default(value: &mut Value, at: &str, key: &str, with: Value) {
    child(value, at).entry(key.to_owned()).or_insert(with);
}

fn defaults(resource: &Resource, value: &mut Value, who: &Identity) {
    match (resource.group, resource.plural) {
        ("", "namespaces") => {
            let name = object::name(value).to_owned();
            child(value, "spec").insert("finalizers".into(), json!(["kubernetes"]));
            child(value, "status").insert("phase".into(), json!("Active"));
            let labels = metadata(value).entry("labels").or_insert_with(|| json!({}));
            as_object(labels).insert("kubernetes.io/metadata.name".into(), json!(name));
        }
        ("", "pods") => {
            for (key, with) in [
                ("restartPolicy", json!("Always")),
                ("terminationGracePeriodSeconds", json!(30)),
                ("dnsPolicy", json!("ClusterFirst")),
                ("schedulerName", json!("default-scheduler")),
                ("securityContext", json!({})),
            ] {
                default(value, "spec", key, with);
            }
            child(value, "status").insert("phase".into(), json!("Pending"));
        }
        ("", "secrets") => {
            default_type(value);
            merge_string_data(value);
        }
        ("", "services") => default(value, "spec", "type", json!("ClusterIP")),
        ("", "persistentvolumes" | "persistentvolumeclaims") => {
            child(value, "status").insert("phase".into(), json!("Pending"));
        }
        ("apps", "deployments" | "replicasets" | "statefulsets") => {
            default(value, "spec", "replicas", json!(1))
        }
        ("certificates.k8s.io", "certificatesigningrequests") => {
            let spec = child(value, "spec");
            spec.insert("username".into(), json!(who.name));
            spec.insert("groups".into(), json!(who.groups));
        }
        _ => {}
    }
}

fn default_type(value: &mut Value) {
    let object = as_object(value);
    if object
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .is_empty()
    {
        object.insert("type".into(), json!("Opaque"));
    }
}

fn merge_string_data(value: &mut Value) {
    let Some(Value::Object(texts)) = as_object(value).remove("stringData") else {
        return;
    };
    let data = child(value, "data");
    for (key, text) in texts {
        data.insert(
            key,
            json!(STANDARD.encode(text.as_str().unwrap_or_default())),
        );
    }
}

fn check(resource: &Resource, value: &Value) -> Result<(), Status> {
    let name = object::name(value);
    let required = |pointer: &str, field: &str| {
        if value
            .pointer(pointer)
            .is_none_or(|found| found.is_null() || found == &json!([]) || found == &json!(""))
        {
            Err(Status::invalid(resource, name, field, "Required value"))
        } else {
            Ok(())
        }
    };
    match (resource.group, resource.plural) {
        ("", "pods") => required("/spec/containers", "spec.containers")?,
        ("apps", _) => {
            required("/spec/selector", "spec.selector")?;
            let labels = json!({"metadata": value.pointer("/spec/template/metadata").cloned().unwrap_or_default()});
            let selector = value.pointer("/spec/selector").cloned().unwrap_or_default();
            if !super::selectors::Selector::from_object(&selector).accepts(&labels) {
                let why = "Invalid value: `selector` does not match template `labels`";
                return Err(Status::invalid(
                    resource,
                    name,
                    "spec.template.metadata.labels",
                    why,
                ));
            }
        }
        ("certificates.k8s.io", _) => {
            required("/spec/request", "spec.request")?;
            required("/spec/signerName", "spec.signerName")?;
        }
        ("rbac.authorization.k8s.io", "clusterrolebindings" | "rolebindings") => {
            required("/roleRef/name", "roleRef.name")?
        }
        _ => {}
    }
    for (at, owner) in list_at(value, "/metadata/ownerReferences")
        .iter()
        .enumerate()
    {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if text_at(owner, &format!("/{field}")).is_empty() {
                let path = format!("metadata.ownerReferences[{at}].{field}");
                return Err(Status::invalid(resource, name, &path, "Required value"));
            }
        }
    }
    Ok(())
}

/// Makes a request's object ready to replace the stored one.
pub(crate) fn for_update(target: &Target, old: &Value, mut new: Value) -> Result<Value, Status> {
    check_kind(target, &mut new)?;
    let resource = target.resource;
    let name = object::name(old).to_owned();
    if object::name(&new) != name {
        let message = format!(
            "the name of the object ({}) does not match the name on the URL ({name})",
            object::name(&new)
        );
        return Err(Status::bad_request(message));
    }
    let given_uid = object::uid(&new);
    if !given_uid.is_empty() && given_uid != object::uid(old) {
        let why = format!(
            "Precondition failed: UID in precondition: {given_uid}, UID in object meta: {}",
            object::uid(old)
        );
        return Err(Status::conflict(resource, &name, &why));
    }
    let given = text_at(&new, "/metadata/resourceVersion");
    if !given.is_empty() && given != "0" && given != text_at(old, "/metadata/resourceVersion") {
        return Err(Status::stale(resource, &name));
    }
    keep_fields(target, old, &mut new);
    if object::is_deleting(old) {
        let before = list_at(old, "/metadata/finalizers");
        if list_at(&new, "/metadata/finalizers")
            .iter()
            .any(|finalizer| !before.contains(finalizer))
        {
            let why = "Forbidden: no new finalizers can be added if the object is being deleted";
            return Err(Status::invalid(resource, &name, "metadata.finalizers", why));
        }
    }
    check(resource, &new)?;
    check_immutable(resource, old, &new)?;
    Ok(new)
}

/// Puts back what this request may not change, and counts the generation.
fn keep_fields(target: &Target, old: &Value, new: &mut Value) {
    let resource = target.resource;
    if resource.plural == "secrets" {
        merge_string_data(new);
        default_type(new);
    }
    match target.subresource.as_str() {
        "" if resource.has_status() => match old.get("status") {
            Some(status) => {
                as_object(new).insert("status".into(), status.clone());
            }
            None => {
                as_object(new).remove("status");
            }
        },
        "status" | "approval" => {
            let status = new.get("status").cloned();
            let meta = new.get("metadata").cloned();
            *new = old.clone();
            if let Some(status) = status {
                as_object(new).insert("status".into(), status);
            }
            if let (Some(meta), "nodes") = (meta, resource.plural) {
                as_object(new).insert("metadata".into(), meta);
            }
        }
        "finalize" => {
            let finalizers = new
                .pointer("/spec/finalizers")
                .cloned()
                .unwrap_or_else(|| json!([]));
            *new = old.clone();
            child(new, "spec").insert("finalizers".into(), finalizers);
        }
        _ => {}
    }
    let meta = metadata(new);
    for key in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "namespace",
        "resourceVersion",
        "generateName",
    ] {
        match old.get("metadata").and_then(|meta| meta.get(key)) {
            Some(kept) => {
                meta.insert(key.to_owned(), kept.clone());
            }
            None => {
                meta.remove(key);
            }
        }
    }
    let differs =
        |key: &String| key != "metadata" && key != "status" && old.get(key) != new.get(key);
    let changed = has_generation(resource)
        && (as_object(&mut old.clone()).keys().any(differs)
            || as_object(&mut new.clone()).keys().any(differs));
    if changed {
        bump_generation(new);
    }
}

/// Counts one change of what is wanted.
pub(crate) fn bump_generation(value: &mut Value) {
    let meta = metadata(value);
    if let Some(generation) = meta.get("generation").and_then(Value::as_i64) {
        meta.insert("generation".into(), json!(generation.saturating_add(1)));
    }
}

fn check_immutable(resource: &Resource, old: &Value, new: &Value) -> Result<(), Status> {
    let name = object::name(old);
    let same = |pointer: &str| {
        old.pointer(pointer).unwrap_or(&Value::Null) == new.pointer(pointer).unwrap_or(&Value::Null)
    };
    let fields: &[(&str, &str)] = match (resource.group, resource.plural) {
        ("", "pods") => &[
            ("/spec/nodeName", "spec.nodeName"),
            ("/spec/containers/0/name", "spec.containers[0].name"),
        ],
        ("", "secrets") => &[("/type", "type")],
        ("apps", _) => &[("/spec/selector", "spec.selector")],
        ("rbac.authorization.k8s.io", "clusterrolebindings" | "rolebindings") => {
            &[("/roleRef", "roleRef")]
        }
        ("certificates.k8s.io", _) => &[("/spec", "spec")],
        _ => &[],
    };
    for (pointer, field) in fields {
        if !same(pointer) {
            return Err(Status::invalid(
                resource,
                name,
                field,
                "Invalid value: field is immutable",
            ));
        }
    }
    let provider = text_at(old, "/spec/providerID");
    if resource.plural == "nodes" && !provider.is_empty() && !same("/spec/providerID") {
        let why = "Forbidden: node updates may not change providerID except from \"\" to valid";
        return Err(Status::new(
            422,
            "Invalid",
            format!("Node \"{name}\" is invalid: spec.providerID: {why}"),
        ));
    }
    let frozen = matches!(resource.plural, "configmaps" | "secrets")
        && old.get("immutable").and_then(Value::as_bool) == Some(true);
    if frozen && !(same("/data") && same("/immutable")) {
        return Err(Status::invalid(
            resource,
            name,
            "data",
            "Forbidden: field is immutable when `immutable` is set",
        ));
    }
    Ok(())
}
