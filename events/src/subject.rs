//! The names that events are published under: the JetStream stream and its subjects,
//! `profiles.v1.<p00..p63>.<event-type>`.

use crate::UserId;

/// The name of the stream.
pub const STREAM: &str = "PROFILES";

/// The subject of an event of a user.
pub fn of(user: &UserId, event_type: &str) -> String {
    of_shard(&shard(user.shard()), event_type)
}

/// The subject of an event type in a shard of [`shards`]. Either may be a wildcard or a
/// placeholder.
pub fn of_shard(shard: &str, event_type: &str) -> String {
    format!("profiles.v1.{shard}.{event_type}")
}

/// The names of all shards in subjects: `p00` to `p63`.
pub fn shards() -> impl Iterator<Item = String> {
    (0..64).map(shard)
}

fn shard(number: u8) -> String {
    format!("p{number:02}")
}
