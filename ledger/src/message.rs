//! Events as messages of the NATS client: [`events::message`] with the client's header map.

use async_nats::{HeaderMap, HeaderName};
use bytes::Bytes;
use events::StoredEvent;
use events::message::{self, Error};

/// The headers and the body of an event's message.
pub fn to_message(event: &StoredEvent) -> (HeaderMap, Bytes) {
    let (headers, body) = message::to_message(event);
    let headers = headers
        .into_iter()
        .map(|(name, value)| (HeaderName::from_static(name), value.into()));
    (headers.collect(), body)
}

/// The event in a message, with the exact bytes of its envelope. The event type need not be known.
pub fn from_message(headers: &HeaderMap, body: &Bytes) -> Result<StoredEvent, Error> {
    let header = |name| {
        let value = headers.get(HeaderName::from_static(name));
        value.map(async_nats::HeaderValue::as_str)
    };
    message::from_message(header, body)
}
