//! Commands that read the whole ledger, beside bare reading.

use std::path::Path;

use clap::Args as Arguments;
use http_kit::caller::Role;
use tokio::time::Instant;

use crate::baseline::read_in_order;
use crate::fill::fill;
use crate::http::Connection;
use crate::installation::Installation;
use crate::load::{count, latencies, record};
use crate::random::Random;
use crate::report::{Rounds, Table, mebibytes, quantiles, rate, ratio, time};
use crate::run::Run;
use crate::users::{self, Users};

#[derive(Debug, Clone, Arguments)]
pub(crate) struct Args {
    /// Events in the ledger
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    events: u64,
}

/// Commands that read the whole ledger, each with its name.
const COMMANDS: [(&str, &[&str]); 4] = [
    ("rebuild", &["rebuild", "--json"]),
    ("replay", &["replay", "--json", "--to"]),
    ("export", &["export", "--json", "--out"]),
    ("verify", &["verify", "--json"]),
];

pub(crate) async fn run(run: &Run, args: &Args) -> anyhow::Result<()> {
    Installation::lend(&run.settings, async |installation| {
        measure(run, args, installation).await
    })
    .await
}

async fn measure(run: &Run, args: &Args, installation: &Installation) -> anyhow::Result<()> {
    let users = fill(run, installation, args.events).await?;
    let events = count(args.events);
    let mut read = Rounds::default();
    let mut all = COMMANDS.map(|_| Rounds::default());
    for round in 0..run.rounds {
        let (found, seconds) = read_in_order(installation).await?;
        anyhow::ensure!(found == args.events, "the ledger holds {found} events");
        read.push([events / seconds]);
        for ((name, command), rounds) in COMMANDS.iter().zip(&mut all) {
            let made = installation.path(&format!("{name}-{round}"));
            let made_text = made.to_string_lossy();
            let mut arguments = command.to_vec();
            if *name == "export" {
                std::fs::create_dir(&made)?;
            }
            if matches!(command.last(), Some(&"--to" | &"--out")) {
                arguments.push(&made_text);
            }
            let finished = installation.run(&arguments).await?;
            rounds.push([
                events / finished.seconds,
                finished.cpu,
                count(finished.peak),
            ]);
            remove(&made)?;
        }
    }
    let mut table = Table::new(
        &format!(
            "History, {}, {} events of {} users",
            run.storage(),
            args.events,
            users.count
        ),
        &[
            "command",
            "ratio",
            "events/s",
            "read in order/s",
            "events/s a core",
            "peak memory",
        ],
    );
    for ((name, _), rounds) in COMMANDS.iter().zip(&all) {
        table.row(&[
            (*name).to_owned(),
            ratio(rounds.median(0), read.median(0)),
            rate(rounds.median(0)),
            rate(read.median(0)),
            rate(events / rounds.median(1)),
            mebibytes(rounds.median(2)),
        ]);
    }
    let mut proofs = proofs(run, args, installation, &users).await?;
    installation.verify().await?;
    table.print();
    proofs.print();
    Ok(())
}

/// Removes the output of a command.
fn remove(made: &Path) -> anyhow::Result<()> {
    if made.is_dir() {
        std::fs::remove_dir_all(made)?;
    }
    Ok(())
}

async fn proofs(
    run: &Run,
    args: &Args,
    installation: &Installation,
    users: &Users,
) -> anyhow::Result<Table> {
    let mut table = Table::new(
        &format!("Proofs, {}, {} events", run.storage(), args.events),
        &["proof", "p50", "p99", "p99.9"],
    );
    let service = installation.start().await?;
    let mut connection = Connection::open(&service.address).await?;
    let auditor = users::token(installation.secret(), "bench", Role::Auditor);
    // The checkpoint that covers the last events appears after a second or two.
    let deadline = Instant::now() + std::time::Duration::from_secs(60);
    let size = args.events;
    let first = format!("/api/v1/log/proof/inclusion?position={size}&size={size}");
    while connection.get(&first, &auditor).await?.status != 200 {
        anyhow::ensure!(
            Instant::now() < deadline,
            "no checkpoint covers the last events"
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    for name in ["inclusion", "consistency", "whole history of a user"] {
        let mut rounds = Rounds::default();
        for round in 0..run.rounds {
            let mut random = Random::new(round.into());
            let mut taken = latencies();
            let began = Instant::now();
            while began.elapsed() < run.time() {
                let position = 1 + random.below(size);
                let path = match name {
                    "inclusion" => {
                        format!("/api/v1/log/proof/inclusion?position={position}&size={size}")
                    }
                    "consistency" => {
                        format!("/api/v1/log/proof/consistency?from={position}&to={size}")
                    }
                    _ => {
                        let user = users::id(random.below(users.count));
                        format!("/api/v1/audit/users/{user}/proof")
                    }
                };
                let sent = Instant::now();
                let answer = connection.get(&path, &auditor).await?;
                record(&mut taken, sent.elapsed());
                anyhow::ensure!(answer.status == 200, "{path} answers {}", answer.status);
            }
            rounds.push(quantiles(&taken));
        }
        let mut cells = vec![name.to_owned()];
        cells.extend((0..3).map(|figure| time(rounds.median(figure))));
        table.row(&cells);
    }
    service.stop().await?;
    Ok(table)
}
