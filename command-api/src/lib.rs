#![doc = include_str!("../README.md")]

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use http_kit::caller::Verifier;
use http_kit::clock::Clock;
use ledger::photos::PhotoStore;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;

pub mod committer;
pub mod photo_sweep;
mod routes;
#[cfg(test)]
mod testing;
pub mod user;
pub mod values;

pub use committer::Committer;

/// The dependencies of the routes.
#[derive(Clone)]
pub struct CommandApi {
    /// Decides commands and appends events.
    pub committer: Committer,
    /// Authenticates callers.
    pub verifier: Arc<Verifier>,
    /// Gives the time.
    pub clock: Clock,
    /// Gives new identifiers their random part.
    pub randomness: Randomness,
    /// Makes renditions of uploads.
    pub photos: Arc<photo::Photos>,
    /// Stores renditions.
    pub photo_store: PhotoStore,
    /// The uploads in progress.
    pub uploads: Uploads,
    /// The URL of the service for clients, without a final slash.
    pub public_url: Arc<str>,
}

pub use routes::photo::Uploads;

impl FromRef<CommandApi> for Arc<Verifier> {
    fn from_ref(api: &CommandApi) -> Self {
        Self::clone(&api.verifier)
    }
}

/// The routes that change users.
pub fn router(api: CommandApi) -> Router {
    routes::router().with_state(api)
}

/// The OpenAPI description of these routes.
pub fn openapi() -> OpenApi {
    routes::ApiDocument::openapi()
}

/// A source of random bytes. It is passed in, so that tests can use known bytes.
#[derive(Clone)]
pub struct Randomness(Arc<Fill>);

type Fill = dyn Fn(&mut [u8]) + Send + Sync;

impl Randomness {
    /// A source that calls `fill` for each request.
    pub fn new(fill: impl Fn(&mut [u8]) + Send + Sync + 'static) -> Self {
        Self(Arc::new(fill))
    }

    /// The next bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        (self.0)(&mut bytes);
        bytes
    }
}
