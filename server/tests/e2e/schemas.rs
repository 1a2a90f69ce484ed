//! What is published about events: the same from the binary, from the service and in `api/`, and true of the
//! events that the service writes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use events::UserEvent;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::journey::{tests_photo, upload};
use crate::service::{DEMO_USER, Folder, Service, command};

const STALE: &str = "is not what the binary makes: run scripts/generate";

fn api() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../api")
}

/// Every file of a folder of schemas, by what its path is in the service.
fn schemas(folder: &Path) -> BTreeMap<String, String> {
    let mut schemas = BTreeMap::new();
    for name in std::fs::read_dir(folder).unwrap() {
        for file in std::fs::read_dir(name.unwrap().path()).unwrap() {
            let file = file.unwrap().path();
            let path = file.strip_prefix(folder).unwrap().display();
            let text = std::fs::read_to_string(&file).unwrap();
            schemas.insert(format!("/schemas/{path}"), text);
        }
    }
    schemas
}

async fn text(service: &Service, path: &str) -> String {
    let response = service.request(Method::GET, path).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    response.text().await.unwrap()
}

#[tokio::test]
async fn the_committed_descriptions_are_what_the_binary_prints_and_serves() {
    let folder = Folder::new();
    let made = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let done = command(&folder.data_dir())
            .args(arguments)
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    run(&["schemas", "--to", made.path().to_str().unwrap()]);
    let committed = schemas(&api().join("schemas"));
    assert!(committed.len() > UserEvent::TYPES.len());
    assert!(schemas(made.path()) == committed, "api/schemas {STALE}");
    let document = std::fs::read_to_string(api().join("asyncapi.json")).unwrap();
    assert!(run(&["asyncapi"]) == document, "api/asyncapi.json {STALE}");

    let service = folder.start();
    for (path, committed) in committed {
        assert_eq!(text(&service, &path).await, committed, "{path}");
    }
    assert_eq!(text(&service, "/asyncapi.json").await, document);
    let turkish = text(&service, "/asyncapi.json?lang=tr").await;
    assert_eq!(turkish, run(&["asyncapi", "--lang", "tr"]));
}

#[tokio::test]
async fn events_of_every_type_keep_to_the_schemas_that_they_name() {
    let folder = Folder::new();
    let service = folder.start();
    let token = service.token(DEMO_USER, "user");
    let user = |method, path| service.request(method, path).bearer_auth(&token);
    let profile =
        json!({"name": "Zoë", "surname": "İlhan", "bio": "\u{202f}x", "interests": ["music"]});
    for request in [
        user(Method::PATCH, "/api/v1/users/profile/photo").multipart(upload(&tests_photo(), 1)),
        user(Method::PUT, "/api/v1/users/profile").json(&profile),
        user(Method::PATCH, "/api/v1/users/username").json(&json!({"newUsername": "zoe.ilhan"})),
    ] {
        let response = request.send().await.unwrap();
        assert!(response.status().is_success(), "{response:?}");
    }
    let exported = command(&folder.data_dir()).arg("export").output().unwrap();
    assert!(exported.status.success(), "{exported:?}");
    let exported = String::from_utf8(exported.stdout).unwrap();
    let keeps_to = async |path: &str, value: &Value| {
        let schema = serde_json::from_str(&text(&service, path).await).unwrap();
        let validator = jsonschema::draft202012::options()
            .should_validate_formats(true)
            .build(&schema)
            .unwrap();
        let errors: Vec<_> = validator
            .iter_errors(value)
            .map(|e| e.to_string())
            .collect();
        assert_eq!(errors, [""; 0], "{path}");
    };
    let mut types = Vec::new();
    for line in exported.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        keeps_to("/schemas/envelope/1.json", &event).await;
        keeps_to(event["dataschema"].as_str().unwrap(), &event["data"]).await;
        types.push(event["type"].as_str().unwrap().to_owned());
    }
    for event_type in UserEvent::TYPES {
        assert!(types.iter().any(|found| found == event_type), "{types:?}");
    }
}
