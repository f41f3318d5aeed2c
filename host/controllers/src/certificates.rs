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

/// What the host shows itself with to etcd, by name. It is made anew at half its life, and when the host starts.
const OWN: &str = "host-etcd-client";

/// A certificate's name and its end.
pub type End = (String, Timestamp);

/// What was seen when each of these Clusters was last looked at. Clones share it. As long as the Clusters are there, so are their entries:
/// one each, of no more than the authorities, a kubeconfig, and what etcd and the endpoint have.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    ends: Arc<Mutex<BTreeMap<ObjectKey, Vec<End>>>>,
    /// With which the host shows itself to the etcd of a Cluster: one each, too, until the Cluster goes.
    own: Arc<Mutex<BTreeMap<ObjectKey, Timestamp>>>,
}

impl Certificates {
    /// Notes what a Cluster has; where a control plane lists it, or the Cluster goes, nothing. While its Secrets cannot be read, what was
    /// seen before stays.
    pub(crate) async fn look(&self, ctx: &Ctx, key: &ObjectKey, cluster: &Cluster) {
        if cluster.metadata.deletion_timestamp.is_some() || is_listed(ctx, cluster) {
            lock(&self.ends).remove(key);
            return;
        }
        match of(ctx, key).await {
            Ok(ends) => self.note(key, ends),
            Err(error) => tracing::debug!(cluster = %key, %error, "cannot read certificates"),
        }
    }

    /// Notes the ends of a Cluster's certificates.
    pub fn note(&self, cluster: &ObjectKey, ends: Vec<End>) {
        lock(&self.ends).insert(cluster.clone(), ends);
    }

    /// Notes the end of what the host shows itself with to a Cluster's etcd.
    pub(crate) fn note_own(&self, cluster: &ObjectKey, end: Timestamp) {
        lock(&self.own).insert(cluster.clone(), end);
    }

    /// The Cluster is gone.
    pub fn forget(&self, cluster: &ObjectKey) {
        lock(&self.ends).remove(cluster);
        lock(&self.own).remove(cluster);
    }

    /// All, by Cluster.
    #[must_use]
    pub fn all(&self) -> Vec<(ObjectKey, Vec<End>)> {
        let mut all = lock(&self.ends).clone();
        for (cluster, end) in &*lock(&self.own) {
            let ends = all.entry(cluster.clone()).or_default();
            ends.push((OWN.to_owned(), *end));
        }
        all.into_iter().collect()
    }
}

fn lock<T>(kept: &Mutex<T>) -> MutexGuard<'_, T> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
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
