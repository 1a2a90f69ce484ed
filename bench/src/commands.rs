//! Commands over HTTP, beside bare commits.

use std::sync::Arc;

use clap::Args as Arguments;

use crate::baseline::Rows;
use crate::command_load::{Load, Mix};
use crate::installation::Installation;
use crate::load::Pace;
use crate::report::{
    LOAD_COLUMNS, P50, RATE, Rounds, Table, figures, load_cells, quantiles, rate, ratio,
};
use crate::run::Run;
use crate::stream::{self, Stream};
use crate::users::Users;

#[derive(Debug, Clone, Arguments)]
pub(crate) struct Args {
    /// Number of clients that send at once; a list is measured one after the other
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256], value_parser = clap::value_parser!(u32).range(1..=4096))]
    clients: Vec<u32>,
    /// Number of registered users
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    users: u64,
    /// How many of 100 commands change a username, and how many a photo; the others replace a profile
    #[arg(long, value_name = "USERNAMES,PHOTOS", default_value = "0,0")]
    mix: Mix,
    /// Commands per second for an open loop, independent of the answers; without it, each client sends the next command
    /// when the last one is answered
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..))]
    open: Option<u32>,
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
    let rows = Rows::new(installation).await?;
    let service = installation.start().await?;
    let mut load = Load::new(users, args.mix);
    let pace = args
        .open
        .map_or(Pace::Closed, |rate| Pace::Open(rate.into()));
    let how = match args.open {
        None => "closed loop".to_owned(),
        Some(rate) => format!("open loop at {rate}/s"),
    };
    let mut columns = vec![
        "clients",
        "ratio to the faster",
        "ratio of p50",
        "commands/s",
        "bare commits/s: driver",
        "pgbench",
        "bare p50",
    ];
    columns.extend(LOAD_COLUMNS);
    let Mix { usernames, photos } = args.mix;
    let mut table = Table::new(
        &format!(
            "Commands, {}{}, {} users, {how}, {usernames} % usernames, {photos} % photos",
            run.storage(),
            if stream.is_some() { " and NATS" } else { "" },
            args.users
        ),
        &columns,
    );
    // Warms up connections, caches and statements before the measurement.
    load.send(&service, 16, pace, run.time() / 4).await?;
    for clients in &args.clients {
        let (mut bare, mut pgbench, mut commands) = <(Rounds, Rounds, Rounds)>::default();
        for _ in 0..run.rounds {
            let commits = rows.commit(*clients, run.time()).await?;
            let [p50, ..] = quantiles(&commits.latencies);
            bare.push([commits.rate, p50]);
            if let Some(rate) = rows.pgbench(*clients, run.time()).await? {
                pgbench.push([rate]);
            }
            let outcome = load.send(&service, *clients, pace, run.time()).await?;
            commands.push(figures(&outcome));
        }
        installation.verify().await?;
        let pgbench = pgbench.median(0);
        let (bare_rate, bare_p50) = (bare.median(0), bare.median(1));
        // Without pgbench its median is NaN, and `max` takes the other figure.
        let faster = bare_rate.max(pgbench);
        let mut cells = vec![
            clients.to_string(),
            ratio(commands.median(RATE), faster),
            ratio(commands.median(P50), bare_p50),
            rate(commands.median(RATE)),
            rate(bare_rate),
            if pgbench.is_nan() {
                "-".to_owned()
            } else {
                rate(pgbench)
            },
            crate::report::time(bare_p50),
        ];
        cells.extend(load_cells(&commands));
        table.row(&cells);
        table.print();
    }
    service.stop().await
}
