//! Text that people see, in the languages they chose.

use std::fmt;

use axum::http::{HeaderMap, HeaderValue};

/// A language in which every text exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    /// English.
    #[default]
    En,
    /// Turkish.
    Tr,
}

impl Language {
    /// Every language, English first.
    pub const ALL: [Self; 2] = [Self::En, Self::Tr];

    /// The language of `X-Language`; anything unknown is English.
    pub fn of(headers: &HeaderMap) -> Self {
        match headers.get("x-language").map(HeaderValue::as_bytes) {
            Some(b"tr") => Self::Tr,
            _ => Self::En,
        }
    }

    /// The language of a name: `en` or `tr`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|language| language.as_str() == name)
    }

    /// `en` or `tr`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Tr => "tr",
        }
    }
}

/// A text by its key in `locales/texts.yml`, and what goes into its places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    key: &'static str,
    values: Vec<(&'static str, String)>,
}

impl Text {
    /// The text of a key.
    pub fn new(key: &'static str) -> Self {
        Self {
            key,
            values: Vec::new(),
        }
    }

    /// The text with a place filled.
    #[must_use]
    pub fn with(mut self, place: &'static str, value: impl fmt::Display) -> Self {
        self.values.push((place, value.to_string()));
        self
    }

    /// The key: stable, upper snake case.
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// The text in a language. What clients sent goes in as it is, never as a pattern.
    pub fn render(&self, language: Language) -> String {
        let pattern = rust_i18n::t!(self.key, locale = language.as_str());
        let (places, values): (Vec<_>, Vec<_>) = self.values.iter().cloned().unzip();
        rust_i18n::replace_patterns(&pattern, &places, &values)
    }
}

/// Whether a key has a text.
pub fn has_text(key: &str) -> bool {
    [Language::En, Language::Tr]
        .iter()
        .all(|language| crate::_rust_i18n_try_translate(language.as_str(), key).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str) -> Vec<&str> {
        let mut places: Vec<_> = text
            .split("%{")
            .skip(1)
            .map(|rest| rest.split('}').next().unwrap_or_default())
            .collect();
        places.sort_unstable();
        places
    }

    #[test]
    fn every_text_exists_in_both_languages_with_the_same_places() {
        let file = include_str!("../locales/texts.yml");
        let mut keys = 0;
        let mut lines = file
            .lines()
            .filter(|line| !line.starts_with('#') && !line.starts_with("_version"));
        while let Some(line) = lines.next() {
            let Some(key) = line.strip_suffix(':') else {
                continue;
            };
            let (en, tr) = (
                lines.next().unwrap_or_default(),
                lines.next().unwrap_or_default(),
            );
            assert!(en.starts_with("  en: \""), "{key} has no English text");
            assert!(tr.starts_with("  tr: \""), "{key} has no Turkish text");
            assert_eq!(
                places(en),
                places(tr),
                "the places of {key} differ between the languages"
            );
            assert!(has_text(key), "{key} is not loaded");
            keys += 1;
        }
        assert!(keys > 50, "only {keys} texts were found");
    }

    #[test]
    fn a_text_is_rendered_in_the_language_asked_for() {
        let text = Text::new("USERNAME_TAKEN").with("username", "ali");
        assert_eq!(
            text.render(Language::En),
            "The username ali is taken; choose another one."
        );
        assert_eq!(
            text.render(Language::Tr),
            "ali kullanıcı adı alınmış; başka bir ad seçin."
        );
    }

    #[test]
    fn a_value_that_looks_like_a_place_stays_as_it_is() {
        let text = Text::new("USERNAME_HELD")
            .with("username", "%{until}")
            .with("until", "x");
        assert!(text.render(Language::En).contains("%{until}"));
    }
}
