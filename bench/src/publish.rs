//! Publishing to JetStream, beside a bare publisher of the same messages.

use std::collections::VecDeque;
use std::future::IntoFuture as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::HeaderMap;
use async_nats::jetstream;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use clap::Args as Arguments;
use futures::StreamExt as _;
use tokio::time::Instant;

use crate::installation::Installation;
use crate::load::{Meter, count};
use crate::report::{Rounds, Table, USED_COLUMNS, rate, ratio, used_cells};
use crate::run::Run;
use crate::stream::Stream;
use crate::users::Users;

/// The name of the baseline's stream.
const BARE: &str = "PROFILE_LEDGER_BENCH";
/// The number of messages that the baseline has in flight.
const WINDOW: usize = 1_024;
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Arguments)]
pub(crate) struct Args {
    /// Number of events to publish
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    events: u64,
}

pub(crate) async fn run(run: &Run, args: &Args) -> anyhow::Result<()> {
    let url = run.settings.nats_url.as_deref();
    let url = url.context("this measurement needs a NATS server: set --nats-url or NATS_URL")?;
    let stream = Stream::on_empty_server(url).await?;
    let measured = Installation::lend(&run.settings, async |installation| {
        measure(run, args, installation, url, &stream).await
    })
    .await;
    let _ = stream.jetstream().delete_stream(BARE).await;
    let _ = stream.delete().await;
    measured
}

async fn measure(
    run: &Run,
    args: &Args,
    installation: &mut Installation,
    url: &str,
    stream: &Stream,
) -> anyhow::Result<()> {
    let users = Users::register(installation, args.events).await?;
    // The documents are folded first, so that only publishing remains.
    let service = installation.start().await?;
    let (path, token) = ("/api/v1/users/profile", users.token(0));
    service.await_position(args.events, path, &token).await?;
    service.stop().await?;
    installation.publish_to(Some(url));
    let (mut relay, mut bare) = <(Rounds, Rounds)>::default();
    let mut messages = None;
    for _ in 0..run.rounds {
        relay.push(published(installation, stream, args.events).await?);
        if messages.is_none() {
            messages = Some(all(stream, args.events).await?);
        }
        stream.delete().await?;
        let messages = messages.as_deref().unwrap_or_default();
        bare.push([publish(stream.jetstream(), messages).await?]);
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
    installation.publish_to(None);
    installation.verify().await?;
    table.print();
    Ok(())
}

/// Lets the service publish the whole ledger. Returns messages per second from the first one seen, and the used resources.
async fn published(
    installation: &Installation,
    stream: &Stream,
    events: u64,
) -> anyhow::Result<Vec<f64>> {
    let service = installation.start_unready().await?;
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
                    bail!(
                        "all events were published before the measurement began: use more --events"
                    )
                }
                let mut measured = vec![count(last - *before) / (now - *began).as_secs_f64()];
                measured.extend(meter.read(&service));
                service.stop().await?;
                return Ok(measured);
            }
        }
        if now > deadline {
            bail!("the ledger was not published in time")
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

struct Message {
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
}

/// Reads the published messages, to publish the same ones again.
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
        // Another subject, because only the relay may publish to the subjects of the ledger.
        messages.push(Message {
            subject: format!("bench.{}", message.subject),
            headers: message.headers.clone().unwrap_or_default(),
            payload: message.payload.clone(),
        });
    }
    Ok(messages)
}

/// Publishes messages, each with its expected sequence and with a window in flight. Returns messages per second.
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
