//! The identifiers of users, photos and events.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is not an identifier of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not 24 lower-case hexadecimal digits")]
pub struct InvalidId;

/// Twelve bytes, written as 24 lower-case hexadecimal digits: four bytes of Unix seconds, then
/// eight random bytes. Identifiers of one service therefore sort by creation time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct ObjectId([u8; 12]);

impl ObjectId {
    fn new(made: crate::Time, random: [u8; 8]) -> Self {
        let seconds = u32::try_from(made.millis().div_euclid(1000)).unwrap_or(u32::MAX);
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&seconds.to_be_bytes());
        bytes[4..].copy_from_slice(&random);
        Self(bytes)
    }

    fn parse(text: &str) -> Result<Self, InvalidId> {
        // `hex` would also accept upper case. One spelling per user keeps keys and URLs unique.
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(InvalidId);
        }
        let mut bytes = [0; 12];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidId)?;
        Ok(Self(bytes))
    }
}

macro_rules! object_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(ObjectId);

        impl $name {
            /// Makes an identifier from its creation time and eight random bytes.
            pub fn new(made: crate::Time, random: [u8; 8]) -> Self {
                Self(ObjectId::new(made, random))
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                ObjectId::parse(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut text = [0; 24];
                hex::encode_to_slice(self.0.0, &mut text).map_err(|_| fmt::Error)?;
                f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "pattern": "^[0-9a-f]{24}$"})
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::text::deserialize(deserializer)
            }
        }
    };
}

object_id! {
    /// A user's permanent identifier: 24 lower-case hexadecimal digits.
    UserId
}

object_id! {
    /// The identifier of one photo change: 24 lower-case hexadecimal digits, new for each change.
    PhotoId
}

impl UserId {
    /// The shard of the user's subject, `0..64`: the first six bits of SHA-256 of the identifier's
    /// text. All events of a user are in one shard, so a consumer of one shard sees the events of
    /// each of its users in order.
    pub fn shard(&self) -> u8 {
        use sha2::Digest as _;
        sha2::Sha256::digest(self.to_string().as_bytes())[0] >> 2
    }
}

/// An event's permanent identifier: a UUIDv7 (RFC 9562).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(uuid::Uuid);

impl EventId {
    /// Makes an identifier from the event's time and ten random bytes.
    pub fn new(time: crate::Time, random: [u8; 10]) -> Self {
        let millis = u64::try_from(time.millis()).unwrap_or(0);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }
}

/// A text that is not an identifier of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID in lower case with hyphens")]
pub struct InvalidEventId;

impl JsonSchema for EventId {
    fn schema_name() -> Cow<'static, str> {
        "EventId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "uuid"})
    }
}

impl FromStr for EventId {
    type Err = InvalidEventId;
    /// Accepts one text per identifier: that of [`Display`](fmt::Display).
    fn from_str(text: &str) -> Result<Self, InvalidEventId> {
        let id = text.parse().map(Self).map_err(|_| InvalidEventId)?;
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(InvalidEventId)
        }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Time;
    use proptest::prelude::*;

    #[test]
    fn an_event_id_has_one_text() {
        let id = EventId::new(Time::from_millis(1), [0xab; 10]);
        let text = id.to_string();
        assert_eq!(text.parse(), Ok(id));
        for other in [
            text.to_uppercase(),
            text.replace('-', ""),
            format!("{{{text}}}"),
        ] {
            assert_eq!(other.parse::<EventId>(), Err(InvalidEventId));
        }
    }

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        let id: UserId = "507f1f77bcf86cd799439011".parse().unwrap();
        assert_eq!(id.to_string(), "507f1f77bcf86cd799439011");
        assert_eq!(
            serde_json::to_string(&id).unwrap(),
            "\"507f1f77bcf86cd799439011\""
        );
    }

    #[test]
    fn upper_case_short_and_long_texts_are_not_ids() {
        for bad in [
            "",
            "507F1f77bcf86cd799439011",
            "507f1f77bcf86cd79943901",
            "507f1f77bcf86cd7994390111",
            "zz7f1f77bcf86cd799439011",
        ] {
            assert_eq!(bad.parse::<UserId>(), Err(InvalidId), "{bad}");
        }
    }

    #[test]
    fn ids_made_later_sort_later() {
        let early = UserId::new(Time::from_millis(1_000), [255; 8]);
        let late = UserId::new(Time::from_millis(2_000), [0; 8]);
        assert!(early.to_string() < late.to_string());
    }

    proptest! {
        #[test]
        fn any_text_is_an_id_or_an_error(text in ".{0,40}") {
            if let Ok(id) = text.parse::<UserId>() {
                prop_assert_eq!(id.to_string(), text);
                prop_assert!(id.shard() < 64);
            }
        }
    }
}
