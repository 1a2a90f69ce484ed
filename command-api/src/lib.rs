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

/// What the routes need.
#[derive(Clone)]
pub struct CommandApi {
    /// Decides and appends.
    pub committer: Committer,
    /// Knows who calls.
    pub verifier: Arc<Verifier>,
    /// Knows the time.
    pub clock: Clock,
    /// Gives new identifiers their random part.
    pub randomness: Randomness,
    /// Makes renditions of uploads.
    pub photos: Arc<photo::Photos>,
    /// Keeps renditions.
    pub photo_store: PhotoStore,
    /// Which uploads are under way.
    pub uploads: Uploads,
    /// Where clients reach the service, without a slash at the end.
    pub public_url: Arc<str>,
}

pub use routes::photo::Uploads;

impl FromRef<CommandApi> for Arc<Verifier> {
    fn from_ref(api: &CommandApi) -> Self {
        Self::clone(&api.verifier)
    }
}

/// The routes that change something.
pub fn router(api: CommandApi) -> Router {
    routes::router().with_state(api)
}

/// The routes that change something, described.
pub fn openapi() -> OpenApi {
    routes::Described::openapi()
}

/// A source of random bytes, handed in from the edge so that tests can know what comes.
#[derive(Clone)]
pub struct Randomness(Arc<Fill>);

type Fill = dyn Fn(&mut [u8]) + Send + Sync;

impl Randomness {
    /// A source that fills what it is given.
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
