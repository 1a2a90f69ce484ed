//! The JetStream stream of the published ledger: connecting, creation, required settings and
//! content. The sequence of a message is the position of its event.

use std::borrow::Cow;
use std::time::Duration;

use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, LastRawMessageErrorKind, RetentionPolicy, StorageType, Stream,
};
use async_nats::jetstream::{self, context::PublishAckFuture};
use async_nats::{ConnectOptions, ServerAddr};
use percent_encoding::percent_decode_str;

use crate::message::{from_message, to_message};
use events::Position;
use events::envelope::StoredEvent;
use events::subject::{self, STREAM};

/// The subject pattern that covers every subject of [`subject`].
pub const SUBJECTS: &str = "profiles.v1.>";
/// The time limit for an answer or an acknowledgement of the server.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often an idle connection is probed, so that a silently lost server is noticed.
const PING: Duration = Duration::from_secs(5);
/// The longest wait between two attempts to connect.
const RECONNECT: Duration = Duration::from_secs(2);
/// Long enough for a relay's own immediate repetition; older ones are refused by their sequence.
const DUPLICATES: Duration = Duration::from_secs(10);

/// The stream cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address of a NATS server is malformed. The error does not repeat it, because it may
    /// contain a password.
    #[error("the address of the NATS server is malformed; it looks like nats://127.0.0.1:4222")]
    Address,
    /// NATS is unavailable, or refuses a request; a later attempt may succeed.
    #[error("NATS cannot be reached, or refuses the request")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// In such a stream positions and sequences would differ.
    #[error("the stream {STREAM} cannot hold the ledger: {0}")]
    Unfit(&'static str),
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Unavailable(Box::new(error))
}

/// A connection to NATS that reconnects by itself for as long as the process lives.
#[derive(Debug, Clone)]
pub struct Connection {
    context: jetstream::Context,
    client: async_nats::Client,
}

impl Connection {
    /// Starts connecting to one of several servers (addresses separated by commas) without waiting.
    /// A server that is unavailable is an error only for requests to it. A user and a password, or
    /// a token alone, stand before the host, percent-encoded. The first address with credentials
    /// applies to all.
    pub async fn open(addresses: &str) -> Result<Self, Error> {
        let servers = addresses
            .split(',')
            .map(|address| address.trim().parse())
            .collect::<Result<Vec<ServerAddr>, _>>()
            .map_err(|_| Error::Address)?;
        if servers.iter().any(|server| server.host().is_empty()) {
            return Err(Error::Address);
        }
        let client = credentials(&servers)?
            .name("profile-ledger")
            .retry_on_initial_connect()
            .max_reconnects(None)
            .request_timeout(Some(TIMEOUT))
            .ping_interval(PING)
            .reconnect_delay_callback(|attempts| {
                let doublings = u32::try_from(attempts.min(10)).unwrap_or(10);
                Duration::from_millis(1 << doublings.saturating_sub(1)).min(RECONNECT)
            })
            .connect(servers)
            .await
            .map_err(unavailable)?;
        let context = ContextBuilder::new().timeout(TIMEOUT).build(client.clone());
        Ok(Self { context, client })
    }

    /// Whether a server is connected, as far as is known.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    /// Sends an event to another subject than its own, for another system. The acknowledgement of
    /// the stream with that subject comes later.
    pub async fn publish(
        &self,
        subject: String,
        event: &StoredEvent,
    ) -> Result<PublishAckFuture, jetstream::context::PublishError> {
        let (headers, body) = to_message(event);
        let message = PublishMessage::build().headers(headers).payload(body);
        self.context.send_publish(subject, message).await
    }

    /// Gets the stream, and creates it if it is missing. An existing stream is not changed.
    pub(crate) async fn make(&self, replicas: usize) -> Result<LedgerStream, Error> {
        self.context
            .get_or_create_stream(wanted(replicas))
            .await
            .map_err(unavailable)?;
        let stream = self.stream().await?;
        // An older server ignores settings that it does not know, so its answer is checked.
        stream.bounds().await?;
        Ok(stream)
    }

    /// The first and the last sequence of the ledger's stream. Does not create the stream.
    pub async fn holds(&self) -> Result<(Position, Position), Error> {
        let bounds = self.stream().await?.bounds().await?;
        Ok((bounds.first, bounds.last))
    }

    pub(crate) async fn stream(&self) -> Result<LedgerStream, Error> {
        let stream = self.context.get_stream_no_info(STREAM).await;
        Ok(LedgerStream {
            context: self.context.clone(),
            stream: stream.map_err(unavailable)?,
        })
    }
}

/// The client library parses the credentials before the host but does not use them.
fn credentials(servers: &[ServerAddr]) -> Result<ConnectOptions, Error> {
    let options = ConnectOptions::new();
    let Some((server, user)) = servers
        .iter()
        .find_map(|server| Some((server, server.username()?)))
    else {
        return Ok(options);
    };
    let decoded = |text| {
        let text = percent_decode_str(text).decode_utf8();
        text.map(Cow::into_owned).map_err(|_| Error::Address)
    };
    Ok(match server.password() {
        Some(password) => options.user_and_password(decoded(user)?, decoded(password)?),
        None => options.token(decoded(user)?),
    })
}

/// The configuration of a stream that the relay creates.
fn wanted(replicas: usize) -> Config {
    Config {
        name: STREAM.to_owned(),
        description: Some("the ledger of user profiles; only its relay may publish".to_owned()),
        subjects: vec![SUBJECTS.to_owned()],
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_bytes: -1,
        max_consumers: -1,
        num_replicas: replicas,
        duplicate_window: DUPLICATES,
        allow_direct: true,
        allow_rollup: false,
        deny_delete: true,
        deny_purge: true,
        ..Config::default()
    }
}

/// The configuration of a stream that the relay creates, as JSON for the JetStream API.
pub fn description() -> serde_json::Value {
    serde_json::to_value(wanted(1)).expect("the client library sends it so")
}

/// Checks that sequence and position stay equal in a stream with this configuration, and that the
/// relay can verify it. An operator may limit the size or choose other replicas.
fn fitness(config: &Config) -> Result<(), Error> {
    let unfit = |reason| Err(Error::Unfit(reason));
    if config.subjects != [SUBJECTS] {
        return unfit("its subjects must be exactly profiles.v1.>");
    }
    if config.mirror.is_some() || config.sources.is_some() {
        return unfit("it takes messages from other streams");
    }
    if config.subject_transform.is_some() {
        return unfit("it changes subjects");
    }
    if config.storage != StorageType::File {
        return unfit("its storage must be file");
    }
    if config.retention != RetentionPolicy::Limits {
        return unfit(
            "its retention must be limits: other policies delete events after they are read",
        );
    }
    if config.discard != DiscardPolicy::Old {
        return unfit(
            "its discard policy must be old: the policy new refuses events when the stream is full",
        );
    }
    if config.max_messages_per_subject > 0 {
        return unfit("a limit per subject deletes events inside the stream");
    }
    if !config.max_age.is_zero() {
        return unfit(
            "an age limit deletes the last event, which the relay needs to compare the stream",
        );
    }
    if config.allow_rollup {
        return unfit("rollups must not be allowed: they delete events inside the stream");
    }
    if config.allow_message_ttl {
        return unfit("messages with a time to live must not be allowed");
    }
    if config.allow_message_counter {
        return unfit("counters must not be allowed");
    }
    if config.no_ack {
        return unfit("it must acknowledge messages");
    }
    if config.sealed {
        return unfit("it is sealed");
    }
    Ok(())
}

/// The first and last sequence of a stream. When it is empty, `first` is `last + 1` or 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) first: Position,
    pub(crate) last: Position,
}

/// The stream of the ledger.
#[derive(Debug)]
pub(crate) struct LedgerStream {
    context: jetstream::Context,
    stream: Stream<()>,
}

impl LedgerStream {
    /// The current bounds of the stream, after checking that its configuration is still valid.
    pub(crate) async fn bounds(&self) -> Result<Bounds, Error> {
        let info = self.stream.get_info().await.map_err(unavailable)?;
        fitness(&info.config)?;
        Ok(Bounds {
            first: info.state.first_sequence,
            last: info.state.last_sequence,
        })
    }

    /// The message at a position, from the stream's leader.
    pub(crate) async fn message(&self, at: Position) -> Result<Option<StreamMessage>, Error> {
        match self.stream.get_raw_message(at).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// Sends an event, to be stored at its position or not at all. The acknowledgement comes later.
    pub(crate) async fn publish(
        &self,
        event: &StoredEvent,
    ) -> Result<PublishAckFuture, jetstream::context::PublishError> {
        let (headers, body) = to_message(event);
        let message = PublishMessage::build()
            .headers(headers)
            .payload(body)
            .expected_last_sequence(event.position - 1);
        let subject = subject::of(&event.user_id, &event.event_type);
        self.context.send_publish(subject, message).await
    }

    /// The messages after a position, if the stream reaches back that far and has come that far.
    pub(crate) async fn follow(&self, after: Position) -> Result<Option<Ordered>, Error> {
        let bounds = self.bounds().await?;
        if bounds.first > after + 1 || bounds.last < after {
            return Ok(None);
        }
        let config = OrderedConfig {
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: after + 1,
            },
            ..OrderedConfig::default()
        };
        let consumer = self.stream.create_consumer(config).await;
        let messages = consumer.map_err(unavailable)?.messages().await;
        messages.map(Some).map_err(unavailable)
    }
}

/// The reason why a message differs from what the relay publishes for an event; `None` when it does
/// not.
pub(crate) fn difference(message: &StreamMessage, event: &StoredEvent) -> Option<String> {
    match from_message(&message.headers, &message.payload) {
        Err(error) => Some(error.to_string()),
        Ok(found) if found != *event => Some("it is another event".to_owned()),
        Ok(_) if *message.subject != *subject::of(&event.user_id, &event.event_type) => {
            Some("it has another subject".to_owned())
        }
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_servers::Nats;

    #[test]
    fn the_created_stream_is_valid() {
        assert!(fitness(&wanted(1)).is_ok());
    }

    #[test]
    fn the_operator_may_choose_size_limits_and_replicas() {
        let config = Config {
            max_messages: 1_000,
            max_bytes: 1_000_000,
            num_replicas: 3,
            deny_delete: false,
            ..wanted(1)
        };
        assert!(fitness(&config).is_ok());
    }

    #[test]
    fn settings_that_would_separate_sequence_and_position_are_refused() {
        let spoil: [fn(&mut Config); 12] = [
            |config| config.subjects.push("profiles.v2.>".to_owned()),
            |config| config.sources = Some(Vec::new()),
            |config| config.storage = StorageType::Memory,
            |config| config.retention = RetentionPolicy::Interest,
            |config| config.discard = DiscardPolicy::New,
            |config| config.max_messages_per_subject = 1,
            |config| config.max_age = Duration::from_secs(1),
            |config| config.allow_rollup = true,
            |config| config.allow_message_ttl = true,
            |config| config.allow_message_counter = true,
            |config| config.no_ack = true,
            |config| config.sealed = true,
        ];
        for spoil in spoil {
            let mut config = wanted(1);
            spoil(&mut config);
            assert!(
                matches!(fitness(&config), Err(Error::Unfit(_))),
                "{config:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_malformed_address_is_an_error() {
        for bad in ["", "http://localhost", "nats://a, b c", "nats://%ff:p@a"] {
            assert!(
                matches!(Connection::open(bad).await, Err(Error::Address)),
                "{bad:?}"
            );
        }
    }

    async fn is_let_in(nats: &Nats, credentials: &str) -> bool {
        let (scheme, host) = ("nats://", nats.url().replace("nats://", ""));
        // The address after the one with credentials has none.
        let addresses = format!("{scheme}{credentials}@{host},{scheme}{host}");
        let connection = Connection::open(&addresses).await.unwrap();
        tokio::time::timeout(Duration::from_secs(3), connection.make(1))
            .await
            .is_ok_and(|made| made.is_ok())
    }

    #[tokio::test]
    async fn a_user_and_a_password_of_the_address_are_used() {
        let nats = Nats::start_with(&["--user", "relay", "--pass", "p/ss:w@rd%"]);
        assert!(is_let_in(&nats, "relay:p%2Fss%3Aw%40rd%25").await);
        assert!(!is_let_in(&nats, "relay:wrong").await);
    }

    #[tokio::test]
    async fn a_token_of_the_address_is_used() {
        let nats = Nats::start_with(&["--auth", "t0ken"]);
        assert!(is_let_in(&nats, "t0ken").await);
        assert!(!is_let_in(&nats, "wrong").await);
    }
}
