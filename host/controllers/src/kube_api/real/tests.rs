//! What the real client makes of answers.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use http::{Response, StatusCode};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tower_service::Service;

use super::*;
use crate::kinds;

type Endless = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

/// Answers every request with this status and the same letters over and over, as many MiB as it is told.
struct Letters(StatusCode, usize);

impl Service<Request<Body>> for Letters {
    type Response = Response<Endless>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let part = || Ok(Frame::data(Bytes::from(vec![b'x'; 1 << 20])));
        let parts = stream::repeat_with(part).take(self.1).boxed();
        let mut response = Response::new(StreamBody::new(parts));
        *response.status_mut() = self.0;
        ready(Ok(response))
    }
}

#[test]
fn only_an_object_that_the_server_names_is_missing() {
    let refused = |status: Value| {
        let status: Status = serde_json::from_value(status).unwrap();
        translate(kube::Error::Api(Box::new(status)))
    };
    let object = json!({
        "status": "Failure", "reason": "NotFound", "code": 404, "message": "things.g.io \"a\" not found",
        "details": {"name": "a", "group": "g.io", "kind": "things"},
    });
    assert!(matches!(refused(object), ApiError::NotFound(_)));
    let path = json!({
        "status": "Failure", "reason": "NotFound", "code": 404, "details": {},
        "message": "the server could not find the requested resource",
    });
    assert!(matches!(refused(path), ApiError::NotServed(_)));
    let words = Status::failure("404 page not found", "").with_code(404);
    let words = translate(kube::Error::Api(Box::new(words)));
    assert!(matches!(words, ApiError::NotServed(_)));
}

/// Never answers.
struct Silent;

impl Service<Request<Body>> for Silent {
    type Response = Response<Endless>;
    type Error = Infallible;
    type Future = std::future::Pending<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        std::future::pending()
    }
}

#[tokio::test(start_paused = true)]
async fn a_workload_clusters_server_is_waited_for_less_long_than_the_hosts_own() {
    let client = || Client::new(Silent, "default");
    let key = ObjectKey::new("ns", "p");
    let workload = RealApi::of_workload(client(), None);
    let read = workload.get(&kinds::POD, &key).await;
    let eviction = json!({});
    let evicted = workload
        .create_subresource(&kinds::POD, &key, "eviction", &eviction)
        .await;
    let own = RealApi::new(client()).get(&kinds::POD, &key).await;
    for (answer, within) in [
        (read, "within 10 s"),
        (evicted, "within 65 s"),
        (own, "within 65 s"),
    ] {
        let Err(ApiError::Unavailable(why)) = answer else {
            panic!("{answer:?}");
        };
        assert!(why.ends_with(within), "{why}");
    }
}

async fn asked(status: StatusCode, mebibytes: usize) -> String {
    let client = Client::new(Letters(status, mebibytes), "default");
    let api = RealApi::of_workload(client, None);
    let key = ObjectKey::new("", "default");
    match api.get(&kinds::NAMESPACE, &key).await.unwrap_err() {
        ApiError::Unavailable(why) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_small_answer_that_would_become_a_large_object_is_not_read() {
    let of = |values: usize| format!("[{}0]", "0,".repeat(values.saturating_sub(2)));
    let answer = of(WORKLOAD.page_values);
    assert!(parse(answer.as_bytes(), WORKLOAD.page_values).is_ok());
    let answer = of(WORKLOAD.page_values + 1);
    let why = parse(answer.as_bytes(), WORKLOAD.page_values).unwrap_err();
    assert!(why.to_string().contains("values"), "{why}");
    assert!(parse(answer.as_bytes(), MANAGEMENT.page_values).is_ok());
    let line = |values| {
        format!(
            "{{\"type\":\"ADDED\",\"object\":{{\"x\":{}}}}}\n",
            of(values)
        )
    };
    let few = line(WORKLOAD.object_values - 10);
    let many = line(WORKLOAD.object_values);
    let text = futures::io::Cursor::new(few.clone() + &many + &few);
    let seen: Vec<_> = events(text, WORKLOAD.object_values).collect().await;
    assert!(matches!(&seen[..], [Ok(WatchEvent::Applied(_)), Err(_)]));
}

#[tokio::test]
async fn an_answer_that_does_not_end_is_dropped_at_its_limit() {
    for (status, limit) in [
        (StatusCode::OK, WORKLOAD.answer_bytes),
        (StatusCode::BAD_GATEWAY, REFUSAL_BYTES_MAX),
    ] {
        let why = asked(status, usize::MAX).await;
        assert!(why.contains(&format!("more than {limit} bytes")), "{why}");
    }
    // What is within is read, and found to be no object.
    let why = asked(StatusCode::OK, 2).await;
    assert!(why.contains("not JSON"), "{why}");
    let words = asked(StatusCode::BAD_GATEWAY, 1).await;
    assert!(words.starts_with("xxx"), "a proxy's words are told");
}
