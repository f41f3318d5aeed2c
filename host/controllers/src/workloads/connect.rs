//! From a kubeconfig to a connection. A kubeconfig comes from a Secret that others write: nothing in it may make the host
//! run a program, read a file of its own or leave TLS unchecked by surprise.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::any_server::AnyServer;
use crate::kube_api::KubeApi;
use crate::kube_api::real::RealApi;
use crate::kube_api::shown::Shown;

/// How long making a TCP and TLS connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A kubeconfig that cannot be used. Never contains anything of its credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Not a kubeconfig.
    #[error("the kubeconfig cannot be read")]
    Unreadable,
    /// It uses what the host does not follow.
    #[error(
        "the kubeconfig uses {0}, which is not accepted: put the credentials into the kubeconfig itself"
    )]
    Refused(&'static str),
    /// It does not lead to a client.
    #[error("the kubeconfig is not usable: {0}")]
    Unusable(String),
}

/// The Pod that a host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: a cluster that has a Pod of this one is where the host runs.
    pub uid: String,
}

impl OwnPod {
    /// What the environment says, in the variables that Cluster API's managers read: `POD_NAMESPACE`, `POD_NAME` and `POD_UID`.
    #[must_use]
    pub fn of_environment() -> Option<Self> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Some(Self {
            namespace: variable("POD_NAMESPACE")?,
            name: variable("POD_NAME")?,
            uid: variable("POD_UID")?,
        })
    }
}

/// Makes connections. The real one speaks TLS; a simulator can stand in its place.
pub trait Connect: Send + Sync + 'static {
    /// The Pod that this host is, if it is one and can tell.
    fn own_pod(&self) -> Option<&OwnPod> {
        None
    }

    /// As [`Connect::connect`], at the address that Pods of the cluster have for its API server, and with the authority that they trust:
    /// for the cluster where this host runs, whose own address may not lead back into it.
    fn connect_inside<'a>(
        &'a self,
        kubeconfig: &'a str,
    ) -> BoxFuture<'a, Result<Arc<dyn KubeApi>, ConnectError>> {
        self.connect(kubeconfig)
    }

    /// A client for the kubeconfig's current context. Sends nothing yet.
    fn connect<'a>(
        &'a self,
        kubeconfig: &'a str,
    ) -> BoxFuture<'a, Result<Arc<dyn KubeApi>, ConnectError>>;
}

/// Connects to real servers.
#[derive(Clone, Debug, Default)]
pub struct RealConnect {
    /// The Pod that this host is, if it may run on a cluster that it manages.
    pub own_pod: Option<OwnPod>,
}

impl Connect for RealConnect {
    fn own_pod(&self) -> Option<&OwnPod> {
        self.own_pod.as_ref()
    }

    fn connect<'a>(
        &'a self,
        kubeconfig: &'a str,
    ) -> BoxFuture<'a, Result<Arc<dyn KubeApi>, ConnectError>> {
        async move { client(config(kubeconfig).await?) }.boxed()
    }

    fn connect_inside<'a>(
        &'a self,
        kubeconfig: &'a str,
    ) -> BoxFuture<'a, Result<Arc<dyn KubeApi>, ConnectError>> {
        async move {
            let here = Config::incluster_env()
                .map_err(|error| ConnectError::Unusable(error.to_string()))?;
            client(inside(config(kubeconfig).await?, here))
        }
        .boxed()
    }
}

/// What a kubeconfig says about a client.
async fn config(kubeconfig: &str) -> Result<Config, ConnectError> {
    let kubeconfig = check(kubeconfig)?;
    let options = KubeConfigOptions::default();
    Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|error| ConnectError::Unusable(error.to_string()))
}

/// The credentials of one at the address of another.
fn inside(mut config: Config, here: Config) -> Config {
    config.cluster_url = here.cluster_url;
    config.root_cert = here.root_cert;
    config.tls_server_name = here.tls_server_name;
    config.proxy_url = None;
    config
}

fn client(mut config: Config) -> Result<Arc<dyn KubeApi>, ConnectError> {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // The keeper and the queues retry; retries below them would only hide failures.
    config.default_retry = false;
    let namespace = config.default_namespace.clone();
    let shown = Shown::of(&config);
    let client =
        Client::try_from(config).map_err(|error| ConnectError::Unusable(error.to_string()))?;
    let client = Client::new(AnyServer(client), namespace);
    Ok(Arc::new(RealApi::of_workload(client, shown)) as Arc<dyn KubeApi>)
}

/// Reads a kubeconfig and refuses what would reach beyond it.
fn check(text: &str) -> Result<Kubeconfig, ConnectError> {
    // The parser's words may quote the text.
    let kubeconfig = Kubeconfig::from_yaml(text).map_err(|_| ConnectError::Unreadable)?;
    for user in kubeconfig
        .auth_infos
        .iter()
        .filter_map(|named| named.auth_info.as_ref())
    {
        let refused = [
            (user.exec.is_some(), "an exec credential plugin"),
            (user.auth_provider.is_some(), "an auth provider"),
            (user.token_file.is_some(), "a token file"),
            (
                user.client_certificate.is_some(),
                "a client certificate file",
            ),
            (user.client_key.is_some(), "a client key file"),
        ];
        if let Some((_, what)) = refused.into_iter().find(|(is_used, _)| *is_used) {
            return Err(ConnectError::Refused(what));
        }
    }
    let clusters = kubeconfig
        .clusters
        .iter()
        .filter_map(|named| named.cluster.as_ref());
    if clusters
        .into_iter()
        .any(|cluster| cluster.certificate_authority.is_some())
    {
        return Err(ConnectError::Refused("a certificate authority file"));
    }
    Ok(kubeconfig)
}

#[cfg(test)]
mod tests {
    use capstan_core::material;

    use super::*;

    #[test]
    fn what_reaches_beyond_the_kubeconfig_is_refused() {
        let with = |user: &str| {
            format!(
                "apiVersion: v1\nkind: Config\nusers:\n- name: u\n  user:\n    {user}\nclusters: []\n"
            )
        };
        for user in [
            "exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/true}",
            "auth-provider: {name: oidc, config: {}}",
            "tokenFile: /etc/passwd",
            "client-key: /etc/passwd",
            "client-certificate: /etc/passwd",
        ] {
            assert!(
                matches!(check(&with(user)), Err(ConnectError::Refused(_))),
                "{user}"
            );
        }
        let cluster = "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster: {certificate-authority: /etc/passwd}\n";
        assert!(matches!(check(cluster), Err(ConnectError::Refused(_))));
        assert!(check(&with("token: t")).is_ok());
    }

    #[tokio::test]
    async fn the_hosts_own_kubeconfigs_lead_to_a_client() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let ca = crate::pki::certificate_authority(
            "kubernetes",
            material::KeyAlgorithm::EcdsaP256,
            0,
            now,
        )
        .unwrap();
        let admin =
            crate::pki::client_certificate(&ca, "kubernetes-admin", "system:masters", now).unwrap();
        let text = material::Kubeconfig {
            cluster: "c",
            server: "https://127.0.0.1:6443",
            ca: &ca.public,
            certificate: &admin.public,
            key: &admin.private,
        }
        .yaml();
        let real = RealConnect::default();
        assert!(real.connect(&text).await.is_ok());
        assert!(matches!(
            real.connect(": :").await,
            Err(ConnectError::Unreadable)
        ));
        // At the cluster's own address, the same credentials.
        let outside = config(&text).await.unwrap();
        let certificate = outside.auth_info.client_certificate_data.clone();
        let mut here = Config::new("https://10.96.0.1:443".parse().unwrap());
        here.root_cert = Some(vec![vec![1]]);
        let inside = inside(outside, here);
        assert_eq!(inside.cluster_url.host(), Some("10.96.0.1"));
        assert_eq!(inside.root_cert, Some(vec![vec![1]]));
        assert!(certificate.is_some());
        assert_eq!(inside.auth_info.client_certificate_data, certificate);
    }
}
