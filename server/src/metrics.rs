//! `GET /metrics`: numbers in the Prometheus format.
//!
//! Counters and histograms are recorded where things happen. Positions and lags are read when they are
//! asked for, so that an idle process tells them, too.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::anyhow;
use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use events::Position;
use events::envelope::StoredEvent;
use http_kit::openapi::{self, Fails};
use ledger::relay;
use metrics::{describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::sync::SetOnce;
use utoipa::IntoResponses;
use utoipa::openapi::{self as described, RefOr};

use crate::health::Probes;

use early::Early;

mod early;

/// Bounds of histograms of times, in seconds: from a hit in memory to a slow upload.
const SECONDS: [f64; 14] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0,
];
/// Bounds of the histogram of batches: the committer takes 512 commands at the most.
const COMMANDS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// What was recorded in this process, once it can be told.
pub(crate) type Collected = Arc<SetOnce<PrometheusHandle>>;

/// Collects whatever is recorded in this process from now on.
pub(crate) fn install() -> anyhow::Result<Collected> {
    let batches = metrics_exporter_prometheus::Matcher::Suffix("_commands".to_owned());
    let builder = PrometheusBuilder::new()
        .set_buckets(&SECONDS)?
        .set_buckets_for_metric(batches, &COMMANDS)?;
    let early = Early::new();
    metrics::set_global_recorder(early.clone())
        .map_err(|_| anyhow!("another recorder is there"))?;
    let collected = Collected::default();
    let told = Arc::clone(&collected);
    std::thread::spawn(move || {
        let exporter = builder.build_recorder();
        metrics::with_local_recorder(&exporter, describe);
        let handle = exporter.handle();
        early.hand_on_to(exporter);
        // It is set here only.
        let _ = told.set(handle);
    });
    Ok(collected)
}

fn describe() {
    describe_counter!(
        "profile_ledger_commands_total",
        "Commands by operation and outcome"
    );
    describe_histogram!(
        "profile_ledger_command_seconds",
        "From the queue to the answer of a command"
    );
    describe_histogram!(
        "profile_ledger_commit_seconds",
        "One append of the commit loop"
    );
    describe_histogram!(
        "profile_ledger_commit_commands",
        "Commands decided in one batch"
    );
    describe_counter!(
        "profile_ledger_commit_resyncs_total",
        "Batches decided again because another process had appended"
    );
    describe_histogram!("profile_ledger_photo_seconds", "Stages of an upload");
    describe_histogram!(
        "profile_ledger_http_seconds",
        "Requests by route and status"
    );
    describe_gauge!(
        "profile_ledger_head_position",
        "The last position of the ledger"
    );
    describe_gauge!(
        "profile_ledger_projection_position",
        "The position up to which the documents are folded"
    );
    describe_gauge!(
        "profile_ledger_projection_lag_events",
        "Events that the documents are behind the ledger"
    );
    describe_gauge!(
        "profile_ledger_projection_lag_seconds",
        "Age of the oldest event that is not folded yet"
    );
    describe_gauge!(
        "profile_ledger_relay_position",
        "The position up to which the ledger is published"
    );
    describe_gauge!(
        "profile_ledger_relay_lag_events",
        "Events that the stream is behind the ledger"
    );
    describe_gauge!(
        "profile_ledger_relay_lag_seconds",
        "Age of the oldest event that is not published yet"
    );
    describe_gauge!(
        "profile_ledger_relay_halted",
        "1 when the relay has found a divergence and stopped"
    );
    describe_gauge!(
        "profile_ledger_parked_users",
        "Users whose events cannot be folded"
    );
}

pub(crate) fn router(collected: Collected, probes: Probes) -> Router {
    Router::new()
        .route("/metrics", get(render))
        .with_state((collected, probes))
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
pub(crate) async fn render(
    State((collected, probes)): State<(Collected, Probes)>,
) -> impl IntoResponse {
    let handle = collected.wait().await;
    observe(&probes).await;
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4")],
        handle.render(),
    )
}

/// The numbers described.
struct Numbers;

impl IntoResponses for Numbers {
    fn responses() -> BTreeMap<String, RefOr<described::Response>> {
        let example =
            "# TYPE profile_ledger_head_position gauge\nprofile_ledger_head_position 42\n";
        let answer = openapi::text("The numbers.", "text/plain", example);
        BTreeMap::from([("200".to_owned(), answer.build().into())])
    }
}

/// What cannot be read keeps its last value; `/readyz` says why.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
async fn observe(probes: &Probes) {
    let Ok(head) = probes.history.head().await else {
        return;
    };
    gauge!("profile_ledger_head_position").set(head.position as f64);
    if let Some(documents) = &probes.documents
        && let Ok(parked) = documents.parked().await
    {
        gauge!("profile_ledger_parked_users").set(parked.len() as f64);
    }
    if let Some(relay) = &probes.relay {
        let health = relay.borrow().clone();
        let lag = head.position.saturating_sub(health.published);
        let is_halted = matches!(health.state, relay::State::Halted { .. });
        gauge!("profile_ledger_relay_position").set(health.published as f64);
        gauge!("profile_ledger_relay_lag_events").set(lag as f64);
        let seconds = waiting_seconds(probes, health.published, head.position).await;
        gauge!("profile_ledger_relay_lag_seconds").set(seconds);
        gauge!("profile_ledger_relay_halted").set(f64::from(u8::from(is_halted)));
    }
    let Some(applied) = probes.applied() else {
        return;
    };
    let lag = head.position.saturating_sub(applied);
    gauge!("profile_ledger_projection_position").set(applied as f64);
    gauge!("profile_ledger_projection_lag_events").set(lag as f64);
    let seconds = waiting_seconds(probes, applied, head.position).await;
    gauge!("profile_ledger_projection_lag_seconds").set(seconds);
}

/// How long the oldest event after a position has been in the ledger.
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
