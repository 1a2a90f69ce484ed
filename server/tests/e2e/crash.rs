//! What was answered survives whatever happens to the process.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::service::{DEMO_USER, Folder};

#[tokio::test]
async fn what_was_answered_is_read_back_unchanged_after_a_kill_right_after_the_answer() {
    let folder = Folder::new();
    let mut last: Option<Value> = None;
    for round in 0..5 {
        let service = folder.start();
        let token = service.token(DEMO_USER, "user");
        if let Some(last) = &last {
            let read = service
                .get("/api/v1/users/profile?minPosition=1", &token)
                .await;
            assert_eq!(read.data(), last);
        }
        let body = json!({"name": "John", "surname": "Doe", "bio": format!("round {round}")});
        let answer = service
            .send_json(Method::PUT, "/api/v1/users/profile", &token, &body)
            .await;
        service.kill();
        last = Some(answer.data().clone());

        let service = folder.start();
        let position = answer.header("ledger-position");
        let read = service
            .get(
                &format!("/api/v1/users/profile?minPosition={position}"),
                &token,
            )
            .await;
        assert_eq!(read.data(), answer.data());
        assert_eq!(read.header("etag"), answer.header("etag"));
        assert_eq!(read.header("ledger-position"), position);
        service.kill();
    }
}

#[tokio::test]
async fn a_kill_under_load_loses_nothing_that_was_answered_and_repeats_nothing() {
    let folder = Folder::new();
    let service = folder.start();
    let sign_up = service.token("sign-up", "service");
    let mut requests = tokio::task::JoinSet::new();
    for worker in 0..16 {
        let request = service
            .request(Method::POST, "/api/v1/users")
            .bearer_auth(&sign_up);
        requests.spawn(async move {
            let mut answered = Vec::new();
            for n in 0..10_000 {
                let id = format!("{worker:012x}{n:012x}");
                let body = json!({"_id": id, "username": format!("u{worker}.{n}"), "name": "N", "surname": "S"});
                let request = request.try_clone().unwrap();
                let Ok(answer) = request.header("idempotency-key", &id).json(&body).send().await else {
                    return answered;
                };
                if answer.status() == StatusCode::CREATED {
                    // Reading the body may fail; the head of the answer was the promise.
                    answered.push(id);
                }
            }
            answered
        });
    }
    // Some load must have been answered before the kill.
    let token = service.token(DEMO_USER, "user");
    let loaded = service
        .get("/api/v1/users/profile?minPosition=40", &token)
        .await;
    assert_eq!(loaded.status, StatusCode::OK);
    service.kill();
    let answered: Vec<String> = requests.join_all().await.into_iter().flatten().collect();
    assert!(answered.len() >= 30, "{}", answered.len());

    let service = folder.start();
    for id in &answered {
        let body = json!({"_id": id, "username": "somebody.else", "name": "N", "surname": "S"});
        let again = service
            .send_json(Method::POST, "/api/v1/users", &sign_up, &body)
            .await;
        assert_eq!(
            again.status,
            StatusCode::CONFLICT,
            "{id} was lost: {again:?}"
        );
        assert_eq!(again.header("x-error-code"), "USER_EXISTS");
    }
}

#[tokio::test]
async fn a_command_under_way_is_finished_before_the_service_stops() {
    let folder = Folder::new();
    let service = folder.start();
    let sign_up = service.token("sign-up", "service");
    let mut requests = tokio::task::JoinSet::new();
    for n in 0..64 {
        let body = json!({"username": format!("user{n}"), "name": "N", "surname": "S"});
        let request = service
            .request(Method::POST, "/api/v1/users")
            .bearer_auth(&sign_up)
            .json(&body);
        requests.spawn(async move { request.send().await.map(|answer| answer.status()) });
    }
    let first = requests.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(first, StatusCode::CREATED);
    let status = service.stop();
    assert_eq!(status.code(), Some(0));
    let mut created = 1;
    for answer in requests.join_all().await {
        // A connection that was not accepted yet is refused; one that was gets its answer.
        match answer {
            Ok(status) => {
                assert_eq!(status, StatusCode::CREATED);
                created += 1;
            }
            Err(error) => assert!(error.is_connect() || error.is_request(), "{error:?}"),
        }
    }
    let service = folder.start();
    let ready = crate::service::send(service.request(Method::GET, "/readyz")).await;
    assert!(
        ready.body["head"].as_u64().unwrap() > created,
        "the demo user and every 201"
    );
}

#[tokio::test]
async fn a_read_model_that_was_thrown_away_is_folded_again() {
    let folder = Folder::new();
    let service = folder.start();
    let token = service.token(DEMO_USER, "user");
    let body = json!({"name": "John", "surname": "Doe", "bio": "kept by the ledger"});
    let answer = service
        .send_json(Method::PUT, "/api/v1/users/profile", &token, &body)
        .await;
    service.stop();
    for file in std::fs::read_dir(folder.data_dir()).unwrap() {
        let path = file.unwrap().path();
        if path
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("read-model.db")
        {
            std::fs::remove_file(path).unwrap();
        }
    }
    let service = folder.start();
    let position = answer.header("ledger-position");
    let read = service
        .get(
            &format!("/api/v1/users/profile?minPosition={position}"),
            &token,
        )
        .await;
    assert_eq!(read.data(), answer.data());
}
