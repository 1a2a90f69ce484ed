#![doc = include_str!("../README.md")]

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use events::log::LogStore;
use events::photos::PhotoStore;
use events::store::History;
use events::trail::AuditTrail;
use http_kit::caller::Verifier;
use http_kit::clock::Clock;
use projector::Documents;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;

pub mod asyncapi;
mod routes;
mod streams;
#[cfg(test)]
mod testing;

pub use streams::Streams;

/// What the routes need.
#[derive(Clone)]
pub struct QueryApi {
    /// The user documents.
    pub documents: Arc<dyn Documents>,
    /// The ledger, for histories and for what must be known exactly: who holds a name.
    pub history: Arc<dyn History>,
    /// Who looked at whose history: the only thing that is written here.
    pub trail: Arc<dyn AuditTrail>,
    /// Hashes and signed checkpoints of the ledger.
    pub log: Arc<dyn LogStore>,
    /// Answers that go on for long.
    pub streams: Streams,
    /// The bytes of photos.
    pub photo_store: PhotoStore,
    /// Knows who calls.
    pub verifier: Arc<Verifier>,
    /// Knows the time.
    pub clock: Clock,
    /// Where clients reach the service, without a slash at the end.
    pub public_url: Arc<str>,
}

impl FromRef<QueryApi> for Arc<Verifier> {
    fn from_ref(api: &QueryApi) -> Self {
        Self::clone(&api.verifier)
    }
}

/// The routes that only read.
pub fn router(api: QueryApi) -> Router {
    routes::router().with_state(api)
}

/// The routes that only read, described.
pub fn openapi() -> OpenApi {
    routes::Described::openapi()
}
