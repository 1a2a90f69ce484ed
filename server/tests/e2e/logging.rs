//! What is logged, and what never is.

use reqwest::Method;
use serde_json::{Value, json};

use crate::service::{DEMO_USER, Folder, send};

#[tokio::test]
async fn logs_are_json_name_the_route_and_hold_nothing_personal() {
    let folder = Folder::new();
    let service = folder.start();
    let token = service.token(DEMO_USER, "user");
    let secrets = [
        "Secretname",
        "Secretsurname",
        "secret.mail",
        "secret.handle",
        "secret.user",
        "secret-device",
        "5550001122",
        &token,
    ];
    let profile = json!({"name": secrets[0], "surname": secrets[1], "email": "secret.mail@example.com", "instagram": secrets[3]});
    service
        .send_json(Method::PUT, "/api/v1/users/profile", &token, &profile)
        .await;
    let username = json!({"newUsername": secrets[4]});
    service
        .send_json(Method::PATCH, "/api/v1/users/username", &token, &username)
        .await;
    service
        .send_json(
            Method::PATCH,
            "/api/v1/users/username",
            &token,
            &json!({"newUsername": "secret.user2"}),
        )
        .await;
    let bad = json!({"name": secrets[0], "surname": "x".repeat(100), "phoneNumber": secrets[6]});
    service
        .send_json(Method::PUT, "/api/v1/users/profile", &token, &bad)
        .await;
    for path in [
        "/api/v1/users/profile/username/secret.user",
        "/api/v1/users/search?q=Secretname",
        "/secret.user",
        "/api/v1/users/profile?Secretname=1",
    ] {
        let request = service.request(Method::GET, path).bearer_auth(&token);
        send(
            request
                .header("x-device-id", secrets[5])
                .header("x-request-id", "known-request"),
        )
        .await;
    }
    assert_eq!(service.stop().code(), Some(0));

    let log = folder.log();
    for secret in secrets {
        assert!(!log.contains(secret), "{secret} was logged:\n{log}");
    }
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let routes: Vec<_> = lines
        .iter()
        .filter_map(|line| line["http.route"].as_str())
        .collect();
    for route in [
        "/api/v1/users/profile",
        "/api/v1/users/profile/username/{username}",
        "/api/v1/users/search",
        "unmatched",
    ] {
        assert!(routes.contains(&route), "{route} is not in {routes:?}");
    }
    assert!(
        log.contains("known-request"),
        "a request can be found by its id"
    );
    assert!(log.contains("Shutting down"));
}

#[test]
fn logs_are_text_on_a_terminal() {
    use std::io::BufRead as _;

    let folder = Folder::new();
    let service = format!(
        "DATA_DIR='{}' '{}' --listen 127.0.0.1:0",
        folder.data_dir().display(),
        env!("CARGO_BIN_EXE_profile-ledger")
    );
    let mut terminal = std::process::Command::new("script")
        .args(["-qefc", &service, "/dev/null"])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("script is part of every Debian");
    let shown = std::io::BufReader::new(terminal.stdout.take().unwrap());
    let line = shown
        .lines()
        .map(Result::unwrap)
        .find(|line| line.contains("Listening"));
    // The service ends with its terminal.
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    let line = line.unwrap();
    assert!(line.contains("INFO") && !line.starts_with('{'), "{line}");
}
