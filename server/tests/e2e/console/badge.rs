//! The badge: what the browser verifies, and what it says of a history that is not the signed one.

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::gateway::Gateway;
use super::{GOOD, named};
use crate::browser::{Browser, ELSEWHERE};
use crate::service::{DEADLINE, DEMO_USER, Folder, Service};

const BAD: &str = "#badge[data-state=bad]";
/// Where the exact events come from.
const EXPORT: &str = "/api/v1/audit/events";

/// A name, the path whose answers are altered, how they are, and the sentence to which that must lead.
type Trick = (&'static str, &'static str, fn(&str) -> String, &'static str);

const TRICKS: [Trick; 8] = [
    (
        "altered",
        EXPORT,
        |text| text.replacen("Johnny", "Jimmy", 1),
        "version 3 does not follow from version 2",
    ),
    (
        "altered-newest",
        EXPORT,
        |text| text.replace("Jack", "Jock"),
        "version 3 is shown otherwise",
    ),
    (
        "missing",
        EXPORT,
        |text| {
            text.lines()
                .enumerate()
                .filter(|(n, _)| *n != 1)
                .map(|(_, line)| format!("{line}\n"))
                .collect()
        },
        "version 2 is missing",
    ),
    (
        "cut-off",
        EXPORT,
        |text| text.split_inclusive('\n').take(2).collect(),
        "version 3 is shown, but the chain ends before it",
    ),
    (
        "not-included",
        "/api/v1/log/proof/inclusion",
        |text| text.replacen("\"hashes\":[\"", "\"hashes\":[\"0000", 1),
        "version 3, at position 3, is not in the signed ledger",
    ),
    (
        "other-root",
        "/api/v1/log/checkpoint",
        other_root,
        "the signature of the checkpoint is wrong",
    ),
    (
        "no-signature",
        "/api/v1/log/checkpoint",
        |text| text.replace("\u{2014} ", "\u{2014} other-"),
        "not signed with the key",
    ),
    (
        "no-key",
        "/api/v1/log/key",
        |_| "a+00000000+AQ==".to_owned(),
        "the key of the ledger cannot be read",
    ),
];

/// A note with another root.
fn other_root(note: &str) -> String {
    let mut lines: Vec<_> = note.split('\n').map(str::to_owned).collect();
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".clone_into(&mut lines[2]);
    lines.join("\n")
}

/// A history of three events behind a gateway, verified.
async fn verified() -> (Folder, Service, Gateway, Browser) {
    let folder = Folder::new();
    let service = folder.start();
    for name in ["Johnny", "Jack"] {
        named(&service, name).await;
    }
    let gateway = Gateway::to(&service.url).await;
    let browser = Browser::open(
        "console",
        &format!("{}/console#{DEMO_USER}", gateway.url),
        "en",
    )
    .await;
    browser.says(GOOD, "Verified up to version 3").await;
    browser.click("#badge summary").await;
    (folder, service, gateway, browser)
}

#[tokio::test]
async fn whatever_is_altered_is_told_with_the_version_that_is_wrong() {
    let (_folder, _service, gateway, browser) = verified().await;
    for (name, path, trick, sentence) in TRICKS {
        gateway.alter(move |at, query, text| {
            if at == path && (at != EXPORT || query.contains("user=")) {
                trick(&text)
            } else {
                text
            }
        });
        browser.click("#badge-again").await;
        browser.says(BAD, sentence).await;
        browser.shot(&format!("badge-{name}")).await;
        gateway.behave();
        browser.click("#badge-again").await;
        browser.says(GOOD, "Verified up to version 3").await;
    }
}

#[tokio::test]
async fn events_that_are_shown_otherwise_than_they_were_signed_are_told() {
    let (_folder, _service, gateway, browser) = verified().await;
    // A server that lies consistently about an event it shows cannot lie about its hash.
    gateway.alter(move |at, query, text| {
        let is_shown =
            at.starts_with("/api/v1/audit/") && (at != EXPORT || query.contains("user="));
        if is_shown {
            text.replace("Jack", "Jock")
        } else {
            text
        }
    });
    browser.reload().await;
    browser.says("#timeline", "Jock").await;
    browser
        .says(BAD, "version 3, at position 3, is not in the signed ledger")
        .await;
    browser.until("return document.querySelector('[data-version=\"3\"] .mark').className.includes('disproven')").await;
    browser.choose("#language", "tr").await;
    browser
        .says(BAD, "konum 3 noktasındaki sürüm 3 imzalı defterde yok")
        .await;
    browser.shot("badge-turkish").await;
    browser.choose("#language", "en").await;
    // Differences that the event does not have.
    gateway.alter(move |at, _, text| {
        if at == "/api/v1/audit/users/507f1f77bcf86cd799439011/events" {
            text.replace("\"after\":\"Jack\"}]", "\"after\":\"Jill\"}]")
        } else {
            text
        }
    });
    browser.reload().await;
    browser.says("#timeline", "Jill").await;
    browser
        .says(
            BAD,
            "the differences shown for version 3 are not those of the event",
        )
        .await;
    gateway.behave();
    browser.reload().await;
    browser.says(GOOD, "Verified up to version 3").await;
}

#[tokio::test]
async fn an_event_that_is_newer_than_the_checkpoint_is_waited_for() {
    let (_folder, service, gateway, browser) = verified().await;
    let old = service.request(Method::GET, "/api/v1/log/checkpoint");
    let old = old
        .bearer_auth(service.token("auditor", "auditor"))
        .send()
        .await
        .unwrap();
    let old = old.text().await.unwrap();
    gateway.alter(move |at, _, text| {
        if at == "/api/v1/log/checkpoint" {
            old.clone()
        } else {
            text
        }
    });
    named(&service, "Jacques").await;
    browser
        .says(
            "#badge[data-state=waiting]",
            "version 4 is newer than the signed checkpoint",
        )
        .await;
    browser.shot("badge-waiting").await;
    gateway.behave();
    browser.says(GOOD, "Verified up to version 4").await;
}

#[tokio::test]
async fn a_ledger_that_is_no_continuation_of_the_one_seen_before_is_told() {
    let (_folder, _service, _gateway, browser) = verified().await;
    let other = "11".repeat(32);
    for (size, sentence) in [
        (2, "the ledger of 3 events is not the one of 2 events"),
        (3, "the ledger of 3 events is not the one of 3 events"),
        (9, "signed with 9 events before, and now with 3"),
    ] {
        let seen = json!({"size": size, "root": other}).to_string();
        let remember = format!(
            "localStorage.setItem('profile-ledger.checkpoint', {})",
            json!(seen)
        );
        browser.run(&remember).await;
        browser.click("#badge-again").await;
        browser.says(BAD, sentence).await;
    }
}

#[tokio::test]
async fn the_page_verifies_every_proof_of_the_log_and_none_that_was_altered() {
    let folder = Folder::new();
    let service = folder.start();
    for n in 0..17 {
        named(&service, &format!("John{n}")).await;
    }
    let token = service.token("auditor", "auditor");
    // A busy machine signs later than a request waits.
    let signed = async {
        let path = "/api/v1/log/checkpoint?minPosition=18";
        while service.get(path, &token).await.status != StatusCode::OK {}
    };
    let signed = tokio::time::timeout(DEADLINE, signed).await;
    signed.expect("a checkpoint of everything");
    let browser = Browser::open("console", &format!("{}/console", service.url), "en").await;
    let wrong = browser.run(include_str!("proofs.js")).await;
    assert_eq!(wrong, json!([]));
}

#[tokio::test]
async fn a_ledger_with_another_key_than_the_remembered_one_is_told_and_trusted_only_when_told_to() {
    let (first, second) = (Folder::new(), Folder::new());
    let (first, second) = (first.start(), second.start());
    let gateway = Gateway::to(&first.url).await;
    let browser = Browser::open(
        "console",
        &format!("{}/console#{DEMO_USER}", gateway.url),
        "en",
    )
    .await;
    browser.says(GOOD, "Verified up to version 1").await;
    let fingerprint = browser
        .run("return document.querySelector('#badge-key .code').textContent")
        .await;
    // The same address leads to another ledger.
    gateway.lead_to(&second.url);
    browser.reload().await;
    // The token of the first is refused by the second, which gives one of its own.
    browser.says(BAD, "the key of the ledger has changed").await;
    browser.click("#badge summary").await;
    browser.says("#badge-changed", "Accept it only if").await;
    let now = browser
        .run("return document.querySelector('#badge-key .code').textContent")
        .await;
    assert_ne!(fingerprint, now);
    browser.shot("badge-key-changed").await;
    browser.reload().await;
    browser.says(BAD, "the key of the ledger has changed").await;
    browser.click("#badge summary").await;
    browser.click("#badge-accept").await;
    browser.says(GOOD, "Verified up to version 1").await;
}

/// Browsers have no cryptography for pages that come in the clear from another machine.
#[tokio::test]
async fn where_the_browser_does_not_verify_the_badge_says_why_and_the_rest_of_the_page_works() {
    let folder = Folder::new();
    let service = folder.start();
    named(&service, "Johnny").await;
    let url = service.url.replace("127.0.0.1", ELSEWHERE);
    let browser = Browser::open("console", &format!("{url}/console#{DEMO_USER}"), "en").await;
    assert_eq!(browser.run("return isSecureContext").await, json!(false));
    // Nor is the token of development mode given to a page of that name.
    browser.says("#access", "Paste a token").await;
    browser
        .fill("#token", &service.token("eve", "auditor"))
        .await;
    browser.click("#access-form .main").await;
    browser.says("#timeline", "Johnny").await;
    let unable = "#badge[data-state=unavailable]";
    let why = "Not verified: this browser verifies only over HTTPS or on this machine itself.";
    browser.says(unable, why).await;
    browser.says("#live-status", "Connected").await;
    browser.says("#document", "Johnny").await;
    let marks = "return [...document.querySelectorAll('#timeline .mark')].every((one) => one.textContent === '')";
    assert_eq!(
        browser.run(marks).await,
        json!(true),
        "nothing is said to be verified"
    );
    browser.shot("badge-insecure").await;
    browser.click("#badge summary").await;
    browser.click("#badge-again").await;
    browser.says(unable, why).await;
    browser.choose("#language", "tr").await;
    browser
        .says(unable, "Doğrulanmadı: bu tarayıcı yalnızca HTTPS üzerinden")
        .await;
}
