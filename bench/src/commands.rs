//! Commands over HTTP, beside bare commits.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, bail};
use clap::Args as Arguments;

use crate::Run;
use crate::baseline::Rows;
use crate::http::{Answer, Sent};
use crate::load::{Outcome, Pace, Script, drive};
use crate::photos;
use crate::place::{Place, Service};
use crate::publish::{self, Stream};
use crate::report::{
    LOAD_COLUMNS, P50, RATE, Rounds, Table, figures, load_cells, quantiles, rate, ratio,
};
use crate::users::{self, Users};

#[derive(Debug, Clone, Arguments)]
pub(crate) struct Args {
    /// How many clients send at once; several are measured one after the other
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256], value_parser = clap::value_parser!(u32).range(1..=4096))]
    clients: Vec<u32>,
    /// How many users there are
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    users: u64,
    /// Of 100 commands, how many change a username and how many a photo; the others replace a profile
    #[arg(long, value_name = "USERNAMES,PHOTOS", default_value = "0,0", value_parser = mix)]
    mix: Mix,
    /// Commands a second for an open loop, at which they come whatever becomes of them; without it, each client sends
    /// the next command when the last one is answered
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..))]
    open: Option<u32>,
}

/// Of 100 commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mix {
    usernames: u64,
    photos: u64,
}

fn mix(text: &str) -> Result<Mix, String> {
    let parse = || {
        let (usernames, photos) = text.split_once(',')?;
        let (usernames, photos) = (usernames.parse().ok()?, photos.parse().ok()?);
        (usernames <= 100 && photos <= 100 - usernames).then_some(Mix { usernames, photos })
    };
    parse().ok_or_else(|| "two numbers such as 5,5, not over 100 together".to_owned())
}

pub(crate) async fn run(run: &Run, args: &Args) -> anyhow::Result<()> {
    publish::lend(&run.settings, async |place, stream| {
        measure(run, args, place, stream).await
    })
    .await
}

async fn measure(
    run: &Run,
    args: &Args,
    place: &Place,
    stream: Option<&Stream>,
) -> anyhow::Result<()> {
    let users = Arc::new(Users::register(place, args.users).await?);
    let rows = Rows::new(place).await?;
    let service = place.start().await?;
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
    // Connections, caches and statements are there when measuring begins.
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
        place.verify().await?;
        let pgbench = pgbench.median(0);
        let (bare_rate, bare_p50) = (bare.median(0), bare.median(1));
        // Without pgbench there is no figure of it, and `max` takes the other one.
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

/// Commands of many users, and what the ledger must hold because of them.
pub(crate) struct Load {
    users: Arc<Users>,
    mix: Mix,
    photo: Arc<Vec<u8>>,
    numbers: Arc<AtomicU64>,
    renamed: Arc<AtomicU64>,
    /// The last position of the ledger.
    pub(crate) head: u64,
}

impl Load {
    /// Users who are the only events of their ledger.
    fn new(users: Arc<Users>, mix: Mix) -> Self {
        Self {
            head: users.count,
            users,
            mix,
            photo: Arc::new(photos::jpeg(512, 512)),
            numbers: Arc::default(),
            renamed: Arc::default(),
        }
    }

    /// Changes of profiles only.
    pub(crate) fn profiles(users: Arc<Users>) -> Self {
        Self::new(
            users,
            Mix {
                usernames: 0,
                photos: 0,
            },
        )
    }

    /// A token of one of the users.
    pub(crate) fn token(&self) -> String {
        self.users.token(0).into_owned()
    }

    pub(crate) fn script(&self, client: u64) -> Commands {
        Commands {
            users: Arc::clone(&self.users),
            mix: self.mix,
            photo: Arc::clone(&self.photo),
            numbers: Arc::clone(&self.numbers),
            renamed: Arc::clone(&self.renamed),
            random: Random::new(client),
        }
    }

    /// Sends commands for a time. Each that was acknowledged must have a position of its own, and together they must
    /// be all that was added.
    pub(crate) async fn send(
        &mut self,
        service: &Service,
        clients: u32,
        pace: Pace,
        time: std::time::Duration,
    ) -> anyhow::Result<Outcome> {
        let scripts = (0..u64::from(clients))
            .map(|client| self.script(client))
            .collect();
        let outcome = drive(service, scripts, pace, time).await?;
        self.head = follows(self.head, &outcome.positions)?;
        let (path, token) = ("/api/v1/users/profile", self.users.token(0));
        service.await_position(self.head, path, &token).await?;
        Ok(outcome)
    }
}

/// The head after commands were acknowledged at positions, each of which must follow on what was there.
pub(crate) fn follows(head: u64, positions: &[u64]) -> anyhow::Result<u64> {
    let distinct: HashSet<_> = positions.iter().collect();
    if distinct.len() != positions.len() {
        bail!("two commands were acknowledged at one position")
    }
    let last = positions.iter().max().copied().unwrap_or(head);
    let first = positions.iter().min().copied().unwrap_or(head + 1);
    if first != head + 1 || last != head + positions.len() as u64 {
        bail!(
            "{} commands were acknowledged after position {head}, from {first} to {last}",
            positions.len()
        )
    }
    Ok(last)
}

/// The same numbers for the same seed: SplitMix64, by Steele, Lea and Flood.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// What one client sends.
pub(crate) struct Commands {
    users: Arc<Users>,
    mix: Mix,
    photo: Arc<Vec<u8>>,
    numbers: Arc<AtomicU64>,
    renamed: Arc<AtomicU64>,
    random: Random,
}

impl Script for Commands {
    fn next(&mut self) -> Sent {
        let user = self.random.below(self.users.count);
        let kind = self.random.below(100);
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        if kind < self.mix.usernames {
            // Once a user; when all were, profiles take their place.
            let user = self.renamed.fetch_add(1, Ordering::Relaxed);
            if user < self.users.count {
                return users::rename(&self.users.token(user), user);
            }
        }
        let token = self.users.token(user);
        if kind >= self.mix.usernames && kind < self.mix.usernames + self.mix.photos {
            return users::photo(&token, "image/jpeg", &self.photo, number);
        }
        users::profile(&token, number)
    }

    /// A user has one upload at a time, and a process a few: whoever is told to wait has a right answer.
    fn is_good(&self, answer: &Answer) -> bool {
        answer.status == 200 || self.mix.photos > 0 && [429, 503].contains(&answer.status)
    }
}

/// How many commands a second are answered at the most.
pub(crate) async fn highest(load: &mut Load, service: &Service, run: &Run) -> anyhow::Result<f64> {
    let outcome = load.send(service, 64, Pace::Closed, run.time()).await;
    Ok(outcome.context("cannot find the highest load")?.rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_must_be_exactly_what_was_added() {
        assert_eq!(follows(5, &[8, 6, 7]).unwrap(), 8);
        assert_eq!(follows(5, &[]).unwrap(), 5);
        for lost_or_doubled in [&[7][..], &[6, 8], &[6, 6], &[5, 6], &[6, 7, 7, 9]] {
            assert!(follows(5, lost_or_doubled).is_err(), "{lost_or_doubled:?}");
        }
    }

    #[test]
    fn a_mix_is_two_shares_of_a_hundred() {
        assert_eq!(
            mix("5,10"),
            Ok(Mix {
                usernames: 5,
                photos: 10
            })
        );
        for bad in ["", "5", "5,", "101,0", "60,60", "-1,0", "a,b"] {
            assert!(mix(bad).is_err(), "{bad}");
        }
    }
}
