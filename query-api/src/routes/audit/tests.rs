use std::sync::atomic::Ordering;

use http_kit::query::Kind as _;
use http_kit::testing::{Ask, refuses, token};
use proptest::prelude::*;

use super::*;
use crate::testing::{Api, JANE, JOHN, auditor, called, user};

/// The routes of one user's history.
fn of(id: &str) -> [String; 3] {
    ["", "/events", "/diff?from=1&to=1"].map(|rest| format!("/api/v1/audit/users/{id}{rest}"))
}

const OF_ALL: [&str; 2] = ["/api/v1/audit/events", "/api/v1/audit/reads"];

#[tokio::test]
async fn auditors_see_everybody_and_users_see_themselves() {
    let api = Api::with_users().await;
    for role in [Role::Auditor, Role::Admin] {
        let token = token("auditor-1", &[role]);
        let uris = of(JOHN).into_iter().chain(of(JANE));
        for uri in uris.chain(OF_ALL.map(str::to_owned)) {
            let answer = api.send(Ask::new("GET", &uri).bearer(&token)).await;
            assert_eq!(answer.status, 200, "{uri}");
        }
    }
    for uri in of(JOHN) {
        assert_eq!(api.send(user(JOHN, &uri)).await.status, 200, "{uri}");
    }
}

#[tokio::test]
async fn nobody_else_is_told_even_whether_a_user_exists() {
    let api = Api::with_users().await;
    let code = "INSUFFICIENT_PERMISSIONS";
    let (english, turkish) = (["Insufficient permissions"], ["Yetersiz yetki"]);
    let nobody = "507f1f77bcf86cd799439000";
    let uris = [JOHN, nobody, "no-id"].into_iter().flat_map(of);
    for uri in uris.chain(OF_ALL.map(str::to_owned)) {
        for ask in [
            user(JANE, &uri),
            Ask::new("GET", &uri).bearer(&token("sign-up", &[Role::Service])),
            // Who has the id of a user, and not the role.
            Ask::new("GET", &uri).bearer(&token(JOHN, &[])),
        ] {
            refuses(&api.router, &ask, 403, code, &english, &turkish).await;
        }
    }
    assert!(api.trail.all().await.is_empty(), "nothing was looked at");
    // A user without a history is told that, and no more.
    for uri in of(nobody) {
        assert_eq!(api.send(user(nobody, &uri)).await.status, 404, "{uri}");
    }
}

#[tokio::test]
async fn every_look_at_somebody_else_is_recorded_before_it_is_answered() {
    let api = Api::with_users().await;
    let nobody = "507f1f77bcf86cd799439000";
    let uris = [JOHN, nobody].into_iter().flat_map(of);
    let uris: Vec<_> = uris.chain(OF_ALL.map(str::to_owned)).collect();
    for uri in &uris {
        let answer = api.send(auditor(uri).header("x-request-id", "r-1")).await;
        let status = if uri.contains(nobody) { 404 } else { 200 };
        assert_eq!(answer.status, status, "{uri}");
    }
    let recorded = api.trail.all().await;
    assert_eq!(recorded.len(), uris.len());
    for (read, uri) in recorded.iter().zip(&uris) {
        let whom = [JOHN, nobody].into_iter().find(|id| uri.contains(id));
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let route = whom.map_or(path.to_owned(), |id| path.replace(id, "{userId}"));
        let wanted = Read {
            at: Time::from(http_kit::testing::now()),
            actor: "auditor-1".to_owned(),
            route,
            user: whom.map(|id| id.parse().unwrap()),
            query: query.to_owned(),
            request_id: "r-1".to_owned(),
        };
        assert_eq!(*read, wanted);
    }
}

#[tokio::test]
async fn a_users_look_at_itself_is_not_recorded_unless_as_an_auditor() {
    let api = Api::with_users().await;
    for uri in of(JOHN) {
        api.send(user(JOHN, &uri)).await;
    }
    assert!(api.trail.all().await.is_empty());
    let both = token(JOHN, &[Role::User, Role::Auditor]);
    api.send(Ask::new("GET", &of(JOHN)[0]).bearer(&both)).await;
    assert_eq!(api.trail.all().await.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_answered() {
    let api = Api::with_users().await;
    api.trail.is_full.store(true, Ordering::Relaxed);
    let code = "UNAVAILABLE";
    let english = ["The service cannot answer right now; try again shortly"];
    let turkish = ["Hizmet şu anda yanıt veremiyor; az sonra yeniden deneyin"];
    let stream = "/api/v1/events/stream".to_owned();
    let all = of(JOHN).into_iter().chain(OF_ALL.map(str::to_owned));
    for uri in all.chain([stream]) {
        let ask = auditor(&uri);
        refuses(&api.router, &ask, 503, code, &english, &turkish).await;
        let answer = api.send(ask).await;
        assert_eq!(answer.header("retry-after"), Some("1"));
        let lines = auditor(&uri).header("accept", "application/x-ndjson");
        assert_eq!(api.send(lines).await.status, 503);
    }
    // A user's look at itself needs no record.
    assert_eq!(api.send(user(JOHN, &of(JOHN)[0])).await.status, 200);
    api.trail.is_full.store(false, Ordering::Relaxed);
    assert_eq!(api.send(auditor(&of(JOHN)[0])).await.status, 200);
}

#[tokio::test]
async fn a_history_waits_for_its_position_in_the_ledger_and_not_for_documents() {
    // Nothing projects here.
    let api = Api::still().await;
    let event = crate::testing::registered("john", crate::testing::named("John", "Doe"));
    api.append(JOHN, event).await;
    let uri = format!("/api/v1/audit/users/{JOHN}?minPosition=2");
    let mut reading = Box::pin(api.send(auditor(&uri)));
    assert!(futures::poll!(&mut reading).is_pending());
    api.append(JOHN, called("John", "Johnny")).await;
    assert_eq!(reading.await.data()["document"]["name"], "Johnny");
    let ask = auditor(&format!("/api/v1/audit/users/{JOHN}?minPosition=3"));
    let answer = api.send(ask).await;
    let sentences = [
        "The service cannot answer right now; try again shortly",
        "Position 3 cannot be read yet; try again shortly.",
    ];
    answer.fails(503, "NOT_YET_READABLE", &sentences);
}

proptest! {
    #[test]
    fn any_text_is_a_parameter_or_a_problem(given in ".{0,200}") {
        if let Ok(text) = NAME.parse(&given) {
            prop_assert!(text == given && !text.is_empty() && text.chars().count() <= MAX_NAME);
        }
        let _ = (TIME.parse(&given), USER_ID.parse(&given));
    }
}
