//! The routes that read histories, one file each. This file contains the parts that they share. All of them read the
//! ledger itself. A read of another user's history is recorded before anything is read.

use std::borrow::Cow;

use crate::changes::{self, FieldChange};
use axum::extract::{FromRequestParts, MatchedPath};
use axum::http::request::Parts;
use events::{Position, StoredEvent, Time, UserId, Version};
use http_kit::caller::{Caller, Role};
use http_kit::client::Client;
use http_kit::code::Code;
use http_kit::error::ApiError;
use http_kit::fields::Fields;
use http_kit::openapi::{Away, Refuses, schema};
use http_kit::query::{Number, OneOf, Parsed, Query, defaulted, number, number_from, optional};
use http_kit::query_parameters;
use http_kit::text::Text;
use ledger::refold;
use ledger::store::History;
use ledger::trail::Read;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::{AtLeast, Example, LogRead, WAIT, not_found, not_yet_readable, wanted_position};
use crate::{QueryApi, Shared};

pub(super) mod all_events;
pub(super) mod diff;
pub(super) mod reads;
pub(super) mod user;
pub(super) mod user_events;
mod walk;

/// The default number of items on a page.
const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: u64 = 100;
/// The most characters of the name of a caller or the id of a request.
const MAX_NAME: usize = 128;

/// A read of history: who asks, how, and about whom. It is recorded before it is answered.
pub(super) struct AuditedRead {
    caller: Caller,
    route: String,
    query: String,
    request_id: String,
    /// The position that the ledger must reach first.
    wanted: Position,
    pub(super) fields: Fields,
}

impl FromRequestParts<Shared> for AuditedRead {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Shared) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, api).await?;
        let client = Client::from_request_parts(parts, api).await?;
        let mut fields = Fields::from_query(parts.uri.query());
        let wanted = wanted_position(&parts.headers, &mut fields);
        let pattern = parts.extensions.get::<MatchedPath>();
        Ok(Self {
            caller,
            route: pattern.map_or_else(String::new, |path| path.as_str().to_owned()),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            request_id: client.request_id,
            wanted,
            fields,
        })
    }
}

impl AuditedRead {
    /// 403 unless the caller has one of the roles.
    pub(super) fn require(&self, any_of: &[Role]) -> Result<(), ApiError> {
        self.caller.require(any_of)
    }

    /// 403 unless the caller is an auditor.
    pub(super) fn require_auditor(&self) -> Result<(), ApiError> {
        self.require(&[Role::Auditor, Role::Admin])
    }

    /// The user in the path, if the caller may read the history: auditors may read every history, users their own.
    /// Other callers do not learn whether the user exists.
    pub(super) fn user(&self, user_id: &str) -> Result<UserId, ApiError> {
        let is_own = self.caller.has(Role::User) && self.caller.subject == user_id;
        if !is_own {
            self.require_auditor()?;
        }
        // A value that is not an id belongs to no user.
        user_id.parse().map_err(|_| not_found())
    }

    /// Adds a value to the record that is not part of the query.
    pub(super) fn mention(&mut self, name: &str, value: impl std::fmt::Display) {
        if !self.query.is_empty() {
            self.query.push('&');
        }
        self.query.extend([name, "=", &value.to_string()]);
    }

    /// The parameters of the route. Errors: 400 with everything that is wrong with the query.
    pub(super) fn parameters<Q: Query>(&mut self) -> Result<Q, ApiError> {
        let parameters = Q::take(&mut self.fields);
        std::mem::take(&mut self.fields).finish_with(parameters)
    }

    /// Waits for the requested position and then records the read. Only a recorded read may be answered. A user who
    /// reads their own history is not recorded.
    pub(super) async fn record(
        &mut self,
        api: &QueryApi,
        user: Option<UserId>,
    ) -> Result<(), ApiError> {
        self.parameters::<()>()?;
        if !reaches(&*api.history, self.wanted).await? {
            return Err(not_yet_readable(self.wanted));
        }
        let is_auditor = self.caller.has(Role::Auditor) || self.caller.has(Role::Admin);
        let is_own = user.is_some_and(|user| self.caller.subject == user.to_string());
        if is_own && !is_auditor {
            return Ok(());
        }
        let read = Read {
            at: Time::from(api.clock.now()),
            actor: self.caller.subject.clone(),
            route: self.route.clone(),
            user,
            query: self.query.clone(),
            request_id: self.request_id.clone(),
        };
        let recorded = api.trail.record(&read).await;
        recorded.map_err(ApiError::unavailable).map(drop)
    }
}

/// Whether the ledger has reached a position, or reaches it soon.
async fn reaches(history: &dyn History, wanted: Position) -> Result<bool, ApiError> {
    if wanted == 0 || head(history).await? >= wanted {
        return Ok(true);
    }
    let mut head = history.watch_head();
    let reached = tokio::time::timeout(WAIT, head.wait_for(|head| *head >= wanted)).await;
    Ok(reached.is_ok_and(|reached| reached.is_ok()))
}

/// The newest position of the ledger.
pub(super) async fn head(history: &dyn History) -> Result<Position, ApiError> {
    let head = history.head().await.map_err(ApiError::unavailable)?;
    Ok(head.position)
}

/// The newest event of a user; 404 if there are no events.
async fn newest(api: &QueryApi, user: &UserId) -> Result<StoredEvent, ApiError> {
    let newest = api.history.read_user_back(user, Version::MAX, 1).await;
    let newest = newest.map_err(ApiError::unavailable)?.into_iter().next();
    newest.ok_or_else(not_found)
}

/// 400 if a parameter is greater than the newest one.
pub(super) fn within(name: &'static str, number: u64, newest: u64) -> Result<(), ApiError> {
    if number <= newest {
        return Ok(());
    }
    let problem = Text::new("BEYOND_END").with("max", newest);
    Err(ApiError::new(Code::ValidationFailed).field(name, problem))
}

/// The failure of a fold. The client is not responsible for the content of the ledger.
fn not_refolded(error: refold::Error) -> ApiError {
    match error {
        refold::Error::Store(error) => ApiError::unavailable(error),
        refold::Error::Decode(..) | refold::Error::Fold(..) => ApiError::internal(error),
    }
}

/// An event in a list.
#[derive(Serialize, ToSchema)]
#[schema(as = ListedEvent)]
pub(crate) struct Item<'a> {
    /// The number of the event among all events.
    #[schema(value_type = u64)]
    position: Position,
    /// The number of the event among the events of its user.
    #[schema(value_type = u64)]
    version: Version,
    /// The stored CloudEvents envelope: the event, its actor, time, client and request.
    #[schema(value_type = Object, additional_properties)]
    event: &'a RawValue,
    /// The changes, field by field. `null` for an event from a newer program.
    changes: Option<Vec<FieldChange>>,
}

impl Example for Item<'_> {
    fn example() -> Value {
        json!({
            "position": 42,
            "version": 3,
            "event": {
                "specversion": "1.0",
                "id": "018d0d2a-9a40-7c3e-8b1d-2f4a6c8e0b13",
                "source": "/profile-ledger",
                "type": "username-changed",
                "subject": "507f1f77bcf86cd799439011",
                "time": "2024-01-15T12:30:00.000Z",
                "authid": "507f1f77bcf86cd799439011",
                "clientplatform": "mobile_ios",
                "data": {"before": "johndoe", "after": "johndoe123", "heldUntil": "2024-02-14T12:30:00.000Z"},
            },
            "changes": [{"field": "username", "before": "johndoe", "after": "johndoe123"}],
        })
    }
}

impl<'a> Item<'a> {
    fn of(event: &'a StoredEvent) -> Result<Self, ApiError> {
        Ok(Self {
            position: event.position,
            version: event.version,
            event: serde_json::from_slice(&event.envelope).map_err(ApiError::internal)?,
            changes: event
                .decode()
                .ok()
                .map(|recorded| changes::of(&recorded.event)),
        })
    }

    fn all(events: &'a [StoredEvent]) -> Result<Vec<Self>, ApiError> {
        events.iter().map(Self::of).collect()
    }
}

/// A part of a list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Page<T> {
    items: Vec<T>,
    /// The value of `after` for the next page.
    next_after: u64,
    has_more: bool,
}

/// A page of events.
pub(crate) type EventPage = Page<Item<'static>>;
/// A page of recorded reads.
pub(crate) type ReadPage = Page<reads::Item>;

impl<T: ToSchema> PartialSchema for Page<T> {
    fn schema() -> RefOr<Schema> {
        let items = format!("#/components/schemas/{}", T::name());
        schema(json!({
            "type": "object",
            "description": "A part of a list.",
            "required": ["items", "nextAfter", "hasMore"],
            "properties": {
                "items": {"type": "array", "items": {"$ref": items}},
                "nextAfter": {
                    "type": "integer",
                    "format": "int64",
                    "description": "The value of `after` for the next page.",
                    "minimum": 0,
                },
                "hasMore": {
                    "type": "boolean",
                    "description": "Whether there are more items. A page can be short or empty even if there are more.",
                },
            },
        }))
    }
}

impl<T: ToSchema> ToSchema for Page<T> {
    fn name() -> Cow<'static, str> {
        format!("{}Page", T::name()).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(schemas);
    }
}

impl<T: Example> Example for Page<T> {
    fn example() -> Value {
        json!({"items": [T::example()], "nextAfter": 42, "hasMore": false})
    }
}

impl IntoParams for AuditedRead {
    fn into_params(within: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        LogRead::into_params(within)
    }
}

impl Refuses for AuditedRead {
    fn refusals() -> Vec<ApiError> {
        <(Caller, Role, Client, AtLeast, Away)>::refusals()
    }
}

query_parameters! {
    /// Which page of a list.
    struct PageOf {
        /// The direction of the list.
        order: Order = defaulted("order", OneOf(&[Order::Oldest, Order::Newest]), Order::Oldest),
        /// Begins after this item: `nextAfter` of the previous page.
        after: Option<u64> = optional("after", number_from(0)),
        /// Items on a page.
        limit: usize = defaulted("limit", LIMIT, DEFAULT_LIMIT),
    }
}

const LIMIT: Number<usize> = number(1, MAX_LIMIT);

impl Refuses for PageOf {
    fn refusals() -> Vec<ApiError> {
        vec![ApiError::new(Code::ValidationFailed).field("limit", LIMIT.problem())]
    }
}

/// The direction of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Order {
    Oldest,
    Newest,
}

impl AsRef<str> for Order {
    fn as_ref(&self) -> &str {
        match self {
            Self::Oldest => "oldest",
            Self::Newest => "newest",
        }
    }
}

const TIME: Parsed<Time> = Parsed {
    parse: |text| text.parse().map_err(|_| Text::new("BAD_TIME")),
    schema: || json!({"type": "string", "format": "date-time", "examples": ["2026-05-22T16:11:26.808Z"]}),
};

const USER_ID: Parsed<UserId> = Parsed {
    parse: |text| text.parse().map_err(|_| Text::new("BAD_ID")),
    schema: || json!({"$ref": "#/components/schemas/UserId"}),
};

/// The subject of a token, or the id of a request.
const NAME: Parsed<String> = Parsed {
    parse: name,
    schema: || {
        json!({
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_NAME,
            "pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$",
        })
    },
};

fn name(text: &str) -> Result<String, Text> {
    if text.is_empty() {
        return Err(Text::new("TOO_SHORT").with("min", 1));
    }
    if text.chars().nth(MAX_NAME).is_some() {
        return Err(Text::new("TOO_LONG").with("max", MAX_NAME));
    }
    if text.chars().any(char::is_control) {
        return Err(Text::new("BAD_CHARACTERS"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests;
