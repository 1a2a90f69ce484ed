//! An event as a NATS message: a CloudEvent in binary mode. Each attribute of the envelope is a
//! `ce-` header and the payload is the body. A subscriber may read either part alone, and the exact
//! envelope can be restored from both.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::envelope::{LeafHash, StoredEvent};
use crate::{EventId, Time, UserId, Version};

/// The characters that CloudEvents encodes in a header: everything except visible ASCII, and also
/// `"` and `%`.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');
const CONTENT_TYPE: &str = "content-type";
/// The header that a NATS server uses to detect duplicate messages.
const MESSAGE_ID: &str = "Nats-Msg-Id";
/// The payload is the body: the binary mode of CloudEvents.
pub const JSON: &str = "application/json";
/// The whole envelope is the body: the structured mode of CloudEvents.
pub const STRUCTURED: &str = "application/cloudevents+json";

/// How the envelope writes an attribute.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
}

/// An attribute of the envelope.
struct Attribute {
    /// The name of its header.
    header: &'static str,
    kind: Kind,
}

impl Attribute {
    const fn text(header: &'static str) -> Self {
        let kind = Kind::Text;
        Self { header, kind }
    }

    const fn number(header: &'static str) -> Self {
        let kind = Kind::Number;
        Self { header, kind }
    }

    /// Its name in the envelope.
    fn name(&self) -> &'static str {
        &self.header["ce-".len()..]
    }
}

/// The attributes of the envelope in the order of its bytes; `data` follows the last one.
const ATTRIBUTES: [Attribute; 26] = [
    Attribute::text("ce-specversion"),
    Attribute::text("ce-id"),
    Attribute::text("ce-source"),
    Attribute::text("ce-type"),
    Attribute::text("ce-subject"),
    Attribute::text("ce-time"),
    Attribute::text("ce-datacontenttype"),
    Attribute::text("ce-dataschema"),
    Attribute::text("ce-sequence"),
    Attribute::text("ce-recordedtime"),
    Attribute::text("ce-partitionkey"),
    Attribute::number("ce-streamversion"),
    Attribute::number("ce-schemaversion"),
    Attribute::number("ce-prevposition"),
    Attribute::text("ce-prevhash"),
    Attribute::text("ce-authtype"),
    Attribute::text("ce-authid"),
    Attribute::text("ce-correlationid"),
    Attribute::text("ce-causationid"),
    Attribute::text("ce-traceparent"),
    Attribute::text("ce-clientlang"),
    Attribute::text("ce-clienttz"),
    Attribute::text("ce-clientplatform"),
    Attribute::text("ce-clientappver"),
    Attribute::text("ce-clientdevice"),
    Attribute::text("ce-requestid"),
];

/// A message that does not hold an event of the ledger. The error never repeats the content, which
/// may be personal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A header is not percent-encoded UTF-8.
    #[error("the header ce-{0} is not percent-encoded text")]
    Encoding(&'static str),
    /// The message does not hold an envelope.
    #[error("the message does not hold an envelope")]
    Envelope(#[source] serde_json::Error),
    /// The envelope's position is not twenty digits.
    #[error("the sequence of the envelope is not a position")]
    Position,
}

/// The headers of a message, by name.
pub type Headers = Vec<(&'static str, String)>;

/// The headers and the body of an event's message.
///
/// Some envelopes cannot be restored exactly from their parts, for example one of a newer program
/// with more attributes. Such an envelope is sent whole (the structured mode of CloudEvents),
/// because the exact bytes must survive.
pub fn to_message(event: &StoredEvent) -> (Headers, Bytes) {
    let (mut headers, body) = to_binary(event).unwrap_or_else(|| {
        let headers = vec![(CONTENT_TYPE, STRUCTURED.to_owned())];
        (headers, event.envelope.clone())
    });
    headers.push((MESSAGE_ID, event.event_id.to_string()));
    (headers, body)
}

/// Returns `None` when the exact bytes would be lost.
fn to_binary(event: &StoredEvent) -> Option<(Headers, Bytes)> {
    let Members(members) = serde_json::from_slice(&event.envelope).ok()?;
    let ((last, data), attributes) = members.split_last()?;
    // Two more: the content type and the message's id.
    let mut headers = Vec::with_capacity(attributes.len() + 2);
    headers.push((CONTENT_TYPE, JSON.to_owned()));
    let mut known = ATTRIBUTES.iter();
    for (name, value) in attributes {
        let attribute = known.find(|known| known.name() == name)?;
        let value = attribute.value(value.get())?;
        let encoded = Cow::from(utf8_percent_encode(&value, ENCODED)).into_owned();
        headers.push((attribute.header, encoded));
    }
    // The length of the members with their braces and commas. An envelope of exactly this length
    // has no white space, and no escapes in its names.
    let length =
        |(name, value): &(Cow<'_, str>, &RawValue)| "{\"\":".len() + name.len() + value.get().len();
    let again = members.iter().map(length).sum::<usize>() + "}".len();
    (last == "data" && again == event.envelope.len())
        .then(|| (headers, event.envelope.slice_ref(data.get().as_bytes())))
}

/// The members of an object, in order.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut members = Vec::with_capacity(ATTRIBUTES.len() + 1);
                while let Some((Text(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(InOrder).map(Members)
    }
}

/// A text that is copied only when it contains an escape.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The event in a message, with the exact bytes of its envelope. The event type need not be known.
///
/// `header` returns the first value of a header, from whichever map the client library uses:
/// `from_message(|name| headers.get(name).map(|value| value.as_str()), &message.payload)`.
pub fn from_message<'a>(
    header: impl Fn(&'static str) -> Option<&'a str>,
    body: &Bytes,
) -> Result<StoredEvent, Error> {
    structured(if header(CONTENT_TYPE) == Some(STRUCTURED) {
        body.clone()
    } else {
        envelope(header, body)?.into()
    })
}

/// The event in an envelope, with the exact bytes. The event type need not be known.
pub fn structured(envelope: Bytes) -> Result<StoredEvent, Error> {
    #[derive(Deserialize)]
    struct Attributes<'a> {
        id: EventId,
        #[serde(borrow)]
        r#type: Cow<'a, str>,
        subject: UserId,
        #[serde(borrow)]
        sequence: Cow<'a, str>,
        recordedtime: Time,
        streamversion: Version,
        schemaversion: u32,
    }

    let attributes: Attributes<'_> = serde_json::from_slice(&envelope).map_err(Error::Envelope)?;
    Ok(StoredEvent {
        position: attributes.sequence.parse().map_err(|_| Error::Position)?,
        event_id: attributes.id,
        user_id: attributes.subject,
        version: attributes.streamversion,
        event_type: attributes.r#type.into_owned(),
        schema_version: attributes.schemaversion,
        recorded_at: attributes.recordedtime,
        leaf_hash: LeafHash::of(&envelope),
        envelope,
    })
}

/// Restores an envelope from headers and payload.
fn envelope<'a>(
    header: impl Fn(&'static str) -> Option<&'a str>,
    data: &[u8],
) -> Result<Vec<u8>, Error> {
    let mut json = Vec::with_capacity(1024 + data.len());
    for attribute in &ATTRIBUTES {
        let Some(value) = header(attribute.header) else {
            continue;
        };
        let value = percent_decode_str(value)
            .decode_utf8()
            .map_err(|_| Error::Encoding(attribute.name()))?;
        attribute.write(&value, &mut json);
    }
    end(data, &mut json);
    Ok(json)
}

impl Attribute {
    /// The header value for a JSON value. Returns `None` when the JSON could not be restored
    /// exactly.
    fn value<'a>(&self, json: &'a str) -> Option<Cow<'a, str>> {
        match self.kind {
            Kind::Number => Some(json.into())
                .filter(|value: &Cow<'_, str>| value.bytes().all(|byte| byte.is_ascii_digit())),
            Kind::Text if json.contains('\\') => {
                let text: String = serde_json::from_str(json).ok()?;
                let again = serde_json::to_string(&text).expect("text is JSON");
                (again == json).then(|| text.into())
            }
            Kind::Text => Some(json.strip_prefix('"')?.strip_suffix('"')?.into()),
        }
    }

    /// Writes the attribute as the next member of an envelope.
    fn write(&self, value: &str, json: &mut Vec<u8>) {
        json.push(if json.is_empty() { b'{' } else { b',' });
        json.push(b'"');
        json.extend_from_slice(self.name().as_bytes());
        json.extend_from_slice(b"\":");
        match self.kind {
            Kind::Number => json.extend_from_slice(value.as_bytes()),
            Kind::Text => serde_json::to_writer(json, value).expect("text is JSON"),
        }
    }
}

/// Ends an envelope with its payload.
fn end(data: &[u8], json: &mut Vec<u8>) {
    json.push(if json.is_empty() { b'{' } else { b',' });
    json.extend_from_slice(b"\"data\":");
    json.extend_from_slice(data);
    json.push(b'}');
}

/// The JSON Schema of the headers of an event's message in binary mode, made from the schema of its
/// envelope.
pub fn headers_schema(envelope: &Value) -> Value {
    let is_required = |name: &str| {
        let mut names = envelope["required"].as_array().into_iter().flatten();
        names.any(|required| required == name)
    };
    let content_type = json!({"type": "string", "const": JSON});
    let message_id = json!({
        "type": "string",
        "description": "The event's id. The server detects duplicate messages by it.",
    });
    let mut properties = Map::from_iter([
        (CONTENT_TYPE.to_owned(), content_type),
        (MESSAGE_ID.to_string(), message_id),
    ]);
    let mut required = vec![CONTENT_TYPE.to_owned(), MESSAGE_ID.to_string()];
    for attribute in &ATTRIBUTES {
        let name = attribute.name();
        let member = &envelope["properties"][name];
        let mut header = json!({"type": "string", "description": member["description"]});
        match attribute.kind {
            Kind::Number => header["pattern"] = "^[0-9]+$".into(),
            Kind::Text => {
                for keyword in ["const", "format", "pattern"] {
                    if let Some(value) = member.get(keyword) {
                        header[keyword] = value.clone();
                    }
                }
            }
        }
        properties.insert(attribute.header.to_owned(), header);
        if is_required(name) {
            required.push(attribute.header.to_owned());
        }
    }
    json!({"type": "object", "properties": properties, "required": required})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Context, Previous, Recorded};
    use crate::event::{UserEvent, UsernameChanged};
    use proptest::prelude::*;

    fn full_context() -> Context {
        Context {
            actor_type: "user".to_owned(),
            actor: "507f1f77bcf86cd799439011".to_owned(),
            correlation_id: Some("c-1".to_owned()),
            causation_id: Some("c-0".to_owned()),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            language: Some("de".to_owned()),
            timezone: Some("Europe/Berlin".to_owned()),
            platform: Some("iOS".to_owned()),
            app_version: Some("1.2.3".to_owned()),
            device_id: Some("100 % \"Käse\"\r\n".to_owned()),
            request_id: Some(String::new()),
        }
    }

    fn recorded(context: Context, after: String, previous: Option<Previous>) -> Recorded {
        Recorded {
            position: 42,
            event_id: EventId::new(Time::from_millis(1), [3; 10]),
            user_id: UserId::new(Time::from_millis(2), [4; 8]),
            version: 7,
            time: Time::from_millis(1_779_466_286_808),
            recorded_at: Time::from_millis(1_779_466_286_999),
            previous,
            context,
            event: UserEvent::UsernameChanged(UsernameChanged {
                before: "john".to_owned(),
                after,
                held_until: Time::from_millis(9),
            }),
        }
    }

    /// The value of a header.
    fn header<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
        let mut found = headers.iter().filter(|(header, _)| *header == name);
        found.next().map(|(_, value)| value.as_str())
    }

    fn read(headers: &Headers, body: &Bytes) -> Result<StoredEvent, Error> {
        from_message(|name| header(headers, name), body)
    }

    fn full() -> StoredEvent {
        let previous = Previous {
            position: 41,
            hash: LeafHash([7; 32]),
        };
        recorded(full_context(), "j".to_owned(), Some(previous)).to_stored()
    }

    #[test]
    fn an_event_is_a_binary_cloud_event() {
        let event = full();
        let (headers, body) = to_message(&event);
        let header = |name: &str| header(&headers, name);
        assert_eq!(header("ce-specversion").unwrap(), "1.0");
        assert_eq!(header("ce-type").unwrap(), "username-changed");
        assert_eq!(header("ce-sequence").unwrap(), "00000000000000000042");
        assert_eq!(header("ce-streamversion").unwrap(), "7");
        assert_eq!(header("ce-prevposition").unwrap(), "41");
        assert_eq!(header("ce-datacontenttype").unwrap(), "application/json");
        assert_eq!(header("content-type").unwrap(), "application/json");
        assert_eq!(header("ce-clienttz").unwrap(), "Europe/Berlin");
        assert_eq!(
            header("ce-clientdevice").unwrap(),
            "100%20%25%20%22K%C3%A4se%22%0D%0A"
        );
        assert_eq!(header("ce-requestid").unwrap(), "");
        assert_eq!(header("Nats-Msg-Id").unwrap(), event.event_id.to_string());
        assert_eq!(
            body,
            r#"{"before":"john","after":"j","heldUntil":"1970-01-01T00:00:00.009Z"}"#
        );
    }

    #[test]
    fn every_attribute_of_a_full_envelope_has_its_header() {
        let json: Map<String, Value> = serde_json::from_slice(&full().envelope).unwrap();
        let mut names: Vec<_> = ATTRIBUTES.iter().map(Attribute::name).collect();
        names.push("data");
        assert!(
            json.keys().eq(&names),
            "an attribute was added to the envelope: add it to ATTRIBUTES in the same order"
        );
    }

    #[test]
    fn every_attribute_is_described_and_every_header_of_a_message_too() {
        let schemas = crate::schema::all();
        let envelope = &schemas.last().unwrap().schema;
        let members = envelope["properties"].as_object().unwrap();
        let names = ATTRIBUTES.iter().map(Attribute::name).chain(["data"]);
        assert!(members.keys().eq(names));
        let headers = headers_schema(envelope);
        let members = headers["properties"].as_object().unwrap();
        for (name, _) in to_message(&full()).0 {
            assert!(members.contains_key(name), "{name}");
        }
        assert!(members.values().all(|header| header["type"] == "string"));
    }

    #[test]
    fn an_envelope_with_unknown_attributes_is_sent_whole() {
        for envelope in [
            r#"{"newattribute":"x","#.to_owned(),
            r"{ ".to_owned(),
            r#"{"flag":true,"#.to_owned(),
        ] {
            let ours = full();
            let text = std::str::from_utf8(&ours.envelope).unwrap();
            let envelope = Bytes::from(text.replacen('{', &envelope, 1));
            let theirs = StoredEvent {
                leaf_hash: LeafHash::of(&envelope),
                envelope,
                ..ours
            };
            let (headers, body) = to_message(&theirs);
            assert_eq!(header(&headers, "content-type"), Some(STRUCTURED));
            assert_eq!(read(&headers, &body).unwrap(), theirs);
        }
    }

    #[test]
    fn a_message_without_an_event_is_an_error() {
        let (headers, body) = to_message(&full());
        let with = |name: &str, value: Option<&'static str>| {
            let kept = headers.iter().filter(|(header, _)| *header != name);
            let mut changed: Headers = kept.cloned().collect();
            if let Some(value) = value {
                let mut known = ATTRIBUTES.iter().map(|attribute| attribute.header);
                changed.push((
                    known.find(|known| *known == name).unwrap(),
                    value.to_owned(),
                ));
            }
            changed
        };
        assert!(matches!(
            read(&Headers::new(), &body),
            Err(Error::Envelope(_))
        ));
        assert!(matches!(
            read(&with("ce-id", None), &body),
            Err(Error::Envelope(_))
        ));
        assert!(matches!(
            read(&headers, &Bytes::from_static(b"{")),
            Err(Error::Envelope(_))
        ));
        assert!(matches!(
            read(&with("ce-source", Some("%FF")), &body),
            Err(Error::Encoding("source"))
        ));
        assert!(matches!(
            read(&with("ce-sequence", Some("one")), &body),
            Err(Error::Position)
        ));
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), "[ -~]{0,20}", Just(" \r\n%00 ".to_owned())]
    }

    proptest! {
        #[test]
        fn a_message_holds_the_exact_envelope(
            texts in proptest::collection::vec(proptest::option::of(text()), 10),
            actor in text(),
            after in text(),
            previous in proptest::option::of((any::<u64>(), any::<[u8; 32]>())),
        ) {
            let mut texts = texts.into_iter();
            let mut next = || texts.next().flatten();
            let context = Context {
                actor_type: next().unwrap_or_default(),
                actor,
                correlation_id: next(),
                causation_id: next(),
                traceparent: next(),
                language: next(),
                timezone: next(),
                platform: next(),
                app_version: next(),
                device_id: next(),
                request_id: next(),
            };
            let previous = previous.map(|(position, hash)| Previous { position, hash: LeafHash(hash) });
            let event = recorded(context, after, previous).to_stored();
            let (headers, body) = to_message(&event);
            prop_assert_eq!(header(&headers, CONTENT_TYPE), Some(JSON));
            let read = read(&headers, &body).unwrap();
            prop_assert_eq!(&read.envelope, &event.envelope);
            prop_assert_eq!(read, event);
        }
    }
}
