//! When certificates end that are in no control plane's list: those of Clusters without a control plane object that the host looks after.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use capstan_api::contract::SecretPurpose;
use capstan_api::name::ObjectKey;
use capstan_api::v1beta2::Cluster;
use capstan_core::material::{CERTIFICATE_KEY, KUBECONFIG, secret_key};
use jiff::Timestamp;

use crate::control_plane;
use crate::ctx::Ctx;
use crate::etcd::identity::brought_end;
use crate::kube_api::ApiError;
use crate::pki;
use crate::reference::reference_kind;
use crate::secrets::kubeconfig;

/// Purposes of the Secrets with authorities that the first machine's bootstrap config makes, or people bring.
const AUTHORITIES: [SecretPurpose; 3] = [
    SecretPurpose::ClusterCa,
    SecretPurpose::EtcdCa,
    SecretPurpose::FrontProxyCa,
];

/// A certificate's name and its end.
pub type End = (String, Timestamp);

/// What was seen when each of these Clusters was last looked at. Clones share it. As long as the Clusters are there, so are their entries:
/// one each, of no more than the authorities, a kubeconfig, and what etcd and the endpoint have.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    ends: Arc<Mutex<BTreeMap<ObjectKey, Vec<End>>>>,
}

impl Certificates {
    /// Notes what a Cluster has; where a control plane lists it, or the Cluster goes, nothing. While its Secrets cannot be read, what was
    /// seen before stays.
    pub(crate) async fn look(&self, ctx: &Ctx, key: &ObjectKey, cluster: &Cluster) {
        if cluster.metadata.deletion_timestamp.is_some() || is_listed(ctx, cluster) {
            self.forget(key);
            return;
        }
        match of(ctx, key).await {
            Ok(ends) => self.note(key, ends),
            Err(error) => tracing::debug!(cluster = %key, %error, "cannot read certificates"),
        }
    }

    /// Notes the ends of a Cluster's certificates.
    pub fn note(&self, cluster: &ObjectKey, ends: Vec<End>) {
        self.lock().insert(cluster.clone(), ends);
    }

    /// The Cluster is gone.
    pub fn forget(&self, cluster: &ObjectKey) {
        self.lock().remove(cluster);
    }

    /// All, by Cluster.
    #[must_use]
    pub fn all(&self) -> Vec<(ObjectKey, Vec<End>)> {
        let ends = self.lock();
        let all = ends.iter();
        all.map(|(key, ends)| (key.clone(), ends.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, Vec<End>>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the Cluster has a control plane object of a kind that the host looks after: its status lists the certificates.
fn is_listed(ctx: &Ctx, cluster: &Cluster) -> bool {
    let kind = cluster.spec.control_plane_ref.as_ref().map(reference_kind);
    kind.is_some_and(|kind| ctx.plugins.role_of(&kind).as_deref() == Some(control_plane::ROLE))
}

async fn of(ctx: &Ctx, cluster: &ObjectKey) -> Result<Vec<End>, ApiError> {
    let mut ends = Vec::new();
    for purpose in AUTHORITIES {
        let key = secret_key(cluster, purpose.as_str());
        let secret = ctx.secrets.get(&*ctx.api, &key).await?;
        let public = secret.as_ref().and_then(|it| it.text(CERTIFICATE_KEY));
        let end = public.and_then(pki::earliest_not_after);
        ends.extend(end.map(|end| (purpose.to_string(), end)));
        if let (SecretPurpose::EtcdCa, Some(authority)) = (purpose, &secret) {
            ends.extend(brought_end(ctx, cluster, authority).await?);
        }
    }
    let key = secret_key(cluster, KUBECONFIG);
    let secret = ctx.secrets.get(&*ctx.api, &key).await?;
    let end = secret.as_deref().and_then(kubeconfig::not_after);
    ends.extend(end.map(|end| (KUBECONFIG.to_owned(), end)));
    if let Some(workload) = ctx.workloads.get(cluster) {
        let end = workload.certificate_end(ctx.now()).await;
        ends.extend(end.map(|end| (control_plane::expiry::API_SERVER.to_owned(), end)));
    }
    Ok(ends)
}
