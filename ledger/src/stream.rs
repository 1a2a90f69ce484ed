//! The JetStream stream of the published ledger: reaching it, making it, what it has to be like, and
//! what it holds. The sequence of a message in it is the position of its event.

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

/// Every subject that [`subject`] makes.
pub const SUBJECTS: &str = "profiles.v1.>";
/// How long the server has for an answer or an acknowledgement.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often a quiet connection is tried, so that a server that went without a word is missed.
const PING: Duration = Duration::from_secs(5);
/// The longest wait between two attempts to connect.
const RECONNECT: Duration = Duration::from_secs(2);
/// Only a relay's own hasty repetition has to be known; older ones are refused by their sequence.
const DUPLICATES: Duration = Duration::from_secs(10);

/// The stream cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address of a NATS server is none. It is not repeated: it may hold a password.
    #[error("the address of the NATS server is none, such as nats://127.0.0.1:4222")]
    Address,
    /// NATS is away, or does not do what it is asked; trying again later may help.
    #[error("NATS cannot be reached, or refuses")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Positions and sequences would come apart in a stream like this.
    #[error("the stream {STREAM} cannot hold the ledger: {0}")]
    Unfit(&'static str),
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Unavailable(Box::new(error))
}

/// A connection to NATS that comes back by itself for as long as the process lives.
#[derive(Debug, Clone)]
pub struct Connection {
    context: jetstream::Context,
    client: async_nats::Client,
}

impl Connection {
    /// Begins to connect to one of some servers (addresses separated by commas) and does not wait: a
    /// server that is away is an error of no one but who asks it for something. A user and a password, or
    /// a token alone, stand before the host, percent-encoded; the first address that has them speaks for all.
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

    /// Whether a server is there, as far as is known.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    /// Sends an event to another subject than its own, for another system. The acknowledgement of the stream
    /// that takes the subject comes later.
    pub async fn publish(
        &self,
        subject: String,
        event: &StoredEvent,
    ) -> Result<PublishAckFuture, jetstream::context::PublishError> {
        let (headers, body) = to_message(event);
        let message = PublishMessage::build().headers(headers).payload(body);
        self.context.send_publish(subject, message).await
    }

    /// The stream, made if it is not there. One that is there is left as it is.
    pub(crate) async fn make(&self, replicas: usize) -> Result<LedgerStream, Error> {
        self.context
            .get_or_create_stream(wanted(replicas))
            .await
            .map_err(unavailable)?;
        let stream = self.stream().await?;
        // An older server ignores what it does not know: what counts is what it answers.
        stream.bounds().await?;
        Ok(stream)
    }

    /// The stream, whether it is there or not.
    /// The first and the last sequence that the stream of the ledger holds; it is not made.
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

/// The client library knows what stands before the host and does not use it.
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

/// The stream that the relay makes.
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

/// The stream that the relay makes, as the API of JetStream writes it.
pub fn described() -> serde_json::Value {
    serde_json::to_value(wanted(1)).expect("the client library sends it so")
}

/// Whether sequence and position stay one in a stream like this, and the relay can tell. An operator
/// may well limit its size, or choose other replicas.
fn fitness(config: &Config) -> Result<(), Error> {
    let unfit = |reason| Err(Error::Unfit(reason));
    if config.subjects != [SUBJECTS] {
        return unfit("its subjects must be profiles.v1.> and no others");
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
        return unfit("its retention must be limits: others delete what was read");
    }
    if config.discard != DiscardPolicy::Old {
        return unfit("its discard policy must be old: the new one refuses events when it is full");
    }
    if config.max_messages_per_subject > 0 {
        return unfit("a limit per subject deletes events between others");
    }
    if !config.max_age.is_zero() {
        return unfit("a limit of age deletes the last event, by which the relay knows the stream");
    }
    if config.allow_rollup {
        return unfit("rollups must not be allowed: they delete events between others");
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

/// What a stream reaches from and to. `first` is `last + 1`, or 0, when it is empty.
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
    /// From where to where the stream reaches now, provided that it still is as it has to be.
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

    /// The messages after a position, if the stream reaches back that far, and has come that far.
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

/// Why a message is not what the relay publishes for an event; `None`: it is.
pub(crate) fn difference(message: &StreamMessage, event: &StoredEvent) -> Option<String> {
    match from_message(&message.headers, &message.payload) {
        Err(error) => Some(error.to_string()),
        Ok(found) if found != *event => Some("it is another event".to_owned()),
        Ok(_) if *message.subject != *subject::of(&event.user_id, &event.event_type) => {
            Some("its subject is another".to_owned())
        }
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_servers::Nats;

    #[test]
    fn the_stream_that_is_made_is_fit() {
        assert!(fitness(&wanted(1)).is_ok());
    }

    #[test]
    fn limits_of_size_and_other_replicas_are_the_operators_choice() {
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
    fn what_would_part_sequence_and_position_is_unfit() {
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
    async fn an_address_that_is_none_is_an_error() {
        for bad in ["", "http://localhost", "nats://a, b c", "nats://%ff:p@a"] {
            assert!(
                matches!(Connection::open(bad).await, Err(Error::Address)),
                "{bad:?}"
            );
        }
    }

    async fn is_let_in(nats: &Nats, credentials: &str) -> bool {
        let (scheme, host) = ("nats://", nats.url().replace("nats://", ""));
        // The address after the one with the credentials has none.
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
