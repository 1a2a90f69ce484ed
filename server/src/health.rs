//! `GET /healthz`: the process lives. `GET /readyz`: it can do its work, and what is missing if not.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use events::Position;
use events::store::History;
use http_kit::serve::AsIs;
use projector::Documents;
use projector::projection::{Health, State as ProjectionState};
use serde::Serialize;
use tokio::sync::watch;

/// What readiness depends on.
#[derive(Clone)]
pub(crate) struct Probes {
    pub(crate) history: Arc<dyn History>,
    pub(crate) documents: Arc<dyn Documents>,
    pub(crate) projection: watch::Receiver<Health>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Readiness {
    ready: bool,
    /// What is missing, for a person.
    missing: Vec<String>,
    head: Option<Position>,
    applied: Position,
    parked_users: Option<usize>,
}

pub(crate) fn router(probes: Probes) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(probes)
}

async fn ready(State(probes): State<Probes>) -> Response {
    let mut missing = Vec::new();
    let head = match probes.history.head().await {
        Ok(head) => Some(head.position),
        Err(error) => {
            missing.push(format!("ledger: {error}"));
            None
        }
    };
    let parked_users = match probes.documents.parked().await {
        Ok(parked) => Some(parked.len()),
        Err(error) => {
            missing.push(format!("read model: {error}"));
            None
        }
    };
    let health = probes.projection.borrow().clone();
    match health.state {
        ProjectionState::Running => {}
        ProjectionState::Retrying { error } => {
            missing.push(format!("projection, trying again: {error}"));
        }
        ProjectionState::Stopped { error } => missing.push(format!("projection, stopped: {error}")),
    }
    let ready = missing.is_empty();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    // A probe reads what is missing, not an envelope.
    (
        status,
        Extension(AsIs),
        Json(Readiness {
            ready,
            missing,
            head,
            applied: health.applied,
            parked_users,
        }),
    )
        .into_response()
}
