#![doc = include_str!("../README.md")]

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use http_kit::caller::Verifier;
use http_kit::clock::Clock;
use ledger::merkle::LogStore;
use ledger::photos::PhotoStore;
use ledger::store::History;
use ledger::trail::AuditTrail;
use projector::Documents;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;

pub mod asyncapi;
pub mod changes;
mod hot_documents;
mod routes;
mod streams;
#[cfg(test)]
mod testing;

use hot_documents::HotDocuments;
pub use streams::Streams;

/// The dependencies of the routes.
pub struct QueryApi {
    /// The user documents.
    pub documents: Arc<dyn Documents>,
    /// The ledger, for histories and for the exact answer whether a username is free.
    pub history: Arc<dyn History>,
    /// The record of reads of histories. Nothing else is written here.
    pub trail: Arc<dyn AuditTrail>,
    /// Hashes and signed checkpoints of the ledger.
    pub log: Arc<dyn LogStore>,
    /// The slots for streams and exports.
    pub streams: Streams,
    /// The bytes of photos.
    pub photo_store: PhotoStore,
    /// Verifies the tokens of callers.
    pub verifier: Arc<Verifier>,
    /// Tells the time.
    pub clock: Clock,
    /// The URL of the service for clients, without a slash at the end.
    pub public_url: Arc<str>,
}

/// The dependencies, shared by all requests.
#[derive(Clone)]
struct Shared(Arc<(QueryApi, HotDocuments)>);

impl Shared {
    /// The user documents. Recently read ones come from memory.
    fn hot(&self) -> &HotDocuments {
        &self.0.1
    }
}

impl Deref for Shared {
    type Target = QueryApi;

    fn deref(&self) -> &QueryApi {
        &self.0.0
    }
}

impl FromRef<Shared> for Arc<Verifier> {
    fn from_ref(api: &Shared) -> Self {
        Self::clone(&api.verifier)
    }
}

/// The reading routes. A runtime must be running.
pub fn router(api: QueryApi) -> Router {
    let hot = HotDocuments::new(Arc::clone(&api.documents), Arc::clone(&api.history));
    routes::router().with_state(Shared(Arc::new((api, hot))))
}

/// The OpenAPI description of the reading routes.
pub fn openapi() -> OpenApi {
    routes::Described::openapi()
}

/// Every English sentence of the page for auditors, of the AsyncAPI document and of the schemas of events.
pub fn sentences() -> BTreeSet<String> {
    let mut sentences = asyncapi::sentences();
    sentences.extend(routes::sentences());
    sentences
}
