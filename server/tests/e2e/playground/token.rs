//! Whom the page has a token of, and who gets that of development mode.

use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::{ANSWER, PROFILE, SEND, open};
use crate::browser::{Browser, ELSEWHERE};
use crate::service::{DEMO_USER, Folder, command, send};

#[tokio::test]
async fn outside_of_development_mode_no_token_is_filled_in_and_none_is_given() {
    let folder = Folder::new();
    let mut serving = command(&folder.data_dir());
    serving.env("JWT_SECRET", "a secret of at least thirty-two bytes");
    let service = folder.start_with(serving);
    let own = service
        .request(Method::GET, "/docs/token")
        .header("sec-fetch-site", "same-origin");
    assert_eq!(send(own).await.status, StatusCode::NOT_FOUND);
    let browser = open(&service, "").await;
    browser
        .says("#reference", "JWT, without the Bearer prefix")
        .await;
    browser.try_out("profile", Method::GET, PROFILE).await;
    browser.press_on(SEND).await;
    browser.says(ANSWER, "Authentication required").await;
    browser.shot("no-token").await;
}

#[tokio::test]
async fn no_other_site_gets_the_token_of_the_page() {
    let folder = Folder::new();
    let service = folder.start();
    let ask = async |headers: &[(&str, &str)]| {
        let mut request = service.request(Method::GET, "/docs/token");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(request).await
    };
    let given = ask(&[("sec-fetch-site", "same-origin")]).await;
    let token = given.data()["token"].as_str().unwrap();
    let profile = service.get(PROFILE, token).await;
    assert_eq!(profile.data()["_id"], DEMO_USER);
    assert_eq!(given.header("access-control-allow-origin"), "");
    assert_eq!(given.header("cache-control"), "no-store");
    for headers in [
        &[][..],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-origin"), ("host", "evil.example")],
    ] {
        let refused = ask(headers).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{headers:?}");
        assert_eq!(refused.body["data"], Value::Null);
    }
}

#[tokio::test]
async fn a_page_by_another_name_than_this_machines_is_shown_without_the_token() {
    let folder = Folder::new();
    let service = folder.start();
    let url = service.url.replace("127.0.0.1", ELSEWHERE);
    let browser = Browser::open("playground", &format!("{url}/docs"), "en").await;
    browser.try_out("profile", Method::GET, PROFILE).await;
    browser.press_on(SEND).await;
    browser.says(ANSWER, "Authentication required").await;
}
