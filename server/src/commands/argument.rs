//! Values of arguments that several commands share.

use events::{Position, UserEvent};
use http_kit::text::Language;

/// A position.
pub(super) fn position(text: &str) -> Result<Position, String> {
    let position = text.parse().ok().filter(|position| *position > 0);
    position.ok_or_else(|| "a position is a whole number, and the first is 1".to_owned())
}

/// The name of an event type.
pub(super) fn event_type(text: &str) -> Result<String, String> {
    if UserEvent::TYPES.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!("one of {}", UserEvent::TYPES.join(", ")))
}

/// A language of descriptions.
pub(super) fn language(name: &str) -> Result<Language, String> {
    Language::parse(name).ok_or_else(|| "one of en, tr".to_owned())
}
