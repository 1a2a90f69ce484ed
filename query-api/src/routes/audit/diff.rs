//! `GET /api/v1/audit/users/{userId}/diff`: the differences between two versions of a user, field by field.

use crate::changes::{FieldChange, between, object};
use axum::extract::{Path, State};
use events::document::Document;
use events::{UserId, Version};
use http_kit::answer::Answer;
use http_kit::code::Code;
use http_kit::error::ApiError;
use http_kit::openapi::values;
use http_kit::openapi::{Fails, NotThere, Refuses};
use http_kit::profile::OwnProfile;
use http_kit::query::{number_from, required};
use http_kit::query_parameters;
use http_kit::text::Text;
use ledger::refold::{Until, refold};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::user::Moment;
use super::{AuditedRead, newest, not_refolded, within};
use crate::routes::{Example, Shows, not_found};
use crate::{QueryApi, Shared};

/// The differences between two versions of a user.
#[derive(Serialize, ToSchema)]
pub(crate) struct Difference {
    from: Moment,
    to: Moment,
    /// The fields that differ.
    changes: Vec<FieldChange>,
}

impl Example for Difference {
    fn example() -> Value {
        let mut from = Moment::example();
        from["version"] = json!(2);
        from["position"] = json!(7);
        from["recordedAt"] = json!("2024-01-15T11:00:00.000Z");
        let change = json!({"field": "username", "before": "johndoe", "after": "johndoe123"});
        json!({"from": from, "to": Moment::example(), "changes": [change]})
    }
}

query_parameters! {
    /// Which versions.
    struct Versions {
        /// A version of the user.
        from: Version = required("from", number_from(1)),
        /// Another version of the user.
        to: Version = required("to", number_from(1)),
    }
}

impl Refuses for Versions {
    fn refusals() -> Vec<ApiError> {
        let bad = Text::new("BEYOND_END").with("max", 3);
        vec![ApiError::new(Code::ValidationFailed).field("to", bad)]
    }
}

/// Compare two versions of a user
///
/// Field by field, in either order. Reading the history of another user is recorded.
#[utoipa::path(
    get,
    path = "/api/v1/audit/users/{userId}/diff",
    operation_id = "compareUsersVersionsV1",
    tag = "Audit",
    params(("userId" = values::UserId, Path, description = "The id of the user."), Versions, AuditedRead),
    responses(Shows<Difference>, Fails<(AuditedRead, Versions, NotThere)>),
    security(("bearer" = []))
)]
pub(in crate::routes) async fn compare(
    State(api): State<Shared>,
    mut read: AuditedRead,
    Path(user_id): Path<String>,
) -> Result<Answer, ApiError> {
    let user = read.user(&user_id)?;
    let Versions { from, to } = read.parameters()?;
    read.record(&api, Some(user)).await?;

    let newest = newest(&api, &user).await?.version;
    within("from", from, newest)?;
    within("to", to, newest)?;
    let early = at(&api, &user, None, from.min(to)).await?;
    let late = at(&api, &user, Some(early.clone()), from.max(to)).await?;
    let (before, after) = if from <= to {
        (&early, &late)
    } else {
        (&late, &early)
    };
    let profile = |document| {
        object(&OwnProfile {
            document,
            public_url: &api.public_url,
        })
    };
    let difference = Difference {
        from: Moment::of(before),
        to: Moment::of(after),
        changes: between(&profile(before), &profile(after)).collect(),
    };
    Ok(Answer::ok(api.clock.now(), &difference))
}

async fn at(
    api: &QueryApi,
    user: &UserId,
    earlier: Option<Document>,
    version: Version,
) -> Result<Document, ApiError> {
    let document = refold(&*api.history, user, earlier, Until::Version(version)).await;
    document.map_err(not_refolded)?.ok_or_else(not_found)
}

#[cfg(test)]
mod tests {
    use http_kit::testing::{Ask, NOW, refuses};
    use serde_json::json;

    use crate::testing::{Api, JOHN, auditor, called, photo_shape};

    const LATER: &str = "2026-05-22T16:11:27.808Z";

    fn diff(id: &str, query: &str) -> Ask {
        auditor(&format!("/api/v1/audit/users/{id}/diff?{query}"))
    }

    async fn renamed() -> Api {
        let api = Api::with_users().await;
        api.advance(1_000);
        api.append(JOHN, called("John", "Johnny")).await;
        api.advance(-1_000);
        api
    }

    #[tokio::test]
    async fn two_versions_are_compared_field_by_field() {
        let api = renamed().await;
        let first = json!({"version": 1, "position": 1, "recordedAt": NOW});
        let third = json!({"version": 3, "position": 4, "recordedAt": LATER});
        let change =
            |field: &str, before, after| json!({"field": field, "before": before, "after": after});
        let answer = api.send(diff(JOHN, "from=1&to=3")).await;
        let data = json!({"from": first, "to": third, "changes": [
            change("name", json!("John"), json!("Johnny")),
            change("updatedAt", json!(NOW), json!(LATER)),
            change("profilePhoto", json!(null), photo_shape()),
        ]});
        answer.succeeds(200, &data);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        // And back.
        let answer = api.send(diff(JOHN, "from=3&to=1")).await;
        let data = json!({"from": third, "to": first, "changes": [
            change("name", json!("Johnny"), json!("John")),
            change("profilePhoto", photo_shape(), json!(null)),
            change("updatedAt", json!(LATER), json!(NOW)),
        ]});
        answer.succeeds(200, &data);
        let answer = api.send(diff(JOHN, "from=3&to=3")).await;
        let data = json!({"from": third, "to": third, "changes": []});
        answer.succeeds(200, &data);
    }

    #[tokio::test]
    async fn versions_that_are_missing_or_not_there_are_refused() {
        let api = renamed().await;
        let code = "VALIDATION_FAILED";
        for (query, english, turkish) in [
            ("from=1", "to: is required", "to: zorunludur"),
            (
                "from=0&to=1",
                "from: must be a whole number from 1 to 9223372036854775807",
                "from: 1 ile 9223372036854775807 arasında bir tam sayı olmalıdır",
            ),
            (
                "from=1&to=4",
                "to: must be at most 3, which is the newest",
                "to: en fazla, en yenisi olan 3 olmalıdır",
            ),
            (
                "from=4&to=1",
                "from: must be at most 3, which is the newest",
                "from: en fazla, en yenisi olan 3 olmalıdır",
            ),
        ] {
            let ask = diff(JOHN, query);
            let english = ["Validation failed", english];
            let turkish = ["Doğrulama başarısız", turkish];
            refuses(&api.router, &ask, 400, code, &english, &turkish).await;
        }
        let ask = diff("507f1f77bcf86cd799439000", "from=1&to=2");
        let code = "RESOURCE_NOT_FOUND";
        let (english, turkish) = (["Resource not found"], ["Kaynak bulunamadı"]);
        refuses(&api.router, &ask, 404, code, &english, &turkish).await;
    }
}
