//! Events as lines of a file.

use std::borrow::Cow;

use anyhow::{Context as _, bail};
use events::{Context, StoredEvent};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Format;

const COLUMNS: [&str; 17] = [
    "position",
    "version",
    "type",
    "schemaVersion",
    "time",
    "recordedTime",
    "eventId",
    "userId",
    "actorType",
    "actor",
    "platform",
    "appVersion",
    "device",
    "language",
    "timezone",
    "requestId",
    "data",
];

/// The bytes before the first event.
pub(super) fn heading(format: Format) -> Vec<u8> {
    match format {
        Format::Ndjson => Vec::new(),
        Format::Csv => rows([COLUMNS.map(Cow::Borrowed)]),
    }
}

/// Events as lines.
pub(super) fn of(format: Format, events: &[StoredEvent]) -> anyhow::Result<Vec<u8>> {
    match format {
        Format::Ndjson => {
            let mut lines = Vec::new();
            for event in events {
                if event.envelope.contains(&b'\n') {
                    bail!(
                        "the event at position {} contains the end of a line",
                        event.position
                    )
                }
                lines.extend_from_slice(&event.envelope);
                lines.push(b'\n');
            }
            Ok(lines)
        }
        Format::Csv => {
            let envelopes = events.iter().map(|event| {
                let envelope = serde_json::from_slice::<Envelope<'_>>(&event.envelope);
                let envelope = envelope.with_context(|| {
                    format!("the event at position {} cannot be read", event.position)
                })?;
                Ok(row(event, envelope))
            });
            Ok(rows(envelopes.collect::<anyhow::Result<Vec<_>>>()?))
        }
    }
}

/// The members of an envelope that the columns show.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(flatten)]
    context: Context,
    #[serde(borrow)]
    data: &'a RawValue,
}

fn row<'a>(event: &'a StoredEvent, envelope: Envelope<'a>) -> [Cow<'a, str>; COLUMNS.len()] {
    let Envelope {
        time,
        context,
        data,
    } = envelope;
    let optional = |value: Option<String>| cell(value.unwrap_or_default().into());
    [
        event.position.to_string().into(),
        event.version.to_string().into(),
        cell(event.event_type.as_str().into()),
        event.schema_version.to_string().into(),
        cell(time),
        event.recorded_at.to_string().into(),
        event.event_id.to_string().into(),
        event.user_id.to_string().into(),
        cell(context.actor_type.into()),
        cell(context.actor.into()),
        optional(context.platform),
        optional(context.app_version),
        optional(context.device_id),
        optional(context.language),
        optional(context.timezone),
        optional(context.request_id),
        cell(data.get().into()),
    ]
}

/// A text that no spreadsheet takes for a formula, for example `'=1` for `=1`. A text that starts like a formula, also
/// after blanks, gets an apostrophe in front. So does a text that starts with an apostrophe: removing one apostrophe
/// always restores the text.
fn cell(text: Cow<'_, str>) -> Cow<'_, str> {
    let first = text.trim_start().chars().next();
    let is_formula = first.is_some_and(|c| "=+-@\u{ff1d}\u{ff0b}\u{ff0d}\u{ff20}".contains(c));
    if is_formula || text.starts_with(['\'', '\t', '\r', '\n']) {
        return format!("'{text}").into();
    }
    text
}

fn rows<'a>(rows: impl IntoIterator<Item = [Cow<'a, str>; COLUMNS.len()]>) -> Vec<u8> {
    let mut lines = String::new();
    for row in rows {
        lines.push_str(&row.map(quoted).join(","));
        lines.push_str("\r\n");
    }
    lines.into_bytes()
}

/// A cell in the form of RFC 4180: in quotes if it contains a separator, a quote or a line end.
fn quoted(cell: Cow<'_, str>) -> Cow<'_, str> {
    if cell.contains(['"', ',', '\r', '\n']) {
        return format!("\"{}\"", cell.replace('"', "\"\"")).into();
    }
    cell
}

#[cfg(test)]
mod tests {
    use events::event::UsernameChanged;
    use events::{EventId, LeafHash, Recorded, Time, UserEvent, UserId};
    use proptest::prelude::*;

    use super::*;

    fn renamed(actor: &str, after: &str) -> StoredEvent {
        let time = Time::from_millis(1_779_466_286_808);
        Recorded {
            position: 42,
            event_id: EventId::new(time, [3; 10]),
            user_id: UserId::new(time, [4; 8]),
            version: 7,
            time,
            recorded_at: time,
            previous: None,
            context: Context {
                actor_type: "user".to_owned(),
                actor: actor.to_owned(),
                ..Context::default()
            },
            event: UserEvent::UsernameChanged(UsernameChanged {
                before: "john".to_owned(),
                after: after.to_owned(),
                held_until: time,
            }),
        }
        .to_stored()
    }

    fn read(csv: &[u8]) -> Vec<Vec<String>> {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .from_reader(csv);
        let texts = |row: csv::StringRecord| row.iter().map(str::to_owned).collect();
        reader.records().map(|row| texts(row.unwrap())).collect()
    }

    #[test]
    fn a_row_is_as_rfc_4180_says() {
        let event = renamed("a \"b\", c", "j");
        let line = String::from_utf8(of(Format::Csv, &[event]).unwrap()).unwrap();
        assert_eq!(
            line,
            "42,7,username-changed,1,2026-05-22T16:11:26.808Z,2026-05-22T16:11:26.808Z,\
             019e5074-b6d8-7303-8303-030303030303,6a10802e0404040404040404,user,\"a \"\"b\"\", c\",,,,,,,\
             \"{\"\"before\"\":\"\"john\"\",\"\"after\"\":\"\"j\"\",\"\"heldUntil\"\":\"\"2026-05-22T16:11:26.808Z\"\"}\"\r\n"
        );
    }

    #[test]
    fn no_cell_is_a_formula() {
        for formula in [
            "=cmd|' /C calc'!A0",
            "+1",
            "-1",
            "@SUM(A1)",
            "\t=1",
            "  =1",
            "\r=1",
            "\u{ff1d}1",
            "'=1",
        ] {
            let written = of(Format::Csv, &[renamed(formula, "j")]).unwrap();
            assert_eq!(read(&written)[0][9], format!("'{formula}"));
        }
    }

    #[test]
    fn an_envelope_of_several_lines_is_refused() {
        let event = StoredEvent {
            envelope: "{\n}".into(),
            leaf_hash: LeafHash::of(b"{\n}"),
            ..renamed("a", "j")
        };
        assert!(of(Format::Ndjson, std::slice::from_ref(&event)).is_err());
        assert!(of(Format::Csv, &[event]).is_err());
    }

    proptest! {
        #[test]
        fn any_texts_come_back_from_their_rows(actor in ".{0,20}", after in ".{0,20}") {
            let event = renamed(&actor, &after);
            let written = of(Format::Csv, std::slice::from_ref(&event)).unwrap();
            let rows = read(&written);
            prop_assert_eq!(rows.len(), 1);
            let cell = &rows[0][9];
            prop_assert_eq!(cell.strip_prefix('\'').unwrap_or(cell), actor);
            let data: serde_json::Value = serde_json::from_str(&rows[0][16]).unwrap();
            prop_assert_eq!(data["after"].as_str().unwrap(), after);
        }
    }
}
