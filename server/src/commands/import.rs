//! `import`: registers the users of a file with one JSON object per line, in constant memory.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use command_api::committer::{Command, Committer, Decided, Undecided};
use command_api::user::{Action, Rejection};
use command_api::values;
use events::{Context, Time, UserId};
use futures::StreamExt as _;
use http_kit::clock::Clock;
use http_kit::fields::Fields;
use http_kit::text::Language;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, BufReader};

use super::progress::Progress;
use crate::config::Config;
use crate::parts;

/// A longer line is refused.
const MAX_LINE: usize = 64 * 1024;
/// Lines decided at once. The commit loop writes them in one batch.
const AT_ONCE: usize = 512;
/// Lines between two reports of progress where there is no terminal.
const LINES: u64 = 10_000;
/// Bad lines that are printed. The rest is only counted.
const MAX_REASONS: u64 = 1000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// NDJSON file: each line is the body of `POST /api/v1/users`. Without `_id` the username determines the id
    file: PathBuf,
}

/// Registers every user of the file. The exit code is 1 if a line was bad.
pub(crate) async fn run(config: &Config, args: &Args) -> anyhow::Result<ExitCode> {
    let file = tokio::fs::File::open(&args.file)
        .await
        .with_context(|| format!("cannot open {}", args.file.display()))?;
    let length = file
        .metadata()
        .await
        .with_context(|| format!("cannot read {}", args.file.display()))?
        .len();
    let clock = Clock::system();
    let store = parts::store(config).await?;
    let (committer, commit_loop) = Committer::new(store, clock.clone(), parts::randomness());
    let commit_loop = tokio::spawn(commit_loop);
    let progress = Progress::new(Duration::ZERO);
    progress.begin("importing", length);
    let counts = import(
        BufReader::with_capacity(256 * 1024, file),
        &committer,
        &clock,
        &progress,
    )
    .await;
    drop(committer);
    commit_loop.await.context("the commit loop failed")?;
    let counts = counts.with_context(|| {
        format!(
            "stopped while importing {}; run the command again to continue",
            args.file.display()
        )
    })?;
    println!(
        "{} registered, {} already registered, {} bad",
        counts.registered, counts.existing, counts.bad
    );
    Ok(if counts.bad == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    registered: u64,
    existing: u64,
    bad: u64,
}

/// The result of one line.
enum Line {
    Blank,
    Bad(Vec<String>),
    Sent(Result<Decided, Undecided>),
}

async fn import(
    reader: impl AsyncBufRead + Unpin,
    committer: &Committer,
    clock: &Clock,
    progress: &Progress,
) -> anyhow::Result<Counts> {
    let today = Time::from(clock.now()).date();
    let lines = futures::stream::try_unfold((reader, 0_u64), async |(mut reader, number)| {
        let line = read_line(&mut reader).await?;
        Ok::<_, std::io::Error>(line.map(|line| ((number + 1, line), (reader, number + 1))))
    });
    let results = lines
        .map(|line| async move {
            let (number, (bytes, length)) = line?;
            let came_to = match bytes.as_deref().map(|bytes| parse(bytes, today)) {
                None => Line::Bad(vec![format!("longer than {MAX_LINE} bytes")]),
                Some(Ok(None)) => Line::Blank,
                Some(Ok(Some(command))) => Line::Sent(committer.submit(command).await),
                Some(Err(reasons)) => Line::Bad(reasons),
            };
            Ok::<_, std::io::Error>((number, length, came_to))
        })
        .buffered(AT_ONCE);
    let mut results = std::pin::pin!(results);
    let mut counts = Counts::default();
    let mut bytes = 0;
    while let Some(result) = results.next().await {
        let (number, length, came_to) = result?;
        let reasons = match came_to {
            Line::Blank => Vec::new(),
            Line::Bad(reasons) => reasons,
            Line::Sent(decided) => match decided?.result {
                Ok(_) => {
                    counts.registered += 1;
                    Vec::new()
                }
                Err(Rejection::UserExists { .. }) => {
                    counts.existing += 1;
                    Vec::new()
                }
                Err(rejection) => vec![rejection.to_string()],
            },
        };
        if !reasons.is_empty() {
            counts.bad += 1;
            if counts.bad <= MAX_REASONS {
                progress.say(&format!("line {number}: {}", reasons.join("; ")));
            }
        }
        bytes += length;
        if progress.is_terminal() || number.is_multiple_of(LINES) {
            progress.at_line(number, bytes);
        }
    }
    progress.finish();
    Ok(counts)
}

/// The next line without its end, and its length including the end. The line is `None` if it is too long; the result is
/// `None` at the end of the file. Memory stays bounded for every file.
async fn read_line(
    reader: &mut (impl AsyncBufRead + Unpin),
) -> std::io::Result<Option<(Option<Vec<u8>>, u64)>> {
    let mut line = Vec::new();
    let mut length = 0_u64;
    loop {
        let chunk = reader.fill_buf().await?;
        if chunk.is_empty() {
            break;
        }
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(chunk.len(), |end| end + 1);
        if line.len() <= MAX_LINE {
            let room = MAX_LINE + 2 - line.len().min(MAX_LINE + 1);
            line.extend_from_slice(&chunk[..taken.min(room)]);
        }
        length += taken as u64;
        reader.consume(taken);
        if end.is_some() {
            break;
        }
    }
    if length == 0 {
        return Ok(None);
    }
    while line
        .last()
        .is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
    {
        line.pop();
    }
    Ok(Some(((line.len() <= MAX_LINE).then_some(line), length)))
}

/// The command of a line, `None` for a blank line, or every reason why the line is bad.
fn parse(line: &[u8], today: jiff::civil::Date) -> Result<Option<Command>, Vec<String>> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let sentences = |error: http_kit::error::ApiError| error.sentences(Language::En).split_off(1);
    let mut fields = Fields::parse(line).map_err(sentences)?;
    let registration = values::registration(&mut fields, today);
    fields.finish().map_err(sentences)?;
    let (user_id, registration) = registration.expect("`finish` has reported what is bad");
    let user_id = user_id.unwrap_or_else(|| id_of(registration.username.as_str()));
    let context = Context {
        actor_type: "system".to_owned(),
        actor: "import".to_owned(),
        ..Context::default()
    };
    Ok(Some(Command {
        user_id,
        action: Action::Register(Box::new(registration)),
        expected_version: None,
        idempotency: None,
        context,
    }))
}

/// The id of a user whose line has none. The same username always gives the same id, so a second run finds the users of
/// the first.
fn id_of(username: &str) -> UserId {
    let hash = Sha256::new()
        .chain_update("import:")
        .chain_update(username)
        .finalize();
    hex::encode(&hash[..12])
        .parse()
        .expect("twelve bytes in hexadecimal digits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_without_an_id_gets_one_from_its_username() {
        assert_eq!(id_of("john"), id_of("john"));
        assert_ne!(id_of("john"), id_of("jane"));
    }

    #[tokio::test]
    async fn a_line_too_long_is_passed_over_in_constant_memory() {
        let mut text = vec![b'x'; 3 * MAX_LINE];
        text.extend_from_slice(b"\n{}\r\nlast");
        let mut reader = BufReader::with_capacity(1000, &text[..]);
        let (line, length) = read_line(&mut reader).await.unwrap().unwrap();
        assert_eq!((line, length), (None, 3 * MAX_LINE as u64 + 1));
        assert_eq!(
            read_line(&mut reader).await.unwrap(),
            Some((Some(b"{}".to_vec()), 4))
        );
        assert_eq!(
            read_line(&mut reader).await.unwrap(),
            Some((Some(b"last".to_vec()), 4))
        );
        assert_eq!(read_line(&mut reader).await.unwrap(), None);
    }

    #[test]
    fn a_bad_line_names_every_reason() {
        let reasons = parse(
            br#"{"username":"a","name":"","nope":1}"#,
            jiff::civil::date(2026, 1, 1),
        )
        .unwrap_err();
        assert_eq!(
            reasons.len(),
            4,
            "username, name, surname and the unknown member: {reasons:?}"
        );
    }

    proptest! {
        #[test]
        fn any_line_is_a_command_or_reasons(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&line, jiff::civil::date(2026, 1, 1));
        }
    }
}
