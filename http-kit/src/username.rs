//! Usernames as the ledger keeps and claims them.

use std::fmt;

/// A canonical username: 3 to 30 of `a-z 0-9 . _`, beginning and ending with a letter or digit,
/// no two separators in a row, and not reserved. Two users cannot hold the same one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Username(String);

/// Why a text is no username.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUsername {
    /// Fewer than [`Username::MIN`] characters.
    #[error("too short")]
    TooShort,
    /// More than [`Username::MAX`] characters.
    #[error("too long")]
    TooLong,
    /// A character that is not allowed; `suggestion` is the nearest text without.
    #[error("characters that are not allowed")]
    Characters {
        /// Transliterated, such as `ali.isik` for `Ali.Işık`; empty when nothing is left.
        suggestion: String,
    },
    /// A separator at the beginning or end, or two in a row.
    #[error("a separator at the beginning or end, or two in a row")]
    Shape,
    /// Kept for the service itself.
    #[error("reserved")]
    Reserved,
}

/// Names that would let a user pass for the service, in the languages it speaks.
const RESERVED: [&str; 41] = [
    "about",
    "account",
    "admin",
    "administrator",
    "anonymous",
    "api",
    "auth",
    "billing",
    "bot",
    "console",
    "contact",
    "destek",
    "docs",
    "everyone",
    "help",
    "hesap",
    "info",
    "login",
    "logout",
    "mail",
    "me",
    "media",
    "mod",
    "moderator",
    "news",
    "null",
    "official",
    "photo",
    "privacy",
    "profile",
    "register",
    "root",
    "security",
    "service",
    "settings",
    "signup",
    "support",
    "system",
    "undefined",
    "username",
    "yonetici",
];

impl Username {
    /// The fewest characters.
    pub const MIN: usize = 3;
    /// The most characters.
    pub const MAX: usize = 30;

    /// Reads a username as a person wrote it: ASCII upper case is lowered.
    pub fn parse(text: &str) -> Result<Self, InvalidUsername> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_';
        // Longer texts are refused unread, so that a suggestion is never made of megabytes.
        if text.chars().nth(Self::MAX).is_some() {
            return Err(InvalidUsername::TooLong);
        }
        if !text.chars().all(allowed) {
            return Err(InvalidUsername::Characters {
                suggestion: transliterate(text),
            });
        }
        if text.len() < Self::MIN {
            return Err(InvalidUsername::TooShort);
        }
        let name = text.to_ascii_lowercase();
        let separator = |b: u8| b == b'.' || b == b'_';
        let bytes = name.as_bytes();
        if separator(bytes[0])
            || separator(bytes[bytes.len() - 1])
            || bytes
                .windows(2)
                .any(|pair| separator(pair[0]) && separator(pair[1]))
        {
            return Err(InvalidUsername::Shape);
        }
        if RESERVED.contains(&name.as_str()) {
            return Err(InvalidUsername::Reserved);
        }
        Ok(Self(name))
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The nearest text of allowed characters: Turkish and other accented letters lose their marks,
/// spaces and hyphens become `_`, and what has no counterpart is dropped.
fn transliterate(text: &str) -> String {
    use unicode_normalization::UnicodeNormalization as _;
    let mut name = String::new();
    for c in text.nfkd().flat_map(char::to_lowercase) {
        match c {
            'ı' => name.push('i'),
            ' ' | '-' => name.push('_'),
            c if c.is_ascii_alphanumeric() || c == '.' || c == '_' => name.push(c),
            _ => {}
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn refused(text: &str) -> InvalidUsername {
        Username::parse(text).expect_err(text)
    }

    #[test]
    fn upper_case_is_lowered() {
        assert_eq!(
            Username::parse("JohnDoe123").unwrap().as_str(),
            "johndoe123"
        );
    }

    #[test]
    fn the_length_has_exact_edges() {
        assert_eq!(refused("ab"), InvalidUsername::TooShort);
        assert!(Username::parse("abc").is_ok());
        assert!(Username::parse(&"a".repeat(30)).is_ok());
        assert_eq!(refused(&"a".repeat(31)), InvalidUsername::TooLong);
        assert_eq!(refused(&"ş".repeat(1_000_000)), InvalidUsername::TooLong);
    }

    #[test]
    fn turkish_letters_are_refused_with_a_suggestion() {
        let suggestion = "isik_gocuoglu".to_owned();
        assert_eq!(
            refused("Işık_Göçüoğlu"),
            InvalidUsername::Characters { suggestion }
        );
        assert_eq!(
            refused("İstanbul"),
            InvalidUsername::Characters {
                suggestion: "istanbul".to_owned()
            }
        );
    }

    #[test]
    fn separators_stand_alone_and_inside() {
        for bad in [".abc", "abc.", "_abc", "abc_", "a..b", "a._b", "..."] {
            assert_eq!(refused(bad), InvalidUsername::Shape, "{bad}");
        }
        assert!(Username::parse("a.b_c").is_ok());
    }

    #[test]
    fn names_of_the_service_are_reserved() {
        for bad in [
            "admin",
            "Root",
            "support",
            "api",
            "help",
            "system",
            "moderator",
        ] {
            assert_eq!(refused(bad), InvalidUsername::Reserved, "{bad}");
        }
        assert_eq!(
            refused("me"),
            InvalidUsername::TooShort,
            "two characters are too few anyway"
        );
    }

    proptest! {
        #[test]
        fn a_username_parses_to_itself_and_a_good_suggestion_parses(text in "\\PC{0,40}") {
            match Username::parse(&text) {
                Ok(name) => prop_assert_eq!(Username::parse(name.as_str()).unwrap(), name),
                Err(InvalidUsername::Characters { suggestion }) => prop_assert!(
                    suggestion.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '_')
                ),
                Err(_) => {}
            }
        }
    }
}
