//! Servers that harm whoever asks them, below HTTP: bytes that never end, that are packed a thousandfold, headers without number.

use std::io::Write;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::probe::{env, grants_for, loaded, note};
use crate::{CallEnv, Grants, Loaded};

/// Answers every connection with `head`, and then with `again` until the other side is gone.
async fn server(head: Vec<u8>, again: Vec<u8>) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (head, again) = (head.clone(), again.clone());
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(&head).await;
                while !again.is_empty() && stream.write_all(&again).await.is_ok() {}
                let _ = stream.shutdown().await;
            });
        }
    });
    (origin, task)
}

async fn get(loaded: &Loaded, origin: &str, more: Value) -> Value {
    let env = CallEnv {
        grants: grants_for(origin, &[]),
        ..env()
    };
    let mut config = json!({"do": "http", "method": "GET", "url": origin});
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    note(loaded, env, config).await
}

fn limit(answer: &Value) -> &str {
    answer["limit"]
        .as_str()
        .unwrap_or_else(|| panic!("{answer}"))
}

#[tokio::test]
async fn a_response_that_never_ends_ends_at_its_size_or_its_time() {
    let loaded = loaded().await;
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let chunk = [b"1000\r\n".as_slice(), &[b'x'; 4096], b"\r\n"].concat();
    let (fast, _fast) = server(chunked.clone(), chunk).await;
    let answer = get(&loaded, &fast, json!({})).await;
    assert!(limit(&answer).contains("bytes"), "{answer}");
    // Nothing more comes, and nobody says that it is over.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", listener.local_addr().unwrap());
    let _silent = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(&chunked).await;
            kept.push(stream);
        }
    });
    let answer = get(&loaded, &silent, json!({"timeoutMs": 200})).await;
    assert!(limit(&answer).contains("in time"), "{answer}");
}

#[tokio::test]
async fn headers_that_never_end_are_not_kept() {
    let loaded = loaded().await;
    let (origin, _server) = server(b"HTTP/1.1 200 OK\r\n".to_vec(), b"a: b\r\n".to_vec()).await;
    let answer = get(&loaded, &origin, json!({})).await;
    assert!(answer.get("failed").is_some(), "{answer}");
    let many: String = (0..90).map(|n| format!("x-{n}: y\r\n")).collect();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{many}\r\n");
    let (origin, _server) = server(head.into_bytes(), Vec::new()).await;
    let answer = get(&loaded, &origin, json!({})).await;
    let headers = answer["headers"].as_array().unwrap();
    assert_eq!(headers.len(), crate::limit::HTTP_HEADERS_MAX);
}

#[tokio::test]
async fn what_is_packed_a_thousandfold_is_not_unpacked() {
    let loaded = loaded().await;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(&vec![0; 64 << 20]).unwrap();
    let packed = packer.finish().unwrap();
    assert!(packed.len() * 1000 < 70 << 20);
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
        packed.len()
    );
    let (origin, _server) = server([head.as_bytes(), &packed].concat(), Vec::new()).await;
    let asked = json!({"headers": {"accept-encoding": "gzip"}});
    let answer = get(&loaded, &origin, asked).await;
    assert_eq!(answer["length"], json!(packed.len()));
}

#[tokio::test]
async fn addresses_of_inner_networks_hide_in_no_form() {
    let loaded = loaded().await;
    let refused = async |granted: &str, private: bool, url: &str| {
        let mut grants = Grants::clone(&grants_for(granted, &[]));
        grants.http[0].private = private;
        let env = CallEnv {
            grants: grants.into(),
            ..env()
        };
        let config = json!({"do": "http", "method": "GET", "url": url});
        let answer = note(&loaded, env, config).await;
        answer["denied"]
            .as_str()
            .unwrap_or_else(|| panic!("{url}: {answer}"))
            .to_owned()
    };
    for origin in [
        "http://127.0.0.1:1",
        "http://2130706433:1",
        "http://0x7f.1:1",
        "http://localhost:1",
        "http://[::1]:1",
        "http://[::ffff:127.0.0.1]:1",
        "http://[::ffff:10.0.0.1]:1",
        "http://[64:ff9b::7f00:1]:1",
        "http://169.254.1.1:1",
        "http://[fe80::1]:1",
        "http://10.0.0.1:1",
    ] {
        let why = refused(origin, false, origin).await;
        assert!(why.contains("private: true"), "{origin}: {why}");
    }
    for origin in [
        "http://169.254.169.254",
        "http://[::ffff:169.254.169.254]",
        "http://[64:ff9b::a9fe:a9fe]",
        "http://[fd00:ec2::254]",
    ] {
        let why = refused(origin, false, origin).await;
        assert!(why.contains("credentials"), "{origin}: {why}");
    }
    for origin in ["http://0.0.0.0:1", "http://[::]:1", "http://224.0.0.1:1"] {
        let why = refused(origin, true, origin).await;
        assert!(why.contains("no server"), "{origin}: {why}");
    }
}
