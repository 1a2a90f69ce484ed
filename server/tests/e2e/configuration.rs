//! How the service is told what to do, and what it says when it cannot.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::service::{DEMO_USER, Folder, command, send};

const SECRET: &str = "a secret of at least thirty-two characters";

fn run(folder: &Folder, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    command(&folder.data_dir())
        .args(arguments)
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

#[track_caller]
fn refused(output: &Output, because: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains(because), "{error}");
    assert!(!error.contains("panicked"), "{error}");
}

fn key(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../http-kit/tests/keys")
        .join(name)
}

#[test]
fn what_cannot_be_meant_is_refused_with_what_to_do() {
    let folder = Folder::new();
    let listen = |address| ["--listen", address];
    refused(
        &run(&folder, &listen("0.0.0.0:0"), &[]),
        "listens on loopback addresses only",
    );
    refused(&run(&folder, &listen("[::]:0"), &[]), "Set JWT_SECRET");
    refused(&run(&folder, &listen("nowhere"), &[]), "--listen");
    refused(
        &run(&folder, &["--public-url", "ftp://x"], &[]),
        "http:// or https://",
    );
    refused(
        &run(&folder, &[], &[("API_SERVERS", "Production=https://*")]),
        "https:// URL with a host name",
    );
    refused(
        &run(&folder, &["--api-server", "https://api.example.com"], &[]),
        "NAME=URL",
    );
    refused(&run(&folder, &["--no-such-flag"], &[]), "--no-such-flag");
    refused(&run(&folder, &["no-such-command"], &[]), "no-such-command");
    refused(&run(&folder, &[], &[("JWT_SECRET", "short")]), "JWT_SECRET");
    refused(
        &run(&folder, &[], &[("JWT_SECRET", SECRET), ("JWT_JWKS", "x")]),
        "exclude each other",
    );
    refused(
        &run(&folder, &[], &[("JWT_PUBLIC_KEY", "/no/such/file")]),
        "/no/such/file",
    );
    refused(
        &run(&folder, &[], &[("JWT_JWKS", "/no/such/file")]),
        "/no/such/file",
    );
    let private = key("rsa.pem");
    refused(
        &run(
            &folder,
            &[],
            &[("JWT_PUBLIC_KEY", private.to_str().unwrap())],
        ),
        "cannot be used",
    );
    let file = folder.file("data", b"in the way");
    refused(&run(&folder, &[], &[]), file.to_str().unwrap());
    refused(
        &run(
            &folder,
            &["token", "--user", DEMO_USER, "--role", "king"],
            &[],
        ),
        "one of user",
    );
    refused(
        &run(&folder, &["token", "--user", ""], &[("JWT_SECRET", SECRET)]),
        "1 to 128",
    );
    refused(
        &run(&folder, &["token", "--user", "x", "--hours", "0"], &[]),
        "--hours",
    );
    refused(
        &run(&folder, &["import", "/no/such/file"], &[]),
        "/no/such/file",
    );
}

#[tokio::test]
async fn a_second_process_on_the_same_folder_is_refused_and_the_first_lives_on() {
    let folder = Folder::new();
    let service = folder.start();
    let second = run(&folder, &["--listen", "127.0.0.1:0"], &[]);
    refused(&second, "is in use by another process");
    let file = folder.file("users.ndjson", b"");
    let import = run(&folder, &["import", file.to_str().unwrap()], &[]);
    refused(&import, "is in use by another process");
    let token = service.token(DEMO_USER, "user");
    let read = service
        .get("/api/v1/users/profile?minPosition=1", &token)
        .await;
    assert_eq!(read.status, StatusCode::OK);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refused(&run(&Folder::new(), &["--listen", &address], &[]), &address);
}

#[tokio::test]
async fn the_secret_of_development_mode_is_made_once_for_its_owner_alone() {
    let folder = Folder::new();
    let service = folder.start();
    let path = folder.data_dir().join("dev-jwt-secret");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let secret = std::fs::read(&path).unwrap();
    service.kill();
    let service = folder.start();
    assert_eq!(std::fs::read(&path).unwrap(), secret);
    assert!(service.banner.contains("TOKEN="));
}

#[tokio::test]
async fn a_configured_secret_ends_development_mode() {
    let folder = Folder::new();
    let mut with_secret = command(&folder.data_dir());
    with_secret
        .env("JWT_SECRET", SECRET)
        .env("JWT_ISSUER", "issuer")
        .env("PUBLIC_URL", "https://api.example.com/");
    let service = folder.start_with(with_secret);
    assert!(!service.banner.contains("TOKEN"), "{}", service.banner);
    assert!(!folder.data_dir().join("dev-jwt-secret").exists());
    let ready = send(service.request(Method::GET, "/readyz")).await;
    assert_eq!(ready.body["head"], 0, "no demo user");
    let variables = [("JWT_SECRET", SECRET), ("JWT_ISSUER", "issuer")];
    let made = run(
        &folder,
        &["token", "--user", "sign-up", "--role", "service"],
        &variables,
    );
    let token = String::from_utf8(made.stdout).unwrap();
    let body = json!({"_id": DEMO_USER, "username": "john", "name": "N", "surname": "S"});
    let made = service
        .send_json(Method::POST, "/api/v1/users", token.trim(), &body)
        .await;
    assert_eq!(made.status, StatusCode::CREATED);
    // A token of another issuer, and one of development mode, open nothing.
    for variables in [&[("JWT_SECRET", SECRET), ("JWT_ISSUER", "other")][..], &[]] {
        let token = run(
            &folder,
            &["token", "--user", "sign-up", "--role", "service"],
            variables,
        );
        let token = String::from_utf8(token.stdout).unwrap();
        let made = service
            .send_json(Method::POST, "/api/v1/users", token.trim(), &body)
            .await;
        assert_eq!(made.status, StatusCode::UNAUTHORIZED);
    }
    let made = run(&folder, &["token", "--user", DEMO_USER], &variables);
    let token = String::from_utf8(made.stdout).unwrap();
    let part = reqwest::multipart::Part::bytes(&include_bytes!("../../src/dev/demo-photo.jpg")[..])
        .file_name("a");
    let upload = service
        .request(Method::PATCH, "/api/v1/users/profile/photo")
        .bearer_auth(token.trim())
        .multipart(reqwest::multipart::Form::new().part("file", part));
    let changed = send(upload).await;
    let url = changed.data()["profilePhoto"]["url"].as_str().unwrap();
    assert!(
        url.starts_with("https://api.example.com/media/users/"),
        "{url}"
    );
}

#[tokio::test]
async fn tokens_of_a_public_key_and_of_a_key_set_are_taken() {
    for (variable, file) in [("JWT_PUBLIC_KEY", "rsa.pub.pem"), ("JWT_JWKS", "jwks.json")] {
        let folder = Folder::new();
        let mut with_key = command(&folder.data_dir());
        with_key.env(variable, key(file));
        let service = folder.start_with(with_key);
        let private = std::fs::read(key("rsa.pem")).unwrap();
        let private = jsonwebtoken::EncodingKey::from_rsa_pem(&private).unwrap();
        let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::RS256);
        header.kid = Some("rsa-1".to_owned());
        let claims = json!({"sub": "sign-up", "roles": ["service"], "exp": 4_000_000_000_u64});
        let token = jsonwebtoken::encode(&header, &claims, &private).unwrap();
        let body = json!({"username": "john", "name": "N", "surname": "S"});
        let made = service
            .send_json(Method::POST, "/api/v1/users", &token, &body)
            .await;
        assert_eq!(made.status, StatusCode::CREATED, "{variable}");
        let minted = run(
            &folder,
            &["token", "--user", "x"],
            &[(variable, key(file).to_str().unwrap())],
        );
        refused(&minted, "private key");
    }
}
