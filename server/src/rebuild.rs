//! `rebuild` and `parked`: the read model folded anew, and the users that wait.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context as _;
use projector::projection::Projection;
use projector::read_model::Parked;
use projector::rebuild::{self, Difference, Digest, Report, rebuild, roll_back};
use serde_json::{Value, json};

use crate::config::{Config, ParkedArgs, RebuildArgs};
use crate::parts;
use crate::progress::Progress;
use crate::terminal::{Output, counted, visible};

/// The exit code is 1 when the tables differ and nothing was swapped.
pub(crate) async fn run(config: &Config, args: &RebuildArgs) -> anyhow::Result<ExitCode> {
    let history = parts::history(config).await?;
    let read_model = parts::replaceable(config).await?;
    let run = hex::encode(parts::randomness().bytes::<8>());
    let progress = Progress::new();
    let tell = |come: rebuild::Progress| match come {
        rebuild::Progress::Folding(at, of) => {
            progress.begin("folding", of);
            progress.at(at);
        }
        rebuild::Progress::Completing => progress.begin("indexing", 0),
        rebuild::Progress::Comparing(users) => {
            progress.begin("comparing", users);
            progress.at(users);
        }
    };
    let mut out = Output::stdout();
    if args.rollback {
        let rolled_back = roll_back(history, &*read_model, &run, &tell).await;
        progress.finish();
        let position = rolled_back.context("the earlier documents were not brought back")?;
        if args.json {
            out.json(&json!({"rolledBack": true, "swappedAt": position}))?;
        } else {
            writeln!(
                out,
                "The earlier documents are back, as of position {position}. The ones that they replaced are kept: \
                 --rollback again brings those back."
            )?;
        }
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    let rebuilt = rebuild(history, &*read_model, &run, args.accept_differences, &tell).await;
    progress.finish();
    let report = rebuilt.context("nothing was swapped; the live documents are as they were")?;
    if args.json {
        out.json(&summary(&report))?;
    } else {
        print(&mut out, &report)?;
    }
    out.flush()?;
    Ok(match report.swapped_at {
        Some(_) => ExitCode::SUCCESS,
        None => ExitCode::from(1),
    })
}

fn print(out: &mut impl Write, report: &Report) -> std::io::Result<()> {
    let of = |digest: &Digest| {
        format!(
            "{}, digest {}",
            counted(digest.users, "user", "users"),
            hex::encode(digest.hash)
        )
    };
    writeln!(out, "compared at position {}", report.compared_at)?;
    writeln!(out, "live:    {}", of(&report.live))?;
    writeln!(out, "rebuilt: {}", of(&report.rebuilt))?;
    if let Some(position) = report.was_ahead {
        writeln!(
            out,
            "The live documents were at position {position}, which the ledger does not have."
        )?;
    }
    for parked in &report.unparked {
        writeln!(out, "{} was parked and folds again", parked.user_id)?;
    }
    for parked in &report.parked {
        writeln!(
            out,
            "{} is parked from position {} on: {}",
            parked.user_id,
            parked.from,
            visible(&parked.error)
        )?;
    }
    for difference in &report.differing {
        let at = |position: Option<_>| {
            position.map_or("absent".to_owned(), |position| {
                format!("at position {position}")
            })
        };
        writeln!(
            out,
            "{} differs: live {}, rebuilt {}",
            difference.user_id,
            at(difference.live),
            at(difference.rebuilt)
        )?;
    }
    let more = report
        .differences
        .saturating_sub(report.differing.len() as u64);
    if more > 0 {
        let users = counted(more, "more user differs", "more users differ");
        writeln!(out, "{users}")?;
    }
    match report.swapped_at {
        Some(position) => writeln!(
            out,
            "The rebuilt documents are live, as of position {position}. The earlier ones are kept: --rollback brings them back."
        ),
        None => writeln!(
            out,
            "Nothing was swapped, as both differ. After a fold was corrected that is to be expected: \
             --accept-differences takes the rebuilt documents."
        ),
    }
}

fn summary(report: &Report) -> Value {
    let digest =
        |digest: &Digest| json!({"users": digest.users, "digest": hex::encode(digest.hash)});
    let difference = |difference: &Difference| json!({"userId": difference.user_id, "live": difference.live, "rebuilt": difference.rebuilt});
    json!({
        "comparedAt": report.compared_at,
        "live": digest(&report.live),
        "rebuilt": digest(&report.rebuilt),
        "differences": report.differences,
        "differing": report.differing.iter().map(difference).collect::<Vec<_>>(),
        "wasAhead": report.was_ahead,
        "unparked": report.unparked.iter().map(parked_json).collect::<Vec<_>>(),
        "parked": report.parked.iter().map(parked_json).collect::<Vec<_>>(),
        "swappedAt": report.swapped_at,
    })
}

fn parked_json(parked: &Parked) -> Value {
    json!({
        "userId": parked.user_id,
        "position": parked.from,
        "error": parked.error,
        "recordedAt": parked.recorded_at,
    })
}

/// Lists the users that wait. The exit code is 1 when there are any.
pub(crate) async fn parked(config: &Config, args: &ParkedArgs) -> anyhow::Result<ExitCode> {
    let read_model = if args.retry {
        parts::read_model(config).await?
    } else {
        parts::read_model_to_read(config).await?
    };
    let before = read_model.parked().await.context("cannot list who waits")?;
    let parked = if args.retry && !before.is_empty() {
        let history = parts::history(config).await?;
        let owner = hex::encode(parts::randomness().bytes::<16>());
        let (projection, _) = Projection::new(read_model, history, owner);
        projection
            .retry_parked()
            .await
            .context("cannot fold again")?
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
