#![doc = include_str!("../README.md")]

pub mod changes;
pub mod document;
pub mod envelope;
pub mod fail_point;
pub mod feed;
mod ids;
pub mod log;
pub mod message;
pub mod photos;
pub mod postgres;
pub mod profile;
pub mod read_ahead;
pub mod relay;
pub mod replay;
pub mod schema;
pub mod sqlite;
pub mod store;
pub mod stream;
#[cfg(test)]
mod test_ledger;
#[cfg(any(test, feature = "test-servers"))]
pub mod test_servers;
mod text;
mod time;
pub mod trail;
pub mod user;
pub mod username;

pub use document::Document;
pub use envelope::{Context, LeafHash, Recorded, StoredEvent};
pub use ids::{EventId, InvalidEventId, InvalidId, PhotoId, UserId};
pub use time::{InvalidTime, Time};
pub use user::UserEvent;
pub use username::Username;

/// The place of an event among all events: 1, 2, 3, … without a gap, in commit order.
/// 0 is the place before the first.
pub type Position = u64;

/// The place of an event among the events of its user: 1, 2, 3, … without a gap.
pub type Version = u64;

/// An error and its sources on one line: what a loop that goes on without a caller logs and tells.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !line.ends_with(&more) {
            line.push_str(": ");
            line.push_str(&more);
        }
        source = error.source();
    }
    line
}
