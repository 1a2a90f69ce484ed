//! `GET /metrics`: numbers in the Prometheus format.
//!
//! The place where something happens records counters and histograms. A request reads positions and lags, so that an
//! idle process reports them, too.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use events::Position;
use events::envelope::StoredEvent;
use http_kit::metrics;
use http_kit::openapi::{self, Fails};
use ledger::relay;
use utoipa::IntoResponses;
use utoipa::openapi::{self as described, RefOr};

use crate::health::Probes;

pub(crate) fn router(probes: Probes) -> Router {
    Router::new()
        .route("/metrics", get(render))
        .with_state(probes)
}

/// Numbers
///
/// Counters, histograms and positions, in the Prometheus format.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "getMetrics",
    tag = "Operations",
    responses(Numbers, Fails<()>),
    security()
)]
pub(crate) async fn render(State(probes): State<Probes>) -> impl IntoResponse {
    observe(&probes).await;
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4")],
        metrics::render(),
    )
}

/// The description of the answer.
struct Numbers;

impl IntoResponses for Numbers {
    fn responses() -> BTreeMap<String, RefOr<described::Response>> {
        let example =
            "# TYPE profile_ledger_head_position gauge\nprofile_ledger_head_position 42\n";
        let answer = openapi::text("The numbers.", "text/plain", example);
        BTreeMap::from([("200".to_owned(), answer.build().into())])
    }
}

/// Sets the gauges. A value that cannot be read stays as it was; `/readyz` has the reason.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
async fn observe(probes: &Probes) {
    let Ok(head) = probes.history.head().await else {
        return;
    };
    metrics::HEAD_POSITION.set(head.position as f64);
    if let Some(documents) = &probes.documents
        && let Ok(parked) = documents.parked().await
    {
        metrics::PARKED_USERS.set(parked.len() as f64);
    }
    if let Some(relay) = &probes.relay {
        let health = relay.borrow().clone();
        let lag = head.position.saturating_sub(health.published);
        let is_halted = matches!(health.state, relay::State::Halted { .. });
        metrics::RELAY_POSITION.set(health.published as f64);
        metrics::RELAY_LAG_EVENTS.set(lag as f64);
        let seconds = waiting_seconds(probes, health.published, head.position).await;
        metrics::RELAY_LAG_SECONDS.set(seconds);
        metrics::RELAY_HALTED.set(f64::from(u8::from(is_halted)));
    }
    let Some(applied) = probes.applied() else {
        return;
    };
    let lag = head.position.saturating_sub(applied);
    metrics::PROJECTION_POSITION.set(applied as f64);
    metrics::PROJECTION_LAG_EVENTS.set(lag as f64);
    let seconds = waiting_seconds(probes, applied, head.position).await;
    metrics::PROJECTION_LAG_SECONDS.set(seconds);
}

/// The age of the oldest event after a position.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
async fn waiting_seconds(probes: &Probes, after: Position, head: Position) -> f64 {
    if after >= head {
        return 0.0;
    }
    let Ok(events) = probes.history.read(after, 1).await else {
        return 0.0;
    };
    let now = events::Time::from(probes.clock.now());
    let age = |oldest: &StoredEvent| now.millis() - oldest.recorded_at.millis();
    events.first().map_or(0, age).max(0) as f64 / 1000.0
}
