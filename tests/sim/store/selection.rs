//! What a list or a watch shows of an object, and whether it shows it.

use std::sync::Arc;

use capstan_controllers::kube_api::Selection;
use serde_json::{Value, json};

use crate::object::{self, text};

pub(super) fn shown(object: &Arc<Value>, selection: &Selection) -> Value {
    if selection.metadata_only {
        json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"]})
    } else {
        (**object).clone()
    }
}

pub(super) fn is_selected(object: &Value, selection: &Selection) -> bool {
    let in_namespace = selection
        .namespace
        .as_deref()
        .is_none_or(|namespace| namespace == text(object, "/metadata/namespace"));
    let mut labels = selection.labels.iter().flat_map(|labels| labels.split(','));
    let labelled = labels.all(|wanted| match wanted.split_once('=') {
        Some((name, value)) => object::label(object, name) == Some(value),
        None => object::label(object, wanted).is_some(),
    });
    let mut fields = selection.fields.iter().flat_map(|fields| fields.split(','));
    let has_fields = fields.all(|wanted| {
        wanted.split_once('=').is_some_and(|(path, value)| {
            text(object, &format!("/{}", path.replace('.', "/"))) == value
        })
    });
    in_namespace && labelled && has_fields
}
