//! `state`: a user as it is or was.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::bail;
use events::document::Document;
use events::{Position, Time, UserId, Version};
use http_kit::clock::Clock;
use http_kit::profile::OwnProfile;
use jiff::civil::Date;
use ledger::refold::{Until, refold};
use ledger::store::{History, position_at};
use query_api::changes::object;
use serde::Serialize;
use serde_json::{Map, Value};

use super::find_user::{NotFound, find};
use super::terminal::{HEADING, NAME, Output, text, visible, width};
use crate::config::Config;
use crate::parts;

const HELP: &str = "\
Folds the events of the user again, up to the given moment. With --json it prints one object: version, position and
recordedAt of the last folded event, and document, the profile as the user sees it.

Reads the ledger of --data-dir or --database-url, also while the service runs, and changes nothing.

Examples:
  profile-ledger state johndoe123
  profile-ledger state johndoe123 --at 2026-05-22
  profile-ledger state johndoe123 --at 2026-05-22T19:11:26+03:00
  profile-ledger state 507f1f77bcf86cd799439011 --at-version 3 --json | jq .document.bio

Exit codes:
  0  done, also if the reader of the output ended early
  2  bad arguments, or the ledger cannot be read
  3  no such user, version or position, or the user did not exist yet";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// An id; or a present username; or a former username that only one user had
    user: String,
    #[command(flatten)]
    at: At,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The moment; by default the newest.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct At {
    /// The user after this version
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u64).range(1..))]
    at_version: Option<Version>,
    /// The user when the ledger was at this position
    #[arg(long, value_name = "POSITION")]
    at_position: Option<Position>,
    /// The user as recorded at this time, in RFC 3339; a date alone is the end of that day in UTC
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<Moment>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Time(Time),
    Day(Date),
}

fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(time) = text.parse() {
        return Ok(Moment::Time(time));
    }
    // A time without an offset also starts with a date. It is refused.
    let day = text.parse().ok().filter(|_| text.len() == 10);
    day.map(Moment::Day).ok_or_else(|| {
        "a time in RFC 3339 form, such as 2026-05-22T16:11:26.808Z, or a date, such as 2026-05-22".to_owned()
    })
}

impl Moment {
    /// The last instant of the moment. The present day ends now. A moment in the future is refused.
    fn end(self, now: Time) -> anyhow::Result<Time> {
        match self {
            Self::Time(time) if time <= now => Ok(time),
            Self::Day(day) if day < now.date() => Ok(format!("{day}T23:59:59.999Z").parse()?),
            Self::Day(day) if day == now.date() => Ok(now),
            Self::Time(_) | Self::Day(_) => bail!("--at is in the future; the time is {now}"),
        }
    }
}

/// A point in the history of a user.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Point {
    version: Version,
    position: Position,
    recorded_at: Time,
}

impl Point {
    pub(super) fn of(document: &Document) -> Self {
        Self {
            version: document.version,
            position: document.position,
            recorded_at: document.updated_at,
        }
    }
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            version,
            position,
            recorded_at,
        } = self;
        write!(f, "version {version}  position {position}  {recorded_at}")
    }
}

pub(crate) async fn run(config: &Config, args: &Args) -> anyhow::Result<ExitCode> {
    let history = parts::history(config).await?;
    let user = find(&*history, &args.user).await?;
    let until = until(&*history, &user, &args.at).await?;
    let Some(document) = refold(&*history, &user, None, until).await? else {
        return Err(not_registered_then(&*history, &user).await?.into());
    };
    let (point, profile) = (Point::of(&document), profile(config, &document));
    let mut out = Output::stdout();
    if args.json {
        #[derive(Serialize)]
        struct State {
            #[serde(flatten)]
            point: Point,
            document: Map<String, Value>,
        }
        out.json(&State {
            point,
            document: profile,
        })?;
    } else {
        let heading = out.styled(HEADING, format_args!("User {user}")).to_string();
        writeln!(out, "{heading}  {point}")?;
        let mut fields = Vec::new();
        flatten("", &profile, &mut fields);
        let width = width(fields.iter().map(|(name, _)| name.as_str()));
        for (name, value) in fields {
            let name = format!("{:width$}", visible(&name));
            let line = format!("  {}  {}", out.styled(NAME, name), text(value));
            writeln!(out, "{line}")?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// The last version or position to fold for a moment.
async fn until(history: &dyn History, user: &UserId, at: &At) -> anyhow::Result<Until> {
    if let Some(version) = at.at_version {
        within_versions(history, user, version).await?;
        return Ok(Until::Version(version));
    }
    if let Some(wanted) = at.at_position {
        let newest = history.head().await?.position;
        if wanted > newest {
            return Err(NotFound::Position { wanted, newest }.into());
        }
        return Ok(Until::Position(wanted));
    }
    if let Some(moment) = at.at {
        let now = Time::from(Clock::system().now());
        let position = position_at(history, moment.end(now)?).await?;
        return Ok(Until::Position(position));
    }
    Ok(Until::Position(history.head().await?.position))
}

pub(super) async fn within_versions(
    history: &dyn History,
    user: &UserId,
    wanted: Version,
) -> anyhow::Result<()> {
    let newest = history.read_user_back(user, Version::MAX, 1).await?;
    let newest = newest.first().map_or(0, |event| event.version);
    if wanted > newest {
        return Err(NotFound::Version { wanted, newest }.into());
    }
    Ok(())
}

/// The user exists, but was registered later.
async fn not_registered_then(history: &dyn History, user: &UserId) -> anyhow::Result<NotFound> {
    let first = history.read_user(user, 0, 1).await?;
    Ok(first.first().map_or_else(
        || NotFound::User(user.to_string()),
        |first| NotFound::NotRegisteredThen {
            position: first.position,
            time: first.recorded_at,
        },
    ))
}

/// The profile as a service with the same configuration shows it to the user.
pub(super) fn profile(config: &Config, document: &Document) -> Map<String, Value> {
    let own = format!("http://{}", config.listen);
    object(&OwnProfile {
        document,
        public_url: config.public_url.as_deref().unwrap_or(&own),
    })
}

/// Nested members, with a dot between the names.
fn flatten<'a>(path: &str, members: &'a Map<String, Value>, fields: &mut Vec<(String, &'a Value)>) {
    for (name, value) in members {
        let path = format!("{path}{name}");
        match value {
            Value::Object(members) => flatten(&format!("{path}."), members, fields),
            value => fields.push((path, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-05-22T16:11:26.808Z";

    #[track_caller]
    fn end(text: &str) -> String {
        let end = moment(text).unwrap().end(NOW.parse().unwrap());
        end.map_or_else(|error| error.to_string(), |end| end.to_string())
    }

    #[test]
    fn a_date_alone_is_the_end_of_that_day_and_today_ends_now() {
        assert_eq!(end("2026-05-21"), "2026-05-21T23:59:59.999Z");
        assert_eq!(end("2026-05-22"), NOW);
        assert_eq!(
            end("2026-05-22T19:11:26.8+03:00"),
            "2026-05-22T16:11:26.800Z"
        );
    }

    #[test]
    fn a_moment_in_the_future_is_refused() {
        for ahead in ["2026-05-23", "9999-12-31", "2026-05-22T16:11:26.809Z"] {
            assert!(end(ahead).contains("in the future"), "{ahead}");
        }
    }

    #[test]
    fn a_text_that_is_not_a_moment_is_refused() {
        for bad in [
            "",
            "yesterday",
            "2026-13-01",
            "2026-05-22T16:11:26",
            "2026-05-22T16:11",
            "3",
            "-1",
        ] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }
}
