//! `POST /api/v1/users`: registers a user for the sign-up service.

use axum::extract::State;
use axum::http::StatusCode;
use events::{Time, UserId};
use http_kit::answer::Answer;
use http_kit::caller::Role;
use http_kit::code::Code;
use http_kit::error::ApiError;
use http_kit::fields::{Fields, JsonBody};
use http_kit::openapi::{Fails, Refuses};
use http_kit::text::Text;

use super::{Done, Sender, answer, remembered, today, undecided};
use crate::CommandApi;
use crate::committer::Undecided;
use crate::user::{Action, Rejection, USERNAME_DAYS};
use crate::values::{self, schemas::RegistrationBody};

/// The refusals of a registration.
struct BadRegistration;

impl Refuses for BadRegistration {
    fn refusals() -> Vec<ApiError> {
        let bad = ApiError::new(Code::ValidationFailed)
            .field("surname", Text::new("REQUIRED"))
            .field("phoneNumber", Text::new("BAD_PHONE_NUMBER"));
        let rejections = remembered([
            Rejection::UserExists {
                user_id: http_kit::profile::example().user_id,
            },
            taken(),
            held(),
            Rejection::VersionMismatch {
                expected: 3,
                actual: 0,
            },
        ]);
        [vec![bad], rejections].concat()
    }
}

/// A taken username, for examples.
pub(super) fn taken() -> Rejection {
    Rejection::UsernameTaken {
        username: example(),
    }
}

/// A held username, for examples.
pub(super) fn held() -> Rejection {
    Rejection::UsernameHeld {
        username: example(),
        until: http_kit::profile::example()
            .updated_at
            .plus_days(USERNAME_DAYS),
    }
}

fn example() -> String {
    "john.doe".to_owned()
}

/// Register a user
///
/// The sign-up service registers users with this route. Without an `_id` the service makes one.
#[utoipa::path(
    post,
    path = "/api/v1/users",
    operation_id = "registerUserV1",
    tag = "Users",
    params(Sender),
    request_body(content = RegistrationBody, example = json!({
        "username": "johndoe123", "name": "John", "surname": "Doe", "countryCode": "90", "phoneNumber": "5551234567",
        "email": "john.doe@example.com", "privacyPolicyAccepted": true, "privacyPolicyVersion": "1.2.0",
        "termsOfUseAccepted": true, "termsOfUseVersion": "1.1.0", "consentFormAccepted": true,
        "consentFormVersion": "1.0.0", "roles": ["user"]
    })),
    responses(Done<201>, Fails<(Sender, JsonBody, BadRegistration, Undecided)>),
    security(("bearer" = []))
)]
pub(super) async fn register(
    api: State<CommandApi>,
    sender: Sender,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    sender.caller.require(&[Role::Service, Role::Admin])?;
    let mut fields = Fields::parse(&body)?;
    let registration = values::registration(&mut fields, today(&api));
    fields.finish()?;
    let (user_id, registration) = registration.expect("`finish` has reported what is bad");
    let user_id =
        user_id.unwrap_or_else(|| UserId::new(Time::from(api.clock.now()), api.randomness.bytes()));
    let action = Action::Register(Box::new(registration));
    let decided = sender
        .submit(&api, user_id, action, "register", &body)
        .await
        .map_err(undecided)?;
    answer(&api, StatusCode::CREATED, decided)
}

#[cfg(test)]
mod tests {
    use events::envelope::Context;
    use http_kit::caller::Role;
    use http_kit::testing::{Ask, NOW, refuses, token};
    use serde_json::{Value, json};

    use crate::testing::{Api, DAY, Fault, JANE, JOHN, is_at, john, made, service, user};
    use crate::user::USERNAME_DAYS;

    const PATH: &str = "/api/v1/users";
    const CONFLICT: [&str; 2] = [
        "Resource already exists or cannot be changed in its current state",
        "Kaynak zaten var ya da bu durumda değiştirilemez",
    ];

    fn register(body: &Value) -> Ask {
        service("POST", PATH).json(body)
    }

    fn minimal() -> Value {
        json!({"username": "jack", "name": "Jack", "surname": "Doe"})
    }

    #[tokio::test]
    async fn a_registration_answers_with_the_whole_profile() {
        let api = Api::start().await;
        let ask = register(&json!({
            "_id": JOHN, "username": "JohnDoe123", "name": " John ", "surname": "Doe", "countryCode": "+90",
            "phoneNumber": "5551234567", "availabilityStatus": "available", "gender": "male",
            "birthDate": "1995-06-15", "interests": ["music"], "expertise": "designer",
            "email": "john@example.com", "bio": "Hi", "instagram": "i", "tiktok": "t", "x": "x", "snapchat": "s",
            "facebook": "f", "privacyPolicyAccepted": true, "privacyPolicyVersion": "1.2.0",
            "termsOfUseAccepted": true, "termsOfUseVersion": "1.1.0", "consentFormAccepted": true,
            "consentFormVersion": "1.0.0", "isRegistrationComplete": false, "roles": ["user", "admin"],
            "lastLogin": "2024-01-15T09:30:00Z",
        }));
        let answer = api.send(ask).await;
        let data = json!({
            "_id": JOHN,
            "name": "John",
            "surname": "Doe",
            "username": "johndoe123",
            "availabilityStatus": "available",
            "countryCode": "90",
            "phoneNumber": "5551234567",
            "gender": "male",
            "birthDate": "1995-06-15T00:00:00.000Z",
            "interests": ["music"],
            "expertise": "designer",
            "privacyPolicyAccepted": true,
            "privacyPolicyVersion": "1.2.0",
            "termsOfUseAccepted": true,
            "termsOfUseVersion": "1.1.0",
            "consentFormAccepted": true,
            "consentFormVersion": "1.0.0",
            "isRegistrationComplete": false,
            "roles": ["user", "admin"],
            "lastLogin": "2024-01-15T09:30:00.000Z",
            "createdAt": NOW,
            "updatedAt": NOW,
            "email": "john@example.com",
            "bio": "Hi",
            "instagram": "i",
            "tiktok": "t",
            "x": "x",
            "snapchat": "s",
            "facebook": "f",
        });
        answer.succeeds(201, &data);
        is_at(&answer, 1, 1);
        assert_eq!(api.newest().await.0, "user-registered");
    }

    #[tokio::test]
    async fn a_registration_without_an_id_gets_one() {
        let api = Api::start().await;
        let answer = api.send(register(&minimal())).await;
        let mut wanted = john();
        wanted["_id"] = json!(made(1));
        wanted["username"] = json!("jack");
        wanted["name"] = json!("Jack");
        answer.succeeds(201, &wanted);
    }

    #[tokio::test]
    async fn the_event_records_the_actor_and_the_client() {
        let api = Api::start().await;
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let ask = register(&minimal())
            .header("x-language", "tr")
            .header("x-timezone", "UTC+03:00")
            .header("x-platform", "mobile_ios")
            .header("x-app-version", "3.1.4")
            .header("x-device-id", "device-1")
            .header("x-request-id", "request-1")
            .header("traceparent", trace);
        assert_eq!(api.send(ask).await.status, 201);
        let some = |text: &str| Some(text.to_owned());
        let context = Context {
            actor_type: "service".to_owned(),
            actor: "sign-up".to_owned(),
            correlation_id: some("request-1"),
            causation_id: None,
            traceparent: some(trace),
            language: some("tr"),
            timezone: some("UTC+03:00"),
            platform: some("mobile_ios"),
            app_version: some("3.1.4"),
            device_id: some("device-1"),
            request_id: some("request-1"),
        };
        assert_eq!(api.ledger().await[0].context, context);
    }

    #[tokio::test]
    async fn only_services_and_admins_register_users() {
        let api = Api::start().await;
        for roles in [&[Role::User][..], &[Role::Auditor], &[]] {
            let ask = Ask::new("POST", PATH)
                .bearer(&token(JOHN, roles))
                .json(&minimal());
            let code = "INSUFFICIENT_PERMISSIONS";
            let (english, turkish) = (["Insufficient permissions"], ["Yetersiz yetki"]);
            refuses(&api.router, &ask, 403, code, &english, &turkish).await;
        }
        let ask = Ask::new("POST", PATH).bearer(&token(JOHN, &[Role::Admin]));
        assert_eq!(api.send(ask.json(&minimal())).await.status, 201);
        assert_eq!(api.ledger().await[0].context.actor_type, "admin");
    }

    #[tokio::test]
    async fn every_bad_member_is_reported_at_once() {
        let api = Api::start().await;
        let ask = register(&json!({
            "_id": "507F1F77BCF86CD799439011", "username": "Ali Işık", "name": 7, "countryCode": "0", "phoneNumber": "1",
            "roles": ["king"], "privacyPolicyAccepted": "yes", "termsOfUseVersion": "", "lastLogin": "yesterday",
            "version": 1,
        }));
        let english = [
            "Validation failed",
            "_id: must be 24 lower-case hexadecimal digits",
            "username: may only have the letters a-z, digits, . and _; how about: ali_isik",
            "name: must be of type string",
            "surname: is required",
            "countryCode: must be a country code of 1 to 3 digits, such as 90",
            "phoneNumber: must be 4 to 14 digits, and at most 15 together with the country code",
            "privacyPolicyAccepted: must be of type boolean",
            "termsOfUseVersion: must have at least 1 characters",
            "roles: must be one of: user, service, auditor, admin",
            "lastLogin: must be a date such as 1995-06-15, or a date-time such as 1995-06-15T00:00:00.000Z",
            "version: is not a known field",
        ];
        let turkish = [
            "Doğrulama başarısız",
            "_id: 24 küçük harfli onaltılık rakam olmalıdır",
            "username: yalnızca a-z harfleri, rakam, . ve _ içerebilir; şuna ne dersiniz: ali_isik",
            "name: string türünde olmalıdır",
            "surname: zorunludur",
            "countryCode: 90 gibi, 1 ile 3 rakamlı bir ülke kodu olmalıdır",
            "phoneNumber: 4 ile 14 rakam, ülke koduyla birlikte en fazla 15 rakam olmalıdır",
            "privacyPolicyAccepted: boolean türünde olmalıdır",
            "termsOfUseVersion: en az 1 karakter olmalıdır",
            "roles: şunlardan biri olmalıdır: user, service, auditor, admin",
            "lastLogin: 1995-06-15 gibi bir tarih ya da 1995-06-15T00:00:00.000Z gibi bir tarih-saat olmalıdır",
            "version: bilinen bir alan değil",
        ];
        let code = "VALIDATION_FAILED";
        refuses(&api.router, &ask, 400, code, &english, &turkish).await;
        assert!(api.ledger().await.is_empty());
    }

    #[tokio::test]
    async fn a_user_is_registered_once() {
        let api = Api::with_users().await;
        let mut body = minimal();
        body["_id"] = json!(JOHN);
        let english = [
            CONFLICT[0],
            "The user 507f1f77bcf86cd799439011 is registered already.",
        ];
        let turkish = [
            CONFLICT[1],
            "507f1f77bcf86cd799439011 kullanıcısı zaten kayıtlı.",
        ];
        let ask = register(&body);
        refuses(&api.router, &ask, 409, "USER_EXISTS", &english, &turkish).await;
        assert_eq!(api.ledger().await.len(), 2);
    }

    #[tokio::test]
    async fn a_taken_and_a_held_name_are_refused() {
        let api = Api::with_users().await;
        let rename = user(JANE, "PATCH", "/api/v1/users/username");
        let rename = rename.json(&json!({"newUsername": "janet"}));
        assert_eq!(api.send(rename).await.status, 200);
        let mut body = minimal();
        body["username"] = json!("Janet");
        let english = [
            CONFLICT[0],
            "The username janet is taken; choose another one.",
        ];
        let turkish = [
            CONFLICT[1],
            "janet kullanıcı adı alınmış; başka bir ad seçin.",
        ];
        let (ask, code) = (register(&body), "USERNAME_TAKEN");
        refuses(&api.router, &ask, 409, code, &english, &turkish).await;
        body["username"] = json!("jane");
        let english = [
            CONFLICT[0],
            "The username jane is held for its former owner until 2026-06-21T16:11:26.808Z; choose another one.",
        ];
        let turkish = [
            CONFLICT[1],
            "jane kullanıcı adı 2026-06-21T16:11:26.808Z tarihine kadar eski sahibine ayrılmıştır; başka bir ad seçin.",
        ];
        let (ask, code) = (register(&body), "USERNAME_HELD");
        refuses(&api.router, &ask, 409, code, &english, &turkish).await;
        api.advance(USERNAME_DAYS * DAY);
        assert_eq!(api.send(ask).await.status, 201);
    }

    #[tokio::test]
    async fn a_new_user_has_no_version_to_match() {
        let api = Api::start().await;
        let ask = register(&minimal()).header("if-match", "\"3\"");
        let english = [
            "The resource has changed since you read it",
            "You decided on version 3, but the user is at version 0; read it again.",
        ];
        let turkish = [
            "Kaynak siz okuduktan sonra değişti",
            "Kararınız 3 sürümüne göre, ama kullanıcı 0 sürümünde; yeniden okuyun.",
        ];
        let code = "VERSION_MISMATCH";
        refuses(&api.router, &ask, 412, code, &english, &turkish).await;
        assert!(api.ledger().await.is_empty());
    }

    #[tokio::test]
    async fn a_registration_repeated_under_its_key_happens_once() {
        let api = Api::start().await;
        let ask = register(&minimal()).header("idempotency-key", "k");
        api.store.fail_next(Fault::Full);
        let answer = api.send(ask.clone()).await;
        assert_eq!(
            (answer.status, answer.header("retry-after")),
            (503, Some("1"))
        );
        let first = api.send(ask.clone()).await;
        assert_eq!(
            (first.status, first.header("idempotent-replayed")),
            (201, None)
        );
        api.advance(DAY);
        let again = api.send(ask).await;
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        assert_eq!(
            (again.status, &again.body),
            (201, &first.body),
            "also the generated id"
        );
        let mut other = minimal();
        other["username"] = json!("jill");
        let reused = api
            .send(register(&other).header("idempotency-key", "k"))
            .await;
        assert_eq!(reused.status, 422);
        assert_eq!(api.ledger().await.len(), 1);
    }

    #[tokio::test]
    async fn a_conflict_is_stored_under_its_key() {
        let api = Api::with_users().await;
        let mut body = minimal();
        body["username"] = json!("jane");
        let ask = register(&body).header("idempotency-key", "k");
        let first = api.send(ask.clone()).await;
        assert_eq!(first.status, 409);
        let rename = user(JANE, "PATCH", "/api/v1/users/username");
        let rename = rename.json(&json!({"newUsername": "janet"}));
        assert_eq!(api.send(rename).await.status, 200);
        api.advance(DAY);
        let again = api.send(ask).await;
        assert_eq!(again.header("x-error-code"), Some("USERNAME_TAKEN"));
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
    }

    #[tokio::test]
    async fn a_panic_in_the_route_is_answered_and_the_service_continues() {
        let api = Api::start().await;
        api.panic_next();
        let answer = api.send(register(&minimal())).await;
        answer.fails(500, "INTERNAL_ERROR", &["Something went wrong on our side"]);
        assert!(answer.header("x-request-id").is_some());
        assert_eq!(api.send(register(&minimal())).await.status, 201);
    }
}
