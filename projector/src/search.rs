//! Letter folding for search: a text typed on one keyboard finds a text written on another.

use events::{Document, UserEvent};
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

/// The number of significant characters of a word.
const WORD: usize = 64;
/// The number of significant words of a text.
const WORDS: usize = 32;

/// Lower case without marks, `ı` and `İ` as `i`: `İSTANBUL`, `ISTANBUL` and `ıstanbul` are `istanbul`.
pub fn fold(text: &str) -> String {
    text.nfkd()
        .filter(|c| !is_combining_mark(*c))
        .flat_map(char::to_lowercase)
        .nfkd()
        .filter(|c| !is_combining_mark(*c))
        .map(|c| if c == 'ı' { 'i' } else { c })
        .collect()
}

/// The folded words of a text, each once, in order.
pub fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in fold(text)
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
    {
        let word: String = word.chars().take(WORD).collect();
        if words.len() < WORDS && !words.contains(&word) {
            words.push(word);
        }
    }
    words
}

/// The word that stands for an expertise. No folded text contains such a word.
pub(crate) fn expertise_word(expertise: &str) -> String {
    format!("#{expertise}")
}

/// Every search word of a user: the username whole and in parts, the names, the expertise.
pub(crate) fn words_of(document: &Document) -> Vec<String> {
    let profile = &document.profile;
    let mut found = words(&format!(
        "{} {} {}",
        document.username, profile.name, profile.surname
    ));
    found.push(document.username.clone());
    found.extend(profile.expertise.as_deref().map(expertise_word));
    found.sort_unstable();
    found.dedup();
    found
}

/// Whether an event may change the [`words_of`] its user.
pub(crate) fn may_reword(event: &UserEvent) -> bool {
    match event {
        UserEvent::UserRegistered(_) | UserEvent::UsernameChanged(_) => true,
        UserEvent::ProfileUpdated(updated) => {
            updated.name.is_some() || updated.surname.is_some() || updated.expertise.is_some()
        }
        UserEvent::PhotoChanged(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn turkish_letters_fold() {
        for text in ["istanbul", "İSTANBUL", "ISTANBUL", "ıstanbul", "İstanbul"] {
            assert_eq!(fold(text), "istanbul", "{text}");
        }
        assert_eq!(fold("ŞĞÇÖÜ şğçöü"), "sgcou sgcou");
    }

    #[test]
    fn words_are_split_at_characters_that_are_neither_letters_nor_digits() {
        assert_eq!(
            words("Anne-Marie  O'Neil 42 anne"),
            ["anne", "marie", "o", "neil", "42"]
        );
        assert_eq!(words("%_'\"\\"), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn folding_twice_is_folding_once(text in "\\PC{0,60}") {
            let folded = fold(&text);
            prop_assert_eq!(fold(&folded), folded);
        }

        #[test]
        fn any_text_has_few_short_words(text in ".{0,300}") {
            let words = words(&text);
            prop_assert!(words.len() <= WORDS);
            prop_assert!(words.iter().all(|word| (1..=WORD).contains(&word.chars().count())));
        }
    }
}
