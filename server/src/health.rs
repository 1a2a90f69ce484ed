//! `GET /healthz`: the process runs. `GET /readyz`: it can do its work, or else the reasons why not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Router};
use events::{Position, Time};
use http_kit::clock::Clock;
use http_kit::openapi::{self, Fails};
use http_kit::serve::AsIs;
use ledger::relay;
use ledger::store::History;
use ledger::stream::Connection;
use projector::Documents;
use projector::projection::{Health, State as ProjectionState};
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;
use utoipa::openapi::{self as described, RefOr};
use utoipa::{IntoResponses, ToSchema};

/// The documents may stay this many events behind the ledger without making the process unready.
const LAG_EVENTS: Position = 1000;
/// Beyond that they may stand still for this many milliseconds.
const LAG_MILLIS: i64 = 10_000;

/// The parts on which readiness depends: the ledger, and the parts that the roles of the process need.
#[derive(Clone)]
pub(crate) struct Probes {
    pub(crate) history: Arc<dyn History>,
    pub(crate) clock: Clock,
    pub(crate) documents: Option<Arc<dyn Documents>>,
    pub(crate) projection: Option<watch::Receiver<Health>>,
    pub(crate) relay: Option<watch::Receiver<relay::Health>>,
    pub(crate) broker: Option<Connection>,
    /// The reason why this process signs no checkpoints, although it has the role for it.
    pub(crate) unsigned: Option<String>,
    /// The last position of the documents, and the time at which they reached it.
    moved: Arc<Mutex<(Position, Time)>>,
}

impl Probes {
    pub(crate) fn new(history: Arc<dyn History>, clock: Clock) -> Self {
        let now = Time::from(clock.now());
        Self {
            history,
            clock,
            documents: None,
            projection: None,
            relay: None,
            broker: None,
            unsigned: None,
            moved: Arc::new(Mutex::new((0, now))),
        }
    }

    /// The position of the documents, as far as this process knows.
    pub(crate) fn applied(&self) -> Option<Position> {
        match (&self.projection, &self.documents) {
            (Some(projection), _) => Some(projection.borrow().applied),
            (None, Some(documents)) => Some(*documents.watch_applied().borrow()),
            (None, None) => None,
        }
    }

    /// Whether the documents are far behind the ledger and do not move.
    fn is_stuck(&self, applied: Position, head: Position) -> bool {
        let now = Time::from(self.clock.now());
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        if applied != moved.0 || head.saturating_sub(applied) <= LAG_EVENTS {
            *moved = (applied, now);
        }
        now.millis() - moved.1.millis() > LAG_MILLIS
    }
}

/// Whether a process can do its work.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Readiness {
    /// Whether requests should be sent here.
    ready: bool,
    /// What is missing, for a person. Without a broker requests are served all the same.
    missing: Vec<String>,
    /// The end of the ledger; `null` when it cannot be read.
    #[schema(value_type = Option<u64>)]
    head: Option<Position>,
    /// Up to where the ledger is published.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, nullable = false)]
    published: Option<Position>,
    /// Up to where the documents are folded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, nullable = false)]
    applied: Option<Position>,
    /// Users whose events cannot be folded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    parked_users: Option<usize>,
}

/// The description of both answers. A process that is not ready still answers the request, so there is no envelope.
struct Told;

impl IntoResponses for Told {
    fn responses() -> BTreeMap<String, RefOr<described::Response>> {
        let shape = json!({"$ref": "#/components/schemas/Readiness"});
        let mut example = Readiness {
            ready: true,
            missing: Vec::new(),
            head: Some(42),
            published: Some(42),
            applied: Some(42),
            parked_users: Some(0),
        };
        let ready = json!(example);
        example.ready = false;
        (example.head, example.published) = (Some(20_042), Some(20_042));
        example.missing = vec![stays(42, 20_042)];
        let answers = [
            ("200", "It can do its work.", ready),
            ("503", "It cannot; `missing` says why.", json!(example)),
        ];
        BTreeMap::from(answers.map(|(status, about, example)| {
            let answer = openapi::json(about, shape.clone(), example);
            (status.to_owned(), answer.build().into())
        }))
    }
}

pub(crate) fn router(probes: Probes) -> Router {
    Router::new()
        .route("/healthz", get(live))
        .route("/readyz", get(ready))
        .with_state(probes)
}

/// Does the process live?
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "getHealth",
    tag = "Operations",
    responses(Alive, Fails<()>),
    security()
)]
pub(crate) async fn live() -> &'static str {
    "ok\n"
}

/// The description of the answer.
struct Alive;

impl IntoResponses for Alive {
    fn responses() -> BTreeMap<String, RefOr<described::Response>> {
        let answer = openapi::text("It does.", "text/plain", "ok\n");
        BTreeMap::from([("200".to_owned(), answer.build().into())])
    }
}

/// Can the process do its work?
///
/// And what is missing if not. Without a broker requests are served all the same.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "getReadiness",
    tag = "Operations",
    responses(Told, Fails<()>),
    security()
)]
pub(crate) async fn ready(State(probes): State<Probes>) -> Response {
    let mut missing = Vec::new();
    let head = match probes.history.head().await {
        Ok(head) => Some(head.position),
        Err(error) => {
            missing.push(format!("ledger: {error}"));
            None
        }
    };
    let applied = probes.applied();
    let mut parked_users = None;
    if let Some(documents) = &probes.documents {
        match documents.parked().await {
            Ok(parked) => parked_users = Some(parked.len()),
            Err(error) => missing.push(format!("read model: {error}")),
        }
    }
    if let Some(projection) = &probes.projection {
        let state = projection.borrow().state.clone();
        match state {
            ProjectionState::Running | ProjectionState::Standby => {}
            ProjectionState::Retrying { error } => {
                missing.push(format!("projection, trying again: {error}"));
            }
            ProjectionState::Stopped { error } => {
                missing.push(format!("projection, stopped: {error}"));
            }
        }
    }
    // Without a broker requests are still served. The relay publishes later.
    let mut unpublished = None;
    let mut published = None;
    if let Some(relay) = &probes.relay {
        let health = relay.borrow().clone();
        published = Some(health.published);
        match health.state {
            relay::State::Running | relay::State::Standby => {}
            relay::State::Waiting { error } => {
                unpublished = Some(format!("relay, trying again: {error}"));
            }
            relay::State::Halted { reason } => {
                unpublished = Some(format!("relay, halted: {reason}"));
            }
        }
    }
    if let (Some(applied), Some(head)) = (applied, head)
        && probes.is_stuck(applied, head)
    {
        missing.push(stays(applied, head));
    }
    let ready = missing.is_empty();
    // The relay has the better message about a broker that is away.
    let is_cut_off = |broker: &Connection| !broker.is_connected();
    if unpublished.is_none() && probes.broker.as_ref().is_some_and(is_cut_off) {
        missing.push("broker: cannot be reached".to_owned());
    }
    missing.extend(unpublished);
    missing.extend(probes.unsigned.clone());
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let readiness = Readiness {
        ready,
        missing,
        head,
        published,
        applied,
        parked_users,
    };
    // A probe reads this answer, so it has no envelope.
    let body = serde_json::to_string(&readiness).expect("texts and numbers are JSON");
    let json = [(CONTENT_TYPE, "application/json")];
    (status, Extension(AsIs), json, body).into_response()
}

fn stays(applied: Position, head: Position) -> String {
    format!("projection: stays at position {applied} while the ledger is at {head}")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use ledger::store::sqlite::SqliteStore;

    use super::*;

    #[tokio::test]
    async fn documents_that_lag_far_and_do_not_move_are_missing() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("ledger.db"))
            .await
            .unwrap();
        let millis = Arc::new(AtomicI64::new(0));
        let ticking = Arc::clone(&millis);
        let clock =
            Clock::from_fn(move || Time::from_millis(ticking.load(Ordering::Relaxed)).into());
        let probes = Probes::new(Arc::new(store), clock);
        let is_stuck = |at, applied, head| {
            millis.store(at, Ordering::Relaxed);
            probes.is_stuck(applied, head)
        };
        assert!(!is_stuck(0, 5, 2000));
        assert!(!is_stuck(LAG_MILLIS, 5, 2000));
        assert!(is_stuck(LAG_MILLIS + 1, 5, 2000));
        assert!(!is_stuck(LAG_MILLIS + 2, 6, 2000), "it has moved");
        assert!(!is_stuck(3 * LAG_MILLIS, 6, 1000), "it is not far behind");
        assert!(!is_stuck(3 * LAG_MILLIS + 1, 6, 2000));
    }
}
