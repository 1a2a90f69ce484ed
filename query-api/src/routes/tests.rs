use http_kit::caller::Role;
use http_kit::testing::described::{described, sorted};
use http_kit::testing::hostile::{Access, Reads, Target, methods, withstands};
use http_kit::testing::{Ask, refuses, token};
use serde_json::json;

use super::*;
use crate::testing::{Api, JANE, JOHN, PHOTO, auditor, called, hash, named, registered, user};

/// How each route is used well; a new route is added here, with a good request to it.
fn target(pattern: &'static str, method: &str) -> Target {
    let hash = hash();
    let (method, good, access, reads) = match (method, pattern) {
        ("GET", "/api/v1/users/profile") => {
            ("GET", user(JOHN, pattern), Access::Token, Reads::Nothing)
        }
        ("GET", "/api/v1/users/profile/{userId}") => {
            let good = user(JANE, &format!("/api/v1/users/profile/{JOHN}"));
            ("GET", good, Access::Anybody, Reads::Nothing)
        }
        ("GET", "/api/v1/users/profile/username/{username}") => {
            let good = user(JANE, "/api/v1/users/profile/username/johndoe123");
            ("GET", good, Access::Anybody, Reads::Nothing)
        }
        ("POST", "/api/v1/users/check-username") => {
            let good = user(JOHN, pattern).method("POST");
            let good = good.json(&json!({"username": "johnny"}));
            ("POST", good, Access::Token, Reads::Json(JSON_BYTES))
        }
        ("GET", "/api/v1/users/search") => {
            let good = user(JOHN, "/api/v1/users/search?q=john");
            ("GET", good, Access::Token, Reads::Nothing)
        }
        ("GET", "/media/users/{userId}/photos/{hash}/{photoId}/{file}") => {
            let path = format!("/media/users/{JOHN}/photos/{hash}/{PHOTO}/40.webp");
            let good = Ask::new("GET", &path);
            ("GET", good, Access::Open, Reads::Nothing)
        }
        ("GET", "/api/v1/audit/users/{userId}") => {
            let good = auditor(&format!("/api/v1/audit/users/{JOHN}"));
            ("GET", good, Access::Token, Reads::Nothing)
        }
        ("GET", "/api/v1/audit/users/{userId}/events") => {
            let good = auditor(&format!("/api/v1/audit/users/{JOHN}/events"));
            ("GET", good, Access::Token, Reads::Nothing)
        }
        ("GET", "/api/v1/audit/users/{userId}/diff") => {
            let good = auditor(&format!("/api/v1/audit/users/{JOHN}/diff?from=1&to=2"));
            ("GET", good, Access::Token, Reads::Nothing)
        }
        (
            "GET",
            "/api/v1/audit/events"
            | "/api/v1/audit/reads"
            | "/api/v1/events/stream"
            | "/api/v1/log/checkpoint"
            | "/api/v1/log/key",
        ) => ("GET", auditor(pattern), Access::Token, Reads::Nothing),
        ("GET", "/api/v1/audit/users/{userId}/proof") => {
            let good = auditor(&format!("/api/v1/audit/users/{JOHN}/proof"));
            ("GET", good, Access::Token, Reads::Nothing)
        }
        ("GET", "/api/v1/log/tile/{level}/{*index}") => {
            let good = auditor("/api/v1/log/tile/0/000.p/2");
            ("GET", good, Access::Token, Reads::Nothing)
        }
        ("GET", "/api/v1/log/proof/inclusion") => {
            let good = auditor("/api/v1/log/proof/inclusion?position=1");
            ("GET", good, Access::Token, Reads::Nothing)
        }
        ("GET", "/api/v1/log/proof/consistency") => {
            let good = auditor("/api/v1/log/proof/consistency?from=1");
            ("GET", good, Access::Token, Reads::Nothing)
        }
        ("GET", "/console" | "/asyncapi.json") => (
            "GET",
            Ask::new("GET", pattern),
            Access::Open,
            Reads::Nothing,
        ),
        ("GET", "/schemas/{type}/{version}") => {
            let good = Ask::new("GET", "/schemas/user-registered/1.json");
            ("GET", good, Access::Open, Reads::Nothing)
        }
        ("GET", "/console/{file}") => {
            let good = Ask::new("GET", "/console/app.js");
            ("GET", good, Access::Open, Reads::Nothing)
        }
        _ => panic!("{method} {pattern} is in no test of hostile requests: add it here"),
    };
    Target {
        pattern,
        method,
        good,
        access,
        reads,
        is_command: false,
    }
}

#[tokio::test]
async fn the_description_contains_exactly_the_routes() {
    let api = Api::with_users().await;
    let mut served = Vec::new();
    for (pattern, _) in routes() {
        for method in methods(&api.router, pattern).await {
            served.push((pattern.to_owned(), method));
        }
    }
    assert_eq!(described(&crate::openapi()), sorted(served));
}

#[tokio::test]
async fn every_route_withstands_hostile_requests() {
    let api = Api::with_users().await;
    let key = format!("users/{JOHN}/photos/{}/{PHOTO}/40.webp", hash());
    let bytes = bytes::Bytes::from_static(b"a photo");
    api.photo_store.create(&key, bytes).await.unwrap();
    let read = api.read(user(JOHN, "/api/v1/users/profile")).await;
    assert_eq!(read.status, 200);
    api.sign().await;
    for (pattern, _) in routes() {
        for method in methods(&api.router, pattern).await {
            withstands(&api.router, &target(pattern, &method)).await;
        }
    }
}

#[tokio::test]
async fn a_read_waits_for_its_position() {
    for ask in [
        user(JOHN, "/api/v1/users/profile?minPosition=2"),
        user(JOHN, "/api/v1/users/profile").header("ledger-min-position", "2"),
        // The greater of both counts.
        user(JOHN, "/api/v1/users/profile?minPosition=2").header("ledger-min-position", "1"),
        user(JOHN, "/api/v1/users/profile?minPosition=1").header("ledger-min-position", "2"),
    ] {
        let api = Api::still().await;
        api.append(JOHN, registered("john", named("John", "Doe")))
            .await;
        let mut reading = Box::pin(api.send(ask));
        assert!(futures::poll!(&mut reading).is_pending());
        api.append(JOHN, called("John", "Johnny")).await;
        api.project();
        let answer = reading.await;
        assert_eq!(answer.data()["name"], "Johnny");
        assert_eq!(answer.header("ledger-position"), Some("2"));
    }
}

#[tokio::test]
async fn a_position_that_does_not_come_is_not_waited_for_longer_than_2_seconds() {
    let api = Api::with_users().await;
    let first = api.read(user(JOHN, "/api/v1/users/profile")).await;
    assert_eq!(first.status, 200);
    // From here on nothing touches the disk, so time may jump.
    tokio::time::pause();
    for uri in [
        "/api/v1/users/profile?minPosition=4",
        "/api/v1/users/profile/507f1f77bcf86cd799439011?minPosition=4",
        "/api/v1/users/profile/username/johndoe123?minPosition=4",
        "/api/v1/users/search?q=john&minPosition=4",
    ] {
        let began = tokio::time::Instant::now();
        let answer = api.send(user(JOHN, uri)).await;
        // The clock of the runtime goes in whole milliseconds.
        let took = began.elapsed();
        assert!(
            took.abs_diff(WAIT) < Duration::from_millis(5),
            "{uri}: {took:?}"
        );
        assert_eq!(answer.header("retry-after"), Some("1"));
        let english = [
            "The service cannot answer right now; try again shortly",
            "Position 4 cannot be read yet; try again shortly.",
        ];
        let turkish = [
            "Hizmet şu anda yanıt veremiyor; az sonra yeniden deneyin",
            "4 konumu henüz okunamıyor; az sonra yeniden deneyin.",
        ];
        let ask = user(JOHN, uri);
        let code = "NOT_YET_READABLE";
        refuses(&api.router, &ask, 503, code, &english, &turkish).await;
    }
    // Who may not read does not wait.
    let began = tokio::time::Instant::now();
    let ask = Ask::new("GET", "/api/v1/users/profile?minPosition=4");
    assert_eq!(api.send(ask).await.status, 401);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn a_bad_position_is_named_with_what_else_is_bad() {
    let api = Api::with_users().await;
    let ask = user(JOHN, "/api/v1/users/profile?minPosition=x&more=1")
        .header("ledger-min-position", "-1");
    let english = [
        "Validation failed",
        "minPosition: must be a whole number from 0 to 9223372036854775807",
        "Ledger-Min-Position: must be a whole number from 0 to 9223372036854775807",
        "more: is not a known field",
    ];
    let turkish = [
        "Doğrulama başarısız",
        "minPosition: 0 ile 9223372036854775807 arasında bir tam sayı olmalıdır",
        "Ledger-Min-Position: 0 ile 9223372036854775807 arasında bir tam sayı olmalıdır",
        "more: bilinen bir alan değil",
    ];
    let code = "VALIDATION_FAILED";
    refuses(&api.router, &ask, 400, code, &english, &turkish).await;
}

#[tokio::test]
async fn what_is_for_users_is_refused_to_who_has_no_role() {
    let api = Api::with_users().await;
    let code = "INSUFFICIENT_PERMISSIONS";
    let (english, turkish) = (["Insufficient permissions"], ["Yetersiz yetki"]);
    let check = Ask::new("POST", "/api/v1/users/check-username").json(&json!({"username": "ann"}));
    // Auditors find users in order to look at their histories.
    for (ask, others) in [
        (Ask::new("GET", "/api/v1/users/profile"), Role::Auditor),
        (
            Ask::new("GET", "/api/v1/users/search?q=john"),
            Role::Service,
        ),
        (check, Role::Auditor),
    ] {
        for roles in [&[][..], &[others]] {
            let ask = ask.clone().bearer(&token(JOHN, roles));
            refuses(&api.router, &ask, 403, code, &english, &turkish).await;
        }
    }
}
