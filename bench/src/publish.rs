//! Publishing to JetStream, beside a bare publisher of the same messages.

use std::collections::VecDeque;
use std::future::IntoFuture as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::HeaderMap;
use async_nats::jetstream;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::context::{GetStreamErrorKind, PublishAckFuture};
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use clap::Args as Arguments;
use futures::StreamExt as _;
use tokio::time::Instant;

use crate::lag::jetstream;
use crate::load::{Meter, count};
use crate::place::Place;
use crate::report::{Rounds, Table, USED_COLUMNS, rate, ratio, used_cells};
use crate::users::Users;
use crate::{Run, Settings};

/// The stream of a ledger.
const NAME: &str = "PROFILES";
/// The stream of the baseline.
const BARE: &str = "PROFILE_LEDGER_BENCH";
/// Messages that the baseline has under way.
const WINDOW: usize = 1_024;
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Arguments)]
pub(crate) struct Args {
    /// How many events are published
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    events: u64,
}

/// The stream that a measured service makes on a server that has none.
pub(crate) struct Stream(jetstream::Context);

impl Stream {
    pub(crate) async fn of_nobody(url: &str) -> anyhow::Result<Self> {
        let jetstream = jetstream(url).await?;
        match jetstream.get_stream(NAME).await {
            Ok(_) => {
                bail!("NATS_URL has a stream {NAME} already: measure on a server without a ledger")
            }
            Err(error) if matches!(error.kind(), GetStreamErrorKind::JetStream(_)) => {}
            Err(error) => return Err(error).context("cannot ask NATS_URL for its streams"),
        }
        Ok(Self(jetstream))
    }

    pub(crate) async fn get(&self) -> anyhow::Result<jetstream::stream::Stream> {
        self.0
            .get_stream(NAME)
            .await
            .context("there is no stream yet")
    }

    pub(crate) async fn delete(&self) -> anyhow::Result<()> {
        match self.0.delete_stream(NAME).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("the stream {NAME} is left over")),
        }
    }

    /// How far it has come; 0 before it is there.
    async fn last(&self) -> u64 {
        let Ok(mut stream) = self.0.get_stream(NAME).await else {
            return 0;
        };
        stream
            .info()
            .await
            .map_or(0, |info| info.state.last_sequence)
    }
}

/// Lends a place whose service publishes to the server that is named, if one is. The stream is gone afterwards.
pub(crate) async fn lend(
    settings: &Settings,
    measure: impl AsyncFnOnce(&mut Place, Option<&Stream>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Some(url) = &settings.nats_url else {
        return Place::lend(settings, async |place| measure(place, None).await).await;
    };
    let stream = Stream::of_nobody(url).await?;
    let measured = Place::lend(settings, async |place| {
        place.publish_to(Some(url));
        measure(place, Some(&stream)).await
    })
    .await;
    measured.and(stream.delete().await)
}

pub(crate) async fn run(run: &Run, args: &Args) -> anyhow::Result<()> {
    let url = run.settings.nats_url.as_deref();
    let url = url.context("publishing is measured on a server: set NATS_URL")?;
    let stream = Stream::of_nobody(url).await?;
    let measured = Place::lend(&run.settings, async |place| {
        measure(run, args, place, url, &stream).await
    })
    .await;
    let _ = stream.0.delete_stream(BARE).await;
    let _ = stream.0.delete_stream(NAME).await;
    measured
}

async fn measure(
    run: &Run,
    args: &Args,
    place: &mut Place,
    url: &str,
    stream: &Stream,
) -> anyhow::Result<()> {
    let users = Users::register(place, args.events).await?;
    // Documents are folded before, so that only publishing is left to do.
    let service = place.start().await?;
    let (path, token) = ("/api/v1/users/profile", users.token(0));
    service.await_position(args.events, path, &token).await?;
    service.stop().await?;
    place.publish_to(Some(url));
    let (mut relay, mut bare) = <(Rounds, Rounds)>::default();
    let mut messages = None;
    for _ in 0..run.rounds {
        relay.push(published(place, stream, args.events).await?);
        if messages.is_none() {
            messages = Some(all(stream, args.events).await?);
        }
        stream.delete().await?;
        let messages = messages.as_deref().unwrap_or_default();
        bare.push([publish(&stream.0, messages).await?]);
    }
    let mut columns = vec!["ratio", "messages/s", "bare publisher/s"];
    columns.extend(USED_COLUMNS);
    let mut table = Table::new(
        &format!("Publishing {} events, {}", args.events, run.storage()),
        &columns,
    );
    let mut cells = vec![
        ratio(relay.median(0), bare.median(0)),
        rate(relay.median(0)),
        rate(bare.median(0)),
    ];
    cells.extend(used_cells(&relay, 1));
    table.row(&cells);
    // The stream is gone.
    place.publish_to(None);
    place.verify().await?;
    table.print();
    Ok(())
}

/// Lets the service publish the whole ledger: messages a second from the first one seen on, and what was used meanwhile.
async fn published(place: &Place, stream: &Stream, events: u64) -> anyhow::Result<Vec<f64>> {
    let service = place.start_unready().await?;
    let deadline = Instant::now() + PATIENCE;
    let mut first = None;
    loop {
        let last = stream.last().await;
        let now = Instant::now();
        if last > 0 {
            let (before, began, meter) =
                first.get_or_insert_with(|| (last, now, Meter::start(&service)));
            if last >= events {
                if last == *before {
                    bail!("all was published before it could be measured: more events are needed")
                }
                let mut measured = vec![count(last - *before) / (now - *began).as_secs_f64()];
                measured.extend(meter.read(&service));
                service.stop().await?;
                return Ok(measured);
            }
        }
        if now > deadline {
            bail!("the ledger is not published")
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

struct Message {
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
}

/// What was published, to publish the same.
async fn all(stream: &Stream, events: u64) -> anyhow::Result<Vec<Message>> {
    let consumer = stream
        .get()
        .await?
        .create_consumer(OrderedConfig {
            deliver_policy: DeliverPolicy::All,
            ..OrderedConfig::default()
        })
        .await?;
    let mut delivered = consumer.messages().await?;
    let mut messages = Vec::new();
    while (messages.len() as u64) < events {
        let message = delivered.next().await.context("the stream ended")??;
        // A subject of its own: only the relay publishes where the ledger is.
        messages.push(Message {
            subject: format!("bench.{}", message.subject),
            headers: message.headers.clone().unwrap_or_default(),
            payload: message.payload.clone(),
        });
    }
    Ok(messages)
}

/// Publishes messages with the expected sequence on each, a window under way: messages a second.
async fn publish(jetstream: &jetstream::Context, messages: &[Message]) -> anyhow::Result<f64> {
    let _ = jetstream.delete_stream(BARE).await;
    jetstream
        .create_stream(jetstream::stream::Config {
            name: BARE.to_owned(),
            subjects: vec!["bench.>".to_owned()],
            allow_direct: true,
            duplicate_window: Duration::from_secs(10),
            ..jetstream::stream::Config::default()
        })
        .await?;
    let began = Instant::now();
    let mut under_way: VecDeque<PublishAckFuture> = VecDeque::with_capacity(WINDOW);
    for (sequence, message) in (0..).zip(messages) {
        if under_way.len() == WINDOW
            && let Some(oldest) = under_way.pop_front()
        {
            oldest.into_future().await?;
        }
        let sent = PublishMessage::build()
            .headers(message.headers.clone())
            .payload(message.payload.clone())
            .expected_last_sequence(sequence);
        under_way.push_back(
            jetstream
                .send_publish(message.subject.clone(), sent)
                .await?,
        );
    }
    for left in under_way {
        left.into_future().await?;
    }
    let rate = count(messages.len() as u64) / began.elapsed().as_secs_f64();
    jetstream.delete_stream(BARE).await?;
    Ok(rate)
}
