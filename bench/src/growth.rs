//! What stays the same as the ledger grows, and what does not.

use std::sync::Arc;

use anyhow::Context as _;
use clap::Args as Arguments;
use command_api::committer::{Command, Committer};
use command_api::user::Action;
use command_api::values;
use events::{Context, Time};
use futures::{StreamExt as _, stream};
use http::Method;
use http_kit::error::ApiError;
use http_kit::fields::Fields;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Run;
use crate::commands::{Random, follows};
use crate::http::{Answer, Connection, request};
use crate::load::{Meter, Pace, count, drive, latencies, record};
use crate::place::{Place, Service};
use crate::report::{
    P50, Rounds, Table, USED_COLUMNS, figures, mebibytes, quantiles, ratio, time, time_cells,
    used_cells,
};
use crate::users::{self, Users};

/// Events a user when the ledger has grown so far.
const EVENTS_A_USER: u64 = 10;
/// Users who are busy while it is measured, as many at every size: it is the ledger that grows, not the load.
const BUSY: u64 = 1_000;
/// Commands at once that make it grow.
const AT_ONCE: usize = 512;
/// Events that are caught up with before it is asked how it goes.
const STEP: u64 = 100_000;
/// Users whose profiles change in turns while it grows.
const TOGETHER: u64 = 10_000;

#[derive(Debug, Clone, Arguments)]
pub(crate) struct Args {
    /// Events in the ledger; several are measured as it grows
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000], value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    events: Vec<u64>,
}

pub(crate) async fn run(run: &Run, args: &Args) -> anyhow::Result<()> {
    let mut table = Growth::new(run);
    for events in &args.events {
        Place::lend(&run.settings, async |place| {
            let users = fill(run, place, *events).await?;
            measure(run, place, &users, *events, &mut table).await?;
            place.verify().await?;
            table.table.print();
            Ok(())
        })
        .await
        .with_context(|| format!("{events} events"))?;
    }
    Place::lend(&run.settings, async |place| one_user(run, place).await).await
}

/// Fills a ledger with commands that are decided, appended and acknowledged as those of clients are, but do not come over
/// HTTP, which is most of their cost. Then documents catch up.
pub(crate) async fn fill(run: &Run, place: &Place, events: u64) -> anyhow::Result<Arc<Users>> {
    let users = Arc::new(Users::register(place, (events / EVENTS_A_USER).max(1)).await?);
    let store = place.store().await?;
    let (committer, commit_loop) =
        Committer::new(store, crate::clock(), run.settings.randomness.clone());
    // Ends with this call, also where that is given up.
    let mut running = JoinSet::new();
    running.spawn(commit_loop);
    let mut decided = stream::iter(0..events - users.count)
        .map(|number| {
            let changed = change_of(users::id(whose(number, users.count)), number);
            let committer = &committer;
            async move { anyhow::Ok(committer.submit(changed?).await?) }
        })
        .buffered(AT_ONCE);
    while let Some(decided) = decided.next().await {
        let result = decided?.result;
        result.map_err(|rejection| anyhow::anyhow!("a command was refused: {rejection}"))?;
    }
    drop(decided);
    drop(committer);
    running.join_all().await;
    let service = place.start_unready().await?;
    let (path, token) = ("/api/v1/users/profile", users.token(0));
    let steps = (1..=events / STEP).map(|step| step * STEP);
    for position in steps.chain([events]) {
        service.await_position(position, path, &token).await?;
    }
    service.stop().await?;
    Ok(users)
}

/// Whose profile a command of [`fill`] changes: users come back while they are still known to the commit loop, and what
/// happened to others lies between the events of one.
fn whose(number: u64, users: u64) -> u64 {
    let turns = TOGETHER * (EVENTS_A_USER - 1);
    (number / turns * TOGETHER + number % TOGETHER) % users
}

fn change_of(user_id: String, number: u64) -> anyhow::Result<Command> {
    let invalid = |error: ApiError| anyhow::anyhow!("{error:?}");
    let mut fields = Fields::parse(users::profile_body(number).as_bytes()).map_err(invalid)?;
    let today = Time::from(crate::clock().now()).date();
    let profile = values::profile(&mut fields, today);
    fields.finish().map_err(invalid)?;
    let profile = profile.context("a profile is bad, and nobody says why")?;
    Ok(Command {
        user_id: user_id.parse()?,
        action: Action::ReplaceProfile(Box::new(profile)),
        expected_version: None,
        idempotency: None,
        context: Context {
            actor_type: "user".to_owned(),
            actor: user_id,
            ..Context::default()
        },
    })
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

/// What a service does on a ledger that has grown so far. Its commands make it grow a little further.
async fn measure(
    run: &Run,
    place: &Place,
    users: &Arc<Users>,
    events: u64,
    table: &mut Growth,
) -> anyhow::Result<()> {
    let mut rounds = Rounds::default();
    let (mut number, mut head) = (0, events);
    for round in 0..run.rounds {
        let service = place.start().await?;
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

/// The tokens of busy users at random, who are spread over all.
fn busy(users: &Arc<Users>, seed: u64) -> impl FnMut() -> String + Send + 'static {
    let users = Arc::clone(users);
    let busy = users.count.min(BUSY);
    let apart = users.count / busy;
    let mut random = Random::new(seed);
    move || users.token(random.below(busy) * apart).into_owned()
}

/// One user with a short history and one with a long one, in turns.
async fn one_user(run: &Run, place: &Place) -> anyhow::Result<()> {
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
    let users = Users::register(place, 2).await?;
    let measured = [10, 10_000];
    let mut numbers = measured;
    let service = place.start().await?;
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
            let service = place.start().await?;
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
    place.verify().await?;
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
    // As many for either user, so that a history does not grow much while it is measured.
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
