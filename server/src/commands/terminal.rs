//! Output for people: with colours on a terminal only, and without characters that could control the terminal.

use std::fmt::{self, Write as _};
use std::io::{self, BufWriter, ErrorKind, IsTerminal as _, StdoutLock, Write};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use http_kit::hidden;
use serde::Serialize;
use serde_json::Value;

pub(crate) const HEADING: Style = Style::new().bold();
pub(crate) const FAINT: Style = Style::new().dimmed();
pub(crate) const NAME: Style = AnsiColor::Cyan.on_default();
pub(crate) const BEFORE: Style = AnsiColor::Red.on_default();
pub(crate) const AFTER: Style = AnsiColor::Green.on_default();

/// A number with its noun, such as `1 event`.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    let noun = if number == 1 { one } else { many };
    format!("{number} {noun}")
}

/// Standard output.
pub(crate) struct Output {
    out: BufWriter<StdoutLock<'static>>,
    is_terminal: bool,
    is_coloured: bool,
}

impl Output {
    /// Follows `NO_COLOR` and similar variables.
    pub(crate) fn stdout() -> Self {
        let stdout = io::stdout();
        Self {
            is_terminal: stdout.is_terminal(),
            is_coloured: AutoStream::choice(&stdout) != ColorChoice::Never,
            out: BufWriter::new(stdout.lock()),
        }
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// A text with a style if the output has colours.
    pub(crate) fn styled<T: fmt::Display>(&self, style: Style, text: T) -> Styled<T> {
        let style = if self.is_coloured {
            style
        } else {
            Style::new()
        };
        Styled { style, text }
    }

    /// A value as one line of JSON. On a terminal it is [`escaped`].
    pub(crate) fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(value)?;
        if self.is_terminal {
            line = escaped(&line);
        }
        Ok(writeln!(self, "{line}")?)
    }

    /// One line per change: a name, the value before, the value after.
    pub(crate) fn changes<'a>(
        &mut self,
        changes: impl Iterator<Item = (&'a str, &'a Value, &'a Value)> + Clone,
    ) -> io::Result<()> {
        let width = width(changes.clone().map(|(name, ..)| name));
        for (name, before, after) in changes {
            let line = format!(
                "  {}  {} → {}",
                self.styled(NAME, format_args!("{:width$}", visible(name))),
                self.styled(BEFORE, text(before)),
                self.styled(AFTER, text(after)),
            );
            writeln!(self, "{line}")?;
        }
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes).map_err(told_apart)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush().map_err(told_apart)
    }
}

/// The length of the longest name in characters.
pub(crate) fn width<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    let widths = names.map(|name| visible(name).chars().count());
    widths.max().unwrap_or(0)
}

/// A text between the start and the end of a style.
pub(crate) struct Styled<T> {
    style: Style,
    text: T,
}

impl<T: fmt::Display> fmt::Display for Styled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { style, text } = self;
        write!(f, "{style}{text}{style:#}")
    }
}

/// The reader of the output has ended early, as `head` does. That is not a failure.
#[derive(Debug, thiserror::Error)]
#[error("the reader of the output has gone")]
struct Unread;

/// Marks a broken pipe of the output. A broken pipe of a database is a failure.
fn told_apart(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::BrokenPipe {
        return io::Error::new(ErrorKind::BrokenPipe, Unread);
    }
    error
}

/// Whether a command ended because the reader of its output has gone.
pub(crate) fn is_unread(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let inner = cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        inner
            .and_then(|inner| inner.downcast_ref::<Unread>())
            .is_some()
    })
}

/// A value for people. Strings are in quotes, so that none looks like `(none)`, which means no value.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "(none)".to_owned(),
        value => visible(&value.to_string()),
    }
}

/// A text that cannot control a terminal, change the direction of its line or hide in it. Such characters are shown by
/// their number.
pub(crate) fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) {
            visible.extend(c.escape_unicode());
        } else {
            visible.push(c);
        }
    }
    visible
}

/// JSON with the same meaning, with such characters as `\u` escapes.
fn escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if is_hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Whether a character is shown by its number. Joiners of letters and emoji are shown as they are.
fn is_hidden(c: char) -> bool {
    hidden::is_hidden(c) && !hidden::JOINERS.contains(&c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_of_users_cannot_control_the_terminal() {
        let hostile = "\x1b[2J\u{9b}31m\u{202e}\u{2066}\u{200b}\u{7}\r\n";
        assert_eq!(
            visible(hostile),
            r"\u{1b}[2J\u{9b}31m\u{202e}\u{2066}\u{200b}\u{7}\u{d}\u{a}"
        );
        assert_eq!(text(&json!("a\u{9b}\"\n")), r#""a\u{9b}\"\n""#);
    }

    #[test]
    fn letters_of_any_language_and_emoji_are_left_alone() {
        for plain in ["Işık", "日本", "سلام", "👩‍👩‍👧", "e\u{301}"] {
            assert_eq!(visible(plain), plain);
        }
    }

    #[test]
    fn no_value_is_told_from_any_text() {
        assert_eq!(text(&json!(null)), "(none)");
        assert_eq!(text(&json!("(none)")), r#""(none)""#);
    }

    proptest! {
        #[test]
        fn nothing_hidden_is_left_in_any_text(any in ".{0,40}") {
            prop_assert!(!visible(&any).chars().any(is_hidden));
            let json = escaped(&serde_json::to_string(&any).unwrap());
            prop_assert!(!json.chars().any(is_hidden));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), any);
        }
    }
}
