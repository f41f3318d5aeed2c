//! An HTTP endpoint whose answers a test decides, path by path.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;

use crate::served::Served;

/// What an answer says unless a test says something else.
const NOT_YET: &str = r#"{"message": "not yet"}"#;

#[derive(Default)]
struct State {
    answers: HashMap<String, (u16, String)>,
    asked: Vec<String>,
}

/// The endpoint. Dropping it ends it.
pub struct Endpoint {
    state: Arc<Mutex<State>>,
    served: Served,
}

impl Endpoint {
    /// Starts one that answers 423, with a message, to every path.
    pub async fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let served = Served::start(move |request| {
            let answer = answer(&shared, request.uri().path());
            async move { answer }
        });
        Self {
            state,
            served: served.await,
        }
    }

    /// Its origin.
    pub fn origin(&self) -> String {
        self.served.origin()
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
