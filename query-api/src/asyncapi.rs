//! The AsyncAPI 3 document. It describes how to follow events over NATS and as server-sent events. It is made from the
//! types, constants and frozen examples of `events`, and from the constants of the stream of events.
//!
//! Its texts are English; [`http_kit::text`] translates them.

use std::collections::{BTreeMap, BTreeSet};

use events::message::{STRUCTURED, headers_schema, structured, to_message};
use events::schema::{self, ENVELOPE, Published};
use events::{UserEvent, subject};
use http_kit::text::{self, Language};
use serde_json::{Map, Value, json};

use crate::routes::event_stream::{AGAIN, HEARTBEAT, PATH, TAKEN};

/// The document in a language, as it is served and published.
pub fn document(language: Language) -> String {
    let mut document = english();
    translate(&mut document, language);
    format!("{document:#}\n")
}

/// Translates the texts of a schema or of the document.
pub fn translate(value: &mut Value, language: Language) {
    each_text(value, &mut |text| {
        *text = text::translate(text, language).to_owned();
    });
}

/// Every English sentence of the document and of the schemas.
pub fn sentences() -> BTreeSet<String> {
    let mut sentences = BTreeSet::new();
    let mut collect = |text: &mut String| {
        sentences.insert(text.clone());
    };
    each_text(&mut english(), &mut collect);
    for mut published in schema::all() {
        each_text(&mut published.schema, &mut collect);
    }
    sentences
}

/// Visits every text for people. Examples and the configuration of the stream do not contain any.
fn each_text(value: &mut Value, visit: &mut impl FnMut(&mut String)) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match (name.as_str(), member) {
                    ("examples" | "x-jetstream", _) => {}
                    ("title" | "summary" | "description", Value::String(text)) => visit(text),
                    (_, member) => each_text(member, visit),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| each_text(item, visit)),
        _ => {}
    }
}

fn english() -> Value {
    let published = schema::all();
    let (envelope, types): (Vec<_>, Vec<_>) = published
        .iter()
        .partition(|published| published.name == ENVELOPE);
    let envelope = envelope.first().expect("the envelope is published, too");
    let whole = reference("messages", "whole");
    let on_nats = types
        .iter()
        .map(|shape| (key(shape), reference("messages", &key(shape))))
        .chain([("whole".to_owned(), whole)]);
    let as_sse = types
        .iter()
        .map(|shape| (key(shape), reference("messages", &sse_key(shape))));
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Events of Profile Ledger",
            "version": "1.0.0",
            "description": "Events of users, for services that follow them over NATS JetStream or as server-sent events. \
                Every event has one number, its position: 1, 2, 3, … without a gap, in commit order. \
                Nothing was missed if the next position is the last one plus one.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": servers(),
        "channels": {
            "events": nats_channel(&on_nats.collect()),
            "stream": sse_channel(&as_sse.collect()),
        },
        "operations": operations(),
        "components": {
            "messages": messages(&types, envelope),
            "schemas": schemas(&published, envelope),
            "correlationIds": {
                "request": {
                    "description": "The same for all events that one request caused.",
                    "location": "$message.header#/ce-correlationid",
                },
            },
            "securitySchemes": {
                "nats": {
                    "type": "userPassword",
                    "description": "A user of the NATS server with the permission to read the stream and to create consumers.",
                },
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "A token with one of the roles service, auditor and admin.",
                },
            },
        },
    })
}

fn servers() -> Value {
    let server = |protocol: &str, default: &str, security: &str, description: &str| {
        json!({
            "host": "{host}",
            "protocol": protocol,
            "description": description,
            "variables": {"host": {
                "default": default,
                "description": "The address. Ask the operator for it.",
            }},
            "security": [reference("securitySchemes", security)],
        })
    };
    json!({
        "nats": server(
            "nats",
            "localhost:4222",
            "nats",
            "The NATS server to which the ledger is published.",
        ),
        "service": server("http", "localhost:8080", "token", "The service itself."),
    })
}

fn nats_channel(messages: &Map<String, Value>) -> Value {
    json!({
        "address": subject::of_shard("{shard}", "{type}"),
        "title": format!("The JetStream stream {}", subject::STREAM),
        "description": format!(
            "The sequence of a message in the stream {name} is the position of its event. Subscribe with a durable pull \
             consumer and acknowledge each message after its effect is committed. Delivery is at least once: store the last \
             ce-streamversion of each user with the effect, and skip events that are not newer. All events of a user \
             are in one shard, in order. The stream may be limited in size. Older events remain in the ledger.",
            name = subject::STREAM,
        ),
        "servers": [{"$ref": "#/servers/nats"}],
        "parameters": {
            "shard": {
                "description": "The first six bits of SHA-256 of the user's id.",
                "enum": subject::shards().collect::<Vec<_>>(),
            },
            "type": {
                "description": "The event type. More types may be added. Skip unknown types.",
                "enum": UserEvent::TYPES,
            },
        },
        "messages": messages,
        "x-jetstream": {
            "stream": ledger::stream::description(),
            "sequence": "position",
            "firstSequence": 1,
            "delivery": "at-least-once",
            "duplicatesKnownBy": ["ce-subject", "ce-streamversion"],
        },
    })
}

fn sse_channel(messages: &Map<String, Value>) -> Value {
    let (heartbeat, again, taken) = (HEARTBEAT.as_secs(), AGAIN.as_millis(), TAKEN.as_secs());
    json!({
        "address": PATH,
        "title": "Server-sent events",
        "description": format!(
            "Every event as it is committed: id is its position, event its type, data its whole envelope. The first message \
             has only an id: the beginning of the stream. After a disconnection, send Last-Event-ID to continue after it. \
             An idle stream sends a comment every {heartbeat} s. A client that does not read an event for \
             {taken} s is disconnected. Delivery is at least once.",
        ),
        "servers": [{"$ref": "#/servers/service"}],
        "messages": messages,
        "x-server-sent-events": {
            "contentType": "text/event-stream",
            "id": "position",
            "event": "type",
            "data": "envelope",
            "resumeHeader": "Last-Event-ID",
            "heartbeatSeconds": heartbeat,
            "retryMilliseconds": again,
        },
    })
}

fn operations() -> Value {
    json!({
        "publishEvents": {
            "action": "send",
            "channel": {"$ref": "#/channels/events"},
            "title": "Publish events",
            "summary": "Publishes each event of the ledger at the sequence that is its position.",
        },
        "streamEvents": {
            "action": "send",
            "channel": {"$ref": "#/channels/stream"},
            "title": "Stream events",
            "summary": "Sends each event of the ledger to the clients of the stream, from a position or from now on.",
            "bindings": {"http": {
                "method": "GET",
                "query": {
                    "type": "object",
                    "properties": {"after": {
                        "type": "integer",
                        "minimum": 0,
                        "maximum": i64::MAX,
                        "description": "The position after which the stream begins, at most the newest. The default is the newest. Last-Event-ID has precedence.",
                    }},
                },
                "bindingVersion": "0.3.0",
            }},
        },
    })
}

/// Each event type as a message of NATS and as a server-sent event, and the message of an event that does not fit into
/// headers.
fn messages(types: &[&Published], envelope: &Published) -> Value {
    let mut messages = Map::new();
    for shape in types {
        let event = structured(shape.example.into()).expect("the golden corpus holds events");
        let (headers, body) = to_message(&event);
        // The headers have no order of their own.
        let headers: BTreeMap<String, Value> = headers
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        let body: Value = serde_json::from_slice(&body).expect("the golden corpus is JSON");
        let whole: Value = serde_json::from_str(shape.example).expect("the golden corpus is JSON");
        let (title, description) = (&shape.schema["title"], &shape.schema["description"]);
        let is_of_it = json!({
            "type": "object",
            "properties": {
                "ce-type": {"const": shape.name},
                "ce-schemaversion": {"const": shape.version.to_string()},
                "ce-dataschema": {"const": shape.path()},
            },
        });
        let on_nats = json!({
            "name": shape.name,
            "title": title,
            "summary": description,
            "contentType": headers["content-type"],
            "headers": {"allOf": [reference("schemas", "headers"), is_of_it]},
            "payload": reference("schemas", &key(shape)),
            "correlationId": reference("correlationIds", "request"),
            "examples": [{"headers": headers, "payload": body}],
        });
        let is_of_it = json!({
            "type": "object",
            "properties": {
                "type": {"const": shape.name},
                "schemaversion": {"const": shape.version},
                "dataschema": {"const": shape.path()},
                "data": reference("schemas", &key(shape)),
            },
        });
        let as_sse = json!({
            "name": shape.name,
            "title": title,
            "summary": description,
            "contentType": STRUCTURED,
            "payload": {"allOf": [reference("schemas", &key(envelope)), is_of_it]},
            "examples": [{"payload": whole}],
        });
        messages.insert(key(shape), on_nats);
        messages.insert(sse_key(shape), as_sse);
    }
    let whole = json!({
        "name": "whole",
        "title": "A whole event",
        "summary": "An event from a newer version of the service that does not fit into the headers. Its envelope is the body.",
        "contentType": STRUCTURED,
        "headers": {
            "type": "object",
            "properties": {"content-type": {"type": "string", "const": STRUCTURED}},
            "required": ["content-type"],
        },
        "payload": reference("schemas", &key(envelope)),
    });
    messages.insert("whole".to_owned(), whole);
    Value::Object(messages)
}

/// The published schemas, and that of the headers. References of the document are to the document, so the
/// schemas have no address of their own in it; their messages have examples.
fn schemas(published: &[Published], envelope: &Published) -> Value {
    let schemas = published.iter().map(|shape| {
        let mut schema = shape.schema.clone();
        let members = schema.as_object_mut().into_iter();
        members.for_each(|members| {
            members.retain(|name, _| !["$schema", "$id", "examples"].contains(&name.as_str()));
        });
        (key(shape), schema)
    });
    let headers = ("headers".to_owned(), headers_schema(&envelope.schema));
    schemas.chain([headers]).collect()
}

/// The name of a shape in the document.
fn key(shape: &Published) -> String {
    format!("{}.{}", shape.name, shape.version)
}

fn sse_key(shape: &Published) -> String {
    format!("{}.whole", key(shape))
}

fn reference(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}

#[cfg(test)]
mod tests;
