//! `rebuild`: folds the read model again.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use projector::rebuild::{self, Difference, Digest, Report, rebuild, roll_back};
use serde_json::{Value, json};

use super::parked::parked_json;
use super::progress::Progress;
use super::terminal::{Output, counted, visible};
use crate::config::Config;
use crate::parts;

/// The time between two reports of progress.
const PROGRESS: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The projection to rebuild; there is only one
    #[arg(long, value_enum, default_value_t = Projection::Users)]
    projection: Projection,
    /// Swap although the rebuilt documents differ from the live ones, which is expected after a fold was corrected
    #[arg(long)]
    accept_differences: bool,
    /// Restore the documents that the last rebuild replaced, and bring them up to date
    #[arg(long, conflicts_with = "accept_differences")]
    rollback: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// A projection that can be rebuilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Projection {
    /// The user documents and their search words.
    Users,
}

/// The exit code is 1 if the documents differ and nothing was swapped.
pub(crate) async fn run(config: &Config, args: &Args) -> anyhow::Result<ExitCode> {
    let history = parts::history(config).await?;
    let read_model = parts::replaceable(config).await?;
    let run = hex::encode(parts::randomness().bytes::<8>());
    let progress = Progress::new(PROGRESS);
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
        let position = rolled_back.context("the earlier documents were not restored")?;
        if args.json {
            out.json(&json!({"rolledBack": true, "swappedAt": position}))?;
        } else {
            writeln!(
                out,
                "The earlier documents are live again, as of position {position}. The replaced ones are kept: \
                 --rollback restores them."
            )?;
        }
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    let rebuilt = rebuild(history, &*read_model, &run, args.accept_differences, &tell).await;
    progress.finish();
    let report = rebuilt.context("nothing was swapped; the live documents are unchanged")?;
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
            "The rebuilt documents are live, as of position {position}. The earlier ones are kept: --rollback restores them."
        ),
        None => writeln!(
            out,
            "Nothing was swapped, because the documents differ. This is expected after a fold was corrected: \
             --accept-differences accepts the rebuilt documents."
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
