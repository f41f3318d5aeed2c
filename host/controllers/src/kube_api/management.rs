//! From a kubeconfig, or the Pod that the host runs in, to the management cluster.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderValue, USER_AGENT};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use super::KubeApi;
use super::real::RealApi;

/// How long making a TCP and TLS connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no client for the management cluster.
#[derive(Debug, thiserror::Error)]
pub enum ManagementError {
    /// A kubeconfig cannot be used.
    #[error("the kubeconfig {} cannot be used", .0.display())]
    Kubeconfig(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// There is neither a kubeconfig nor a Pod around this process.
    #[error(
        "no management cluster: pass --kubeconfig, set KUBECONFIG, or run the host in a Pod of the cluster"
    )]
    Nowhere(#[source] kube::config::InClusterError),
    /// The configuration does not lead to a client.
    #[error("the management cluster's configuration cannot be used")]
    Unusable(#[source] Box<kube::Error>),
}

/// A client for the cluster that this kubeconfig's current context names or, without one, that of the Pod that this runs in.
/// Several kubeconfigs, in a list like `PATH`, are merged as kubectl does. Sends nothing yet.
///
/// # Errors
/// When the kubeconfig cannot be read or used, or there is none and this is no Pod.
pub async fn connect(
    kubeconfig: Option<&OsStr>,
    user_agent: &str,
) -> Result<Arc<dyn KubeApi>, ManagementError> {
    let mut config = match kubeconfig {
        Some(list) => {
            let failed = |cause| ManagementError::Kubeconfig(list.into(), Box::new(cause));
            let kubeconfig = read(list).map_err(failed)?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .map_err(failed)?
        }
        None => Config::incluster().map_err(ManagementError::Nowhere)?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // The watches and the queues retry; retries below them would only hide failures.
    config.default_retry = false;
    if let Ok(value) = HeaderValue::from_str(user_agent) {
        config.headers.push((USER_AGENT, value));
    }
    let client =
        Client::try_from(config).map_err(|error| ManagementError::Unusable(Box::new(error)))?;
    Ok(Arc::new(RealApi::new(client)))
}

/// Files of a list that do not exist are passed over, unless there is only one.
fn read(list: &OsStr) -> Result<Kubeconfig, KubeconfigError> {
    let paths: Vec<PathBuf> = std::env::split_paths(list).collect();
    let is_one = paths.len() == 1;
    paths
        .iter()
        .filter(|path| is_one || path.exists())
        .try_fold(Kubeconfig::default(), |merged, path| {
            merged.merge(Kubeconfig::read_from(path)?)
        })
}
