//! The time from a commit until it can be read, and until it is delivered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use clap::Args as Arguments;
use futures::StreamExt as _;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::command_load::{Commands, Load};
use crate::http::Connection;
use crate::installation::Installation;
use crate::load::{Latencies, Meter, Pace, Script as _, drive, follows, latencies, record};
use crate::report::{
    Rounds, Table, USED_COLUMNS, quantiles, rate, ratio, time, time_cells, used_cells,
};
use crate::run::Run;
use crate::service::Service;
use crate::stream::{self, Stream};
use crate::users::Users;

/// The pause between two commands whose lag is measured.
const PAUSE: Duration = Duration::from_millis(2);
/// The names of the figures, in their order.
const WHAT: [&str; 4] = [
    "commit",
    "from the commit until readable",
    "the same read alone",
    "from the commit until delivered",
];
/// The time after which a missing delivery fails the measurement.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Arguments)]
pub(crate) struct Args {
    /// Number of registered users
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    users: u64,
}

pub(crate) async fn run(run: &Run, args: &Args) -> anyhow::Result<()> {
    stream::lend(&run.settings, async |installation, stream| {
        measure(run, args, installation, stream).await
    })
    .await
}

async fn measure(
    run: &Run,
    args: &Args,
    installation: &Installation,
    stream: Option<&Stream>,
) -> anyhow::Result<()> {
    let users = Arc::new(Users::register(installation, args.users).await?);
    let service = installation.start().await?;
    let (path, token) = ("/api/v1/users/profile", users.token(0));
    service.await_position(args.users, path, &token).await?;
    let mut load = Load::profiles(Arc::clone(&users));
    let highest = highest(&mut load, &service, run).await?;
    let deliveries = match stream {
        Some(stream) => Some(Deliveries::follow(stream, load.head).await?),
        None => None,
    };
    let mut columns = vec![
        "load",
        "what",
        "p99 to that of a commit",
        "above it",
        "p50",
        "p99",
        "p99.9",
        "commands/s",
    ];
    columns.extend(USED_COLUMNS);
    let mut table = Table::new(
        &format!("Lag, {}, {} users", run.storage(), args.users),
        &columns,
    );
    for (name, pace) in [("at rest", 0.0), ("half of the highest", highest / 2.0)] {
        let mut rounds = Rounds::default();
        for _ in 0..run.rounds {
            let mut probe = Probe::new(&service, &load, deliveries.as_ref()).await?;
            let meter = Meter::start(&service);
            let sent = async {
                if pace == 0.0 {
                    return Ok(None);
                }
                let scripts = (0..32).map(|client| load.script(client)).collect();
                let outcome = drive(&service, scripts, Pace::Open(pace), run.time()).await;
                outcome.map(Some)
            };
            let (loaded, probed) = tokio::join!(sent, probe.run(run.time()));
            probed?;
            let used = meter.read(&service);
            let loaded = loaded?;
            let mut positions = std::mem::take(&mut probe.positions);
            positions.extend(loaded.iter().flat_map(|outcome| &outcome.positions));
            load.head = follows(load.head, &positions)?;
            let mut figures = vec![loaded.map_or(0.0, |outcome| outcome.rate)];
            for latencies in [
                &probe.commit,
                &probe.readable,
                &probe.read,
                &probe.delivered,
            ] {
                figures.extend(quantiles(latencies));
            }
            figures.extend(used);
            rounds.push(figures);
        }
        let commit_p99 = rounds.median(2);
        let is_delivered = deliveries.is_some();
        for (number, what) in WHAT.iter().take(3 + usize::from(is_delivered)).enumerate() {
            let first = 1 + 3 * number;
            let p99 = rounds.median(first + 1);
            let above = match p99 - commit_p99 {
                above if above > 0.0 => time(above),
                _ => "-".to_owned(),
            };
            let mut cells = vec![
                name.to_owned(),
                (*what).to_owned(),
                ratio(p99, commit_p99),
                above,
            ];
            cells.extend(time_cells(&rounds, first));
            cells.push(rate(rounds.median(0)));
            cells.extend(used_cells(&rounds, 13));
            table.row(&cells);
        }
    }
    service.stop().await?;
    installation.verify().await?;
    table.print();
    Ok(())
}

/// The highest number of commands that are answered per second.
async fn highest(load: &mut Load, service: &Service, run: &Run) -> anyhow::Result<f64> {
    let outcome = load.send(service, 64, Pace::Closed, run.time()).await;
    Ok(outcome.context("cannot measure the highest load")?.rate)
}

/// The delivery times of positions.
struct Deliveries {
    seen: Arc<Mutex<HashMap<u64, Instant>>>,
    _following: JoinSet<()>,
}

impl Deliveries {
    async fn follow(stream: &Stream, after: u64) -> anyhow::Result<Self> {
        let consumer = stream
            .get()
            .await?
            .create_consumer(OrderedConfig {
                deliver_policy: DeliverPolicy::ByStartSequence {
                    start_sequence: after + 1,
                },
                ..OrderedConfig::default()
            })
            .await
            .context("cannot follow the stream")?;
        let mut messages = consumer.messages().await?;
        let seen = Arc::<Mutex<HashMap<u64, Instant>>>::default();
        let mut following = JoinSet::new();
        let into = Arc::clone(&seen);
        following.spawn(async move {
            while let Some(message) = messages.next().await {
                let now = Instant::now();
                let Ok(message) = message else { continue };
                if let Ok(info) = message.info() {
                    let mut seen = into.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.insert(info.stream_sequence, now);
                }
            }
        });
        Ok(Self {
            seen,
            _following: following,
        })
    }

    fn take(&self, position: u64) -> Option<Instant> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let at = seen.remove(&position)?;
        // Earlier positions were taken already or belong to other clients.
        seen.retain(|other, _| *other > position);
        Some(at)
    }

    async fn of(&self, position: u64) -> anyhow::Result<Instant> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.take(position) {
                return Ok(at);
            }
            if Instant::now() > deadline {
                bail!("position {position} was not delivered")
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// A client that sends a command, reads the result and awaits its delivery.
struct Probe<'a> {
    commands: Connection,
    reads: Connection,
    script: Commands,
    token: String,
    deliveries: Option<&'a Deliveries>,
    /// The positions of its commands.
    positions: Vec<u64>,
    commit: Latencies,
    readable: Latencies,
    read: Latencies,
    delivered: Latencies,
}

impl<'a> Probe<'a> {
    async fn new(
        service: &Service,
        load: &Load,
        deliveries: Option<&'a Deliveries>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            commands: Connection::open(&service.address).await?,
            reads: Connection::open(&service.address).await?,
            script: load.script(u64::from(u32::MAX)),
            token: load.token(),
            deliveries,
            positions: Vec::new(),
            commit: latencies(),
            readable: latencies(),
            read: latencies(),
            delivered: latencies(),
        })
    }

    async fn run(&mut self, time: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        while began.elapsed() < time {
            let sent = Instant::now();
            let answer = self.commands.send(self.script.next()).await?;
            let committed = Instant::now();
            let position = answer.position.context("a command was refused")?;
            record(&mut self.commit, committed - sent);
            self.positions.push(position);
            let path = format!("/api/v1/users/profile?minPosition={position}");
            let read = self.reads.get(&path, &self.token).await?;
            if read.status != 200 {
                bail!("position {position} cannot be read")
            }
            record(&mut self.readable, committed.elapsed());
            let alone = Instant::now();
            self.reads.get("/api/v1/users/profile", &self.token).await?;
            record(&mut self.read, alone.elapsed());
            if let Some(deliveries) = self.deliveries {
                let delivered = deliveries.of(position).await?;
                let lag = delivered.saturating_duration_since(committed);
                record(&mut self.delivered, lag);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}
