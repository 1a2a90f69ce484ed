//! The routes, one file each. This file contains the parts that they share.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::time::Duration;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::header::IF_NONE_MATCH;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get, post};
use events::{Document, Position};
use http_kit::answer::Answer;
use http_kit::client::{Client, if_none_match};
use http_kit::code::Code;
use http_kit::error::ApiError;
use http_kit::fields::Fields;
use http_kit::openapi::{self, Away, Refuses};
use http_kit::profile::{OwnProfile, PublicProfile};
use http_kit::query::{Kind as _, Number, Query, number_from, optional};
use http_kit::query_parameters;
use http_kit::serve::limits;
use http_kit::text::Text;
use projector::projection::wait_for;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::{self as described, RefOr};
use utoipa::{IntoParams, IntoResponses, OpenApi, ToSchema};

use crate::{QueryApi, Shared};

mod audit;
mod check_username;
mod console;
mod event_schemas;
pub(crate) mod event_stream;
mod log;
mod media;
mod own_profile;
mod public_profile;
mod search;

const JSON_BYTES: usize = 16 * 1024;
const TIME: Duration = Duration::from_secs(10);
/// The longest time for which a read waits for its position.
const WAIT: Duration = Duration::from_secs(2);

/// Every route. The router is made from these, and the test of hostile requests uses each of them.
fn routes() -> [(&'static str, MethodRouter<Shared>); 22] {
    [
        (
            "/api/v1/users/profile",
            limits(get(own_profile::read), JSON_BYTES, TIME),
        ),
        (
            "/api/v1/users/profile/{userId}",
            limits(get(public_profile::by_id), JSON_BYTES, TIME),
        ),
        (
            "/api/v1/users/profile/username/{username}",
            limits(get(public_profile::by_username), JSON_BYTES, TIME),
        ),
        (
            "/api/v1/users/check-username",
            limits(post(check_username::check), JSON_BYTES, TIME),
        ),
        (
            "/api/v1/users/search",
            limits(get(search::search), JSON_BYTES, TIME),
        ),
        (
            "/media/users/{userId}/photos/{hash}/{photoId}/{file}",
            limits(get(media::read), JSON_BYTES, TIME),
        ),
        (
            "/api/v1/audit/users/{userId}",
            limits(get(audit::user::read), JSON_BYTES, TIME),
        ),
        (
            "/api/v1/audit/users/{userId}/events",
            limits(get(audit::user_events::list), JSON_BYTES, TIME),
        ),
        (
            "/api/v1/audit/users/{userId}/diff",
            limits(get(audit::diff::compare), JSON_BYTES, TIME),
        ),
        (
            "/api/v1/audit/events",
            limits(get(audit::all_events::list), JSON_BYTES, TIME),
        ),
        (
            "/api/v1/audit/reads",
            limits(get(audit::reads::list), JSON_BYTES, TIME),
        ),
        (
            "/api/v1/audit/users/{userId}/proof",
            limits(get(log::proof::whole_history), JSON_BYTES, TIME),
        ),
        (
            "/api/v1/log/checkpoint",
            limits(get(log::checkpoint::read), JSON_BYTES, TIME),
        ),
        (
            "/api/v1/log/key",
            limits(get(log::checkpoint::key), JSON_BYTES, TIME),
        ),
        (
            "/api/v1/log/tile/{level}/{*index}",
            limits(get(log::tile::read), JSON_BYTES, TIME),
        ),
        (
            "/api/v1/log/proof/inclusion",
            limits(get(log::proof::inclusion), JSON_BYTES, TIME),
        ),
        (
            "/api/v1/log/proof/consistency",
            limits(get(log::proof::consistency), JSON_BYTES, TIME),
        ),
        // The time is that until the stream begins.
        (
            event_stream::PATH,
            limits(get(event_stream::follow), JSON_BYTES, TIME),
        ),
        (
            "/schemas/{type}/{version}",
            limits(get(event_schemas::schema), JSON_BYTES, TIME),
        ),
        (
            "/asyncapi.json",
            limits(get(event_schemas::asyncapi), JSON_BYTES, TIME),
        ),
        ("/console", limits(get(console::page), JSON_BYTES, TIME)),
        (
            "/console/{file}",
            limits(get(console::file), JSON_BYTES, TIME),
        ),
    ]
}

pub(crate) fn router() -> Router<Shared> {
    let routes = routes().into_iter();
    routes.fold(Router::new(), |router, (path, route)| {
        router.route(path, route)
    })
}

/// The OpenAPI description of the routes.
#[derive(OpenApi)]
#[openapi(
    paths(
        own_profile::read,
        public_profile::by_id,
        public_profile::by_username,
        check_username::check,
        search::search,
        media::read,
        audit::user::read,
        audit::user_events::list,
        audit::diff::compare,
        audit::all_events::list,
        audit::reads::list,
        log::proof::whole_history,
        log::checkpoint::read,
        log::checkpoint::key,
        log::tile::read,
        log::proof::inclusion,
        log::proof::consistency,
        event_stream::follow,
        event_schemas::schema,
        event_schemas::asyncapi,
        console::page,
        console::file,
    ),
    components(schemas(
        OwnProfile<'_>,
        PublicProfile<'_>,
        check_username::Availability,
        search::Found<'_>,
        audit::EventPage,
        audit::ReadPage,
        audit::diff::Difference,
        audit::user::AsItWas<'_>,
        log::proof::Inclusion,
        log::proof::Consistency,
        log::proof::WholeHistory,
    ))
)]
pub(crate) struct Described;

pub(crate) use console::sentences;

/// A read of documents: its parameters, the version that the client already has, and a minimum position. The extractor
/// waits until the read model has reached that position.
pub(crate) struct DocumentRead {
    fields: Fields,
    /// `If-None-Match` alone: the extractors of the body still need the other headers.
    conditions: HeaderMap,
}

impl FromRequestParts<Shared> for DocumentRead {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Shared) -> Result<Self, ApiError> {
        let LogRead { fields, wanted } = LogRead::from_request_parts(parts, api).await?;
        if !fields.has_problems() && !wait_for(&*api.documents, wanted, WAIT).await {
            return Err(not_yet_readable(wanted));
        }
        let mut conditions = HeaderMap::new();
        for value in parts.headers.get_all(IF_NONE_MATCH) {
            conditions.append(IF_NONE_MATCH, value.clone());
        }
        Ok(Self { fields, conditions })
    }
}

impl DocumentRead {
    /// The parameters of the route. Errors: 400 with everything that is wrong with the query.
    fn parameters<Q: Query>(&mut self) -> Result<Q, ApiError> {
        let mut fields = std::mem::take(&mut self.fields);
        let parameters = Q::take(&mut fields);
        fields.finish_with(parameters)
    }
}

/// A read of the log: its parameters, and the position that the answer must show at least.
pub(crate) struct LogRead {
    fields: Fields,
    wanted: Position,
}

impl FromRequestParts<Shared> for LogRead {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Shared) -> Result<Self, ApiError> {
        Client::from_request_parts(parts, api).await?;
        let mut fields = Fields::from_query(parts.uri.query());
        let wanted = wanted_position(&parts.headers, &mut fields);
        Ok(Self { fields, wanted })
    }
}

impl LogRead {
    /// The parameters of the route, and the position. Errors: 400 with everything that is wrong with the query.
    fn parameters<Q: Query>(mut self) -> Result<(Q, Position), ApiError> {
        let parameters = Q::take(&mut self.fields);
        let parameters = self.fields.finish_with(parameters)?;
        Ok((parameters, self.wanted))
    }
}

query_parameters! {
    /// The position that an answer must show at least.
    struct MinPosition {
        /// Waits up to two seconds until the answer shows this position; otherwise the answer is 503. Send the
        /// `Ledger-Position` of a command to read your own write.
        min_position: Option<Position> = optional("minPosition", POSITION),
    }
}

/// Positions of the ledger, and 0 for its beginning.
const POSITION: Number<Position> = number_from(0);

/// The position that an answer must show at least: the greater one of parameter and header.
fn wanted_position(headers: &HeaderMap, fields: &mut Fields) -> Position {
    let parameter = MinPosition::take(fields).and_then(|given| given.min_position);
    let header = position_header(headers, "ledger-min-position").unwrap_or_else(|problem| {
        fields.problem("Ledger-Min-Position", problem);
        None
    });
    parameter.max(header).unwrap_or(0)
}

/// The position in a header that may be given once.
fn position_header(headers: &HeaderMap, name: &str) -> Result<Option<Position>, Text> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(HeaderValue::to_str), values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(text)), None) => POSITION.parse(text).map(Some),
        _ => Err(POSITION.problem()),
    }
}

/// The position that an answer must show, as a parameter or as a header.
struct AtLeast;

impl IntoParams for AtLeast {
    fn into_params(within: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let mut parameters = MinPosition::into_params(within);
        parameters.push(openapi::header(
            "Ledger-Min-Position",
            POSITION.schema(),
            "The same as `minPosition`. The greater one counts.",
        ));
        parameters
    }
}

impl Refuses for AtLeast {
    fn refusals() -> Vec<ApiError> {
        let bad = ApiError::new(Code::ValidationFailed).field("minPosition", POSITION.problem());
        vec![bad, not_yet_readable(42)]
    }
}

impl IntoParams for LogRead {
    fn into_params(within: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        [AtLeast::into_params(&within), Client::into_params(&within)].concat()
    }
}

impl Refuses for LogRead {
    fn refusals() -> Vec<ApiError> {
        <(Client, AtLeast, Away)>::refusals()
    }
}

impl IntoParams for DocumentRead {
    fn into_params(within: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        LogRead::into_params(within)
    }
}

impl Refuses for DocumentRead {
    fn refusals() -> Vec<ApiError> {
        LogRead::refusals()
    }
}

/// An answer of [`DocumentRead::answer`], described.
struct OneUser<T>(PhantomData<T>);

impl<T: ToSchema + Example> IntoResponses for OneUser<T> {
    fn responses() -> BTreeMap<String, RefOr<described::Response>> {
        let whole = openapi::answer::<T>("The profile.", 200, &T::example());
        let known = openapi::described("The client already has this version.");
        let answers = [("200", whole), ("304", known)];
        let answers = answers.map(|(status, answer)| {
            let answer = answer
                .header("ETag", openapi::etag())
                .header("Ledger-Position", openapi::position());
            (status.to_owned(), answer.build().into())
        });
        BTreeMap::from(answers)
    }
}

/// An answer with an example.
trait Example {
    /// Data that a client could get.
    fn example() -> Value;
}

/// The URL of the service in examples.
const EXAMPLE_URL: &str = "https://example.com";

impl Example for OwnProfile<'_> {
    fn example() -> Value {
        json!(OwnProfile {
            document: &http_kit::profile::example(),
            public_url: EXAMPLE_URL,
        })
    }
}

impl Example for PublicProfile<'_> {
    fn example() -> Value {
        json!(PublicProfile {
            document: &http_kit::profile::example(),
            public_url: EXAMPLE_URL,
            today: jiff::civil::date(2026, 5, 22),
        })
    }
}

/// A successful answer with an example, in the OpenAPI document.
struct Shows<T>(PhantomData<T>);

impl<T: ToSchema + Example> IntoResponses for Shows<T> {
    fn responses() -> BTreeMap<String, RefOr<described::Response>> {
        let answer = openapi::answer::<T>("The requested data.", 200, &T::example());
        BTreeMap::from([("200".to_owned(), answer.build().into())])
    }
}

fn not_yet_readable(position: Position) -> ApiError {
    ApiError::new(Code::NotYetReadable)
        .because(Text::new("NOT_YET_READABLE").with("position", position))
        .retry_after(1)
}

impl DocumentRead {
    /// The answer to a read of one user: 304 if the client already has this version.
    fn answer(&self, api: &QueryApi, document: &Document, shape: &RawValue) -> Response {
        let answer = Answer::ok(api.clock.now(), &shape)
            .version(document.version)
            .position(document.position);
        if if_none_match(&self.conditions, &format!("\"{}\"", document.version)) {
            let mut response = answer.into_response();
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.body_mut() = axum::body::Body::empty();
            response
                .headers_mut()
                .remove(axum::http::header::CONTENT_TYPE);
            response
                .headers_mut()
                .remove(axum::http::header::CONTENT_LENGTH);
            return response;
        }
        answer.into_response()
    }
}

fn not_found() -> ApiError {
    ApiError::new(Code::NotFound)
}

#[cfg(test)]
mod tests;
