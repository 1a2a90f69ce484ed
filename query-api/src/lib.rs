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

/// What the routes need.
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

/// The same, as requests share it.
#[derive(Clone)]
struct Shared(Arc<(QueryApi, HotDocuments)>);

impl Shared {
    /// The user documents, those that were read last from memory.
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

/// The routes that only read. Their runtime must be running.
pub fn router(api: QueryApi) -> Router {
    let hot = HotDocuments::new(Arc::clone(&api.documents), Arc::clone(&api.history));
    routes::router().with_state(Shared(Arc::new((api, hot))))
}

/// The routes that only read, described.
pub fn openapi() -> OpenApi {
    routes::Described::openapi()
}

/// Every English sentence of the page for auditors, of the AsyncAPI document and of the schemas of events.
pub fn sentences() -> BTreeSet<String> {
    let mut sentences = asyncapi::sentences();
    sentences.extend(routes::sentences());
    sentences
}
