//! Reads over HTTP, beside the same bytes from memory.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args as Arguments;
use http::Method;

use crate::baseline::start_answering;
use crate::http::{Connection, Sent, request};
use crate::installation::Installation;
use crate::load::{Pace, drive};
use crate::random::Random;
use crate::report::{LOAD_COLUMNS, RATE, Rounds, Table, figures, load_cells, rate, ratio};
use crate::run::Run;
use crate::service::Service;
use crate::users::{self, Users};

#[derive(Debug, Clone, Arguments)]
pub(crate) struct Args {
    /// Number of clients that read at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    clients: u32,
    /// Number of registered users
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    users: u64,
}

/// The kind of a read.
#[derive(Debug, Clone, Copy)]
enum Read {
    Own,
    Public,
    ByUsername,
    Search,
}

/// The number of users that hot reads ask for.
const HOT: u64 = 16;

impl Read {
    const ALL: [Self; 4] = [Self::Own, Self::Public, Self::ByUsername, Self::Search];

    fn name(self) -> &'static str {
        match self {
            Self::Own => "own profile",
            Self::Public => "public profile",
            Self::ByUsername => "by username",
            Self::Search => "search",
        }
    }

    fn path(self, user: u64) -> String {
        match self {
            Self::Own => "/api/v1/users/profile".to_owned(),
            Self::Public => format!("/api/v1/users/profile/{}", users::id(user)),
            Self::ByUsername => {
                format!("/api/v1/users/profile/username/{}", users::username(user))
            }
            Self::Search => format!("/api/v1/users/search?q={}", users::username(user)),
        }
    }

    fn needs_token(self) -> bool {
        matches!(self, Self::Own | Self::Search)
    }

    fn request(self, users: &Users, user: u64) -> Sent {
        let path = self.path(user);
        let token = if self.needs_token() {
            users.token(user)
        } else {
            "".into()
        };
        request(Method::GET, &path, &token, "", Bytes::new())
    }
}

pub(crate) async fn run(run: &Run, args: &Args) -> anyhow::Result<()> {
    Installation::lend(&run.settings, async |installation| {
        measure(run, args, installation).await
    })
    .await
}

async fn measure(run: &Run, args: &Args, installation: &Installation) -> anyhow::Result<()> {
    let users = Arc::new(Users::register(installation, args.users).await?);
    let service = installation.start().await?;
    service
        .await_position(args.users, "/api/v1/users/profile", &users.token(0))
        .await?;
    let mut columns = vec!["read", "users", "ratio", "reads/s", "from memory/s"];
    columns.extend(LOAD_COLUMNS);
    let mut table = Table::new(
        &format!(
            "Reads, {}, {} users, {} clients",
            run.storage(),
            args.users,
            args.clients
        ),
        &columns,
    );
    for read in Read::ALL {
        for (heat, among) in [("hot", HOT.min(args.users)), ("cold", args.users)] {
            let body = body_of(&service, read, &users).await?;
            let baseline = start_answering(installation, &body).await?;
            let (mut memory, mut reads) = <(Rounds, Rounds)>::default();
            for round in 0..run.rounds {
                let scripts = scripts(args.clients, round, &users, among, move |users, user| {
                    let path = if read.needs_token() {
                        "/own"
                    } else {
                        "/public"
                    };
                    let token = if read.needs_token() {
                        users.token(user)
                    } else {
                        "".into()
                    };
                    request(Method::GET, path, &token, "", Bytes::new())
                });
                let outcome = drive(&baseline, scripts, Pace::Closed, run.time()).await?;
                memory.push([outcome.rate]);
                let scripts = scripts_of(read, args.clients, round, &users, among);
                let outcome = drive(&service, scripts, Pace::Closed, run.time()).await?;
                reads.push(figures(&outcome));
            }
            baseline.stop().await?;
            let mut cells = vec![
                read.name().to_owned(),
                format!("{heat}: {among}"),
                ratio(reads.median(RATE), memory.median(0)),
                rate(reads.median(RATE)),
                rate(memory.median(0)),
            ];
            cells.extend(load_cells(&reads));
            table.row(&cells);
        }
    }
    service.stop().await?;
    installation.verify().await?;
    table.print();
    Ok(())
}

fn scripts_of(
    read: Read,
    clients: u32,
    round: u32,
    users: &Arc<Users>,
    among: u64,
) -> Vec<impl FnMut() -> Sent + Send + 'static> {
    scripts(clients, round, users, among, move |users, user| {
        read.request(users, user)
    })
}

/// One script per client. Each chooses users at random.
fn scripts<R>(
    clients: u32,
    round: u32,
    users: &Arc<Users>,
    among: u64,
    request_of: R,
) -> Vec<impl FnMut() -> Sent + Send + 'static>
where
    R: Fn(&Users, u64) -> Sent + Clone + Send + 'static,
{
    let script = |client: u32| {
        let mut random = Random::new(u64::from(round) << 32 | u64::from(client));
        let (users, request_of) = (Arc::clone(users), request_of.clone());
        move || request_of(&users, random.below(among))
    };
    (0..clients).map(script).collect()
}

/// The service's answer to a read of the first user. The baseline sends the same bytes.
async fn body_of(service: &Service, read: Read, users: &Users) -> anyhow::Result<Bytes> {
    let mut connection = Connection::open(&service.address).await?;
    let answer = connection.send(read.request(users, 0)).await?;
    if answer.status != 200 {
        bail!("{} answers {}", read.name(), answer.status)
    }
    std::str::from_utf8(&answer.body).context("an answer is not text")?;
    Ok(answer.body)
}
