//! `diff`: prints the differences between two versions of a user.

use std::io::Write as _;
use std::process::ExitCode;

use events::document::Document;
use events::{UserId, Version};
use ledger::refold::{Until, refold};
use ledger::store::History;
use query_api::changes::{FieldChange, between};
use serde::Serialize;

use super::find_user::find;
use super::state::{Point, profile, within_versions};
use super::terminal::{FAINT, HEADING, Output};
use crate::config::Config;
use crate::parts;

const HELP: &str = "\
With --json it prints one object: from and to (version, position, recordedAt) and changes (field, before, after; null
is a field without a value). The versions may be in either order.

Reads the ledger of --data-dir or --database-url, also while the service runs, and changes nothing.

Examples:
  profile-ledger diff johndoe123 --from 1 --to 3
  profile-ledger diff johndoe123 --from 1 --to 3 --json | jq -r '.changes[].field'

Exit codes, as those of diff(1):
  0  no difference; also if the reader of the output ended early
  1  the versions differ; updatedAt always differs
  2  bad arguments, or the ledger cannot be read
  3  no such user or version";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// An id; or a present username; or a former username that only one user had
    user: String,
    /// The first version
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u64).range(1..))]
    from: Version,
    /// The second version
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u64).range(1..))]
    to: Version,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(config: &Config, args: &Args) -> anyhow::Result<ExitCode> {
    let history = parts::history(config).await?;
    let user = find(&*history, &args.user).await?;
    let early = at_version(&*history, &user, None, args.from.min(args.to)).await?;
    let late = at_version(
        &*history,
        &user,
        Some(early.clone()),
        args.from.max(args.to),
    )
    .await?;
    let (before, after) = if args.from <= args.to {
        (early, late)
    } else {
        (late, early)
    };
    let (from, to) = (Point::of(&before), Point::of(&after));
    let (before, after) = (profile(config, &before), profile(config, &after));
    let changes: Vec<_> = between(&before, &after).collect();
    let differs = !changes.is_empty();
    let mut out = Output::stdout();
    if args.json {
        #[derive(Serialize)]
        struct Difference {
            from: Point,
            to: Point,
            changes: Vec<FieldChange>,
        }
        out.json(&Difference { from, to, changes })?;
    } else {
        let heading = out.styled(HEADING, format_args!("User {user}")).to_string();
        writeln!(out, "{heading}\n  from  {from}\n  to    {to}\n")?;
        out.changes(
            changes
                .iter()
                .map(|change| (change.field.as_str(), &change.before, &change.after)),
        )?;
        if !differs {
            let line = out.styled(FAINT, "  no difference").to_string();
            writeln!(out, "{line}")?;
        }
    }
    out.flush()?;
    Ok(ExitCode::from(u8::from(differs)))
}

async fn at_version(
    history: &dyn History,
    user: &UserId,
    earlier: Option<Document>,
    version: Version,
) -> anyhow::Result<Document> {
    within_versions(history, user, version).await?;
    let document = refold(history, user, earlier, Until::Version(version)).await?;
    Ok(document.expect("a version that is there folds to a document"))
}
