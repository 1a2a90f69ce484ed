//! Latency, memory and start-up time as the ledger grows.

use std::sync::Arc;

use anyhow::Context as _;
use clap::Args as Arguments;
use http::Method;
use tokio::time::Instant;

use crate::fill::fill;
use crate::http::{Answer, Connection, request};
use crate::installation::Installation;
use crate::load::{Meter, Pace, count, drive, follows, latencies, record};
use crate::random::Random;
use crate::report::{
    P50, Rounds, Table, USED_COLUMNS, figures, mebibytes, quantiles, ratio, time, time_cells,
    used_cells,
};
use crate::run::Run;
use crate::service::Service;
use crate::users::{self, Users};

/// Number of active users during a measurement. It is the same at every size, so that the ledger grows and the load does
/// not.
const BUSY: u64 = 1_000;
#[derive(Debug, Clone, Arguments)]
pub(crate) struct Args {
    /// Events in the ledger; a list is measured one after the other
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000], value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    events: Vec<u64>,
}

pub(crate) async fn run(run: &Run, args: &Args) -> anyhow::Result<()> {
    let mut table = Growth::new(run);
    for events in &args.events {
        Installation::lend(&run.settings, async |installation| {
            let users = fill(run, installation, *events).await?;
            measure(run, installation, &users, *events, &mut table).await?;
            installation.verify().await?;
            table.table.print();
            Ok(())
        })
        .await
        .with_context(|| format!("{events} events"))?;
    }
    Installation::lend(&run.settings, async |installation| {
        one_user(run, installation).await
    })
    .await
}

/// The table of [`measure`].
struct Growth {
    table: Table,
    /// The medians of commands and reads on the smallest ledger.
    first: Option<[f64; 2]>,
}

impl Growth {
    fn new(run: &Run) -> Self {
        let mut columns = vec![
            "events",
            "users",
            "command: p50 to the first",
            "read: p50 to the first",
            "start: banner",
            "ready",
            "memory idle",
        ];
        for what in ["command: p50", "read: p50"] {
            columns.extend([what, "p99", "p99.9"]);
            columns.extend(USED_COLUMNS);
        }
        Self {
            table: Table::new(&format!("Growth, {}", run.storage()), &columns),
            first: None,
        }
    }
}

/// Measures a service on a ledger of this size. Its own commands add a few events.
async fn measure(
    run: &Run,
    installation: &Installation,
    users: &Arc<Users>,
    events: u64,
    table: &mut Growth,
) -> anyhow::Result<()> {
    let mut rounds = Rounds::default();
    let (mut number, mut head) = (0, events);
    for round in 0..run.rounds {
        let service = installation.start().await?;
        let started = [service.greeted * 1e9, service.ready * 1e9];
        tokio::time::sleep(run.time() / 4).await;
        let idle = service.usage().resident;
        let from = number;
        let mut sending = busy(users, round.into());
        let scripts = vec![move || {
            number += 1;
            users::profile(&sending(), number)
        }];
        let commands = drive(&service, scripts, Pace::Closed, run.time()).await?;
        number = from + commands.latencies.len();
        head = follows(head, &commands.positions)?;
        let mut reading = busy(users, u64::from(round) + 100);
        let scripts = vec![move || {
            request(
                Method::GET,
                "/api/v1/users/profile",
                &reading(),
                "",
                bytes::Bytes::new(),
            )
        }];
        let reads = drive(&service, scripts, Pace::Closed, run.time()).await?;
        let mut measured = vec![started[0], started[1], count(idle)];
        measured.extend(figures(&commands));
        measured.extend(figures(&reads));
        rounds.push(measured);
        service.stop().await?;
    }
    let [commands, reads] = [3, 11];
    let medians = [commands, reads].map(|load| rounds.median(load + P50));
    let first = *table.first.get_or_insert(medians);
    let mut cells = vec![events.to_string(), users.count.to_string()];
    cells.extend([0, 1].map(|load| ratio(medians[load], first[load])));
    cells.extend([0, 1].map(|figure| time(rounds.median(figure))));
    cells.push(mebibytes(rounds.median(2)));
    for load in [commands, reads] {
        cells.extend(time_cells(&rounds, load + P50));
        cells.extend(used_cells(&rounds, load + 4));
    }
    table.table.row(&cells);
    Ok(())
}

/// Random tokens of the active users, who are spread over all users.
fn busy(users: &Arc<Users>, seed: u64) -> impl FnMut() -> String + Send + 'static {
    let users = Arc::clone(users);
    let busy = users.count.min(BUSY);
    let apart = users.count / busy;
    let mut random = Random::new(seed);
    move || users.token(random.below(busy) * apart).into_owned()
}

/// Measures one user with a short history and one with a long history, in turns.
async fn one_user(run: &Run, installation: &Installation) -> anyhow::Result<()> {
    let mut columns = vec![
        "events of the user",
        "command: p50 to the first",
        "p50",
        "p99",
        "p99.9",
        "first command after a start",
    ];
    columns.extend(USED_COLUMNS);
    let mut table = Table::new(&format!("One user, {}", run.storage()), &columns);
    let users = Users::register(installation, 2).await?;
    let measured = [10, 10_000];
    let mut numbers = measured;
    let service = installation.start().await?;
    let mut connection = Connection::open(&service.address).await?;
    for (user, events) in (0..).zip(measured) {
        for number in 1..events {
            change(&mut connection, &users.token(user), number).await?;
        }
    }
    service.stop().await?;
    let mut rounds = [Rounds::default(), Rounds::default()];
    for _ in 0..run.rounds {
        for ((user, rounds), number) in (0..).zip(&mut rounds).zip(&mut numbers) {
            let service = installation.start().await?;
            rounds.push(lone_user(run, &service, &users.token(user), number).await?);
            service.stop().await?;
        }
    }
    let first = rounds[0].median(P50);
    for (events, rounds) in measured.iter().zip(&rounds) {
        let mut cells = vec![events.to_string()];
        cells.push(ratio(rounds.median(P50), first));
        cells.extend(time_cells(rounds, P50));
        cells.push(time(rounds.median(0)));
        cells.extend(used_cells(rounds, 4));
        table.row(&cells);
    }
    installation.verify().await?;
    table.print();
    Ok(())
}

fn accepted(answer: &Answer) -> anyhow::Result<()> {
    let why = || String::from_utf8_lossy(&answer.body).into_owned();
    anyhow::ensure!(answer.status == 200, "a command was refused: {}", why());
    Ok(())
}

async fn change(connection: &mut Connection, token: &str, number: u64) -> anyhow::Result<()> {
    let answer = connection.send(users::profile(token, number)).await?;
    accepted(&answer)
}

async fn lone_user(
    run: &Run,
    service: &Service,
    token: &str,
    number: &mut u64,
) -> anyhow::Result<Vec<f64>> {
    let mut connection = Connection::open(&service.address).await?;
    let meter = Meter::start(service);
    let mut first = None;
    let mut others = latencies();
    // The same number for both users, so that a history does not grow much during the measurement.
    for _ in 0..100 * run.seconds {
        *number += 1;
        let sent = Instant::now();
        change(&mut connection, token, *number).await?;
        match first {
            None => first = Some(sent.elapsed()),
            Some(_) => record(&mut others, sent.elapsed()),
        }
    }
    let first = first.unwrap_or_default().as_secs_f64() * 1e9;
    let mut measured = vec![first];
    measured.extend(quantiles(&others));
    measured.extend(meter.read(service));
    Ok(measured)
}
