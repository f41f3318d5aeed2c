//! Connections of one plugin: clients that are kept between its calls, how many are open, and what was answered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::{HttpError, HttpResponse};
use crate::capability::connect::CheckedConnector;
use crate::grant::Grants;
use crate::limit::{
    HTTP_CONNECTIONS_MAX, HTTP_COUNTS_MAX, HTTP_IDLE_PER_HOST_MAX, HTTP_IDLE_TIMEOUT,
};

pub(super) type HttpClient = Client<CheckedConnector, Full<Bytes>>;

/// Connections of one plugin, kept between its calls for as long as its grants stay the same.
pub(crate) struct HttpPool {
    state: Mutex<PoolState>,
    connections: Arc<Semaphore>,
    /// Answers so far, by the granted origin and the first digit of their status, and requests that got none.
    counts: Mutex<BTreeMap<(String, &'static str), u64>>,
}

impl Default for HttpPool {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            connections: Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX)),
            counts: Mutex::default(),
        }
    }
}

/// One client for each grant, made when it is first needed.
#[derive(Default)]
struct PoolState {
    grants: Arc<Grants>,
    clients: Vec<Option<HttpClient>>,
    /// The same for connections with a certificate, by the credential's name; and the digest of what it was then.
    identified: BTreeMap<(usize, String), (Vec<u8>, HttpClient)>,
}

/// A credential that connections are made with: its name and its PEM.
type ClientIdentity<'a> = (&'a str, &'a [u8]);

impl HttpPool {
    /// The client of one grant. Connections are never shared between grants, as each has its own trust and its own addresses, and
    /// those that show a certificate are used by requests with that credential alone.
    pub(super) fn client(
        &self,
        grants: &Arc<Grants>,
        index: usize,
        identity: Option<ClientIdentity<'_>>,
    ) -> Result<HttpClient, String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&state.grants, grants) {
            if state.grants.http != grants.http {
                state.clients.clear();
            }
            state.identified.clear();
            state.grants = grants.clone();
        }
        state.clients.resize(grants.http.len(), None);
        let grant = grants
            .http
            .get(index)
            .ok_or_else(|| "the grant is gone".to_owned())?;
        let made = |pem: Option<&[u8]>| {
            let connections = self.connections.clone();
            let ca_pem = grant.ca_pem.as_deref();
            let connector = CheckedConnector::new(grant.private, ca_pem, pem, connections)?;
            Ok::<_, String>(
                Client::builder(TokioExecutor::new())
                    .pool_timer(TokioTimer::new())
                    .pool_idle_timeout(HTTP_IDLE_TIMEOUT)
                    .pool_max_idle_per_host(HTTP_IDLE_PER_HOST_MAX)
                    .build(connector),
            )
        };
        if let Some((name, pem)) = identity {
            let digest = Sha256::digest(pem).to_vec();
            let key = (index, name.to_owned());
            if let Some((of, client)) = state.identified.get(&key)
                && *of == digest
            {
                return Ok(client.clone());
            }
            let client = made(Some(pem))?;
            state.identified.insert(key, (digest, client.clone()));
            return Ok(client);
        }
        let slot = state
            .clients
            .get_mut(index)
            .ok_or_else(|| "the grant is gone".to_owned())?;
        if let Some(client) = slot {
            return Ok(client.clone());
        }
        let client = made(None)?;
        *slot = Some(client.clone());
        Ok(client)
    }

    /// Counts one exchange. Origins are those of grants, which are few; what was granted once and is not any more stays until the plugin
    /// is loaded anew, and is bounded as well.
    pub(super) fn count(&self, origin: String, answer: &Result<HttpResponse, HttpError>) {
        let status = match answer {
            Ok(answer) => match answer.status {
                100..=199 => "1xx",
                200..=299 => "2xx",
                300..=399 => "3xx",
                400..=499 => "4xx",
                _ => "5xx",
            },
            Err(_) => "none",
        };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (origin, status);
        if counts.len() >= HTTP_COUNTS_MAX && !counts.contains_key(&key) {
            return;
        }
        let count = counts.entry(key).or_default();
        *count = count.saturating_add(1);
    }

    /// What was counted: origin, status, exchanges.
    pub(crate) fn counts(&self) -> Vec<(String, &'static str, u64)> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let all = counts.iter();
        all.map(|((origin, status), count)| (origin.clone(), *status, *count))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_granted_origin_and_kind_of_status() {
        let pool = HttpPool::default();
        let answer = |status| {
            Ok(HttpResponse {
                status,
                headers: vec![],
                body: vec![],
            })
        };
        let origin = || "https://*.example.com".to_owned();
        for status in [200, 204, 404, 503] {
            pool.count(origin(), &answer(status));
        }
        pool.count(origin(), &Err(HttpError::Failed("no answer".to_owned())));
        let counts = pool.counts();
        let counts: Vec<_> = counts
            .iter()
            .map(|(_, status, count)| (*status, *count))
            .collect();
        assert_eq!(counts, [("2xx", 2), ("4xx", 1), ("5xx", 1), ("none", 1)]);
        for number in 0..HTTP_COUNTS_MAX {
            pool.count(number.to_string(), &answer(200));
        }
        assert_eq!(pool.counts().len(), HTTP_COUNTS_MAX);
    }
}
