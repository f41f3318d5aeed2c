//! Health and metrics over HTTP: `/healthz`, `/readyz`, `/metrics`.

mod metrics;

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use capstan_controllers::ctx::Ctx;
use capstan_controllers::kinds;
use capstan_controllers::metrics::Metrics;
use capstan_controllers::tasks::Tasks;
use capstan_engine::Engine;
use tokio::net::TcpListener;

/// How far the host has come.
#[derive(Clone)]
pub(crate) enum Phase {
    /// It installs what it needs, or is about to.
    Starting,
    /// Another host holds the lease; this one fills its caches.
    StandingBy {
        /// What controllers will share.
        ctx: Arc<Ctx>,
    },
    /// Controllers run.
    Working {
        /// What they share.
        ctx: Arc<Ctx>,
        /// What runs plugins.
        engine: Arc<Engine>,
        /// What they count.
        metrics: Arc<Metrics>,
    },
}

/// The admin endpoints, which serve from the first moment on.
pub(crate) struct Admin {
    address: SocketAddr,
    phase: Arc<RwLock<Phase>>,
}

impl Admin {
    /// Listens and serves until the tasks are stopped.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub(crate) async fn start(address: SocketAddr, tasks: &Tasks) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen on {address}; choose another address with --admin-listen, or 0 for a free port")
        })?;
        let address = listener.local_addr()?;
        let phase = Arc::new(RwLock::new(Phase::Starting));
        let router = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(exposition))
            .with_state(Arc::clone(&phase));
        tasks.spawn("admin", async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the admin endpoints ended");
            }
        });
        Ok(Self { address, phase })
    }

    /// Where they listen.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says how far the host has come.
    pub(crate) fn enter(&self, phase: Phase) {
        *self.phase.write().unwrap_or_else(PoisonError::into_inner) = phase;
    }
}

type Shared = State<Arc<RwLock<Phase>>>;

fn phase(state: &Shared) -> Phase {
    state.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Ready when the kinds that the host serves are listed: then it works, or could take over at once. What plugins do, and the kinds that
/// they bring, do not count.
async fn readyz(state: Shared) -> (StatusCode, String) {
    let (ctx, ready) = match phase(&state) {
        Phase::Starting => return (StatusCode::SERVICE_UNAVAILABLE, "starting\n".to_owned()),
        Phase::StandingBy { ctx } => (ctx, "standing by: another host holds the lease\n"),
        Phase::Working { ctx, .. } => (ctx, "ok\n"),
    };
    let mut missing: Vec<String> = ctx
        .stores
        .unsynced()
        .iter()
        .filter(|kind| kinds::is_known(kind))
        .map(ToString::to_string)
        .collect();
    if missing.is_empty() {
        return (StatusCode::OK, ready.to_owned());
    }
    missing.sort();
    let text = format!("waiting for the first list of {}\n", missing.join(", "));
    (StatusCode::SERVICE_UNAVAILABLE, text)
}

async fn exposition(state: Shared) -> impl IntoResponse {
    match metrics::text(&phase(&state)) {
        Ok(text) => {
            let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, [(header::CONTENT_TYPE, content_type)], text)
        }
        Err(error) => {
            let text = format!("cannot write the metrics: {error}\n");
            let content_type = "text/plain; charset=utf-8";
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                [(header::CONTENT_TYPE, content_type)],
                text,
            )
        }
    }
}
