//! Where machines report failed bootstraps, as command lines say.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, bail};
use capstan_controllers::bootstrap_report::PublicUrl;
use tokio::net::TcpListener;

/// Reports of machines.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ReportArgs {
    /// Address at which machines may tell that they did not become nodes, such as 0.0.0.0:9443. Without it they are not asked to. Of
    /// `capstan run`, a port alone is one of loopback, and port 0 a free one.
    #[arg(long, value_parser = address, value_name = "ADDRESS")]
    pub(super) bootstrap_report_listen: Option<SocketAddr>,
    /// How machines reach that address, such as https://capstan.example.com:9443; of `capstan run`, where it listens by default.
    #[arg(long, value_name = "URL", requires = "bootstrap_report_listen")]
    pub(super) bootstrap_report_url: Option<PublicUrl>,
}

impl ReportArgs {
    /// Where machines report, if they may, and how they reach it.
    pub(super) async fn listener(&self) -> anyhow::Result<Option<(TcpListener, PublicUrl)>> {
        let Some(address) = self.bootstrap_report_listen else {
            return Ok(None);
        };
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("--bootstrap-report-listen: cannot listen on {address}"))?;
        let address = listener.local_addr()?;
        let url = match &self.bootstrap_report_url {
            Some(url) => url.clone(),
            None if address.ip().is_unspecified() => {
                bail!(
                    "--bootstrap-report-url is missing: {address} is no address that machines reach"
                )
            }
            None => PublicUrl::of_address(address),
        };
        Ok(Some((listener, url)))
    }
}

/// An address, or a port on loopback.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    text.parse()
        .map_err(|_| "expected ADDRESS:PORT, such as 127.0.0.1:9440, or a port".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_means_loopback() {
        assert_eq!(address("0"), Ok(SocketAddr::from(([127, 0, 0, 1], 0))));
        assert_eq!(
            address("0.0.0.0:80"),
            Ok(SocketAddr::from(([0, 0, 0, 0], 80)))
        );
        assert!(address("here").is_err());
    }
}
