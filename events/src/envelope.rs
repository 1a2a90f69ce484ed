//! The envelope: one event with its user, its actor and its context, as one CloudEvents 1.0 JSON
//! object. The ledger stores and hashes exactly these bytes and never changes them.

use std::borrow::Cow;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::event::{DecodeError, UserEvent};
use crate::{EventId, Position, Time, UserId, Version};

/// The actor and the client that caused an event. Stored with the event for audits; never used for
/// authorisation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Context {
    /// The kind of caller: `user`, `service`, `admin` or `system`.
    #[serde(rename = "authtype")]
    pub actor_type: String,
    /// The caller: the subject of its token.
    #[serde(rename = "authid")]
    pub actor: String,
    /// Identifies all events that one client request caused.
    #[serde(rename = "correlationid", skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The event or command that caused this one.
    #[serde(rename = "causationid", skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
    /// The W3C trace context of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The client's language, from the header `X-Language`.
    #[serde(rename = "clientlang", skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// The client's time zone, from the header `X-Timezone`.
    #[serde(rename = "clienttz", skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// The client's platform, from the header `X-Platform`.
    #[serde(rename = "clientplatform", skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The client's version, from the header `X-App-Version`.
    #[serde(rename = "clientappver", skip_serializing_if = "Option::is_none")]
    pub app_version: Option<String>,
    /// The client's device, from the header `X-Device-ID`.
    #[serde(rename = "clientdevice", skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// The request's identifier, from the header `X-Request-ID`.
    #[serde(rename = "requestid", skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// The hash of a Merkle leaf (RFC 6962, 2.1): SHA-256 of a zero byte followed by the bytes of the
/// envelope.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeafHash(pub [u8; 32]);

impl LeafHash {
    /// The hash of an envelope's exact bytes.
    pub fn of(envelope: &[u8]) -> Self {
        Self(
            Sha256::new()
                .chain_update([0])
                .chain_update(envelope)
                .finalize()
                .into(),
        )
    }
}

impl std::fmt::Debug for LeafHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// The user's event before this one. Each event names the one before by position and hash, so one
/// proof of the newest event shows that none was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Previous {
    /// The position of the event before.
    pub position: Position,
    /// The hash of its envelope.
    pub hash: LeafHash,
}

/// An event with its position, its user and its context. `Recorded<()>` is an event whose context
/// was not read; a fold does not need the context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded<C = Context> {
    /// The position among all events: 1, 2, 3, … without gaps.
    pub position: Position,
    /// The event's identifier.
    pub event_id: EventId,
    /// The user of the event.
    pub user_id: UserId,
    /// The user's version: 1, 2, 3, … without gaps.
    pub version: Version,
    /// The time of the decision.
    pub time: Time,
    /// The time of the append. It never decreases as the position increases.
    pub recorded_at: Time,
    /// The user's event before it; `None` for the first.
    pub previous: Option<Previous>,
    /// The actor and the client.
    pub context: C,
    /// The event itself.
    pub event: UserEvent,
}

/// An event as the ledger stores it: the exact envelope and the values that it is found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// The position among all events.
    pub position: Position,
    /// The event's identifier.
    pub event_id: EventId,
    /// The user of the event.
    pub user_id: UserId,
    /// The user's version.
    pub version: Version,
    /// The stored name of the event type.
    pub event_type: String,
    /// The schema version of the payload.
    pub schema_version: u32,
    /// The time of the append.
    pub recorded_at: Time,
    /// The exact bytes of the envelope.
    pub envelope: Bytes,
    /// The hash of these bytes.
    pub leaf_hash: LeafHash,
}

// The order of the members is the order of the bytes: never change it. `schema.rs` makes the
// published schema from the comments on the members.
/// An event as a CloudEvents 1.0 JSON object: the change, its user, its times and the client that
/// caused it. Readers must ignore attributes and types that they do not know.
#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct Json<'a> {
    /// The version of CloudEvents.
    #[schemars(extend("const" = "1.0"))]
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    /// The event's permanent identifier: a UUIDv7 (RFC 9562).
    id: EventId,
    /// The service that keeps the ledger.
    #[serde(borrow)]
    source: Cow<'a, str>,
    /// The event type.
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    /// The user of the event.
    subject: UserId,
    /// The time of the decision.
    time: Time,
    /// The media type of `data`.
    #[schemars(extend("const" = "application/json"))]
    #[serde(borrow)]
    datacontenttype: Cow<'a, str>,
    /// The JSON Schema of `data`, as a path on the service: `/schemas/<type>/<schemaversion>.json`.
    #[schemars(extend("format" = "uri-reference"))]
    #[serde(borrow)]
    dataschema: Cow<'a, str>,
    /// The position among all events, from 1, without gaps, in commit order. Written with twenty
    /// digits, so that the texts sort as the numbers do.
    #[schemars(extend("pattern" = "^[0-9]{20}$"))]
    #[serde(borrow)]
    sequence: Cow<'a, str>,
    /// The time of the append. It never decreases as the position increases.
    recordedtime: Time,
    /// The key that orders events: the user, as in `subject`.
    partitionkey: UserId,
    /// The user's version: 1, 2, 3, … without gaps.
    streamversion: Version,
    /// The schema version of `data`.
    schemaversion: u32,
    /// The position of the user's event before this one; absent for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    prevposition: Option<Position>,
    /// The hash of the user's event before this one: SHA-256 of a zero byte and the bytes of its
    /// envelope, in hexadecimal. Absent for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "^[0-9a-f]{64}$"))]
    prevhash: Option<String>,
    // Read separately, only where it is needed.
    #[serde(flatten, skip_deserializing)]
    context: Cow<'a, Context>,
    /// The details of the event, in the shape that `dataschema` names.
    #[serde(borrow)]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    data: &'a RawValue,
}

impl Recorded {
    /// The event as the ledger stores it.
    pub fn to_stored(&self) -> StoredEvent {
        let data = RawValue::from_string(self.event.to_json()).expect("serde_json writes JSON");
        let event_type = self.event.event_type().to_owned();
        let schema_version = self.event.schema_version();
        let envelope = serde_json::to_vec(&Json {
            specversion: "1.0".into(),
            id: self.event_id,
            source: "/profile-ledger".into(),
            r#type: Cow::Borrowed(&event_type),
            subject: self.user_id,
            time: self.time,
            datacontenttype: "application/json".into(),
            dataschema: schema_path(&event_type, schema_version).into(),
            sequence: format!("{:020}", self.position).into(),
            recordedtime: self.recorded_at,
            partitionkey: self.user_id,
            streamversion: self.version,
            schemaversion: schema_version,
            prevposition: self.previous.map(|previous| previous.position),
            prevhash: self.previous.map(|previous| hex::encode(previous.hash.0)),
            context: Cow::Borrowed(&self.context),
            data: &data,
        })
        .expect("envelopes are plain strings and numbers");
        StoredEvent {
            position: self.position,
            event_id: self.event_id,
            user_id: self.user_id,
            version: self.version,
            event_type,
            schema_version,
            recorded_at: self.recorded_at,
            leaf_hash: LeafHash::of(&envelope),
            envelope: envelope.into(),
        }
    }

    /// Reads an envelope.
    pub fn from_envelope(bytes: &[u8]) -> Result<Self, DecodeError> {
        let recorded = Recorded::without_context(bytes)?;
        Ok(Self {
            position: recorded.position,
            event_id: recorded.event_id,
            user_id: recorded.user_id,
            version: recorded.version,
            time: recorded.time,
            recorded_at: recorded.recorded_at,
            previous: recorded.previous,
            context: serde_json::from_slice(bytes)?,
            event: recorded.event,
        })
    }
}

impl Recorded<()> {
    /// Reads an envelope without its context. The context is not even checked for presence.
    pub fn without_context(bytes: &[u8]) -> Result<Self, DecodeError> {
        // Without this check serde would also accept a list of the members' values.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(malformed("the envelope is not a JSON object"));
        }
        let json: Json<'_> = serde_json::from_slice(bytes)?;
        let position = json
            .sequence
            .parse()
            .map_err(|_| malformed("sequence is not a number"))?;
        let previous = match (json.prevposition, json.prevhash) {
            (Some(position), Some(text)) => {
                let mut hash = [0; 32];
                hex::decode_to_slice(&text, &mut hash)
                    .map_err(|_| malformed("prevhash is not a SHA-256"))?;
                Some(Previous {
                    position,
                    hash: LeafHash(hash),
                })
            }
            (None, None) => None,
            _ => return Err(malformed("prevposition and prevhash go together")),
        };
        Ok(Self {
            position,
            event_id: json.id,
            user_id: json.subject,
            version: json.streamversion,
            time: json.time,
            recorded_at: json.recordedtime,
            previous,
            context: (),
            event: UserEvent::from_json(&json.r#type, json.schemaversion, json.data.get())?,
        })
    }
}

/// The path on the service that serves the JSON Schema of a shape.
pub(crate) fn schema_path(name: &str, version: u32) -> String {
    format!("/schemas/{name}/{version}.json")
}

fn malformed(reason: &str) -> DecodeError {
    DecodeError::Malformed(serde::de::Error::custom(reason))
}

impl StoredEvent {
    /// Reads the envelope.
    pub fn decode(&self) -> Result<Recorded, DecodeError> {
        Recorded::from_envelope(&self.envelope)
    }

    /// Reads the envelope without its context, which is faster.
    pub fn decode_without_context(&self) -> Result<Recorded<()>, DecodeError> {
        Recorded::without_context(&self.envelope)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{Change, ProfileUpdated, UsernameChanged};

    /// Any event with any texts in it.
    fn recorded(
        (position, version): (Position, Version),
        millis: i64,
        text: String,
        is_first: bool,
        is_rename: bool,
    ) -> Recorded {
        let time = Time::from_millis(millis);
        let event = if is_rename {
            UserEvent::UsernameChanged(UsernameChanged {
                before: text.clone(),
                after: text.chars().rev().collect(),
                held_until: time.plus_days(30),
            })
        } else {
            UserEvent::ProfileUpdated(Box::new(ProfileUpdated {
                bio: Change::between(&None, &Some(text.clone())),
                interests: Change::between(&vec![], &vec![text.clone()]),
                ..ProfileUpdated::default()
            }))
        };
        let given = Some(text.clone()).filter(|_| !is_first);
        Recorded {
            position,
            event_id: EventId::new(time, [7; 10]),
            user_id: UserId::new(time, [7; 8]),
            version,
            time,
            recorded_at: time,
            previous: (!is_first).then(|| Previous {
                position: position.saturating_sub(1),
                hash: LeafHash::of(text.as_bytes()),
            }),
            context: Context {
                actor_type: "user".to_owned(),
                actor: text,
                device_id: given.clone(),
                app_version: given,
                ..Context::default()
            },
            event,
        }
    }

    fn any_recorded() -> impl Strategy<Value = Recorded> {
        (
            any::<(Position, Version)>(),
            any::<i64>(),
            any::<String>(),
            any::<bool>(),
            any::<bool>(),
        )
            .prop_map(|(numbers, millis, text, is_first, is_rename)| {
                recorded(numbers, millis, text, is_first, is_rename)
            })
    }

    #[test]
    fn a_json_list_is_not_an_envelope() {
        let members = r#"["1.0","0190a5f0-0000-7000-8000-000000000000","/","username-changed","507f1f77bcf86cd799439011","2026-01-01T00:00:00.000Z","application/json","/","00000000000000000001","2026-01-01T00:00:00.000Z","507f1f77bcf86cd799439011",1,1,null,null,{"before":"a","after":"b","heldUntil":"2026-01-01T00:00:00.000Z"}]"#;
        assert!(serde_json::from_str::<Json<'_>>(members).is_ok());
        assert!(Recorded::without_context(members.as_bytes()).is_err());
        assert!(Recorded::from_envelope(members.as_bytes()).is_err());
    }

    #[test]
    fn an_event_read_without_its_context_is_otherwise_the_same() {
        let event = recorded((1, 1), 5, "text".to_owned(), true, false).to_stored();
        let text = std::str::from_utf8(&event.envelope).unwrap();
        let without = text.replace("authid", "another");
        assert_ne!(text, without);
        assert!(Recorded::from_envelope(without.as_bytes()).is_err());
        let recorded = event.decode().unwrap();
        let read = Recorded::without_context(without.as_bytes()).unwrap();
        assert_eq!(
            (read.position, read.user_id, read.version),
            (recorded.position, recorded.user_id, recorded.version)
        );
        assert_eq!(
            (read.event_id, read.time, read.recorded_at),
            (recorded.event_id, recorded.time, recorded.recorded_at)
        );
        assert_eq!(
            (read.previous, read.event),
            (recorded.previous, recorded.event)
        );
    }

    proptest! {
        #[test]
        fn any_event_reads_back_as_it_was_written(recorded in any_recorded()) {
            let stored = recorded.to_stored();
            prop_assert_eq!(stored.decode().unwrap(), recorded);
            prop_assert_eq!(LeafHash::of(&stored.envelope), stored.leaf_hash);
        }

        #[test]
        fn any_bytes_are_an_event_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Recorded::from_envelope(&bytes);
        }

        #[test]
        fn an_envelope_with_any_other_byte_is_an_event_or_an_error(
            recorded in any_recorded(), at in any::<prop::sample::Index>(), byte in any::<u8>(), is_cut in any::<bool>(),
        ) {
            let mut bytes = recorded.to_stored().envelope.to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if is_cut {
                bytes.truncate(at);
                prop_assert!(Recorded::from_envelope(&bytes).is_err());
            } else if let Ok(other) = Recorded::from_envelope(&bytes) {
                prop_assert_eq!(other.to_stored().decode().unwrap(), other);
            }
        }
    }
}
