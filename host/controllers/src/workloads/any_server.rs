//! Requests to one of several API servers behind the same address: what one of them cannot answer, another one may.
//!
//! A load balancer that does not look closely goes on leading connections to a server whose etcd is dead, or whose clock is wrong.

use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy::connect::capture_connection;
use kube::Client;
use kube::client::Body;
use tower_service::Service;

/// Connections that are tried with a question: a load balancer leads three of them to three servers, and most control planes have no more.
const TRIES: u32 = 3;

/// A client that uses no connection twice whose server failed, and asks its questions again over another one.
#[derive(Clone)]
pub(super) struct AnyServer(pub(super) Client);

impl Service<Request<Body>> for AnyServer {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, kube::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), kube::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let client = self.0.clone();
        async move { send(&client, request).await }.boxed()
    }
}

async fn send(client: &Client, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
    let (parts, body) = request.into_parts();
    if parts.method != Method::GET {
        return send_once(client, Request::from_parts(parts, body)).await;
    }
    for _ in 1..TRIES {
        let again = Request::from_parts(parts.clone(), Body::empty());
        let response = send_once(client, again).await?;
        if !is_the_servers(response.status()) {
            return Ok(response);
        }
    }
    send_once(client, Request::from_parts(parts, Body::empty())).await
}

async fn send_once(
    client: &Client,
    mut request: Request<Body>,
) -> Result<Response<Body>, kube::Error> {
    let connection = capture_connection(&mut request);
    let response = client.send(request).await?;
    if is_the_servers(response.status()) {
        let connected = connection.connection_metadata();
        if let Some(connected) = &*connected {
            connected.poison();
        }
    }
    Ok(response)
}

/// Whether it is the server's own failure, and no answer to the question. One whose clock is wrong knows nobody.
fn is_the_servers(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::UNAUTHORIZED
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use kube::Config;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Answers each request on a connection with the same status.
    async fn serve(mut stream: TcpStream, status: &str, requests: Arc<AtomicU32>) {
        let mut seen = Vec::new();
        let mut buffer = [0_u8; 1024];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            seen.extend_from_slice(&buffer[..read]);
            if seen.ends_with(b"\r\n\r\n") {
                seen.clear();
                requests.fetch_add(1, Ordering::SeqCst);
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_question_goes_to_another_server_and_a_bad_connection_is_not_used_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let (bad, good) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (of_bad, of_good) = (Arc::clone(&bad), Arc::clone(&good));
        tokio::spawn(async move {
            let (first, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(first, "500 Internal Server Error", of_bad));
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, "200 OK", Arc::clone(&of_good)));
            }
        });
        let client = Client::try_from(Config::new(uri.parse().unwrap())).unwrap();
        let client = Client::new(AnyServer(client), "default");
        for _ in 0..3 {
            let request = Request::get("/readyz").body(Vec::new()).unwrap();
            assert_eq!(client.request_text(request).await.unwrap(), "ok");
        }
        assert_eq!(bad.load(Ordering::SeqCst), 1);
        assert_eq!(good.load(Ordering::SeqCst), 3);
    }
}
