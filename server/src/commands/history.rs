//! `history`: prints the events of a user.

use std::io::Write as _;
use std::process::ExitCode;

use events::{Context, Position, StoredEvent, Version};
use query_api::changes::{self, FieldChange};
use serde::Serialize;
use serde_json::value::RawValue;

use super::find_user::{NotFound, find};
use super::terminal::{FAINT, HEADING, Output, visible};
use crate::config::Config;
use crate::parts;

/// Events in memory at once.
const BATCH: u64 = 256;

const HELP: &str = "\
Prints one block per event: version, position, time of recording and type; the actor and the origin; and each
field with its value before and after. With --json it prints one object per line: position, version, event (the
stored CloudEvents envelope) and changes (null if only a newer version of this program can read the event).

Reads the ledger of --data-dir or --database-url, also while the service runs, and changes nothing.

Examples:
  profile-ledger history johndoe123
  profile-ledger history 507f1f77bcf86cd799439011 --newest-first --limit 10
  profile-ledger history johndoe123 --json | jq -r '.event.authid' | sort | uniq -c

Exit codes:
  0  done, also if the reader of the output ended early
  2  bad arguments, or the ledger cannot be read
  3  no such user, or no such version of it";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// An id; or a present username; or a former username that only one user had
    user: String,
    /// Start with the newest event
    #[arg(long)]
    newest_first: bool,
    /// Show at most this many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Continue after this version; with --newest-first, before it
    #[arg(long, value_name = "VERSION")]
    after: Option<Version>,
    /// Print JSON, one object per line
    #[arg(long)]
    json: bool,
}

/// An event in the JSON output.
#[derive(Serialize)]
struct Item<'a> {
    position: Position,
    version: Version,
    event: &'a RawValue,
    changes: Option<Vec<FieldChange>>,
}

pub(crate) async fn run(config: &Config, args: &Args) -> anyhow::Result<ExitCode> {
    let history = parts::history(config).await?;
    let user = find(&*history, &args.user).await?;
    if let Some(after) = args.after {
        let newest = history.read_user_back(&user, Version::MAX, 1).await?;
        let newest = newest.first().map_or(0, |event| event.version);
        if after > newest {
            let wanted = after;
            return Err(NotFound::Version { wanted, newest }.into());
        }
    }
    let mut out = Output::stdout();
    if !args.json {
        let heading = out.styled(HEADING, format_args!("User {user}")).to_string();
        writeln!(out, "{heading}")?;
    }
    let read = async |after, limit: u64| {
        let limit = usize::try_from(limit).expect("a batch is small");
        if args.newest_first {
            history.read_user_back(&user, after, limit).await
        } else {
            history.read_user(&user, after, limit).await
        }
    };
    let first = if args.newest_first { Version::MAX } else { 0 };
    let mut after = args.after.unwrap_or(first);
    let mut left = args.limit.unwrap_or(u64::MAX);
    loop {
        let limit = left.min(BATCH);
        let events = read(after, limit).await?;
        for event in &events {
            print(&mut out, event, args.json)?;
            after = event.version;
        }
        left -= events.len() as u64;
        if (events.len() as u64) < limit {
            break;
        }
        if left == 0 {
            if !args.json && !read(after, 1).await?.is_empty() {
                let more = format!("More events follow: continue with --after {after}");
                let more = out.styled(FAINT, more).to_string();
                writeln!(out, "\n{more}")?;
            }
            break;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn print(out: &mut Output, event: &StoredEvent, is_json: bool) -> anyhow::Result<()> {
    let changes = event
        .decode()
        .ok()
        .map(|recorded| changes::of(&recorded.event));
    if is_json {
        return out.json(&Item {
            position: event.position,
            version: event.version,
            event: serde_json::from_slice(&event.envelope)?,
            changes,
        });
    }
    let heading = format!("version {}", event.version);
    let line = format!(
        "\n{}  position {}  {}  {}",
        out.styled(HEADING, heading),
        event.position,
        event.recorded_at,
        out.styled(HEADING, visible(&event.event_type)),
    );
    writeln!(out, "{line}")?;
    // An envelope from a newer program has these members, too.
    let cause = serde_json::from_slice::<Context>(&event.envelope);
    let cause = cause.map_or_else(
        |_| "by an unknown actor".to_owned(),
        |context| cause_of(&context),
    );
    let line = out.styled(FAINT, cause).to_string();
    writeln!(out, "  {line}")?;
    match changes {
        Some(changes) => out.changes(
            changes
                .iter()
                .map(|change| (change.field.as_str(), &change.before, &change.after)),
        )?,
        None => writeln!(
            out,
            "  only a newer version of this program can read the changes"
        )?,
    }
    Ok(())
}

/// The actor of an event and its origin.
fn cause_of(context: &Context) -> String {
    let actor = format!("by {} {}", context.actor_type, context.actor);
    let details = [
        ("platform", &context.platform),
        ("app", &context.app_version),
        ("device", &context.device_id),
        ("request", &context.request_id),
    ];
    let details = details
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name} {}", value.as_ref()?)));
    let parts: Vec<_> = std::iter::once(actor).chain(details).collect();
    visible(&parts.join("  "))
}
