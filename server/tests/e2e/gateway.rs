//! What the gateway does with requests, with real roles behind it and with ones that break.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::multipart::{Form, Part};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::service::{Answer, DEADLINE, send};
use crate::stack::{Stack, repository};

/// A photo of so many bytes: what follows the picture makes it as large as it may be.
fn photo(bytes: usize) -> Form {
    let mut photo = include_bytes!("../../src/dev/demo-photo.jpg").to_vec();
    photo.resize(bytes, 0);
    Form::new().part("file", Part::bytes(photo).file_name("a.jpg"))
}

#[track_caller]
fn is_enveloped(answer: &Answer, status: StatusCode, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("x-error-code"), code, "{answer:?}");
    let members: Vec<_> = answer.body.as_object().unwrap().keys().collect();
    let expected = ["isSuccess", "statusCode", "data", "errors", "timestamp"];
    assert!(members.len() == 5 && expected.iter().all(|name| answer.body.get(name).is_some()));
    assert_eq!(answer.body["statusCode"], status.as_u16());
    let timestamp = answer.body["timestamp"].as_str().unwrap();
    assert!(
        timestamp.len() == 24 && timestamp.ends_with('Z'),
        "{timestamp}"
    );
}

#[tokio::test]
async fn commands_and_reads_on_one_port_reach_their_roles() {
    let stack = Stack::shared();
    let token = stack.register("0000000000000000000000a1", "routed").await;
    let body = json!({"name": "John", "surname": "Doe", "bio": "through the gateway"});
    for _ in 0..4 {
        let changed = send(stack.put(&token, &body)).await;
        let read = stack.read_back(&token, &changed).await;
        assert_eq!(read.data(), changed.data());
    }
    let username = json!({"newUsername": "re.routed"});
    let change = stack.request(Method::PATCH, "/api/v1/users/username");
    let changed = send(change.bearer_auth(&token).json(&username)).await;
    let read = stack.read_back(&token, &changed).await;
    assert_eq!(read.data()["username"], "re.routed");

    let check = stack.request(Method::POST, "/api/v1/users/check-username");
    let check = check.bearer_auth(stack.token("0000000000000000000000a2", "user"));
    let check = send(check.json(&json!({"username": "re.routed"}))).await;
    assert_eq!(check.data(), &json!({"available": false}));

    let head = stack.request(Method::HEAD, "/api/v1/users/profile/username/re.routed");
    let head = head.send().await.unwrap();
    assert_eq!(head.status(), StatusCode::OK);
    assert!(head.headers().contains_key("etag"));
}

#[tokio::test]
async fn photos_up_to_their_limit_pass_and_larger_ones_are_refused_in_the_envelope() {
    let stack = Stack::shared();
    let token = stack
        .register("0000000000000000000000b1", "photographed")
        .await;
    let upload = |bytes| {
        let request = stack.request(Method::PATCH, "/api/v1/users/profile/photo");
        send(request.bearer_auth(&token).multipart(photo(bytes)))
    };
    let changed = upload(10 * 1024 * 1024 - 100_000).await;
    let url = changed.data()["profilePhoto"]["url"].as_str().unwrap();
    let path = url.strip_prefix(&stack.url()).expect(url);
    let photo = stack.request(Method::GET, path).send().await.unwrap();
    assert_eq!(photo.status(), StatusCode::OK);
    assert_eq!(photo.headers()["content-type"], "image/jpeg");

    let refused = upload(12 * 1024 * 1024).await;
    is_enveloped(&refused, StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE");
    assert_eq!(
        refused.body["errors"][1],
        "A photo may have at most 10 MiB."
    );
}

/// Sends a request as it is.
fn raw(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_length_beyond_all_limits_is_refused_before_anything_is_sent() {
    let stack = Stack::shared();
    let url = stack.url();
    let address = url.strip_prefix("http://").unwrap();
    for (method, path, length) in [
        ("PATCH", "/api/v1/users/profile/photo", "20000000"),
        ("PATCH", "/api/v1/users/profile/photo", "9000000000"),
        ("PUT", "/api/v1/users/profile", "1000000"),
        ("POST", "/api/v1/users/check-username", "9000000000"),
    ] {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        let answer = raw(address, &request);
        assert!(answer.starts_with("HTTP/1.1 413 "), "{path}: {answer}");
        assert!(answer.contains("X-Error-Code: BODY_TOO_LARGE"), "{answer}");
    }
}

#[test]
fn what_processes_say_about_themselves_is_not_told_outside() {
    let stack = Stack::shared();
    let url = stack.url();
    let address = url.strip_prefix("http://").unwrap();
    let get = |method, path| {
        raw(
            address,
            &format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        )
    };
    for path in [
        "/readyz",
        "/readyz?x",
        "/readyz/",
        "//readyz",
        "/READYZ",
        "/%72eadyz",
        "/a/../readyz",
        "/./readyz",
        "/metrics",
        "/metrics/",
        "/%6Detrics",
        "/media/../metrics",
        "http://x/metrics",
    ] {
        for method in ["GET", "POST"] {
            let answer = get(method, path);
            assert!(
                answer.starts_with("HTTP/1.1 404 "),
                "{method} {path}: {answer}"
            );
            assert!(answer.contains("RESOURCE_NOT_FOUND"), "{answer}");
        }
    }
    let healthy = get("GET", "/healthz");
    assert!(healthy.starts_with("HTTP/1.1 200 "), "{healthy}");
}

/// Does something again and again until its answer is the wanted one.
async fn until(wanted: impl Fn(&Answer) -> bool, attempt: impl AsyncFn() -> Answer) -> Answer {
    let attempts = async {
        loop {
            let answer = attempt().await;
            if wanted(&answer) {
                return answer;
            }
        }
    };
    let answer = tokio::time::timeout(DEADLINE, attempts).await;
    answer.expect("the answer comes")
}

#[tokio::test]
async fn the_gateway_goes_on_when_a_process_of_each_kind_is_killed() {
    let stack = Stack::start();
    let token = stack.register("0000000000000000000000c1", "survivor").await;
    for name in ["command-api-1", "projector-1", "query-api-1"] {
        stack.kill(name);
    }
    for n in 1..=20 {
        let body = json!({"name": "John", "surname": "Doe", "bio": format!("number {n}")});
        let changed = until(
            |answer| !answer.status.is_server_error(),
            async || send(stack.put(&token, &body).header("idempotency-key", n)).await,
        );
        let changed = changed.await;
        assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
        // Each once, and nothing in between.
        assert_eq!(changed.header("etag"), format!("\"{}\"", n + 1));
        // A read needs no second attempt.
        let read = stack.request(Method::GET, "/api/v1/users/profile");
        let read = send(read.bearer_auth(&token)).await;
        assert_eq!(read.status, StatusCode::OK, "{read:?}");
    }
    for name in ["command-api-2", "query-api-2"] {
        stack.kill(name);
    }
    let away = until(
        |answer| answer.header("x-error-code") == "UNAVAILABLE",
        async || {
            let path = "/api/v1/users/profile/username/survivor";
            send(stack.request(Method::GET, path)).await
        },
    );
    let away = away.await;
    is_enveloped(&away, StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE");
    assert_eq!(away.header("retry-after"), "1");
    // Failures are told, and about whom is not.
    let log = stack.log("gateway");
    assert!(log.contains("\"status\":503"), "{log}");
    assert!(!log.contains("survivor"), "{log}");
}

/// A process that is ready, and breaks each connection on which something else is asked.
struct Breaking {
    address: String,
    asked: Arc<AtomicUsize>,
}

impl Breaking {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = [0; 4096];
                let read = stream.read(&mut head).unwrap_or(0);
                if head.starts_with(b"GET /readyz ") {
                    let ready =
                        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                    let _ = stream.write_all(ready);
                } else if read > 0 {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Self { address, asked }
    }
}

/// The gateway alone, in front of other processes than ours.
struct Gateway {
    process: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Gateway {
    async fn start(upstreams: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let process = Command::new("caddy")
            .args(["run", "--adapter", "caddyfile", "--config"])
            .arg(repository().join("deploy/Caddyfile"))
            .env("GATEWAY_ADDRESS", "127.0.0.1")
            .env("GATEWAY_PORT", port.to_string())
            .env("COMMAND_APIS", upstreams)
            .env("QUERY_APIS", upstreams)
            .env("XDG_CONFIG_HOME", folder.path())
            .env("XDG_DATA_HOME", folder.path())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("caddy is installed: scripts/test does it");
        let answering = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .is_err()
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let answering = tokio::time::timeout(DEADLINE, answering).await;
        answering.expect("the gateway starts");
        Self {
            process,
            url: format!("http://127.0.0.1:{port}"),
            _folder: folder,
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn a_command_that_may_have_been_sent_is_not_sent_again() {
    let (one, other) = (Breaking::start(), Breaking::start());
    let gateway = Gateway::start(&format!("{} {}", one.address, other.address)).await;
    let asked = || one.asked.load(Ordering::SeqCst) + other.asked.load(Ordering::SeqCst);
    let client = reqwest::Client::new();
    for (n, method) in [Method::PUT, Method::PATCH, Method::POST, Method::DELETE]
        .into_iter()
        .enumerate()
    {
        let command = client.request(method, format!("{}/api/v1/users", gateway.url));
        let broken = send(command.header("x-language", "tr").json(&json!({}))).await;
        is_enveloped(&broken, StatusCode::BAD_GATEWAY, "ANSWER_LOST");
        let sentence = broken.body["errors"][0].as_str().unwrap();
        assert!(sentence.starts_with("Yanıt kayboldu"), "{sentence}");
        assert_eq!(asked(), n + 1);
    }
    let before = asked();
    let read = client.get(format!("{}/api/v1/users/profile", gateway.url));
    let broken = send(read).await;
    assert_eq!(broken.status, StatusCode::BAD_GATEWAY);
    assert!(asked() > before + 1, "a read is asked elsewhere");
}

#[tokio::test]
async fn a_broken_body_of_a_client_takes_no_process_out() {
    let stack = Stack::start();
    let token = stack.register("0000000000000000000000d1", "patient").await;
    let url = stack.url();
    let address = url.strip_prefix("http://").unwrap();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(address).unwrap();
        let head = format!(
            "PUT /api/v1/users/profile HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let _ = stream.set_read_timeout(Some(DEADLINE));
        let _ = stream.read_to_end(&mut answer);
        let body = json!({"name": "John", "surname": "Doe"});
        let next = send(stack.put(&token, &body)).await;
        assert_eq!(next.status, StatusCode::OK, "{next:?}");
    }
}
