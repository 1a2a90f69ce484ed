//! The envelope: an event, what it happened to, who made it happen and from where, as one
//! CloudEvents 1.0 JSON object. Its bytes are what the ledger keeps, hashes and never changes.

use std::borrow::Cow;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::event::{DecodeError, UserEvent};
use crate::{EventId, Position, Time, UserId, Version};

/// Who made an event happen, and from where. Kept with the event for audits; never used to
/// authorise anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Context {
    /// What kind of caller it was: `user`, `service`, `admin` or `system`.
    #[serde(rename = "authtype")]
    pub actor_type: String,
    /// The caller: the subject of its token.
    #[serde(rename = "authid")]
    pub actor: String,
    /// Ties together everything that one request of a client caused.
    #[serde(rename = "correlationid", skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The event or command that caused this one.
    #[serde(rename = "causationid", skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
    /// The W3C trace context of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The client's language, its header `X-Language`.
    #[serde(rename = "clientlang", skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// The client's time zone, its header `X-Timezone`.
    #[serde(rename = "clienttz", skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// What the client runs on, its header `X-Platform`.
    #[serde(rename = "clientplatform", skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The client's version, its header `X-App-Version`.
    #[serde(rename = "clientappver", skip_serializing_if = "Option::is_none")]
    pub app_version: Option<String>,
    /// The client's device, its header `X-Device-ID`.
    #[serde(rename = "clientdevice", skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// The request, its header `X-Request-ID`.
    #[serde(rename = "requestid", skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// SHA-256 of a Merkle leaf (RFC 6962, 2.1): of a zero byte and then the envelope's bytes.
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

/// The user's event before this one: each event names it by position and hash, so that one proof
/// of the newest shows that none was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Previous {
    /// Where it is.
    pub position: Position,
    /// The hash of its envelope.
    pub hash: LeafHash,
}

/// An event with its place in the ledger, its user and its context; `Recorded<()>` where nobody asks for the context,
/// as what folds events does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded<C = Context> {
    /// Its place among all events, from 1, without a gap.
    pub position: Position,
    /// Its name.
    pub event_id: EventId,
    /// The user that it happened to.
    pub user_id: UserId,
    /// Its place among the events of the user, from 1, without a gap.
    pub version: Version,
    /// When it was decided.
    pub time: Time,
    /// When it was appended; never goes back as the position rises.
    pub recorded_at: Time,
    /// The user's event before it; `None` for the first.
    pub previous: Option<Previous>,
    /// Who and from where.
    pub context: C,
    /// What happened.
    pub event: UserEvent,
}

/// An event as the ledger keeps it: the exact envelope, and what it is found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its place among all events.
    pub position: Position,
    /// Its name.
    pub event_id: EventId,
    /// The user that it happened to.
    pub user_id: UserId,
    /// Its place among the events of the user.
    pub version: Version,
    /// The stored name of its type.
    pub event_type: String,
    /// The version of its payload's shape.
    pub schema_version: u32,
    /// When it was appended.
    pub recorded_at: Time,
    /// The exact bytes.
    pub envelope: Bytes,
    /// The hash of the exact bytes.
    pub leaf_hash: LeafHash,
}

// The order of the members is the order of the bytes: never change it. What is written above the
// members is for readers; `schema.rs` makes the published schema of it.
/// An event as a CloudEvents 1.0 JSON object: what happened, to whom, when, by whom and from where.
/// A reader passes over attributes and types that it does not know.
#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct Json<'a> {
    /// The version of CloudEvents.
    #[schemars(extend("const" = "1.0"))]
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    /// Names the event for ever: a UUIDv7 (RFC 9562).
    id: EventId,
    /// The service whose ledger it is in.
    #[serde(borrow)]
    source: Cow<'a, str>,
    /// What happened.
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    /// The user that it happened to.
    subject: UserId,
    /// When it was decided.
    time: Time,
    /// The form of `data`.
    #[schemars(extend("const" = "application/json"))]
    #[serde(borrow)]
    datacontenttype: Cow<'a, str>,
    /// The JSON Schema of `data`, a path on the service: `/schemas/<type>/<schemaversion>.json`.
    #[schemars(extend("format" = "uri-reference"))]
    #[serde(borrow)]
    dataschema: Cow<'a, str>,
    /// The position: the event's place among all events, from 1, without a gap, in the order of
    /// commits. In twenty digits, so that texts sort as numbers do.
    #[schemars(extend("pattern" = "^[0-9]{20}$"))]
    #[serde(borrow)]
    sequence: Cow<'a, str>,
    /// When it was appended; never goes back as the position rises.
    recordedtime: Time,
    /// What orders it: the user, as in `subject`.
    partitionkey: UserId,
    /// The user's version: the event's place among those of the user, from 1, without a gap.
    streamversion: Version,
    /// The version of the shape of `data`.
    schemaversion: u32,
    /// Where the user's event before this one is; absent for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    prevposition: Option<Position>,
    /// The hash of the user's event before this one: SHA-256 of a zero byte and its envelope's bytes,
    /// in hexadecimal; absent for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "^[0-9a-f]{64}$"))]
    prevhash: Option<String>,
    // Read by itself, where it is asked for.
    #[serde(flatten, skip_deserializing)]
    context: Cow<'a, Context>,
    /// What happened in detail, in the shape that `dataschema` names.
    #[serde(borrow)]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    data: &'a RawValue,
}

impl Recorded {
    /// The event as the ledger keeps it.
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
    /// Reads an envelope but for its context, of which nothing is known afterwards, not even whether it is there.
    pub fn without_context(bytes: &[u8]) -> Result<Self, DecodeError> {
        // A list of the members' values would do for serde, too.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(malformed("the envelope is no object"));
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

/// Where the JSON Schema of a shape is served: a path on the service.
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

    /// Reads the envelope but for its context, which is quicker.
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
    fn a_list_is_no_envelope() {
        let members = r#"["1.0","0190a5f0-0000-7000-8000-000000000000","/","username-changed","507f1f77bcf86cd799439011","2026-01-01T00:00:00.000Z","application/json","/","00000000000000000001","2026-01-01T00:00:00.000Z","507f1f77bcf86cd799439011",1,1,null,null,{"before":"a","after":"b","heldUntil":"2026-01-01T00:00:00.000Z"}]"#;
        assert!(serde_json::from_str::<Json<'_>>(members).is_ok());
        assert!(Recorded::without_context(members.as_bytes()).is_err());
        assert!(Recorded::from_envelope(members.as_bytes()).is_err());
    }

    #[test]
    fn who_does_not_ask_for_the_context_does_not_miss_it() {
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
