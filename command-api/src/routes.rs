//! The shared parts of the routes. Each route is a file of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::routing::{MethodRouter, patch, post, put};
use events::envelope::Context;
use events::{UserId, Version};
use http_kit::answer::Answer;
use http_kit::caller::{Caller, Role};
use http_kit::client::{Client, IdempotencyKey, Precondition};
use http_kit::code::Code;
use http_kit::error::ApiError;
use http_kit::metrics;
use http_kit::openapi::{self, Away, Refuses};
use http_kit::profile::OwnProfile;
use http_kit::serve::limits;
use http_kit::text::Text;
use ledger::store::OutcomeKey;
use sha2::{Digest as _, Sha256};
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::{RefOr, Response};
use utoipa::{IntoParams, IntoResponses, OpenApi};

use crate::CommandApi;
use crate::committer::{Command, Decided, Idempotency, Undecided};
use crate::user::{Action, Rejection, USERNAME_DAYS};

pub(crate) mod photo;
mod profile;
mod username;
mod users;

const JSON_BYTES: usize = 64 * 1024;
const JSON_TIME: Duration = Duration::from_secs(10);

/// Every route. The router is built from them, and the test of hostile requests calls them.
fn routes() -> [(&'static str, MethodRouter<CommandApi>); 4] {
    [
        (
            "/api/v1/users",
            limits(post(users::register), JSON_BYTES, JSON_TIME),
        ),
        (
            "/api/v1/users/profile",
            limits(put(profile::replace), JSON_BYTES, JSON_TIME),
        ),
        (
            "/api/v1/users/username",
            limits(patch(username::change), JSON_BYTES, JSON_TIME),
        ),
        (
            "/api/v1/users/profile/photo",
            limits(patch(photo::change), photo::BODY_BYTES, photo::TIME),
        ),
    ]
}

pub(crate) fn router() -> Router<CommandApi> {
    let routes = routes().into_iter();
    routes.fold(Router::new(), |router, (path, route)| {
        router.route(path, route)
    })
}

/// The OpenAPI description of the routes.
#[derive(OpenApi)]
#[openapi(
    paths(users::register, profile::replace, username::change, photo::change),
    components(schemas(OwnProfile<'_>))
)]
pub(crate) struct ApiDocument;

/// The sender of a command with its client headers and conditions.
pub(crate) struct Sender {
    caller: Caller,
    client: Client,
    expected_version: Option<Version>,
    idempotency_key: Option<String>,
}

impl FromRequestParts<CommandApi> for Sender {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &CommandApi) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, api).await?;
        let client = Client::from_request_parts(parts, api).await?;
        let Precondition(expected_version) = Precondition::from_request_parts(parts, api).await?;
        let IdempotencyKey(idempotency_key) =
            IdempotencyKey::from_request_parts(parts, api).await?;
        Ok(Self {
            caller,
            client,
            expected_version,
            idempotency_key,
        })
    }
}

impl IntoParams for Sender {
    fn into_params(place: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        [
            Client::into_params(&place),
            Precondition::into_params(&place),
            IdempotencyKey::into_params(&place),
        ]
        .concat()
    }
}

impl Refuses for Sender {
    fn refusals() -> Vec<ApiError> {
        <(Caller, Role, Client, Precondition, IdempotencyKey)>::refusals()
    }
}

/// The OpenAPI answer to an accepted command: the whole own profile after it.
pub(crate) struct Done<const STATUS: u16>;

impl<const STATUS: u16> IntoResponses for Done<STATUS> {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let profile = OwnProfile {
            document: &http_kit::profile::example(),
            public_url: "https://example.com",
        };
        let profile = serde_json::to_value(profile).expect("a profile is JSON");
        let about = "The whole own profile, as it is now.";
        let answer = openapi::answer::<OwnProfile<'_>>(about, STATUS, &profile)
            .header("ETag", openapi::etag())
            .header("Ledger-Position", openapi::position())
            .header("Idempotent-Replayed", openapi::replayed());
        BTreeMap::from([(STATUS.to_string(), answer.build().into())])
    }
}

impl Sender {
    /// The caller's user. A token without a valid user gets the answer for an unknown user.
    fn user(&self) -> Result<UserId, ApiError> {
        self.caller.require(&[Role::User])?;
        self.caller
            .subject
            .parse()
            .map_err(|_| ApiError::new(Code::NotFound))
    }

    fn context(&self) -> Context {
        let actor_type = if self.caller.has(Role::Admin) {
            "admin"
        } else if self.caller.has(Role::Service) {
            "service"
        } else {
            "user"
        };
        let client = &self.client;
        Context {
            actor_type: actor_type.to_owned(),
            actor: self.caller.subject.clone(),
            correlation_id: Some(client.request_id.clone()),
            causation_id: None,
            traceparent: client.traceparent.clone(),
            language: Some(client.language.as_str().to_owned()),
            timezone: Some(client.timezone.clone()),
            platform: Some(client.platform.clone()),
            app_version: client.app_version.clone(),
            device_id: client.device_id.clone(),
            request_id: Some(client.request_id.clone()),
        }
    }

    /// Submits an action. `operation` and `body` distinguish requests under the same idempotency
    /// key.
    async fn submit(
        self,
        api: &CommandApi,
        user_id: UserId,
        action: Action,
        operation: &'static str,
        body: &[u8],
    ) -> Result<Decided, Undecided> {
        let context = self.context();
        let expected = self.expected_version;
        let idempotency = self.idempotency_key.map(|key| Idempotency {
            key: OutcomeKey {
                actor: self.caller.subject,
                key,
            },
            fingerprint: Sha256::new()
                .chain_update(operation)
                .chain_update([0])
                .chain_update(format!("{expected:?}"))
                .chain_update([0])
                .chain_update(body)
                .finalize()
                .into(),
        });
        let began = api.clock.now();
        let decided = api
            .committer
            .submit(Command {
                user_id,
                action,
                expected_version: expected,
                idempotency,
                context,
            })
            .await;
        let seconds = api.clock.now().duration_since(began).as_secs_f64();
        metrics::COMMAND_SECONDS.record([], seconds);
        let outcome = outcome(&decided);
        metrics::COMMANDS.increment([operation.into(), outcome.into()]);
        decided
    }
}

/// The answer to a decided command: the whole own profile, or the reason for the refusal.
fn answer(api: &CommandApi, status: StatusCode, decided: Decided) -> Result<Answer, ApiError> {
    let repeat = (HeaderName::from_static("idempotent-replayed"), "true");
    let document = match decided.result {
        Ok(document) => document,
        Err(rejection) if decided.is_repeat => {
            let value = HeaderValue::from_static(repeat.1);
            return Err(rejected(rejection).header(repeat.0, value));
        }
        Err(rejection) => return Err(rejected(rejection)),
    };
    let profile = OwnProfile {
        document: &document,
        public_url: &api.public_url,
    };
    let answer = Answer::with_status(status, decided.at.into(), &profile)
        .version(document.version)
        .position(document.position);
    Ok(if decided.is_repeat {
        answer.header(repeat.0, repeat.1)
    } else {
        answer
    })
}

/// The outcome of a command as one word for the metrics.
fn outcome(decided: &Result<Decided, Undecided>) -> &'static str {
    match decided {
        Ok(decided) if decided.is_repeat => "replayed",
        Ok(decided) => match &decided.result {
            Ok(_) => "accepted",
            Err(rejection) => rejected(rejection.clone()).code().as_str(),
        },
        Err(error) => undecided(error.clone()).code().as_str(),
    }
}

fn rejected(rejection: Rejection) -> ApiError {
    match rejection {
        Rejection::NoSuchUser => ApiError::new(Code::NotFound),
        Rejection::UserExists { user_id } => {
            ApiError::new(Code::UserExists).because(Text::new("USER_EXISTS").with("id", user_id))
        }
        Rejection::UsernameTaken { username } => ApiError::new(Code::UsernameTaken)
            .because(Text::new("USERNAME_TAKEN").with("username", username)),
        Rejection::UsernameHeld { username, until } => ApiError::new(Code::UsernameHeld).because(
            Text::new("USERNAME_HELD")
                .with("username", username)
                .with("until", until),
        ),
        Rejection::UsernameChangeTooSoon { next } => ApiError::new(Code::UsernameChangeTooSoon)
            .because(
                Text::new("USERNAME_CHANGE_TOO_SOON")
                    .with("days", USERNAME_DAYS)
                    .with("next", next),
            ),
        Rejection::VersionMismatch { expected, actual } => ApiError::new(Code::VersionMismatch)
            .because(
                Text::new("VERSION_MISMATCH")
                    .with("expected", expected)
                    .with("actual", actual),
            ),
    }
}

fn undecided(undecided: Undecided) -> ApiError {
    match undecided {
        Undecided::QueueFull => ApiError::new(Code::QueueFull)
            .because(Text::new("QUEUE_FULL"))
            .retry_after(1),
        Undecided::ShuttingDown => ApiError::new(Code::ShuttingDown)
            .because(Text::new("SHUTTING_DOWN"))
            .retry_after(1),
        Undecided::KeyReused => {
            ApiError::new(Code::IdempotencyKeyReused).because(Text::new("IDEMPOTENCY_KEY_REUSED"))
        }
        Undecided::Store(error) => ApiError::unavailable(error),
        Undecided::Panicked => ApiError::internal(undecided),
    }
}

impl Refuses for Undecided {
    fn refusals() -> Vec<ApiError> {
        let kept = [Self::QueueFull, Self::ShuttingDown, Self::KeyReused].map(undecided);
        [Away::refusals(), kept.to_vec()].concat()
    }
}

/// Refusals for the OpenAPI description. Each may also be the answer to an earlier request under
/// the same key.
fn remembered<const N: usize>(rejections: [Rejection; N]) -> Vec<ApiError> {
    let replayed = |error: ApiError| {
        let name = HeaderName::from_static("idempotent-replayed");
        error.header(name, HeaderValue::from_static("true"))
    };
    rejections.map(rejected).map(replayed).to_vec()
}

/// The refusals of a command for an existing user.
pub(crate) struct OfUser;

impl Refuses for OfUser {
    fn refusals() -> Vec<ApiError> {
        remembered([
            Rejection::NoSuchUser,
            Rejection::VersionMismatch {
                expected: 2,
                actual: 3,
            },
        ])
    }
}

/// The current day, for computing ages.
fn today(State(api): &State<CommandApi>) -> jiff::civil::Date {
    events::Time::from(api.clock.now()).date()
}

#[cfg(test)]
mod tests {
    use http_kit::testing::described::{described, sorted};
    use http_kit::testing::hostile::{Access, Reads, Target, methods, withstands};
    use serde_json::json;

    use super::*;
    use crate::testing::{Api, JOHN, service, upload, user};

    /// A valid request to each route. Add each new route here.
    fn target(pattern: &'static str, method: &str) -> Target {
        let (method, good, reads) = match (method, pattern) {
            ("POST", "/api/v1/users") => {
                let body = json!({"username": "jack", "name": "Jack", "surname": "Doe"});
                let good = service("POST", pattern).json(&body);
                ("POST", good, Reads::Json(JSON_BYTES))
            }
            ("PUT", "/api/v1/users/profile") => {
                let body = json!({"name": "Johnny", "surname": "Doe"});
                let good = user(JOHN, "PUT", pattern).json(&body);
                ("PUT", good, Reads::Json(JSON_BYTES))
            }
            ("PATCH", "/api/v1/users/username") => {
                let good = user(JOHN, "PATCH", pattern).json(&json!({"newUsername": "johnny"}));
                ("PATCH", good, Reads::Json(JSON_BYTES))
            }
            ("PATCH", "/api/v1/users/profile/photo") => {
                let good = upload(JOHN, &::photo::samples::png(96, 96));
                ("PATCH", good, Reads::Multipart(photo::BODY_BYTES))
            }
            _ => panic!(
                "{method} {pattern} is not covered by the test of hostile requests: add it here"
            ),
        };
        Target {
            pattern,
            method,
            good,
            access: Access::Token,
            reads,
            is_command: true,
        }
    }

    #[tokio::test]
    async fn the_description_contains_exactly_the_routes() {
        let api = Api::with_users().await;
        let mut served = Vec::new();
        for (pattern, _) in routes() {
            for method in methods(&api.router, pattern).await {
                served.push((pattern.to_owned(), method));
            }
        }
        assert_eq!(described(&crate::openapi()), sorted(served));
    }

    #[tokio::test]
    async fn every_route_withstands_hostile_requests() {
        let api = Api::with_users().await;
        for (pattern, _) in routes() {
            for method in methods(&api.router, pattern).await {
                let before = api.ledger().await.len();
                withstands(&api.router, &target(pattern, &method)).await;
                let after = api.ledger().await.len();
                assert_eq!(after, before + 1, "only the good request changes anything");
            }
        }
    }
}
