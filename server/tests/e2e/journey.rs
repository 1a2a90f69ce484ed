//! What a newcomer does first, and what a client relies on afterwards.

use std::process::Command;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::service::{DEMO_USER, Folder, Service, send};

/// Runs the lines of the banner, as pasted into a shell; the answer of each `curl`.
fn paste(service: &Service) -> Vec<Value> {
    let (_, lines) = service.banner.split_once("Paste:").unwrap();
    let (lines, _) = lines.split_once("\nOther tokens").unwrap();
    assert_eq!(lines.matches("\ncurl ").count(), 5, "{lines}");
    let script = lines.replace("\ncurl ", "\necho; curl ");
    let done = Command::new("sh").args(["-ec", &script]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let answers = String::from_utf8(done.stdout).unwrap();
    let answers = answers.lines().filter(|line| !line.is_empty());
    answers
        .map(|line| serde_json::from_str(line).expect(line))
        .collect()
}

#[tokio::test]
async fn the_lines_of_the_banner_change_a_photo_a_profile_and_a_username_and_read_them_back() {
    let folder = Folder::new();
    let service = folder.start();
    let answers = paste(&service);
    let [photo, profile, username, own, public] = &answers[..] else {
        panic!("{answers:#?}")
    };
    for answer in &answers {
        assert_eq!(answer["isSuccess"], true, "{answer:#}");
        assert_eq!(answer["statusCode"], 200);
        assert_eq!(answer["errors"], json!([]));
    }
    assert!(
        photo["data"]["profilePhoto"]["url"]
            .as_str()
            .unwrap()
            .ends_with("/512.jpg")
    );
    assert_eq!(profile["data"]["bio"], "Hello from curl");
    assert_eq!(username["data"]["username"], "john.doe");
    assert_eq!(own["data"], username["data"]);
    assert_eq!(public["data"]["username"], "john.doe");
    assert_eq!(public["data"]["profilePhoto"], own["data"]["profilePhoto"]);

    // The photo can be looked at in every size.
    let photo = &own["data"]["profilePhoto"];
    let variants = photo["variants"].as_object().unwrap();
    let urls = variants.values().chain([&photo["url"]]);
    for url in urls.map(|url| url.as_str().unwrap()) {
        let path = url.strip_prefix(&service.url).unwrap();
        let response = service.request(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{url}");
        assert!(
            response.headers()["content-type"]
                .to_str()
                .unwrap()
                .starts_with("image/")
        );
        assert!(
            response.headers()["cache-control"]
                .to_str()
                .unwrap()
                .contains("immutable")
        );
    }

    // Pasted once more, only the username is refused: it changes once in 30 days.
    let again = paste(&service);
    assert_eq!(
        again[0]["data"]["profilePhoto"],
        answers[0]["data"]["profilePhoto"]
    );
    assert_eq!(
        again[2]["data"]["username"], "john.doe",
        "the same name changes nothing"
    );
    assert_eq!(
        again[3]["data"], own["data"],
        "nothing changed, so there is no new event"
    );
}

#[tokio::test]
async fn the_own_profile_has_the_members_of_the_published_page_in_their_order() {
    let folder = Folder::new();
    let service = folder.start();
    let token = service.token(DEMO_USER, "user");
    let response = service
        .request(Method::GET, "/api/v1/users/profile?minPosition=1")
        .bearer_auth(&token)
        .send()
        .await
        .unwrap();
    let text = response.text().await.unwrap();
    let mut from = 0;
    for member in [
        "isSuccess",
        "statusCode",
        "data",
        "_id",
        "name",
        "surname",
        "username",
        "availabilityStatus",
        "countryCode",
        "phoneNumber",
        "gender",
        "birthDate",
        "interests",
        "expertise",
        "privacyPolicyAccepted",
        "privacyPolicyVersion",
        "termsOfUseAccepted",
        "termsOfUseVersion",
        "consentFormAccepted",
        "consentFormVersion",
        "isRegistrationComplete",
        "roles",
        "lastLogin",
        "createdAt",
        "updatedAt",
        "email",
        "bio",
        "instagram",
        "tiktok",
        "x",
        "snapchat",
        "facebook",
        "errors",
        "timestamp",
    ] {
        let at = text[from..].find(&format!("\"{member}\":"));
        from += at.unwrap_or_else(|| panic!("{member} is missing or out of order in {text}"));
    }
}

#[tokio::test]
async fn the_answer_of_a_command_is_what_the_query_api_serves_at_its_position() {
    let folder = Folder::new();
    let service = folder.start();
    let token = service.token(DEMO_USER, "user");
    let photo = tests_photo();
    for round in 0..20 {
        let bio = json!({"name": "Zoë", "surname": "İlhan", "bio": format!("round {round}"), "interests": ["music"]});
        let answers = [
            service
                .send_json(Method::PUT, "/api/v1/users/profile", &token, &bio)
                .await,
            send(
                service
                    .request(Method::PATCH, "/api/v1/users/profile/photo")
                    .bearer_auth(&token)
                    .multipart(upload(&photo, round)),
            )
            .await,
        ];
        for answer in answers {
            let position = answer.header("ledger-position");
            let read = service
                .get(
                    &format!("/api/v1/users/profile?minPosition={position}"),
                    &token,
                )
                .await;
            if read.header("ledger-position") == position {
                assert_eq!(read.data(), answer.data());
                assert_eq!(read.header("etag"), answer.header("etag"));
            } else {
                // Only a later command of the same round may have been applied by now.
                assert!(read.header("ledger-position") > position);
            }
        }
    }
}

/// The demo photo of development mode.
pub(crate) fn tests_photo() -> Vec<u8> {
    include_bytes!("../../src/dev/demo-photo.jpg").to_vec()
}

pub(crate) fn upload(photo: &[u8], round: u32) -> reqwest::multipart::Form {
    // What follows the end of a JPEG is no part of the picture, but of the bytes.
    let mut bytes = photo.to_vec();
    bytes.extend(round.to_be_bytes());
    let part = reqwest::multipart::Part::bytes(bytes).file_name("me.png");
    reqwest::multipart::Form::new().part("file", part)
}

#[tokio::test]
async fn a_signed_up_user_is_found_by_id_by_name_and_by_search() {
    let folder = Folder::new();
    let service = folder.start();
    let sign_up = service.token("sign-up", "service");
    let body = json!({"username": "Ayse.Yilmaz", "name": "Ayşe", "surname": "YILMAZ", "birthDate": "1990-01-01", "email": "a@example.com"});
    let made = service
        .send_json(Method::POST, "/api/v1/users", &sign_up, &body)
        .await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let id = made.data()["_id"].as_str().unwrap().to_owned();
    let position = made.header("ledger-position").to_owned();
    for path in [
        format!("/api/v1/users/profile/{id}"),
        "/api/v1/users/profile/username/ayse.yilmaz".to_owned(),
        "/api/v1/users/profile/username/AYSE.YILMAZ".to_owned(),
    ] {
        let path = format!("{path}?minPosition={position}");
        let read = send(service.request(Method::GET, &path)).await;
        assert_eq!(read.data()["_id"], *id);
        assert_eq!(read.data()["email"], Value::Null, "strangers never see it");
        assert!(read.data()["age"].as_i64().unwrap() >= 36);
    }
    let token = service.token(&id, "user");
    for query in ["yilmaz", "y%C4%B1lm", "Y%C4%B0LMAZ", "ayse"] {
        let path = format!("/api/v1/users/search?q={query}");
        let found = service.get(&path, &token).await;
        assert_eq!(found.data()["items"][0]["_id"], *id, "{query}");
    }
    let free = json!({"username": "ayse.yilmaz"});
    let checked = service
        .send_json(
            Method::POST,
            "/api/v1/users/check-username",
            &sign_up,
            &free,
        )
        .await;
    assert_eq!(checked.data(), &json!({"available": false}));
}

#[tokio::test]
async fn health_and_readiness_are_told_without_a_token() {
    let folder = Folder::new();
    let service = folder.start();
    let healthy = service
        .request(Method::GET, "/healthz")
        .send()
        .await
        .unwrap();
    assert_eq!(healthy.status(), StatusCode::OK);
    let ready = send(service.request(Method::GET, "/readyz")).await;
    assert_eq!(ready.status, StatusCode::OK);
    assert_eq!(ready.body["ready"], true);
    assert_eq!(ready.body["missing"], json!([]));
    assert_eq!(ready.body["head"], 1);
}

#[tokio::test]
async fn metrics_count_commands_by_outcome_and_tell_positions_and_lag() {
    let folder = Folder::new();
    let service = folder.start();
    let token = service.token(DEMO_USER, "user");
    let taken = json!({"newUsername": "other.name"});
    for _ in 0..2 {
        service
            .send_json(Method::PATCH, "/api/v1/users/username", &token, &taken)
            .await;
    }
    let again = json!({"newUsername": "yet.another"});
    let refused = service
        .send_json(Method::PATCH, "/api/v1/users/username", &token, &again)
        .await;
    assert_eq!(refused.header("x-error-code"), "USERNAME_CHANGE_TOO_SOON");
    service
        .get("/api/v1/users/profile?minPosition=2", &token)
        .await;
    let metrics = service
        .request(Method::GET, "/metrics")
        .send()
        .await
        .unwrap();
    let metrics = metrics.text().await.unwrap();
    for line in [
        r#"profile_ledger_commands_total{operation="change username",outcome="accepted"} 2"#,
        r#"profile_ledger_commands_total{operation="change username",outcome="USERNAME_CHANGE_TOO_SOON"} 1"#,
        "profile_ledger_head_position 2",
        "profile_ledger_projection_position 2",
        "profile_ledger_projection_lag_events 0",
        "profile_ledger_projection_lag_seconds 0",
        "profile_ledger_parked_users 0",
        "profile_ledger_commit_commands_count 4",
        "profile_ledger_command_seconds_count 3",
    ] {
        assert!(
            metrics.lines().any(|one| one == line),
            "{line} is not in\n{metrics}"
        );
    }
    assert!(metrics.contains(
        r#"profile_ledger_http_seconds_count{route="/api/v1/users/profile",status="200"} 1"#
    ));
}
