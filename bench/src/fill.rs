//! Fills large ledgers.

use std::sync::Arc;

use anyhow::Context as _;
use command_api::committer::{Command, Committer};
use command_api::user::Action;
use command_api::values;
use events::{Context, Time};
use futures::{StreamExt as _, stream};
use http_kit::clock::Clock;
use http_kit::error::ApiError;
use http_kit::fields::Fields;
use tokio::task::JoinSet;

use crate::installation::Installation;
use crate::run::Run;
use crate::users::{self, Users};

/// Events a user when the ledger has grown so far.
const EVENTS_A_USER: u64 = 10;
/// Commands at once that make it grow.
const AT_ONCE: usize = 512;
/// Events that are caught up with before it is asked how it goes.
const STEP: u64 = 100_000;
/// Users whose profiles change in turns while it grows.
const TOGETHER: u64 = 10_000;

/// Fills a ledger with commands that are decided, appended and acknowledged as those of clients are, but do not come over
/// HTTP, which is most of their cost. Then documents catch up.
pub(crate) async fn fill(
    run: &Run,
    installation: &Installation,
    events: u64,
) -> anyhow::Result<Arc<Users>> {
    let users = Arc::new(Users::register(installation, (events / EVENTS_A_USER).max(1)).await?);
    let store = installation.store().await?;
    let (committer, commit_loop) =
        Committer::new(store, Clock::system(), run.settings.randomness.clone());
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
    let service = installation.start_unready().await?;
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
    let today = Time::from(Clock::system().now()).date();
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
