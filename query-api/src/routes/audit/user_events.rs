//! `GET /api/v1/audit/users/{userId}/events`: the events of a user by version, in either direction.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use events::Version;
use http_kit::answer::Answer;
use http_kit::error::ApiError;
use http_kit::openapi::{self, Fails, NotThere, values};
use utoipa::IntoResponses;
use utoipa::openapi::{self as described, RefOr};

use super::{AuditedRead, EventPage, Item, Order, Page, PageOf, newest, within};
use crate::Shared;
use crate::routes::Example as _;

/// A page of a user, described.
struct UserPage;

impl IntoResponses for UserPage {
    fn responses() -> BTreeMap<String, RefOr<described::Response>> {
        let about = "A page of events of the user.";
        let answer = openapi::answer::<EventPage>(about, 200, &EventPage::example());
        let answer = answer.header("ETag", openapi::etag());
        BTreeMap::from([("200".to_owned(), answer.build().into())])
    }
}

/// List the events of a user
///
/// By version, in either direction. Auditors may read every history, users their own. Reading the history of another
/// user is recorded.
#[utoipa::path(
    get,
    path = "/api/v1/audit/users/{userId}/events",
    operation_id = "listUsersEventsV1",
    tag = "Audit",
    params(("userId" = values::UserId, Path, description = "The id of the user."), PageOf, AuditedRead),
    responses(UserPage, Fails<(AuditedRead, PageOf, NotThere)>),
    security(("bearer" = []))
)]
pub(in crate::routes) async fn list(
    State(api): State<Shared>,
    mut read: AuditedRead,
    Path(user_id): Path<String>,
) -> Result<Answer, ApiError> {
    let user = read.user(&user_id)?;
    let PageOf {
        order,
        after,
        limit,
    } = read.parameters()?;
    read.record(&api, Some(user)).await?;

    let newest = newest(&api, &user).await?.version;
    within("after", after.unwrap_or(0), newest)?;
    // One more than asked for tells whether there is another page.
    let read = match order {
        Order::Oldest => {
            let after = after.unwrap_or(0);
            api.history.read_user(&user, after, limit + 1).await
        }
        Order::Newest => {
            let before = after.unwrap_or(Version::MAX);
            api.history.read_user_back(&user, before, limit + 1).await
        }
    };
    let mut events = read.map_err(ApiError::unavailable)?;
    let has_more = events.len() > limit;
    events.truncate(limit);
    let last = events.last().map(|event| event.version);
    let page = Page {
        items: Item::all(&events)?,
        next_after: last.or(after).unwrap_or(0),
        has_more,
    };
    Ok(Answer::ok(api.clock.now(), &page).version(newest))
}

#[cfg(test)]
mod tests {
    use ::events::envelope::Context;
    use http_kit::testing::{Answer, Ask, NOW, refuses};
    use serde_json::{Value, json};

    use crate::testing::{Api, JANE, JOHN, PHOTO, auditor, called};

    fn events(user: &str, query: &str) -> Ask {
        auditor(&format!("/api/v1/audit/users/{user}/events?{query}"))
    }

    fn versions(answer: &Answer) -> Vec<u64> {
        let data = answer.data();
        let items = data["items"].as_array().unwrap().iter();
        items
            .map(|item| item["version"].as_u64().unwrap())
            .collect()
    }

    #[tokio::test]
    async fn an_event_says_who_when_from_where_and_what_changed() {
        let api = Api::with_users().await;
        let some = |text: &str| Some(text.to_owned());
        let context = Context {
            actor_type: "user".to_owned(),
            actor: JOHN.to_owned(),
            correlation_id: some("request-7"),
            causation_id: None,
            traceparent: None,
            language: some("tr"),
            timezone: some("UTC+03:00"),
            platform: some("mobile_ios"),
            app_version: some("4.2.0"),
            device_id: some("phone \u{1f600} \"1\""),
            request_id: some("request-7"),
        };
        api.append_from(JOHN, called("John", "Johnny"), context)
            .await;
        let answer = api.send(events(JOHN, "after=2")).await;
        let before = api.envelope(3).await;
        let data = json!({
            "items": [{
                "position": 4,
                "version": 3,
                "event": {
                    "specversion": "1.0",
                    "id": "019e5074-b6d8-7000-8000-000000000004",
                    "source": "/profile-ledger",
                    "type": "profile-updated",
                    "subject": JOHN,
                    "time": NOW,
                    "datacontenttype": "application/json",
                    "dataschema": "/schemas/profile-updated/1.json",
                    "sequence": "00000000000000000004",
                    "recordedtime": NOW,
                    "partitionkey": JOHN,
                    "streamversion": 3,
                    "schemaversion": 1,
                    "prevposition": 3,
                    "prevhash": hex::encode(events::LeafHash::of(before.as_bytes()).0),
                    "authtype": "user",
                    "authid": JOHN,
                    "correlationid": "request-7",
                    "clientlang": "tr",
                    "clienttz": "UTC+03:00",
                    "clientplatform": "mobile_ios",
                    "clientappver": "4.2.0",
                    "clientdevice": "phone \u{1f600} \"1\"",
                    "requestid": "request-7",
                    "data": {"name": {"before": "John", "after": "Johnny"}},
                },
                "changes": [{"field": "name", "before": "John", "after": "Johnny"}],
            }],
            "nextAfter": 3,
            "hasMore": false,
        });
        answer.succeeds(200, &data);
        assert_eq!(answer.header("etag"), Some("\"3\""));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        // The envelope is the stored one, byte for byte.
        let body = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(body.contains(&api.envelope(4).await));
    }

    #[tokio::test]
    async fn what_changed_is_told_of_every_type_of_event() {
        let api = Api::with_users().await;
        let answer = api.send(events(JOHN, "")).await;
        let changes = |n: usize| answer.data()["items"][n]["changes"].clone();
        let fields = |n| -> Vec<Value> {
            let changes = changes(n);
            let changes = changes.as_array().unwrap().iter();
            changes.map(|change| change["field"].clone()).collect()
        };
        let profile = crate::changes::object(&http_kit::profile::example().profile);
        let mut expected = vec!["username"];
        expected.extend(profile.keys().map(String::as_str));
        expected.extend([
            "countryCode",
            "phoneNumber",
            "privacyPolicyAccepted",
            "privacyPolicyVersion",
            "termsOfUseAccepted",
            "consentFormAccepted",
            "isRegistrationComplete",
            "roles",
            "lastLogin",
        ]);
        assert_eq!(fields(0), expected);
        assert_eq!(
            changes(0)[1],
            json!({"field": "name", "before": null, "after": "John"})
        );
        let photo = json!([{"field": "profilePhoto._id", "before": null, "after": PHOTO}]);
        assert_eq!(changes(1), photo);
    }

    #[tokio::test]
    async fn events_are_paged_by_version_from_either_end() {
        let api = Api::with_users().await;
        api.append_many(5).await;
        for (query, page, next, has_more) in [
            ("", &[1, 2, 3, 4, 5, 6, 7][..], 7, false),
            ("limit=3", &[1, 2, 3], 3, true),
            ("limit=3&after=3", &[4, 5, 6], 6, true),
            ("limit=3&after=6&order=oldest", &[7], 7, false),
            ("after=7", &[], 7, false),
            ("order=newest", &[7, 6, 5, 4, 3, 2, 1], 1, false),
            ("order=newest&limit=3", &[7, 6, 5], 5, true),
            ("order=newest&limit=3&after=5", &[4, 3, 2], 2, true),
            ("order=newest&limit=3&after=2", &[1], 1, false),
            ("order=newest&after=1", &[], 1, false),
        ] {
            let answer = api.send(events(JOHN, query)).await;
            assert_eq!(versions(&answer), page, "{query}");
            let data = answer.data();
            let more = (&data["nextAfter"], &data["hasMore"]);
            assert_eq!(more, (&json!(next), &json!(has_more)), "{query}");
        }
        assert_eq!(versions(&api.send(events(JANE, "")).await), [1]);
    }

    #[tokio::test]
    async fn a_cursor_beyond_the_newest_version_is_refused() {
        let api = Api::with_users().await;
        let code = "VALIDATION_FAILED";
        let english = [
            "Validation failed",
            "after: must be at most 2, which is the newest",
        ];
        let turkish = [
            "Doğrulama başarısız",
            "after: en fazla, en yenisi olan 2 olmalıdır",
        ];
        for query in [
            "after=3",
            "after=9223372036854775807",
            "after=3&order=newest",
        ] {
            let ask = events(JOHN, query);
            refuses(&api.router, &ask, 400, code, &english, &turkish).await;
        }
    }

    #[tokio::test]
    async fn every_bad_parameter_is_named_at_once() {
        let api = Api::with_users().await;
        let code = "VALIDATION_FAILED";
        let ask = events(JOHN, "order=up&after=-1&limit=101&sort=name&order=down");
        let english = [
            "Validation failed",
            "order: is given more than once",
            "order: must be one of: oldest, newest",
            "after: must be a whole number from 0 to 9223372036854775807",
            "limit: must be a whole number from 1 to 100",
            "sort: is not a known field",
        ];
        let turkish = [
            "Doğrulama başarısız",
            "order: birden fazla kez verilmiş",
            "order: şunlardan biri olmalıdır: oldest, newest",
            "after: 0 ile 9223372036854775807 arasında bir tam sayı olmalıdır",
            "limit: 1 ile 100 arasında bir tam sayı olmalıdır",
            "sort: bilinen bir alan değil",
        ];
        refuses(&api.router, &ask, 400, code, &english, &turkish).await;
    }
}
