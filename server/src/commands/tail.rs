//! `tail`: prints events as they happen.

use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use events::{Position, StoredEvent, UserEvent};
use ledger::backoff::Backoff;
use ledger::feed::{self, Feed};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::argument::{event_type, position};
use super::terminal::visible;
use crate::config::Config;
use crate::parts;

/// The wait before a source that is away is read again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// The time between two checks of the reader of the output.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The first position to print, from 1; the command waits for a position that does not exist yet; by default only new
    /// events are printed
    #[arg(long, value_name = "POSITION", value_parser = position, allow_negative_numbers = true)]
    from: Option<Position>,
    /// Print only events of this type; repeat the flag for several types
    #[arg(long = "type", value_name = "TYPE", value_parser = event_type)]
    types: Vec<String>,
}

/// Prints until Ctrl-C, or until the reader of the output ends.
pub(crate) async fn run(config: &Config, args: &Args) -> anyhow::Result<ExitCode> {
    let mut feed = parts::follow(config, args.from).await?;
    let mut out = std::io::stdout().lock();
    let form = Form::of(&out);
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut unread = std::pin::pin!(unread());
    loop {
        let events = tokio::select! {
            biased;
            signal = &mut interrupted => {
                signal.context("Ctrl-C cannot be received")?;
                return Ok(ExitCode::SUCCESS);
            }
            () = &mut unread => return Ok(ExitCode::SUCCESS),
            events = next(&mut *feed) => events.map_err(|error| told(error, config))?,
        };
        match print(&mut out, form, &args.types, &events) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
            printed => printed.context("events cannot be printed")?,
        }
    }
}

/// The next events. Waits for a source that is away.
async fn next(feed: &mut dyn Feed) -> Result<Vec<StoredEvent>, feed::Error> {
    let mut backoff = Backoff::every(TRY_AGAIN);
    loop {
        match feed.next().await {
            Err(error) if error.is_away() => {
                if backoff.failed() {
                    let error = events::chain(&error);
                    tracing::warn!(error, "Events cannot be read; trying again");
                }
                backoff.wait().await;
            }
            settled => return settled,
        }
    }
}

/// Adds advice to a gap in the stream: the ledger has the events.
fn told(error: feed::Error, config: &Config) -> anyhow::Error {
    let is_gap = matches!(error, feed::Error::Gap { .. } | feed::Error::Foreign(_));
    let error = anyhow::Error::new(error);
    if is_gap && config.nats_url.is_some() {
        return error
            .context("the stream does not contain this event; unset NATS_URL to read the ledger");
    }
    error
}

/// Resolves when the reader of standard output has closed it. A file stays open. Without this check a command that waits
/// for an event would not notice.
async fn unread() {
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        let stdout = std::io::stdout();
        let mut state = [PollFd::new(&stdout, PollFlags::empty())];
        let polled = poll(&mut state, Some(&Timespec::default()));
        if polled.is_ok() && state[0].revents().contains(PollFlags::ERR) {
            return;
        }
    }
}

fn print(
    out: &mut impl Write,
    form: Form,
    types: &[String],
    events: &[StoredEvent],
) -> std::io::Result<()> {
    let is_wanted = |event: &&StoredEvent| types.is_empty() || types.contains(&event.event_type);
    for event in events.iter().filter(is_wanted) {
        out.write_all(&form.line(event))?;
    }
    out.flush()
}

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The envelope: for programs.
    Json,
    /// For people.
    Text { is_coloured: bool },
}

impl Form {
    fn of(out: &impl IsTerminal) -> Self {
        if !out.is_terminal() {
            return Self::Json;
        }
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self::Text {
            is_coloured: !is_plain,
        }
    }

    /// One line, with its end.
    fn line(self, event: &StoredEvent) -> Vec<u8> {
        let Self::Text { is_coloured } = self else {
            // Between the members of JSON a line end means the same as a space, and JSON strings contain none.
            let mut line = event.envelope.to_vec();
            for byte in &mut line {
                if matches!(byte, b'\n' | b'\r') {
                    *byte = b' ';
                }
            }
            line.push(b'\n');
            return line;
        };
        let parts = serde_json::from_slice::<Parts<'_>>(&event.envelope);
        let (actor, data) = match &parts {
            Ok(parts) => (
                format!("{} {}", parts.authtype, parts.authid),
                parts.data.get(),
            ),
            Err(_) => ("an unknown actor".to_owned(), ""),
        };
        let (colour, dim, plain) = if is_coloured {
            (colour(&event.event_type), "\x1b[2m", "\x1b[0m")
        } else {
            ("", "", "")
        };
        let line = format!(
            "{:>8}  {dim}{}{plain}  {colour}{:<16}{plain}  {} v{}  {dim}by {}{plain}  {}\n",
            event.position,
            event.recorded_at,
            visible(&event.event_type),
            event.user_id,
            event.version,
            visible(&actor),
            visible(data),
        );
        line.into_bytes()
    }
}

/// The members of an envelope that are printed.
#[derive(Deserialize)]
struct Parts<'a> {
    authtype: String,
    authid: String,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Green, cyan, magenta, yellow, blue, red.
const COLOURS: [&str; 6] = [
    "\x1b[32m", "\x1b[36m", "\x1b[35m", "\x1b[33m", "\x1b[34m", "\x1b[31m",
];
const BOLD: &str = "\x1b[1m";

/// The colours go round the list of event types. A type that this program does not know is bold.
fn colour(event_type: &str) -> &'static str {
    let index = UserEvent::TYPES.iter().position(|name| *name == event_type);
    index.map_or(BOLD, |index| COLOURS[index % COLOURS.len()])
}

#[cfg(test)]
mod tests {
    use events::envelope::{Context, Recorded};
    use events::event::UsernameChanged;
    use events::{EventId, Time, UserId};

    use super::*;

    fn renamed(after: &str) -> StoredEvent {
        Recorded {
            position: 42,
            event_id: EventId::new(Time::from_millis(1), [3; 10]),
            user_id: UserId::new(Time::from_millis(2000), [4; 8]),
            version: 7,
            time: Time::from_millis(5),
            recorded_at: Time::from_millis(1_779_466_286_999),
            previous: None,
            context: Context {
                actor_type: "user".to_owned(),
                actor: "somebody".to_owned(),
                ..Context::default()
            },
            event: UserEvent::UsernameChanged(UsernameChanged {
                before: "john".to_owned(),
                after: after.to_owned(),
                held_until: Time::from_millis(9),
            }),
        }
        .to_stored()
    }

    fn text(form: Form, event: &StoredEvent) -> String {
        String::from_utf8(form.line(event)).unwrap()
    }

    #[test]
    fn programs_get_the_exact_envelope_on_one_line() {
        let event = renamed("jöhn\n\u{2028}");
        let line = Form::Json.line(&event);
        assert_eq!(line.strip_suffix(b"\n").unwrap(), event.envelope);
        let spread = StoredEvent {
            envelope: "{\n\"a\":\r\n1}".into(),
            ..event
        };
        assert_eq!(text(Form::Json, &spread), "{ \"a\":  1}\n");
    }

    #[test]
    fn people_get_a_line_with_colours_or_without() {
        let plain = Form::Text { is_coloured: false };
        let expected = "      42  2026-05-22T16:11:26.999Z  username-changed  000000020404040404040404 v7  \
                        by user somebody  {\"before\":\"john\",\"after\":\"j\",\"heldUntil\":\"1970-01-01T00:00:00.009Z\"}\n";
        assert_eq!(text(plain, &renamed("j")), expected);
        let coloured = text(Form::Text { is_coloured: true }, &renamed("j"));
        assert!(coloured.contains("\x1b[33musername-changed\x1b[0m"));
        let unknown = StoredEvent {
            envelope: "{}".into(),
            ..renamed("j")
        };
        assert!(text(plain, &unknown).ends_with("by an unknown actor  \n"));
    }

    #[test]
    fn neighbours_in_the_list_of_event_types_differ_in_colour_and_an_unknown_type_is_bold() {
        for types in UserEvent::TYPES.windows(2) {
            assert_ne!(colour(types[0]), colour(types[1]));
        }
        assert_eq!(colour("no-such-type"), BOLD);
    }

    #[test]
    fn texts_of_users_cannot_control_the_terminal() {
        let plain = Form::Text { is_coloured: false };
        let line = text(plain, &renamed("\x1b[2J\u{9b}2J\u{202e}\u{7}\r\n"));
        let shown = line.trim_end_matches('\n');
        assert!(!shown.chars().any(|c| c.is_control() || c == '\u{202e}'));
        assert!(shown.contains(r"\u{9b}2J\u{202e}"));
    }
}
