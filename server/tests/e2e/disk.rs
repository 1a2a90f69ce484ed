//! A disk that refuses to be written to. The process gets a limit on the size of files, which fails
//! its writes as a full disk does and can be lifted while it runs.

use std::process::Command;

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::service::{self, DEMO_USER, Folder, Service, send};

fn limit_files(service: &Service, bytes: &str) {
    let done = Command::new("prlimit")
        .args([
            "--pid",
            &service.pid().to_string(),
            &format!("--fsize={bytes}:"),
        ])
        .output()
        .expect("prlimit is part of util-linux");
    assert!(done.status.success(), "{done:?}");
}

/// The service, which lives on when a write passes the limit, as it would on a full disk.
fn start(folder: &Folder) -> Service {
    let mut command = Command::new("env");
    service::as_newcomer(&mut command)
        .args(["--ignore-signal=XFSZ", env!("CARGO_BIN_EXE_profile-ledger")])
        .env("DATA_DIR", folder.data_dir());
    folder.start_with(command)
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_answers_503_loses_nothing_and_is_recovered_from() {
    let folder = Folder::new();
    let service = start(&folder);
    let token = service.token(DEMO_USER, "user");
    let put = async |bio: &str| {
        let body = json!({"name": "John", "surname": "Doe", "bio": bio});
        service
            .send_json(Method::PUT, "/api/v1/users/profile", &token, &body)
            .await
    };
    let before = put("before").await;
    assert_eq!(before.status, StatusCode::OK);
    // The projection has written all it has to.
    let path = format!(
        "/api/v1/users/profile?minPosition={}",
        before.header("ledger-position")
    );
    assert_eq!(service.get(&path, &token).await.data(), before.data());

    limit_files(&service, "1024");
    for _ in 0..20 {
        let refused = put("while the disk is full").await;
        assert_eq!(
            refused.status,
            StatusCode::SERVICE_UNAVAILABLE,
            "{refused:?}"
        );
        assert_eq!(refused.header("retry-after"), "1");
        assert_eq!(refused.header("x-error-code"), "UNAVAILABLE");
        assert_eq!(refused.body["isSuccess"], false);
    }
    let photo = include_bytes!("../../src/dev/demo-photo.jpg").to_vec();
    let part = reqwest::multipart::Part::bytes(photo).file_name("me.jpg");
    let upload = service
        .request(Method::PATCH, "/api/v1/users/profile/photo")
        .bearer_auth(&token)
        .multipart(reqwest::multipart::Form::new().part("file", part));
    assert_eq!(send(upload).await.status, StatusCode::SERVICE_UNAVAILABLE);
    let read = service.get("/api/v1/users/profile", &token).await;
    assert_eq!(read.data(), before.data(), "reads go on");

    limit_files(&service, "unlimited");
    let after = put("after").await;
    assert_eq!(after.status, StatusCode::OK, "{after:?}");
    let path = format!(
        "/api/v1/users/profile?minPosition={}",
        after.header("ledger-position")
    );
    assert_eq!(service.get(&path, &token).await.data(), after.data());

    service.kill();
    let service = folder.start();
    let read = service.get(&path, &token).await;
    assert_eq!(read.data(), after.data());
    let versions: u64 = read.header("etag").trim_matches('"').parse().unwrap();
    assert_eq!(
        versions, 3,
        "registered, before, after, and nothing that was refused"
    );
}

#[tokio::test]
async fn a_projection_whose_disk_was_full_catches_up_by_itself() {
    let folder = Folder::new();
    let service = start(&folder);
    let token = service.token(DEMO_USER, "user");
    limit_files(&service, "1024");
    let body = json!({"name": "John", "surname": "Doe", "bio": "full"});
    let refused = service
        .send_json(Method::PUT, "/api/v1/users/profile", &token, &body)
        .await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    limit_files(&service, "unlimited");
    let done = service
        .send_json(Method::PUT, "/api/v1/users/profile", &token, &body)
        .await;
    let path = format!(
        "/api/v1/users/profile?minPosition={}",
        done.header("ledger-position")
    );
    assert_eq!(service.get(&path, &token).await.data(), done.data());
    let ready = send(service.request(Method::GET, "/readyz")).await;
    assert_eq!(ready.body["ready"], true, "{ready:?}");
}
