//! What strangers can send, over a real socket.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::service::{DEADLINE, DEMO_USER, Folder, Service, send};

/// Sends bytes as they are and reads until the other side closes.
fn raw(service: &Service, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(service.url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    // The service may have answered and closed before it was sent everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[track_caller]
fn enveloped(answer: &str, status: u16, code: &str) {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{answer}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    assert!(
        head.to_lowercase()
            .contains(&format!("x-error-code: {}", code.to_lowercase())),
        "{head}"
    );
    let body: Value = serde_json::from_str(body).expect(body);
    assert_eq!(body["isSuccess"], false);
    assert_eq!(body["statusCode"], status);
}

async fn is_alive(service: &Service) {
    let token = service.token(DEMO_USER, "user");
    let read = service
        .get("/api/v1/users/profile?minPosition=1", &token)
        .await;
    assert_eq!(read.status, StatusCode::OK);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let folder = Folder::new();
    let service = folder.start();
    let token = service.token(DEMO_USER, "user");
    let request = format!(
        "PUT /api/v1/users/profile HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{\"na"
    );
    let answer = raw(&service, request.as_bytes());
    enveloped(&answer, 408, "REQUEST_TIMEOUT");
    is_alive(&service).await;
}

#[tokio::test]
async fn large_bodies_are_refused_before_they_are_read() {
    let folder = Folder::new();
    let service = folder.start();
    let token = service.token(DEMO_USER, "user");
    let huge = "x".repeat(20 * 1024 * 1024);
    for (method, path, content_type) in [
        (Method::PUT, "/api/v1/users/profile", "application/json"),
        (
            Method::PATCH,
            "/api/v1/users/profile/photo",
            "multipart/form-data; boundary=x",
        ),
        (
            Method::POST,
            "/api/v1/users/check-username",
            "application/json",
        ),
    ] {
        let body = if path.ends_with("photo") {
            format!(
                "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n{huge}\r\n--x--\r\n"
            )
        } else {
            format!("{{\"name\":\"{huge}\"}}")
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Type: {content_type}\r\n"
        );
        let with_length = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        let chunked = format!(
            "{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        );
        for request in [with_length, chunked] {
            let answer = raw(&service, request.as_bytes());
            // A client that goes on sending may see its connection reset instead of the answer.
            if !answer.is_empty() {
                enveloped(&answer, 413, "BODY_TOO_LARGE");
            }
        }
    }
    is_alive(&service).await;
}

#[tokio::test]
async fn what_is_no_http_ends_its_connection_and_nothing_else() {
    let folder = Folder::new();
    let service = folder.start();
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /api/v1/users HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "A".repeat(200_000).as_bytes(),
    ] {
        let answer = raw(&service, bytes);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }
    is_alive(&service).await;
}

/// The most memory the process ever had, in KiB.
fn peak_kib(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

/// A PNG of 49 megapixels in a few kilobytes.
fn bomb() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 7000, 7000);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().unwrap();
    let mut stream = writer.stream_writer().unwrap();
    let row = vec![200; 7000 * 4];
    for _ in 0..7000 {
        stream.write_all(&row).unwrap();
    }
    stream.finish().unwrap();
    drop(writer);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_photos_of_many_users_stay_under_600_mib() {
    let folder = Folder::new();
    let service = folder.start();
    let sign_up = service.token("sign-up", "service");
    let bomb = bomb();
    let mut uploads = tokio::task::JoinSet::new();
    for n in 0..24_u8 {
        let id = format!("{n:024x}");
        let body = json!({"_id": id, "username": format!("user{n}"), "name": "N", "surname": "S"});
        let made = service
            .send_json(Method::POST, "/api/v1/users", &sign_up, &body)
            .await;
        assert_eq!(made.status, StatusCode::CREATED);
        let mut photo = bomb.clone();
        // What follows the picture makes the upload as large as it may be.
        photo.resize(10 * 1024 * 1024, n);
        let part = reqwest::multipart::Part::bytes(photo).file_name("a.png");
        let request = service
            .request(Method::PATCH, "/api/v1/users/profile/photo")
            .bearer_auth(service.token(&id, "user"))
            .multipart(reqwest::multipart::Form::new().part("file", part));
        uploads.spawn(send(request));
    }
    let mut accepted = 0;
    for answer in uploads.join_all().await {
        match answer.status {
            StatusCode::OK => accepted += 1,
            StatusCode::SERVICE_UNAVAILABLE => assert_ne!(answer.header("retry-after"), ""),
            _ => panic!("{answer:?}"),
        }
    }
    assert!(accepted > 0, "some were processed");
    let peak = peak_kib(&service);
    assert!(peak < 600 * 1024, "{peak} KiB");
    is_alive(&service).await;
}
