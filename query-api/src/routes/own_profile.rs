//! `GET /api/v1/users/profile`: the profile of the caller.

use axum::extract::State;
use axum::response::Response;
use events::UserId;
use http_kit::caller::{Caller, Role};
use http_kit::error::ApiError;
use http_kit::openapi::{Fails, Known, NotThere};
use http_kit::profile::OwnProfile;

use super::{DocumentRead, OneUser, not_found};
use crate::Shared;

/// Read your own profile
#[utoipa::path(
    get,
    path = "/api/v1/users/profile",
    operation_id = "getUsersProfileV1",
    tag = "Profile",
    params(Known, DocumentRead),
    responses(OneUser<OwnProfile<'_>>, Fails<(Caller, Role, DocumentRead, NotThere)>),
    security(("bearer" = []))
)]
pub(super) async fn read(
    State(api): State<Shared>,
    caller: Caller,
    mut read: DocumentRead,
) -> Result<Response, ApiError> {
    caller.require(&[Role::User])?;
    read.parameters::<()>()?;
    let user_id: UserId = caller.subject.parse().map_err(|_| not_found())?;
    let document = api
        .hot()
        .document(&user_id)
        .await
        .map_err(ApiError::unavailable)?
        .ok_or_else(not_found)?;
    Ok(read.answer(&api, &document, document.own(&api.public_url)))
}

#[cfg(test)]
mod tests {
    use http_kit::caller::Role;
    use http_kit::testing::{Ask, refuses, token};

    use crate::testing::{Api, JANE, JOHN, called, own_john, user};

    const PATH: &str = "/api/v1/users/profile";

    #[tokio::test]
    async fn a_user_reads_its_whole_profile() {
        let api = Api::with_users().await;
        let answer = api.read(user(JOHN, PATH)).await;
        answer.succeeds(200, &own_john());
        assert_eq!(answer.header("etag"), Some("\"2\""));
        assert_eq!(answer.header("ledger-position"), Some("3"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let head = api.read(user(JOHN, PATH).method("HEAD")).await;
        assert_eq!((head.status, head.header("etag")), (200, Some("\"2\"")));
        assert!(head.body.is_empty());
    }

    #[tokio::test]
    async fn members_without_a_value_are_left_out() {
        let api = Api::with_users().await;
        let data = api.read(user(JANE, PATH)).await.data();
        let members: Vec<_> = data.as_object().unwrap().keys().collect();
        let wanted = [
            "_id",
            "name",
            "surname",
            "username",
            "countryCode",
            "phoneNumber",
            "interests",
            "privacyPolicyAccepted",
            "privacyPolicyVersion",
            "termsOfUseAccepted",
            "consentFormAccepted",
            "isRegistrationComplete",
            "roles",
            "lastLogin",
            "createdAt",
            "updatedAt",
        ];
        assert_eq!(members, wanted);
    }

    #[tokio::test]
    async fn who_has_the_version_already_is_told_so() {
        let api = Api::with_users().await;
        for (tags, status) in [
            ("\"2\"", 304),
            ("W/\"2\"", 304),
            ("\"1\", \"2\"", 304),
            ("*", 304),
            ("\"1\"", 200),
            ("2", 200),
            ("", 200),
        ] {
            let answer = api
                .read(user(JOHN, PATH).header("if-none-match", tags))
                .await;
            assert_eq!(answer.status, status, "{tags}");
            assert_eq!(answer.header("etag"), Some("\"2\""), "{tags}");
            assert_eq!(answer.header("ledger-position"), Some("3"), "{tags}");
            assert_eq!(answer.body.is_empty(), status == 304, "{tags}");
        }
        api.append(JOHN, called("John", "Johnny")).await;
        let ask = user(JOHN, PATH).header("if-none-match", "\"2\"");
        let answer = api.read(ask).await;
        assert_eq!((answer.status, answer.header("etag")), (200, Some("\"3\"")));
    }

    #[tokio::test]
    async fn who_is_no_user_has_no_profile() {
        let api = Api::with_users().await;
        let ask = Ask::new("GET", PATH);
        let code = "AUTHENTICATION_REQUIRED";
        let (english, turkish) = (["Authentication required"], ["Kimlik doğrulaması gerekli"]);
        refuses(&api.router, &ask, 401, code, &english, &turkish).await;
        let answer = api.send(ask).await;
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        let ask = Ask::new("GET", PATH).bearer(&token("sign-up", &[Role::Service]));
        let code = "INSUFFICIENT_PERMISSIONS";
        let (english, turkish) = (["Insufficient permissions"], ["Yetersiz yetki"]);
        refuses(&api.router, &ask, 403, code, &english, &turkish).await;
        for id in ["507f1f77bcf86cd799439000", "not-an-id"] {
            let code = "RESOURCE_NOT_FOUND";
            let (english, turkish) = (["Resource not found"], ["Kaynak bulunamadı"]);
            refuses(&api.router, &user(id, PATH), 404, code, &english, &turkish).await;
        }
    }
}
