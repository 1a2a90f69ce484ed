//! `PUT /api/v1/users/profile`: replaces the whole profile of the caller.

use axum::extract::State;
use axum::http::StatusCode;
use http_kit::answer::Answer;
use http_kit::code::Code;
use http_kit::error::ApiError;
use http_kit::fields::{Fields, JsonBody};
use http_kit::openapi::{Fails, Refuses};
use http_kit::text::Text;

use super::{Done, OfUser, Sender, answer, today, undecided};
use crate::CommandApi;
use crate::committer::Undecided;
use crate::user::Action;
use crate::values::{self, schemas::ProfileBody};

/// The refusals of a new profile.
struct BadProfile;

impl Refuses for BadProfile {
    fn refusals() -> Vec<ApiError> {
        let bad = ApiError::new(Code::ValidationFailed)
            .field("surname", Text::new("REQUIRED"))
            .field("email", Text::new("BAD_EMAIL"));
        vec![bad]
    }
}

/// Replace the own profile
///
/// Full replacement: an optional member that is absent or `null` is cleared. Without a change, no
/// event is recorded.
#[utoipa::path(
    put,
    path = "/api/v1/users/profile",
    operation_id = "updateUsersProfileV1",
    tag = "Profile",
    params(Sender),
    request_body(content = ProfileBody, example = json!({
        "name": "John", "surname": "Doe", "availabilityStatus": "available", "gender": "male",
        "birthDate": "1995-06-15", "interests": ["music", "sports", "travel"], "expertise": "designer",
        "email": "john.doe@example.com", "bio": "Passionate about technology and travel", "instagram": "myinstagram"
    })),
    responses(Done<200>, Fails<(Sender, JsonBody, BadProfile, OfUser, Undecided)>),
    security(("bearer" = []))
)]
pub(super) async fn replace(
    api: State<CommandApi>,
    sender: Sender,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    let user_id = sender.user()?;
    let mut fields = Fields::parse(&body)?;
    let profile = values::profile(&mut fields, today(&api));
    fields.finish()?;
    let profile = profile.expect("`finish` has reported what is bad");
    let action = Action::ReplaceProfile(Box::new(profile));
    let decided = sender
        .submit(&api, user_id, action, "replace profile", &body)
        .await
        .map_err(undecided)?;
    answer(&api, StatusCode::OK, decided)
}

#[cfg(test)]
mod tests {
    use http_kit::testing::{Ask, NOW, refuses};
    use serde_json::{Value, json};

    use crate::testing::{Api, Fault, JOHN, is_at, john, service, user};

    const PATH: &str = "/api/v1/users/profile";

    fn replace(body: &Value) -> Ask {
        user(JOHN, "PUT", PATH).json(body)
    }

    /// A body with every member.
    fn whole() -> Value {
        json!({
            "name": "Johnny",
            "surname": "Appleseed",
            "availabilityStatus": "available",
            "gender": "male",
            "birthDate": "1995-06-15T00:00:00.000Z",
            "interests": ["music", "sports", "music"],
            "expertise": "designer",
            "email": "john@example.com",
            "bio": "Passionate about technology",
            "instagram": "myinstagram",
            "tiktok": "mytiktok",
            "x": "mytwitterx",
            "snapchat": "mysnapchat",
            "facebook": "myfacebook",
        })
    }

    /// John after [`whole`], in the order of the published page.
    fn john_whole() -> Value {
        json!({
            "_id": JOHN,
            "name": "Johnny",
            "surname": "Appleseed",
            "username": "john",
            "availabilityStatus": "available",
            "gender": "male",
            "birthDate": "1995-06-15T00:00:00.000Z",
            "interests": ["music", "sports"],
            "expertise": "designer",
            "privacyPolicyAccepted": false,
            "termsOfUseAccepted": false,
            "consentFormAccepted": false,
            "isRegistrationComplete": true,
            "roles": ["user"],
            "createdAt": NOW,
            "updatedAt": NOW,
            "email": "john@example.com",
            "bio": "Passionate about technology",
            "instagram": "myinstagram",
            "tiktok": "mytiktok",
            "x": "mytwitterx",
            "snapchat": "mysnapchat",
            "facebook": "myfacebook",
        })
    }

    #[tokio::test]
    async fn a_replacement_answers_with_the_whole_profile() {
        let api = Api::with_users().await;
        let answer = api.send(replace(&whole())).await;
        answer.succeeds(200, &john_whole());
        is_at(&answer, 2, 3);
        let absent = |after: Value| json!({"before": null, "after": after});
        let payload = json!({
            "name": {"before": "John", "after": "Johnny"},
            "surname": {"before": "Doe", "after": "Appleseed"},
            "availabilityStatus": absent(json!("available")),
            "gender": absent(json!("male")),
            "birthDate": absent(json!("1995-06-15")),
            "interests": {"before": [], "after": ["music", "sports"]},
            "expertise": absent(json!("designer")),
            "email": absent(json!("john@example.com")),
            "bio": absent(json!("Passionate about technology")),
            "instagram": absent(json!("myinstagram")),
            "tiktok": absent(json!("mytiktok")),
            "x": absent(json!("mytwitterx")),
            "snapchat": absent(json!("mysnapchat")),
            "facebook": absent(json!("myfacebook")),
        });
        let newest = api.newest().await;
        assert_eq!(newest, ("profile-updated".to_owned(), payload));
    }

    #[tokio::test]
    async fn a_member_that_is_absent_or_null_is_cleared() {
        let api = Api::with_users().await;
        let mut body = json!({"name": "John", "surname": "Doe"});
        for value in [None, Some(json!(null))] {
            assert_eq!(api.send(replace(&whole())).await.status, 200);
            for name in whole().as_object().unwrap().keys() {
                if let Some(value) = value.clone().filter(|_| !name.ends_with("name")) {
                    body[name] = value;
                }
            }
            let answer = api.send(replace(&body)).await;
            answer.succeeds(200, &john());
        }
        assert_eq!(api.ledger().await.len(), 2 + 4);
    }

    #[tokio::test]
    async fn an_event_contains_only_the_changed_members() {
        let api = Api::with_users().await;
        let body = json!({"name": "John", "surname": "Doe", "bio": "hi"});
        assert_eq!(api.send(replace(&body)).await.status, 200);
        let payload = json!({"bio": {"before": null, "after": "hi"}});
        let newest = api.newest().await;
        assert_eq!(newest, ("profile-updated".to_owned(), payload));
    }

    #[tokio::test]
    async fn the_same_profile_changes_nothing() {
        let api = Api::with_users().await;
        assert_eq!(api.send(replace(&whole())).await.status, 200);
        let answer = api.send(replace(&whole())).await;
        answer.succeeds(200, &john_whole());
        is_at(&answer, 2, 3);
        assert_eq!(api.ledger().await.len(), 3);
    }

    #[tokio::test]
    async fn every_bad_member_is_reported_at_once() {
        let api = Api::with_users().await;
        let ask = replace(&json!({
            "name": "", "surname": "a\u{202e}b", "availabilityStatus": "x", "gender": "x", "birthDate": "15.06.1995",
            "interests": ["a"], "expertise": "x", "email": "x", "bio": "x".repeat(501), "instagram": "@me",
            "tiktok": 7, "x": [], "snapchat": {}, "facebook": true, "username": "johnny", "king": null,
        }));
        let english = [
            "Validation failed",
            "name: must have at least 1 characters",
            "surname: has control, invisible or direction-changing characters",
            "availabilityStatus: must be one of: available, busy, away, offline",
            "gender: must be one of: male, female, other, prefer_not_to_say",
            "birthDate: must be a date such as 1995-06-15, or a date-time such as 1995-06-15T00:00:00.000Z",
            "interests: may only have items of 2 to 32 characters of a-z, 0-9 and -",
            "expertise: must be one of: musician, trainer, chef, photographer, designer, stylist, gamer, educator, coach, entertainer, developer, creator",
            "email: must be one e-mail address such as name@example.com",
            "bio: must have at most 500 characters",
            "instagram: must be a handle of 1 to 50 letters, digits, . _ or -, without @",
            "tiktok: must be of type string",
            "x: must be of type string",
            "snapchat: must be of type string",
            "facebook: must be of type string",
            "username: is not a known field",
            "king: is not a known field",
        ];
        let turkish = [
            "Doğrulama başarısız",
            "name: en az 1 karakter olmalıdır",
            "surname: denetim, görünmez ya da yön değiştiren karakterler içeriyor",
            "availabilityStatus: şunlardan biri olmalıdır: available, busy, away, offline",
            "gender: şunlardan biri olmalıdır: male, female, other, prefer_not_to_say",
            "birthDate: 1995-06-15 gibi bir tarih ya da 1995-06-15T00:00:00.000Z gibi bir tarih-saat olmalıdır",
            "interests: yalnızca a-z, 0-9 ve - içeren, 2 ile 32 karakter arası öğeler içerebilir",
            "expertise: şunlardan biri olmalıdır: musician, trainer, chef, photographer, designer, stylist, gamer, educator, coach, entertainer, developer, creator",
            "email: ad@example.com gibi tek bir e-posta adresi olmalıdır",
            "bio: en fazla 500 karakter olmalıdır",
            "instagram: @ olmadan, 1 ile 50 arası harf, rakam, . _ ya da - içeren bir kullanıcı adı olmalıdır",
            "tiktok: string türünde olmalıdır",
            "x: string türünde olmalıdır",
            "snapchat: string türünde olmalıdır",
            "facebook: string türünde olmalıdır",
            "username: bilinen bir alan değil",
            "king: bilinen bir alan değil",
        ];
        let code = "VALIDATION_FAILED";
        refuses(&api.router, &ask, 400, code, &english, &turkish).await;
        let ask = replace(&json!({}));
        let english = [
            "Validation failed",
            "name: is required",
            "surname: is required",
        ];
        let turkish = [
            "Doğrulama başarısız",
            "name: zorunludur",
            "surname: zorunludur",
        ];
        refuses(&api.router, &ask, 400, code, &english, &turkish).await;
        let ask = replace(&json!({"name": "a", "surname": "b", "birthDate": "2020-01-01"}));
        let english = [
            "Validation failed",
            "birthDate: must be that of a person of at least 13 years",
        ];
        let turkish = [
            "Doğrulama başarısız",
            "birthDate: en az 13 yaşında birine ait olmalıdır",
        ];
        refuses(&api.router, &ask, 400, code, &english, &turkish).await;
        assert_eq!(api.ledger().await.len(), 2);
    }

    #[tokio::test]
    async fn every_bad_header_is_reported_at_once() {
        let api = Api::with_users().await;
        let ask = replace(&whole())
            .header("x-timezone", "Europe/Istanbul")
            .header("x-platform", "toaster")
            .header("x-app-version", "1".repeat(33))
            .header("x-device-id", "x".repeat(129));
        let english = [
            "Validation failed",
            "X-Timezone: must be UTC or an offset such as UTC+03:00, from UTC-12:00 to UTC+14:00",
            "X-Platform: must be one of: web, mobile_ios, mobile_android, admin, api, unknown, all",
            "X-App-Version: must have at most 32 characters",
            "X-Device-ID: must have at most 128 characters",
        ];
        let turkish = [
            "Doğrulama başarısız",
            "X-Timezone: UTC ya da UTC-12:00 ile UTC+14:00 arasında, UTC+03:00 gibi bir fark olmalıdır",
            "X-Platform: şunlardan biri olmalıdır: web, mobile_ios, mobile_android, admin, api, unknown, all",
            "X-App-Version: en fazla 32 karakter olmalıdır",
            "X-Device-ID: en fazla 128 karakter olmalıdır",
        ];
        let code = "VALIDATION_FAILED";
        refuses(&api.router, &ask, 400, code, &english, &turkish).await;
    }

    #[tokio::test]
    async fn a_caller_without_a_user_replaces_nothing() {
        let api = Api::with_users().await;
        let ask = service("PUT", PATH).json(&whole());
        let code = "INSUFFICIENT_PERMISSIONS";
        let (english, turkish) = (["Insufficient permissions"], ["Yetersiz yetki"]);
        refuses(&api.router, &ask, 403, code, &english, &turkish).await;
        let ask = user("507f1f77bcf86cd799439000", "PUT", PATH).json(&whole());
        let code = "RESOURCE_NOT_FOUND";
        let (english, turkish) = (["Resource not found"], ["Kaynak bulunamadı"]);
        refuses(&api.router, &ask, 404, code, &english, &turkish).await;
    }

    #[tokio::test]
    async fn a_store_failure_is_answered_503_and_the_next_command_succeeds() {
        let api = Api::with_users().await;
        for _ in 0..3 {
            api.store.fail_next(Fault::Full);
        }
        let english = ["The service cannot answer right now; try again shortly"];
        let turkish = ["Hizmet şu anda yanıt veremiyor; az sonra yeniden deneyin"];
        let ask = replace(&whole());
        refuses(&api.router, &ask, 503, "UNAVAILABLE", &english, &turkish).await;
        api.store.fail_next(Fault::Full);
        let answer = api.send(ask.clone()).await;
        assert_eq!(answer.header("retry-after"), Some("1"));
        let answer = api.send(ask).await;
        is_at(&answer, 2, 3);
    }

    #[tokio::test]
    async fn a_commit_whose_answer_was_lost_is_answered_as_done() {
        let api = Api::with_users().await;
        api.store.fail_next(Fault::LostAnswer);
        is_at(&api.send(replace(&whole())).await, 2, 3);
        assert_eq!(api.ledger().await.len(), 3);
    }

    #[tokio::test]
    async fn a_panic_of_the_store_is_answered_500_and_the_next_command_succeeds() {
        let api = Api::with_users().await;
        let ask = replace(&whole()).header("idempotency-key", "k");
        for _ in 0..3 {
            api.store.fail_next(Fault::Panic);
        }
        let english = ["Something went wrong on our side"];
        let turkish = ["Bizim tarafımızda bir sorun oluştu"];
        refuses(&api.router, &ask, 500, "INTERNAL_ERROR", &english, &turkish).await;
        let answer = api.send(ask).await;
        is_at(&answer, 2, 3);
        assert_eq!(answer.header("idempotent-replayed"), None);
    }

    #[tokio::test]
    async fn two_devices_that_read_the_same_version_do_not_overwrite_each_other() {
        let api = Api::with_users().await;
        let of_one = replace(&whole()).header("if-match", "\"1\"");
        let of_other =
            replace(&json!({"name": "Jack", "surname": "Doe"})).header("if-match", "\"1\"");
        assert_eq!(api.send(of_one.clone()).await.status, 200);
        let refused = api.send(of_other).await;
        assert_eq!(refused.header("x-error-code"), Some("VERSION_MISMATCH"));
        // A device whose own change is refused under a key has already made it.
        assert_eq!(api.send(of_one).await.status, 412);
        assert_eq!(api.ledger().await.len(), 3);
    }

    #[tokio::test]
    async fn a_key_has_one_outcome() {
        let api = Api::with_users().await;
        let ask = replace(&whole()).header("idempotency-key", "k");
        let first = api.send(ask.clone()).await;
        let other = json!({"name": "Jack", "surname": "Doe"});
        assert_eq!(api.send(replace(&other)).await.status, 200);
        let again = api.send(ask).await;
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        assert_eq!(again.body, first.body);
        let reused = api
            .send(replace(&other).header("idempotency-key", "k"))
            .await;
        assert_eq!(
            reused.header("x-error-code"),
            Some("IDEMPOTENCY_KEY_REUSED")
        );
        assert_eq!(api.ledger().await.len(), 4);
    }
}
