//! An HTTP endpoint whose answers a test decides, path by path.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What an answer says unless a test says something else.
const NOT_YET: &str = r#"{"message": "not yet"}"#;

#[derive(Default)]
struct State {
    answers: HashMap<String, (u16, String)>,
    asked: Vec<String>,
}

/// The endpoint. Dropping it ends it.
pub struct Endpoint {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Endpoint {
    /// Starts one that answers 423, with a message, to every path.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&shared);
                let service = service_fn(move |request: Request<Incoming>| {
                    let answer = answer(&shared, request.uri().path());
                    async move { Ok::<_, Infallible>(answer) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self {
            address,
            state,
            task,
        }
    }

    /// Its origin.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers a path with this status from now on.
    pub fn answers(&self, path: &str, status: u16) {
        self.replies(path, status, NOT_YET);
    }

    /// Answers a path with this status and this JSON from now on.
    pub fn replies(&self, path: &str, status: u16, body: &str) {
        let mut state = self.state.lock().unwrap();
        let reply = (status, body.to_owned());
        state.answers.insert(path.to_owned(), reply);
    }

    /// The paths that were asked, in order, each only once in a row.
    pub fn asked(&self) -> Vec<String> {
        let mut asked = self.state.lock().unwrap().asked.clone();
        asked.dedup();
        asked
    }
}

fn answer(state: &Mutex<State>, path: &str) -> Response<Full<Bytes>> {
    let mut state = state.lock().unwrap();
    state.asked.push(path.to_owned());
    let reply = state.answers.get(path).cloned();
    let (status, body) = reply.unwrap_or_else(|| (423, NOT_YET.to_owned()));
    Response::builder()
        .status(status)
        .header("retry-after", "1")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .unwrap()
}
