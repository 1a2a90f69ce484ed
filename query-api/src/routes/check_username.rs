//! `POST /api/v1/users/check-username`: whether the caller could take a username.

use std::borrow::Cow;

use axum::extract::State;
use events::Time;
use http_kit::answer::Answer;
use http_kit::caller::{Caller, Role};
use http_kit::code::Code;
use http_kit::error::ApiError;
use http_kit::fields::{self, Fields, JsonBody};
use http_kit::openapi::{Fails, Refuses, schema};
use http_kit::text::Text;
use http_kit::username::InvalidUsername;
use http_kit::username::Username;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::{DocumentRead, Example, Shows};
use crate::Shared;

/// Whether a username could be taken.
#[derive(Serialize, ToSchema)]
pub(crate) struct Availability {
    available: bool,
}

impl Example for Availability {
    fn example() -> Value {
        json!(Self { available: true })
    }
}

/// The body of the question.
struct Question;

impl PartialSchema for Question {
    fn schema() -> RefOr<Schema> {
        schema(json!({
            "type": "object",
            "description": "The username that is asked for.",
            "required": ["username"],
            "properties": {
                "username": {
                    "type": "string",
                    "description": "Letters a-z, digits, and `.` or `_` between them. Upper case is lowered.",
                    "minLength": Username::MIN,
                    "maxLength": Username::MAX,
                    "pattern": "^[A-Za-z0-9]+([._][A-Za-z0-9]+)*$",
                    "examples": ["john.doe"],
                },
            },
            "additionalProperties": false,
        }))
    }
}

impl ToSchema for Question {
    fn name() -> Cow<'static, str> {
        "UsernameQuestion".into()
    }
}

impl Refuses for Question {
    fn refusals() -> Vec<ApiError> {
        let bad = problem(InvalidUsername::TooShort);
        vec![ApiError::new(Code::ValidationFailed).field("username", bad)]
    }
}

/// Is a username free?
///
/// Whether the caller could take it now. A reserved name is not free for anybody.
#[utoipa::path(
    post,
    path = "/api/v1/users/check-username",
    operation_id = "checkUsersUsernameV1",
    tag = "Users",
    params(DocumentRead),
    request_body(content = Question, example = json!({"username": "john.doe"})),
    responses(Shows<Availability>, Fails<(Caller, Role, DocumentRead, JsonBody, Question)>),
    security(("bearer" = []))
)]
pub(super) async fn check(
    State(api): State<Shared>,
    caller: Caller,
    mut read: DocumentRead,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    // The sign-up service asks before it registers a user.
    caller.require(&[Role::User, Role::Service, Role::Admin])?;
    read.parameters::<()>()?;
    let mut fields = Fields::parse(&body)?;
    let username = fields.required("username", |value| {
        match Username::parse(fields::string(value)?) {
            Ok(username) => Ok(Some(username)),
            Err(InvalidUsername::Reserved) => Ok(None),
            Err(invalid) => Err(problem(invalid)),
        }
    });
    fields.finish()?;
    let now = Time::from(api.clock.now());
    let available = match username.expect("`finish` has reported what is bad") {
        None => false,
        Some(username) => {
            // The claims of the ledger decide, not the read model, so that this answer agrees with the command.
            let claims = api
                .history
                .claims(&[username.to_string()])
                .await
                .map_err(ApiError::unavailable)?;
            let user_id = caller.subject.parse().ok();
            claims.iter().all(|claim| match user_id {
                Some(user_id) => claim.is_free_for(&user_id, now),
                None => claim.held_until.is_some_and(|until| until <= now),
            })
        }
    };
    Ok(Answer::ok(now.into(), &Availability { available }))
}

fn problem(invalid: InvalidUsername) -> Text {
    match invalid {
        InvalidUsername::TooShort => Text::new("TOO_SHORT").with("min", Username::MIN),
        InvalidUsername::TooLong => Text::new("TOO_LONG").with("max", Username::MAX),
        InvalidUsername::Characters { suggestion } if Username::parse(&suggestion).is_ok() => {
            Text::new("USERNAME_CHARACTERS").with("suggestion", suggestion)
        }
        InvalidUsername::Characters { .. } => Text::new("USERNAME_LETTERS"),
        InvalidUsername::Shape => Text::new("USERNAME_SHAPE"),
        InvalidUsername::Reserved => Text::new("USERNAME_RESERVED"),
    }
}

#[cfg(test)]
mod tests {
    use http_kit::testing::{Ask, refuses, token};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{Api, DAY, JANE, JOHN, renamed, user};

    const PATH: &str = "/api/v1/users/check-username";

    fn check(id: &str, body: &Value) -> Ask {
        user(id, PATH).method("POST").json(body)
    }

    impl Api {
        async fn says(&self, ask: Ask, available: bool) {
            let answer = self.send(ask).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.data(), json!({"available": available}));
        }
    }

    #[tokio::test]
    async fn a_name_is_available_to_who_could_take_it() {
        let api = Api::with_users().await;
        let answer = api.send(check(JOHN, &json!({"username": "Johnny"}))).await;
        answer.succeeds(200, &json!({"available": true}));
        for (id, name, available) in [
            (JOHN, "jane", false),
            (JOHN, "JANE", false),
            // The own name is no obstacle.
            (JANE, "jane", true),
            (JOHN, "admin", false),
            (JOHN, "Support", false),
        ] {
            api.says(check(id, &json!({"username": name})), available)
                .await;
        }
    }

    #[tokio::test]
    async fn a_held_name_is_available_to_its_owner_and_to_all_after_30_days() {
        let api = Api::with_users().await;
        let until = "2026-06-21T16:11:26.808Z";
        api.append(JANE, renamed("jane", "janet", until)).await;
        let body = json!({"username": "jane"});
        let of_service = Ask::new("POST", PATH)
            .bearer(&token("sign-up", &[Role::Service]))
            .json(&body);
        api.says(check(JANE, &body), true).await;
        api.says(check(JOHN, &body), false).await;
        api.says(of_service.clone(), false).await;
        api.advance(30 * DAY - 1);
        api.says(check(JOHN, &body), false).await;
        api.advance(1);
        api.says(check(JOHN, &body), true).await;
        api.says(of_service, true).await;
    }

    #[tokio::test]
    async fn the_answer_is_that_of_the_ledger_not_of_the_read_model() {
        let api = Api::still().await;
        let profile = crate::testing::named("Jane", "Doe");
        api.append(JANE, crate::testing::registered("jane", profile))
            .await;
        api.says(check(JOHN, &json!({"username": "jane"})), false)
            .await;
    }

    #[tokio::test]
    async fn what_is_no_username_is_refused_with_what_would_be_good() {
        let api = Api::with_users().await;
        let general = ["Validation failed", "Doğrulama başarısız"];
        for (body, english, turkish) in [
            (
                json!({"username": "Ali Işık"}),
                "username: may only have the letters a-z, digits, . and _; how about: ali_isik",
                "username: yalnızca a-z harfleri, rakam, . ve _ içerebilir; şuna ne dersiniz: ali_isik",
            ),
            (
                json!({"username": "李小龍"}),
                "username: may only have the letters a-z, digits, . and _",
                "username: yalnızca a-z harfleri, rakam, . ve _ içerebilir",
            ),
            (
                json!({"username": "a"}),
                "username: must have at least 3 characters",
                "username: en az 3 karakter olmalıdır",
            ),
            (
                json!({"username": "a".repeat(31)}),
                "username: must have at most 30 characters",
                "username: en fazla 30 karakter olmalıdır",
            ),
            (
                json!({"username": "_ali"}),
                "username: must begin and end with a letter or digit, without two separators in a row",
                "username: harf ya da rakamla başlayıp bitmeli, art arda iki ayraç içermemelidir",
            ),
            (
                json!({"username": 7}),
                "username: must be of type string",
                "username: string türünde olmalıdır",
            ),
            (json!({}), "username: is required", "username: zorunludur"),
            (
                json!({"username": "ali", "more": 1}),
                "more: is not a known field",
                "more: bilinen bir alan değil",
            ),
        ] {
            let ask = check(JOHN, &body);
            let (english, turkish) = ([general[0], english], [general[1], turkish]);
            let code = "VALIDATION_FAILED";
            refuses(&api.router, &ask, 400, code, &english, &turkish).await;
        }
    }

    proptest! {
        #[test]
        fn any_refused_name_has_a_reason(text in "\\PC{0,40}") {
            if let Err(invalid) = Username::parse(&text) {
                let reason = problem(invalid).render(http_kit::text::Language::En);
                prop_assert!(!reason.is_empty() && !reason.ends_with(' '), "{}", reason);
            }
        }
    }
}
