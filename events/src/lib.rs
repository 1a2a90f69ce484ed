#![doc = include_str!("../README.md")]

pub mod document;
pub mod envelope;
pub mod event;
mod ids;
pub mod message;
pub mod photo_key;
pub mod profile;
pub mod schema;
pub mod subject;
mod text;
mod time;

pub use document::Document;
pub use envelope::{Context, LeafHash, Recorded, StoredEvent};
pub use event::UserEvent;
pub use ids::{EventId, InvalidEventId, InvalidId, PhotoId, UserId};
pub use time::{InvalidTime, Time};

/// The position of an event among all events: 1, 2, 3, … without gaps, in commit order. 0 is the
/// position before the first event.
pub type Position = u64;

/// The version of an event among the events of its user: 1, 2, 3, … without gaps.
pub type Version = u64;

/// An error and its sources on one line, for loops that log an error and go on.
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
