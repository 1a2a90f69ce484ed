//! `GET /api/v1/audit/users/{userId}`: a user at a version, a position or a time in the past, or now.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use events::document::Document;
use events::{Position, Time, UserId, Version};
use http_kit::answer::Answer;
use http_kit::code::Code;
use http_kit::error::ApiError;
use http_kit::fields::Fields;
use http_kit::openapi::values;
use http_kit::openapi::{self, Fails, Refuses};
use http_kit::profile::OwnProfile;
use http_kit::query::{Query as _, number_from, optional};
use http_kit::query_parameters;
use http_kit::text::Text;
use ledger::refold::{Until, refold};
use ledger::store::position_at;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::openapi::{self as described, RefOr};
use utoipa::{IntoResponses, ToSchema};

use super::{AuditedRead, TIME, head, newest, not_refolded, within};
use crate::routes::Example;
use crate::{QueryApi, Shared};

/// The requested moment.
enum At {
    Now,
    Version(Version),
    Position(Position),
    Time(Time),
}

/// A user at a moment in the past.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AsItWas<'a> {
    #[serde(flatten)]
    moment: Moment,
    document: OwnProfile<'a>,
}

/// The last event up to the moment.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Moment {
    /// The number of events of the user up to the moment.
    #[schema(value_type = u64)]
    version: Version,
    /// The position of the last of them.
    #[schema(value_type = u64)]
    position: Position,
    #[schema(value_type = values::Time)]
    recorded_at: Time,
}

impl Example for Moment {
    fn example() -> Value {
        json!(Self::of(&http_kit::profile::example()))
    }
}

query_parameters! {
    /// The moments that can be requested.
    struct Moments {
        /// The version of the user. At most one of the three parameters may be given.
        version: Option<Version> = optional("atVersion", number_from(1)),
        /// The position of the ledger.
        position: Option<Position> = optional("atPosition", number_from(0)),
        /// The time. It must not be in the future.
        time: Option<Time> = optional("at", TIME),
    }
}

impl Refuses for Moments {
    fn refusals() -> Vec<ApiError> {
        let bad = Text::new("NOT_TOGETHER").with("other", "atVersion");
        let document = http_kit::profile::example();
        let then = not_registered_yet(document.position, document.created_at);
        vec![ApiError::new(Code::ValidationFailed).field("at", bad), then]
    }
}

/// An answer described.
struct Then;

impl IntoResponses for Then {
    fn responses() -> BTreeMap<String, RefOr<described::Response>> {
        let mut example = Moment::example();
        example["document"] = OwnProfile::example();
        let answer = openapi::answer::<AsItWas<'_>>("The user at that moment.", 200, &example)
            .header("ETag", openapi::etag())
            .header("Ledger-Position", openapi::position());
        BTreeMap::from([("200".to_owned(), answer.build().into())])
    }
}

impl Moment {
    pub(super) fn of(document: &Document) -> Self {
        Self {
            version: document.version,
            position: document.position,
            recorded_at: document.updated_at,
        }
    }
}

/// Read a user at a moment in the past
///
/// The moment is a version, a position or a time. Without one, the answer shows the ledger now. Reading the history of
/// another user is recorded.
#[utoipa::path(
    get,
    path = "/api/v1/audit/users/{userId}",
    operation_id = "getUsersAsTheyWereV1",
    tag = "Audit",
    params(("userId" = values::UserId, Path, description = "The id of the user."), Moments, AuditedRead),
    responses(Then, Fails<(AuditedRead, Moments)>),
    security(("bearer" = []))
)]
pub(in crate::routes) async fn read(
    State(api): State<Shared>,
    mut read: AuditedRead,
    Path(user_id): Path<String>,
) -> Result<Answer, ApiError> {
    let user = read.user(&user_id)?;
    let now = Time::from(api.clock.now());
    let at = at(&mut read.fields, now);
    read.record(&api, Some(user)).await?;

    let newest = newest(&api, &user).await?;
    let until = match at {
        At::Now => Until::Version(newest.version),
        At::Version(version) => {
            within("atVersion", version, newest.version)?;
            Until::Version(version)
        }
        At::Position(position) => {
            within("atPosition", position, head(&*api.history).await?)?;
            Until::Position(position)
        }
        At::Time(time) => {
            let position = position_at(&*api.history, time).await;
            Until::Position(position.map_err(ApiError::unavailable)?)
        }
    };
    let document = refold(&*api.history, &user, None, until).await;
    let Some(document) = document.map_err(not_refolded)? else {
        return Err(not_registered_then(&api, &user).await);
    };
    let as_it_was = AsItWas {
        moment: Moment::of(&document),
        document: OwnProfile {
            document: &document,
            public_url: &api.public_url,
        },
    };
    let answer = Answer::ok(api.clock.now(), &as_it_was);
    Ok(answer.version(document.version).position(document.position))
}

/// At most one moment.
fn at(fields: &mut Fields, now: Time) -> At {
    let Some(mut given) = Moments::take(fields) else {
        return At::Now;
    };
    // The future is not known.
    if given.time.is_some_and(|time| time > now) {
        fields.problem("at", Text::new("IN_THE_FUTURE").with("now", now));
        given.time = None;
    }
    let moments = [
        ("atVersion", given.version.map(At::Version)),
        ("atPosition", given.position.map(At::Position)),
        ("at", given.time.map(At::Time)),
    ];
    let mut given = moments
        .into_iter()
        .filter_map(|(name, at)| Some((name, at?)));
    let Some((first, at)) = given.next() else {
        return At::Now;
    };
    for (name, _) in given {
        fields.problem(name, Text::new("NOT_TOGETHER").with("other", first));
    }
    at
}

async fn not_registered_then(api: &QueryApi, user: &UserId) -> ApiError {
    match api.history.read_user(user, 0, 1).await.as_deref() {
        Ok([first]) => not_registered_yet(first.position, first.recorded_at),
        _ => ApiError::new(Code::NotFound),
    }
}

fn not_registered_yet(position: Position, time: Time) -> ApiError {
    let reason = Text::new("NOT_REGISTERED_THEN");
    ApiError::new(Code::NotFound).because(reason.with("position", position).with("time", time))
}

#[cfg(test)]
mod tests {
    use http_kit::testing::{Ask, NOW, refuses};
    use serde_json::json;

    use crate::testing::{Api, JANE, JOHN, auditor, called, photo_shape, user};

    fn as_it_was(id: &str, query: &str) -> Ask {
        auditor(&format!("/api/v1/audit/users/{id}?{query}"))
    }

    /// John is renamed twice, a second apart each; Jane is registered in between.
    async fn renamed_twice() -> Api {
        let api = Api::with_users().await;
        for (before, after) in [("John", "Johnny"), ("Johnny", "Jack")] {
            api.advance(1_000);
            api.append(JOHN, called(before, after)).await;
        }
        api
    }

    #[tokio::test]
    async fn a_user_is_shown_as_it_was_with_where_that_is() {
        let api = Api::with_users().await;
        let answer = api.send(as_it_was(JOHN, "atVersion=2")).await;
        let own = api.read(user(JOHN, "/api/v1/users/profile")).await.data();
        assert_eq!(own["profilePhoto"], photo_shape());
        let data = json!({"version": 2, "position": 3, "recordedAt": NOW, "document": own});
        answer.succeeds(200, &data);
        assert_eq!(answer.header("etag"), Some("\"2\""));
        assert_eq!(answer.header("ledger-position"), Some("3"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let before = api.send(as_it_was(JOHN, "atVersion=1")).await.data();
        let mut without = own;
        without
            .as_object_mut()
            .unwrap()
            .shift_remove("profilePhoto");
        assert_eq!(before["document"], without);
    }

    #[tokio::test]
    async fn a_version_a_position_or_a_time_picks_the_moment() {
        let api = renamed_twice().await;
        for (query, version, name) in [
            ("", 4, "Jack"),
            ("atVersion=1", 1, "John"),
            ("atVersion=3", 3, "Johnny"),
            ("atVersion=4", 4, "Jack"),
            ("atPosition=1", 1, "John"),
            ("atPosition=2", 1, "John"),
            ("atPosition=3", 2, "John"),
            ("atPosition=4", 3, "Johnny"),
            ("atPosition=5", 4, "Jack"),
            ("at=2026-05-22T16:11:26.808Z", 2, "John"),
            ("at=2026-05-22T16:11:27.807Z", 2, "John"),
            ("at=2026-05-22T16:11:27.808Z", 3, "Johnny"),
            ("at=2026-05-22T19:11:27.808%2B03:00", 3, "Johnny"),
            ("at=2026-05-22T16:11:28.808Z", 4, "Jack"),
        ] {
            let data = api.send(as_it_was(JOHN, query)).await.data();
            assert_eq!(data["version"], version, "{query}");
            assert_eq!(data["document"]["name"], name, "{query}");
        }
    }

    #[tokio::test]
    async fn a_moment_before_the_first_event_of_a_user_is_told_apart_from_nobody() {
        let api = Api::with_users().await;
        let code = "RESOURCE_NOT_FOUND";
        let english = [
            "Resource not found",
            "The user was not registered yet: its first event is at position 2, recorded at 2026-05-22T16:11:26.808Z.",
        ];
        let turkish = [
            "Kaynak bulunamadı",
            "Kullanıcı henüz kayıtlı değildi: ilk olayı 2 konumunda, 2026-05-22T16:11:26.808Z tarihinde kaydedildi.",
        ];
        for query in [
            "atPosition=0",
            "atPosition=1",
            "at=2026-05-22T16:11:26.807Z",
            "at=0001-01-01T00:00:00Z",
        ] {
            let ask = as_it_was(JANE, query);
            refuses(&api.router, &ask, 404, code, &english, &turkish).await;
        }
        let (english, turkish) = (["Resource not found"], ["Kaynak bulunamadı"]);
        for query in ["", "atVersion=1", "atPosition=1", "at=2026-05-22T16:11:26Z"] {
            let ask = as_it_was("507f1f77bcf86cd799439000", query);
            refuses(&api.router, &ask, 404, code, &english, &turkish).await;
        }
    }

    #[tokio::test]
    async fn moments_that_are_not_there_yet_are_refused() {
        let api = Api::with_users().await;
        let code = "VALIDATION_FAILED";
        for (query, english, turkish) in [
            (
                "atVersion=3",
                "atVersion: must be at most 2, which is the newest",
                "atVersion: en fazla, en yenisi olan 2 olmalıdır",
            ),
            (
                "atPosition=4",
                "atPosition: must be at most 3, which is the newest",
                "atPosition: en fazla, en yenisi olan 3 olmalıdır",
            ),
            (
                "at=2026-05-22T16:11:26.809Z",
                "at: must not be in the future; it is 2026-05-22T16:11:26.808Z now",
                "at: gelecekte olmamalıdır; şu an 2026-05-22T16:11:26.808Z",
            ),
        ] {
            let ask = as_it_was(JOHN, query);
            let english = ["Validation failed", english];
            let turkish = ["Doğrulama başarısız", turkish];
            refuses(&api.router, &ask, 400, code, &english, &turkish).await;
        }
    }

    #[tokio::test]
    async fn more_than_one_moment_and_what_is_none_are_refused() {
        let api = Api::with_users().await;
        let code = "VALIDATION_FAILED";
        let ask = as_it_was(JOHN, "at=2026-05-22T16:11:26Z&atVersion=1&atPosition=1");
        let english = [
            "Validation failed",
            "atPosition: cannot be given together with atVersion",
            "at: cannot be given together with atVersion",
        ];
        let turkish = [
            "Doğrulama başarısız",
            "atPosition: atVersion ile birlikte verilemez",
            "at: atVersion ile birlikte verilemez",
        ];
        refuses(&api.router, &ask, 400, code, &english, &turkish).await;
        let ask = as_it_was(
            JOHN,
            "at=2026-05-22T16:11:26+03:00&atVersion=0&atPosition=x",
        );
        let english = [
            "Validation failed",
            "atVersion: must be a whole number from 1 to 9223372036854775807",
            "atPosition: must be a whole number from 0 to 9223372036854775807",
            "at: must be a time such as 2026-05-22T16:11:26.808Z; write a + as %2B",
        ];
        let turkish = [
            "Doğrulama başarısız",
            "atVersion: 1 ile 9223372036854775807 arasında bir tam sayı olmalıdır",
            "atPosition: 0 ile 9223372036854775807 arasında bir tam sayı olmalıdır",
            "at: 2026-05-22T16:11:26.808Z gibi bir zaman olmalıdır; + işaretini %2B olarak yazın",
        ];
        refuses(&api.router, &ask, 400, code, &english, &turkish).await;
    }

    #[tokio::test]
    async fn a_long_history_is_folded_to_its_end() {
        let api = Api::with_users().await;
        api.append_many(3_000).await;
        for (query, version) in [
            ("", 3_002),
            ("atVersion=1500", 1_500),
            ("atPosition=700", 699),
        ] {
            let data = api.send(as_it_was(JOHN, query)).await.data();
            assert_eq!(data["version"], version, "{query}");
        }
    }
}
