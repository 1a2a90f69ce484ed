//! The description of the API: it is what the binary prints and serves, a linter finds nothing in it, and the running
//! service answers as it says.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::service::{DEADLINE, DEMO_USER, Folder, command, send};

fn root() -> PathBuf {
    let server = Path::new(env!("CARGO_MANIFEST_DIR"));
    server.parent().unwrap().to_owned()
}

/// A tool that `scripts/api-tools` has made. Panics if it is not there: a test that needs it has failed.
fn tool(path: &str) -> Command {
    let tool = root().join("target/tools").join(path);
    assert!(
        tool.exists(),
        "{} is not there: scripts/api-tools makes it",
        tool.display()
    );
    let mut command = Command::new(tool);
    command.current_dir(root());
    command
}

fn printed(arguments: &[&str]) -> String {
    let folder = Folder::new();
    let mut command = command(&folder.data_dir());
    let output = command.arg("openapi").args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[track_caller]
fn finds_nothing(output: &Output) {
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_committed_description_is_that_of_the_binary() {
    let committed = std::fs::read_to_string(root().join("api/openapi.json")).unwrap();
    assert!(
        committed == printed(&[]),
        "api/openapi.json is not what the binary prints: run scripts/generate"
    );
}

#[test]
fn the_linter_finds_nothing_in_the_description() {
    let output = tool("redocly/node_modules/.bin/redocly")
        .env("REDOCLY_TELEMETRY", "off")
        .env("REDOCLY_SUPPRESS_UPDATE_NOTICE", "true")
        .args(["lint", "--config", "api/check/redocly.yaml"])
        .arg("api/openapi.json")
        .output()
        .unwrap();
    finds_nothing(&output);
}

#[tokio::test]
async fn the_service_serves_what_the_command_prints() {
    let folder = Folder::new();
    let service = folder.start();
    for (query, arguments) in [
        ("", &[][..]),
        ("?lang=en", &[]),
        ("?lang=tr", &["--lang", "tr"]),
    ] {
        let path = format!("/openapi.json{query}");
        let answer = send(service.request(Method::GET, &path)).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(answer.header("content-type"), "application/json");
        assert!(answer.body == parsed(&printed(arguments)), "{path}");
        let again = service.request(Method::GET, &path);
        let again = again.header("if-none-match", answer.header("etag"));
        assert_eq!(send(again).await.status, StatusCode::NOT_MODIFIED);
    }
}

#[tokio::test]
async fn documents_and_pages_can_be_asked_about_without_being_sent() {
    let folder = Folder::new();
    let service = folder.start();
    for path in [
        "/openapi.json",
        "/openapi.json?lang=tr",
        "/asyncapi.json",
        "/schemas/photo-changed/1.json",
        "/docs",
        "/docs/app.js",
        "/docs/scalar.js",
    ] {
        let whole = service.request(Method::GET, path).send().await.unwrap();
        let whole = (whole.headers().clone(), whole.bytes().await.unwrap());
        let head = service.request(Method::HEAD, path).send().await.unwrap();
        assert_eq!(head.status(), StatusCode::OK, "{path}");
        for name in ["content-type", "content-length", "cache-control", "etag"] {
            assert!(whole.0.contains_key(name), "{path} {name}");
            assert_eq!(head.headers().get(name), whole.0.get(name), "{path} {name}");
        }
        let length = head.headers()["content-length"].to_str().unwrap();
        assert_eq!(length, whole.1.len().to_string(), "{path}");
        assert!(head.bytes().await.unwrap().is_empty(), "{path}");
        let again = service.request(Method::HEAD, path);
        let again = again.header("if-none-match", &whole.0["etag"]);
        let again = again.send().await.unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{path}");
        let commas = ",".repeat(20_000);
        for nonsense in [&b"\xff"[..], b"", b"\"", commas.as_bytes()] {
            let asked = service
                .request(Method::GET, path)
                .header("if-none-match", nonsense)
                .header("accept-language", &b"\xfe;q=\xff"[..]);
            assert_eq!(asked.send().await.unwrap().status(), StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn a_hostile_language_or_host_changes_nothing_but_its_own_answer() {
    let folder = Folder::new();
    let service = folder.start();
    let plain = send(service.request(Method::GET, "/openapi.json")).await;
    let long = "x".repeat(20_000);
    for language in [
        "xx",
        "",
        "EN",
        "en%0d%0aX-Injected:1",
        "../../etc/passwd",
        "%ff",
        "en&lang=tr",
        "tr%00",
        &long,
    ] {
        let path = format!("/openapi.json?lang={language}");
        let answer = send(service.request(Method::GET, &path)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{language}");
        assert_eq!(answer.header("x-error-code"), "VALIDATION_FAILED");
        let sentence = answer.body["errors"][1].as_str().unwrap();
        assert!(sentence.starts_with("lang: "), "{sentence}");
    }
    for host in ["evil.example", "\"><script>", "[::", "", "a b"] {
        let request = service.request(Method::GET, "/openapi.json");
        let request = request
            .header("host", host)
            .header("x-forwarded-host", "evil.example");
        let answer = send(request).await;
        assert_eq!(answer.status, StatusCode::OK, "{host}");
        assert!(answer.body == plain.body, "{host}");
    }
    let again = send(service.request(Method::GET, "/openapi.json")).await;
    assert!(again.body == plain.body);
}

#[tokio::test]
async fn the_server_that_is_described_is_the_configured_one() {
    let folder = Folder::new();
    let mut command = command(&folder.data_dir());
    command.args(["--public-url", "https://api.example.com/profiles/"]);
    let service = folder.start_with(command);
    let answer = send(service.request(Method::GET, "/openapi.json")).await;
    let servers = serde_json::json!([{"url": "https://api.example.com/profiles"}]);
    assert_eq!(answer.body["servers"], servers);
}

/// A small photo, so that a debug build decodes it in no time.
fn photo() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 96, 96);
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[128; 96 * 96]).unwrap();
    writer.finish().unwrap();
    bytes
}

#[tokio::test]
async fn schemathesis_finds_nothing_in_the_running_service() {
    let folder = Folder::new();
    let service = folder.start();
    let user = service.token(DEMO_USER, "user");
    let file = reqwest::multipart::Part::bytes(photo());
    let form = reqwest::multipart::Form::new().part("file", file);
    let upload = service.request(Method::PATCH, "/api/v1/users/profile/photo");
    let answer = send(upload.bearer_auth(&user).multipart(form)).await;
    let photo_url = answer.data()["profilePhoto"]["url"].as_str().unwrap();
    let [_, photo_id, photo_hash, ..] = photo_url.rsplit('/').collect::<Vec<_>>()[..] else {
        panic!("{photo_url}")
    };
    // What is asked for by position has to be in the documents and in a signed checkpoint.
    let position = answer.header("ledger-position");
    let path = format!("/api/v1/log/checkpoint?minPosition={position}");
    let signed = async { while service.get(&path, &user).await.status != StatusCode::OK {} };
    tokio::time::timeout(DEADLINE, signed).await.unwrap();

    let output = tool("schemathesis/bin/schemathesis")
        .args(["--config-file", "api/check/schemathesis.toml"])
        .args(["run", &format!("{}/openapi.json", service.url)])
        .env("PYTHONPATH", "api/check")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("USER_TOKEN", &user)
        .env("AUDITOR_TOKEN", service.token("auditor-1", "auditor"))
        .env("SERVICE_TOKEN", service.token("sign-up", "service"))
        .env("ADMIN_TOKEN", service.token("admin-1", "admin"))
        .env("DEMO_USER", DEMO_USER)
        .env("PHOTO", folder.file("photo.png", &photo()))
        .env("PHOTO_ID", photo_id)
        .env("PHOTO_HASH", photo_hash)
        .env("NOW", answer.body["timestamp"].as_str().unwrap())
        .output()
        .unwrap();
    finds_nothing(&output);
}
