//! Fills large ledgers without HTTP.

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

/// Events per user in a filled ledger.
const EVENTS_A_USER: u64 = 10;
/// Commands in flight while the ledger is filled.
const AT_ONCE: usize = 512;
/// Events between two checks of how far the documents have caught up.
const STEP: u64 = 100_000;
/// Number of users whose profiles change in turns while the ledger is filled.
const TOGETHER: u64 = 10_000;

/// Fills a ledger with commands that are decided, appended and acknowledged like those of clients. They do not come over
/// HTTP, which causes most of the cost. Returns when the documents have caught up.
pub(crate) async fn fill(
    run: &Run,
    installation: &Installation,
    events: u64,
) -> anyhow::Result<Arc<Users>> {
    let users = Arc::new(Users::register(installation, (events / EVENTS_A_USER).max(1)).await?);
    let store = installation.store().await?;
    let (committer, commit_loop) =
        Committer::new(store, Clock::system(), run.settings.randomness.clone());
    // Ends with this call, also if the call is cancelled.
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

/// The user whose profile a command of [`fill`] changes. A user returns while the commit loop still knows the user, and
/// events of other users lie between two events of one user.
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
    let profile = profile.context("a generated profile is invalid")?;
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
