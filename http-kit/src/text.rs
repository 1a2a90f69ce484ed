//! Texts for people, in their language.
//!
//! A sentence is written in English where it is used. `text/turkish.json` has the Turkish sentence for each English
//! one, whether it is in an answer, in a published document or on a page.

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderValue};
use serde::Serialize;
use serde_json::{Map, Value};

mod sentences;

use sentences::SENTENCES;

/// A language in which every text exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
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

impl AsRef<str> for Language {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

static TURKISH: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("text/turkish.json")).expect("the file is an object of texts")
});

/// The sentence in a language. An English sentence without a translation stays English.
pub fn translate(english: &str, language: Language) -> &str {
    match language {
        Language::En => english,
        Language::Tr => TURKISH.get(english).map_or(english, String::as_str),
    }
}

/// The sentence in every language, for a reader whose language is not known yet.
pub fn in_every_language(english: &str) -> String {
    Language::ALL
        .map(|language| translate(english, language))
        .join(" · ")
}

/// The sentences of a page as an ES module.
///
/// `{"texts": {"go": "Go"}}` becomes `export const texts = {"en":{"go":"Go"},"tr":{"go":"Git"}};`.
pub fn module(sentences: &Map<String, Value>) -> String {
    let export = |(name, english): (&String, &Value)| {
        let languages = Language::ALL.map(|language| {
            let mut sentences = english.clone();
            each_sentence(&mut sentences, &mut |sentence| {
                *sentence = translate(sentence, language).to_owned();
            });
            (language.as_str().to_owned(), sentences)
        });
        let languages = Value::Object(languages.into_iter().collect());
        format!("export const {name} = {languages};\n")
    };
    sentences.iter().map(export).collect()
}

/// Every English sentence of a page; tests look for their translations.
pub fn of_page(mut sentences: Map<String, Value>) -> Vec<String> {
    let mut found = Vec::new();
    for group in sentences.values_mut() {
        each_sentence(group, &mut |sentence| found.push(sentence.clone()));
    }
    found
}

fn each_sentence(group: &mut Value, visit: &mut impl FnMut(&mut String)) {
    match group {
        Value::String(sentence) => visit(sentence),
        Value::Object(members) => members
            .values_mut()
            .for_each(|member| each_sentence(member, visit)),
        _ => {}
    }
}

/// Every sentence of an answer to a request that failed.
pub fn of_failures() -> impl Iterator<Item = &'static str> {
    SENTENCES.iter().map(|(_, english)| *english)
}

/// Every sentence that has a translation.
pub fn translated() -> impl Iterator<Item = &'static str> {
    TURKISH.keys().map(String::as_str)
}

/// A sentence by its key, and what its placeholders stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    key: &'static str,
    values: Vec<(&'static str, String)>,
}

impl Text {
    /// The sentence of a key.
    pub fn new(key: &'static str) -> Self {
        debug_assert!(english(key).is_some(), "{key} has no sentence");
        Self {
            key,
            values: Vec::new(),
        }
    }

    /// The sentence with a placeholder filled.
    #[must_use]
    pub fn with(mut self, placeholder: &'static str, value: impl fmt::Display) -> Self {
        self.values.push((placeholder, value.to_string()));
        self
    }

    /// The key: stable, upper snake case.
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// The sentence in a language. Values from clients are inserted unchanged and never read as a pattern.
    pub fn render(&self, language: Language) -> String {
        let pattern = translate(english(self.key).unwrap_or(self.key), language);
        let value = |placeholder: &str| {
            let mut values = self.values.iter();
            values.find_map(|(name, value)| (*name == placeholder).then_some(value.as_str()))
        };
        fill(pattern, value)
    }
}

/// The English sentence of a key.
pub(crate) fn english(key: &str) -> Option<&'static str> {
    static BY_KEY: LazyLock<HashMap<&str, &str>> =
        LazyLock::new(|| SENTENCES.iter().copied().collect());
    BY_KEY.get(key).copied()
}

/// A pattern with each `{name}` replaced by its value. A placeholder without a value stays as it is.
fn fill<'a>(pattern: &'a str, value: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut filled = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let named = after.split_once('}');
        if let Some((value, after)) = named.and_then(|(name, after)| Some((value(name)?, after))) {
            filled.push_str(value);
            rest = after;
        } else {
            filled.push('{');
            rest = after;
        }
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The names between braces.
    fn placeholders(text: &str) -> Vec<&str> {
        let named = text.split('{').skip(1);
        let mut names: Vec<_> = named
            .filter_map(|rest| Some(rest.split_once('}')?.0))
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn every_failure_has_a_key_of_its_own_and_a_translation() {
        let mut keys = HashSet::new();
        for (key, english) in SENTENCES {
            assert!(keys.insert(key), "{key} has two sentences");
            assert!(TURKISH.contains_key(*english), "{key} is not translated");
        }
    }

    #[test]
    fn both_languages_have_the_same_placeholders() {
        for (english, turkish) in &*TURKISH {
            assert_eq!(placeholders(english), placeholders(turkish), "{english}");
        }
    }

    #[test]
    fn no_sentence_has_two_translations() {
        let entry = |line: &'static str| {
            let (english, _) = line.trim().split_once("\": \"").expect("one entry a line");
            english
        };
        let file = include_str!("text/turkish.json");
        let lines: Vec<_> = file.lines().filter(|line| line.len() > 1).collect();
        let entries: Vec<_> = lines.into_iter().map(entry).collect();
        for pair in entries.windows(2) {
            assert!(pair[0] < pair[1], "{pair:?}: the file is not sorted");
        }
        // Capitals and a full stop do not make another sentence.
        let bare = |text: &str| {
            let lower = text.replace('İ', "i").replace('I', "ı").to_lowercase();
            lower.trim_end_matches(['.', ':', '…']).to_owned()
        };
        let mut seen = HashMap::new();
        for (english, turkish) in &*TURKISH {
            let before = seen.insert(bare(&english.to_lowercase()), turkish);
            if let Some(before) = before {
                assert_eq!(bare(before), bare(turkish), "{english}");
            }
        }
    }

    #[test]
    fn a_term_is_translated_by_the_same_word_everywhere() {
        for (term, turkish_term) in [
            ("auditors", "denetçi"),
            ("consent form", "onam form"),
            ("newest checkpoint", "denetim nokta"),
            ("privacy policy", "gizlilik politika"),
            ("terms of use", "kullanım koşul"),
            ("the ledger", "defter"),
            ("the username", "kullanıcı ad"),
        ] {
            for (english, turkish) in &*TURKISH {
                let english = english.to_lowercase();
                let lower = turkish.replace('İ', "i").replace('I', "ı").to_lowercase();
                assert!(
                    !english.contains(term) || lower.contains(turkish_term),
                    "{english}: {turkish}"
                );
            }
        }
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
    fn a_value_that_looks_like_a_placeholder_stays_as_it_is() {
        let text = Text::new("USERNAME_HELD")
            .with("username", "{until}")
            .with("until", "x");
        let rendered = text.render(Language::En);
        assert!(rendered.contains("The username {until} is held for its former owner until x;"));
    }

    #[test]
    fn a_page_has_its_sentences_in_every_language() {
        let sentences =
            serde_json::json!({"texts": {"go": "Go"}, "tags": {"Search": {"a": "Search"}}});
        assert_eq!(
            module(sentences.as_object().unwrap()),
            "export const texts = {\"en\":{\"go\":\"Go\"},\"tr\":{\"go\":\"Git\"}};\n\
             export const tags = {\"en\":{\"Search\":{\"a\":\"Search\"}},\"tr\":{\"Search\":{\"a\":\"Arama\"}}};\n"
        );
    }
}
