//! `parked`: lists the parked users and tries to fold them again.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use projector::projection::Projection;
use projector::read_model::Parked;
use serde_json::{Value, json};

use super::terminal::{Output, counted, visible};
use crate::config::Config;
use crate::parts;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Try to fold them now; a projector tries at each start
    #[arg(long)]
    retry: bool,
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

/// A parked user as JSON.
pub(super) fn parked_json(parked: &Parked) -> Value {
    json!({
        "userId": parked.user_id,
        "position": parked.from,
        "error": parked.error,
        "recordedAt": parked.recorded_at,
    })
}

/// Lists the parked users. The exit code is 1 if there are any.
pub(crate) async fn run(config: &Config, args: &Args) -> anyhow::Result<ExitCode> {
    let read_model = if args.retry {
        parts::read_model(config).await?
    } else {
        parts::read_model_to_read(config).await?
    };
    let before = read_model
        .parked()
        .await
        .context("cannot list the parked users")?;
    let parked = if args.retry && !before.is_empty() {
        let history = parts::history(config).await?;
        let owner = hex::encode(parts::randomness().bytes::<16>());
        let (projection, _) = Projection::new(read_model, history, owner);
        projection
            .retry_parked()
            .await
            .context("cannot fold the parked users")?
    } else {
        before.clone()
    };
    let is_waiting = |user| parked.iter().any(|parked| parked.user_id == user);
    let unparked: Vec<_> = before
        .iter()
        .filter(|user| !is_waiting(user.user_id))
        .collect();
    let mut out = Output::stdout();
    if args.json {
        let list = |parked: &[&Parked]| {
            parked
                .iter()
                .map(|parked| parked_json(parked))
                .collect::<Vec<_>>()
        };
        let waiting: Vec<_> = parked.iter().collect();
        out.json(&json!({"parked": list(&waiting), "unparked": list(&unparked)}))?;
    } else {
        for user in &unparked {
            writeln!(out, "{} folds again", user.user_id)?;
        }
        for user in &parked {
            writeln!(
                out,
                "{} waits from position {} on: {}",
                user.user_id,
                user.from,
                visible(&user.error)
            )?;
        }
        let parked = counted(parked.len() as u64, "user is parked", "users are parked");
        writeln!(out, "{parked}")?;
    }
    out.flush()?;
    Ok(if parked.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}
