//! `GET /api/v1/users/profile/{userId}` and `GET /api/v1/users/profile/username/{username}`: the public profile of a
//! user.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use events::Time;
use http_kit::caller::OptionalCaller;
use http_kit::error::ApiError;
use http_kit::openapi::values;
use http_kit::openapi::{Fails, Known, NotThere};
use http_kit::profile::PublicProfile;

use super::{DocumentRead, OneUser, not_found};
use crate::hot_documents::Hot;
use crate::{QueryApi, Shared};

/// Read a public profile
///
/// By the id of the user. A token is optional, but an invalid token is refused.
#[utoipa::path(
    get,
    path = "/api/v1/users/profile/{userId}",
    operation_id = "getUsersProfileByUseridV1",
    tag = "Profile",
    params(("userId" = values::UserId, Path, description = "The id of the user."), Known, DocumentRead),
    responses(OneUser<PublicProfile<'_>>, Fails<(OptionalCaller, DocumentRead, NotThere)>),
    security((), ("bearer" = []))
)]
pub(super) async fn by_id(
    State(api): State<Shared>,
    _caller: OptionalCaller,
    Path(user_id): Path<String>,
    mut read: DocumentRead,
) -> Result<Response, ApiError> {
    read.parameters::<()>()?;
    // A value that is not an id belongs to no user.
    let user_id = user_id.parse().map_err(|_| not_found())?;
    let document = api
        .hot()
        .document(&user_id)
        .await
        .map_err(ApiError::unavailable)?;
    answer(&api, &read, document)
}

/// Read a public profile by username
///
/// Upper case is lowered. A token is optional, but an invalid token is refused.
#[utoipa::path(
    get,
    path = "/api/v1/users/profile/username/{username}",
    operation_id = "getUsersProfileUsernameByUsernameV1",
    tag = "Profile",
    params(("username" = String, Path, description = "The username.", example = "johndoe123"), Known, DocumentRead),
    responses(OneUser<PublicProfile<'_>>, Fails<(OptionalCaller, DocumentRead, NotThere)>),
    security((), ("bearer" = []))
)]
pub(super) async fn by_username(
    State(api): State<Shared>,
    _caller: OptionalCaller,
    Path(username): Path<String>,
    mut read: DocumentRead,
) -> Result<Response, ApiError> {
    read.parameters::<()>()?;
    // The rules never accepted such a name, and PostgreSQL refuses NUL in text.
    if username.chars().any(char::is_control) {
        return Err(not_found());
    }
    // History may hold names that today's rules refuse, so only the spelling is made canonical.
    let username = username.to_ascii_lowercase();
    let document = api
        .hot()
        .document_by_username(&username)
        .await
        .map_err(ApiError::unavailable)?;
    answer(&api, &read, document)
}

fn answer(
    api: &QueryApi,
    read: &DocumentRead,
    document: Option<Arc<Hot>>,
) -> Result<Response, ApiError> {
    let document = document.ok_or_else(not_found)?;
    let today = Time::from(api.clock.now()).date();
    Ok(read.answer(api, &document, &document.public(&api.public_url, today)))
}

#[cfg(test)]
mod tests {
    use http_kit::testing::{Ask, percent, refuses};
    use proptest::prelude::*;
    use serde_json::json;

    use crate::testing::{Api, DAY, JANE, JOHN, public_john, renamed, user};

    fn by_id(id: &str) -> Ask {
        Ask::new("GET", &format!("/api/v1/users/profile/{id}"))
    }

    fn by_username(username: &str) -> Ask {
        let uri = format!("/api/v1/users/profile/username/{username}");
        Ask::new("GET", &uri)
    }

    #[tokio::test]
    async fn strangers_see_what_is_public_and_nothing_else() {
        let api = Api::with_users().await;
        let data = public_john();
        for ask in [
            by_id(JOHN),
            by_username("johndoe123"),
            by_username("JohnDoe123"),
            user(JANE, &format!("/api/v1/users/profile/{JOHN}")),
        ] {
            let answer = api.read(ask).await;
            answer.succeeds(200, &data);
            assert_eq!(answer.header("etag"), Some("\"2\""));
            assert_eq!(answer.header("ledger-position"), Some("3"));
            let text = String::from_utf8(answer.body.to_vec()).unwrap();
            for private in [
                "5551234567",
                "john.doe@example.com",
                "male",
                "1995",
                "lastLogin",
                "roles",
            ] {
                assert!(!text.contains(private), "{private}");
            }
        }
        let least = json!({
            "_id": JANE, "name": "Jane", "surname": "Doe", "username": "jane", "interests": [],
        });
        api.read(by_id(JANE)).await.succeeds(200, &least);
    }

    #[tokio::test]
    async fn the_age_is_that_of_the_day_of_the_reading() {
        let api = Api::with_users().await;
        // From 22 May to the eve of 15 June.
        api.advance(23 * DAY);
        assert_eq!(api.read(by_id(JOHN)).await.data()["age"], 30);
        api.advance(DAY);
        assert_eq!(api.read(by_id(JOHN)).await.data()["age"], 31);
    }

    #[tokio::test]
    async fn a_username_leads_to_its_current_holder() {
        let api = Api::with_users().await;
        let until = "2026-06-21T16:11:26.808Z";
        api.append(JANE, renamed("jane", "janet", until)).await;
        let answer = api.read(by_username("janet")).await;
        assert_eq!(answer.data()["_id"], JANE);
        assert_eq!(api.read(by_username("jane")).await.status, 404);
    }

    #[tokio::test]
    async fn who_has_the_version_already_is_told_so() {
        let api = Api::with_users().await;
        for ask in [by_id(JOHN), by_username("johndoe123")] {
            let answer = api.read(ask.clone().header("if-none-match", "\"2\"")).await;
            assert_eq!((answer.status, answer.body.len()), (304, 0));
            let answer = api.read(ask.header("if-none-match", "\"1\"")).await;
            assert_eq!(answer.status, 200);
        }
    }

    #[tokio::test]
    async fn nobody_is_not_found() {
        let api = Api::with_users().await;
        let (english, turkish) = (["Resource not found"], ["Kaynak bulunamadı"]);
        for ask in [
            by_id("507f1f77bcf86cd799439000"),
            by_id("not-an-id"),
            by_id(&JOHN.to_uppercase()),
            by_username("nobody"),
            by_username("john%00doe123"),
            by_username("johndoe123%20"),
            by_username("%25"),
        ] {
            let code = "RESOURCE_NOT_FOUND";
            refuses(&api.router, &ask, 404, code, &english, &turkish).await;
        }
    }

    #[tokio::test]
    async fn a_token_is_not_needed_but_a_bad_one_is_refused() {
        let api = Api::with_users().await;
        let code = "AUTHENTICATION_REQUIRED";
        let (english, turkish) = (["Authentication required"], ["Kimlik doğrulaması gerekli"]);
        for ask in [by_id(JOHN), by_username("johndoe123")] {
            let ask = ask.bearer("garbage");
            refuses(&api.router, &ask, 401, code, &english, &turkish).await;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_name_in_a_path_is_somebody_or_nobody(name in proptest::collection::vec(any::<u8>(), 1..40)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let api = Api::still().await;
                let encoded = percent(&name);
                for ask in [by_id(&encoded), by_username(&encoded)] {
                    let status = api.send(ask).await.status;
                    let is_text = std::str::from_utf8(&name).is_ok();
                    assert_eq!(status, if is_text { 404 } else { 400 });
                }
            });
        }
    }
}
