//! `PATCH /api/v1/users/username`: changes the username of the caller, at most once in `USERNAME_DAYS`.

use axum::extract::State;
use axum::http::StatusCode;
use http_kit::answer::Answer;
use http_kit::code::Code;
use http_kit::error::ApiError;
use http_kit::fields::{self, Fields, JsonBody};
use http_kit::openapi::{Fails, Refuses};
use http_kit::text::Text;

use super::users::{held, taken};
use super::{Done, OfUser, Sender, answer, remembered, undecided};
use crate::CommandApi;
use crate::committer::Undecided;
use crate::user::{Action, Rejection, USERNAME_DAYS};
use crate::values::{self, schemas::UsernameBody};

/// The refusals of a username change.
struct BadUsername;

impl Refuses for BadUsername {
    fn refusals() -> Vec<ApiError> {
        let problem = Text::new("USERNAME_CHARACTERS").with("suggestion", "ali_isik");
        let bad = ApiError::new(Code::ValidationFailed).field("newUsername", problem);
        let next = http_kit::profile::example()
            .updated_at
            .plus_days(USERNAME_DAYS);
        let rejections = remembered([taken(), held(), Rejection::UsernameChangeTooSoon { next }]);
        [vec![bad], rejections].concat()
    }
}

/// Change the own username
///
/// Once in 30 days from the last accepted change; registration does not count. The old name is held for its owner for
/// 30 days.
#[utoipa::path(
    patch,
    path = "/api/v1/users/username",
    operation_id = "updateUsersUsernameV1",
    tag = "Profile",
    params(Sender),
    request_body(content = UsernameBody, example = json!({"newUsername": "john.doe"})),
    responses(Done<200>, Fails<(Sender, JsonBody, BadUsername, OfUser, Undecided)>),
    security(("bearer" = []))
)]
pub(super) async fn change(
    api: State<CommandApi>,
    sender: Sender,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    let user_id = sender.user()?;
    let mut fields = Fields::parse(&body)?;
    let username = fields.required("newUsername", |value| {
        values::username(fields::string(value)?)
    });
    fields.finish()?;
    let action = Action::ChangeUsername(username.expect("`finish` has reported what is bad"));
    let decided = sender
        .submit(&api, user_id, action, "change username", &body)
        .await
        .map_err(undecided)?;
    answer(&api, StatusCode::OK, decided)
}

#[cfg(test)]
mod tests {
    use http_kit::testing::{Answer, Ask, refuses};
    use serde_json::{Value, json};

    use crate::testing::{Api, DAY, Fault, JANE, JOHN, is_at, john, service, user};
    use crate::user::USERNAME_DAYS;

    const PATH: &str = "/api/v1/users/username";
    const CONFLICT: [&str; 2] = [
        "Resource already exists or cannot be changed in its current state",
        "Kaynak zaten var ya da bu durumda değiştirilemez",
    ];

    fn rename(id: &str, username: &str) -> Ask {
        user(id, "PATCH", PATH).json(&json!({"newUsername": username}))
    }

    impl Api {
        async fn renamed(&self, id: &str, username: &str) -> Answer {
            let answer = self.send(rename(id, username)).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            answer
        }

        async fn refuses_name(&self, body: Value, english: &[&str], turkish: &[&str]) {
            let ask = user(JOHN, "PATCH", PATH).json(&body);
            let general = [&["Validation failed"][..], &["Doğrulama başarısız"]];
            let [english, turkish] = [(0, english), (1, turkish)]
                .map(|(language, sentences)| [general[language], sentences].concat());
            let code = "VALIDATION_FAILED";
            refuses(&self.router, &ask, 400, code, &english, &turkish).await;
        }
    }

    #[tokio::test]
    async fn a_change_answers_with_the_whole_profile() {
        let api = Api::with_users().await;
        api.advance(1_000);
        let ask = rename(JOHN, "Johnny.Doe").header("x-request-id", "mine");
        let answer = api.send(ask).await;
        let mut wanted = john();
        wanted["username"] = json!("johnny.doe");
        wanted["updatedAt"] = json!("2026-05-22T16:11:27.808Z");
        let envelope = json!({
            "isSuccess": true, "statusCode": 200, "data": wanted, "errors": [],
            "timestamp": "2026-05-22T16:11:27.808Z",
        });
        answer.is(200, &envelope);
        is_at(&answer, 2, 3);
        assert_eq!(answer.header("x-request-id"), Some("mine"));
        assert_eq!(answer.header("idempotent-replayed"), None);
        let payload = json!({
            "before": "john", "after": "johnny.doe", "heldUntil": "2026-06-21T16:11:27.808Z",
        });
        let newest = api.newest().await;
        assert_eq!(newest, ("username-changed".to_owned(), payload));
    }

    #[tokio::test]
    async fn the_same_name_changes_nothing_even_within_30_days() {
        let api = Api::with_users().await;
        for _ in 0..2 {
            let answer = api.renamed(JOHN, "JOHN").await;
            answer.succeeds(200, &john());
            is_at(&answer, 1, 1);
        }
        assert_eq!(api.ledger().await.len(), 2);
    }

    #[tokio::test]
    async fn a_bad_name_is_refused_with_a_suggestion() {
        let api = Api::with_users().await;
        for (name, english, turkish) in [
            (
                "Ali Işık",
                "newUsername: may only have the letters a-z, digits, . and _; how about: ali_isik",
                "newUsername: yalnızca a-z harfleri, rakam, . ve _ içerebilir; şuna ne dersiniz: ali_isik",
            ),
            // The remaining letters would not be a username either, so nothing is suggested.
            (
                "李小龍",
                "newUsername: may only have the letters a-z, digits, . and _",
                "newUsername: yalnızca a-z harfleri, rakam, . ve _ içerebilir",
            ),
            (
                "-ali-",
                "newUsername: may only have the letters a-z, digits, . and _",
                "newUsername: yalnızca a-z harfleri, rakam, . ve _ içerebilir",
            ),
            (
                "ädmin",
                "newUsername: may only have the letters a-z, digits, . and _",
                "newUsername: yalnızca a-z harfleri, rakam, . ve _ içerebilir",
            ),
            (
                "al",
                "newUsername: must have at least 3 characters",
                "newUsername: en az 3 karakter olmalıdır",
            ),
            (
                "a123456789012345678901234567890",
                "newUsername: must have at most 30 characters",
                "newUsername: en fazla 30 karakter olmalıdır",
            ),
            (
                "a..b",
                "newUsername: must begin and end with a letter or digit, without two separators in a row",
                "newUsername: harf ya da rakamla başlayıp bitmeli, art arda iki ayraç içermemelidir",
            ),
            (
                "Support",
                "newUsername: is reserved; choose another one",
                "newUsername: ayrılmış bir addır; başka bir ad seçin",
            ),
        ] {
            api.refuses_name(json!({"newUsername": name}), &[english], &[turkish])
                .await;
        }
        assert_eq!(api.ledger().await.len(), 2);
    }

    #[tokio::test]
    async fn every_bad_member_is_reported_at_once() {
        let api = Api::with_users().await;
        api.refuses_name(
            json!({"newUsername": 7, "username": "johnny", "_id": JANE}),
            &[
                "newUsername: must be of type string",
                "username: is not a known field",
                "_id: is not a known field",
            ],
            &[
                "newUsername: string türünde olmalıdır",
                "username: bilinen bir alan değil",
                "_id: bilinen bir alan değil",
            ],
        )
        .await;
        for body in [json!({}), json!({"newUsername": null})] {
            api.refuses_name(
                body,
                &["newUsername: is required"],
                &["newUsername: zorunludur"],
            )
            .await;
        }
    }

    #[tokio::test]
    async fn a_taken_name_is_refused() {
        let api = Api::with_users().await;
        let english = [
            CONFLICT[0],
            "The username jane is taken; choose another one.",
        ];
        let turkish = [
            CONFLICT[1],
            "jane kullanıcı adı alınmış; başka bir ad seçin.",
        ];
        let ask = rename(JOHN, "Jane");
        refuses(&api.router, &ask, 409, "USERNAME_TAKEN", &english, &turkish).await;
        assert_eq!(api.ledger().await.len(), 2);
    }

    #[tokio::test]
    async fn a_name_given_up_is_held_for_30_days_and_then_free() {
        let api = Api::with_users().await;
        api.renamed(JANE, "janet").await;
        let english = [
            CONFLICT[0],
            "The username jane is held for its former owner until 2026-06-21T16:11:26.808Z; choose another one.",
        ];
        let turkish = [
            CONFLICT[1],
            "jane kullanıcı adı 2026-06-21T16:11:26.808Z tarihine kadar eski sahibine ayrılmıştır; başka bir ad seçin.",
        ];
        let ask = rename(JOHN, "jane");
        refuses(&api.router, &ask, 409, "USERNAME_HELD", &english, &turkish).await;
        api.advance(USERNAME_DAYS * DAY - 1);
        assert_eq!(api.send(ask).await.status, 409);
        api.advance(1);
        api.renamed(JOHN, "jane").await;
    }

    #[tokio::test]
    async fn an_owner_takes_a_held_name_back() {
        let api = Api::with_users().await;
        api.renamed(JOHN, "johnny").await;
        api.advance(USERNAME_DAYS * DAY);
        let answer = api.renamed(JOHN, "john").await;
        assert_eq!(answer.data()["username"], "john");
    }

    #[test]
    fn the_description_states_the_days_of_the_rule() {
        let document = serde_json::to_value(crate::openapi()).unwrap();
        let operation = &document["paths"]["/api/v1/users/username"]["patch"];
        let description = operation["description"].as_str().unwrap();
        let description = description.replace('\n', " ");
        assert!(description.contains(&format!("Once in {USERNAME_DAYS} days")));
        assert!(description.contains(&format!("held for its owner for {USERNAME_DAYS} days")));
    }

    #[tokio::test]
    async fn a_name_is_changed_once_in_30_days() {
        let api = Api::with_users().await;
        api.renamed(JOHN, "johnny").await;
        let english = [
            CONFLICT[0],
            "A username can be changed once in 30 days; yours can be changed again from 2026-06-21T16:11:26.808Z.",
        ];
        let turkish = [
            CONFLICT[1],
            "Kullanıcı adı 30 günde bir değiştirilebilir; sizinki 2026-06-21T16:11:26.808Z tarihinden itibaren yeniden değiştirilebilir.",
        ];
        let (ask, code) = (rename(JOHN, "jack"), "USERNAME_CHANGE_TOO_SOON");
        refuses(&api.router, &ask, 409, code, &english, &turkish).await;
        api.advance(USERNAME_DAYS * DAY - 1);
        assert_eq!(api.send(ask.clone()).await.status, 409);
        api.advance(1);
        assert_eq!(api.send(ask).await.status, 200);
    }

    #[tokio::test]
    async fn a_caller_without_a_user_changes_nothing() {
        let api = Api::with_users().await;
        let ask = service("PATCH", PATH).json(&json!({"newUsername": "johnny"}));
        refuses(
            &api.router,
            &ask,
            403,
            "INSUFFICIENT_PERMISSIONS",
            &["Insufficient permissions"],
            &["Yetersiz yetki"],
        )
        .await;
        for id in ["507f1f77bcf86cd799439000", "not-an-id"] {
            let ask = rename(id, "johnny");
            refuses(
                &api.router,
                &ask,
                404,
                "RESOURCE_NOT_FOUND",
                &["Resource not found"],
                &["Kaynak bulunamadı"],
            )
            .await;
        }
    }

    #[tokio::test]
    async fn a_change_of_another_version_is_refused() {
        let api = Api::with_users().await;
        let ask = rename(JOHN, "johnny").header("if-match", "\"7\"");
        let english = [
            "The resource has changed since you read it",
            "You decided on version 7, but the user is at version 1; read it again.",
        ];
        let turkish = [
            "Kaynak siz okuduktan sonra değişti",
            "Kararınız 7 sürümüne göre, ama kullanıcı 1 sürümünde; yeniden okuyun.",
        ];
        let code = "VERSION_MISMATCH";
        refuses(&api.router, &ask, 412, code, &english, &turkish).await;
        let ask = rename(JOHN, "johnny").header("if-match", "1");
        let english = [
            "The resource has changed since you read it",
            "If-Match: must be a version in quotes, such as \"3\"",
        ];
        let turkish = [
            "Kaynak siz okuduktan sonra değişti",
            "If-Match: \"3\" gibi tırnak içinde bir sürüm olmalıdır",
        ];
        refuses(&api.router, &ask, 412, code, &english, &turkish).await;
        assert_eq!(api.ledger().await.len(), 2);
        let ask = rename(JOHN, "johnny").header("if-match", "\"1\"");
        is_at(&api.send(ask).await, 2, 3);
    }

    #[tokio::test]
    async fn a_key_has_one_outcome() {
        let api = Api::with_users().await;
        let ask = rename(JOHN, "johnny").header("idempotency-key", "k");
        let first = api.send(ask.clone()).await;
        assert_eq!(first.header("idempotent-replayed"), None);
        let again = api.send(ask).await;
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        assert_eq!((again.status, &again.body), (200, &first.body));
        is_at(&again, 2, 3);
        let english = [
            "The request cannot be processed",
            "This Idempotency-Key was used with another request; use a new key for each command.",
        ];
        let turkish = [
            "İstek işlenemiyor",
            "Bu Idempotency-Key başka bir istekle kullanılmış; her komut için yeni bir anahtar kullanın.",
        ];
        let code = "IDEMPOTENCY_KEY_REUSED";
        let other = rename(JOHN, "jack").header("idempotency-key", "k");
        refuses(&api.router, &other, 422, code, &english, &turkish).await;
        // Another route under the same key is also another request.
        let other = user(JOHN, "PUT", "/api/v1/users/profile")
            .json(&json!({"name": "John", "surname": "Doe"}))
            .header("idempotency-key", "k");
        assert_eq!(api.send(other).await.status, 422);
        assert_eq!(api.ledger().await.len(), 3);
        // The same key of another user is a different key.
        let other = rename(JANE, "janet").header("idempotency-key", "k");
        assert_eq!(api.send(other).await.status, 200);
    }

    #[tokio::test]
    async fn a_conflict_is_stored_and_a_failure_of_the_store_is_not() {
        let api = Api::with_users().await;
        let taken = rename(JOHN, "jane").header("idempotency-key", "taken");
        let first = api.send(taken.clone()).await;
        assert_eq!(first.status, 409);
        api.renamed(JANE, "janet").await;
        api.advance(DAY);
        let again = api.send(taken).await;
        assert_eq!(again.header("x-error-code"), Some("USERNAME_TAKEN"));
        assert_eq!(again.header("idempotent-replayed"), Some("true"));

        let ask = rename(JOHN, "johnny").header("idempotency-key", "k");
        api.store.fail_next(Fault::Full);
        let answer = api.send(ask.clone()).await;
        assert_eq!(answer.status, 503);
        let answer = api.send(ask.clone()).await;
        assert_eq!(
            (answer.status, answer.header("idempotent-replayed")),
            (200, None)
        );
        let answer = api.send(ask).await;
        assert_eq!(answer.header("idempotent-replayed"), Some("true"));
    }

    #[tokio::test]
    async fn a_missing_user_and_a_wrong_version_are_not_stored() {
        let api = Api::with_users().await;
        let ask = rename(JOHN, "johnny")
            .header("idempotency-key", "k")
            .header("if-match", "\"2\"");
        assert_eq!(api.send(ask.clone()).await.status, 412);
        let body = json!({"name": "Johnny", "surname": "Doe"});
        let replace = user(JOHN, "PUT", "/api/v1/users/profile").json(&body);
        assert_eq!(api.send(replace).await.status, 200);
        assert_eq!(api.send(ask).await.status, 200);
    }
}
