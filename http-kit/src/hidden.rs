//! Characters that nobody sees, or that turn the text around them. They let one text look like another, and they can
//! command a terminal.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

/// Controls, marks of direction, characters without width, fillers and tags; in order.
const HIDDEN: &[RangeInclusive<char>] = &[
    '\0'..='\u{1f}',
    '\u{7f}'..='\u{9f}',
    '\u{ad}'..='\u{ad}',
    '\u{34f}'..='\u{34f}',
    '\u{61c}'..='\u{61c}',
    '\u{115f}'..='\u{1160}',
    '\u{17b4}'..='\u{17b5}',
    '\u{180e}'..='\u{180e}',
    '\u{200b}'..='\u{200f}',
    '\u{2028}'..='\u{202e}',
    '\u{2060}'..='\u{206f}',
    '\u{3164}'..='\u{3164}',
    '\u{feff}'..='\u{feff}',
    '\u{ffa0}'..='\u{ffa0}',
    '\u{fff9}'..='\u{fffb}',
    '\u{e0000}'..='\u{e007f}',
];

/// The hidden characters that join letters and emoji, and so have a place in a longer text.
pub const JOINERS: [char; 2] = ['\u{200c}', '\u{200d}'];

/// The last character that every engine of regular expressions reads as `\uXXXX`.
pub const BASIC: char = '\u{ffff}';

/// Whether a character is hidden.
pub fn is_hidden(c: char) -> bool {
    HIDDEN.iter().any(|range| range.contains(&c))
}

/// The hidden characters up to `last` and without `except`, for the brackets of a regular expression.
///
/// `\u0000-\u001f\u007f-\u009f\u00ad` is how it begins.
pub fn brackets(last: char, except: &[char]) -> String {
    let mut brackets = String::new();
    for range in HIDDEN {
        let mut run: Option<(char, char)> = None;
        for c in range.clone().filter(|c| *c <= last) {
            if except.contains(&c) {
                write_run(&mut brackets, run.take());
            } else {
                run = Some((run.map_or(c, |(first, _)| first), c));
            }
        }
        write_run(&mut brackets, run);
    }
    brackets
}

fn write_run(brackets: &mut String, run: Option<(char, char)>) {
    let Some((first, last)) = run else { return };
    write_character(brackets, first);
    if first != last {
        let is_pair = u32::from(last) - u32::from(first) == 1;
        brackets.push_str(if is_pair { "" } else { "-" });
        write_character(brackets, last);
    }
}

fn write_character(brackets: &mut String, c: char) {
    let number = u32::from(c);
    let written = if c <= BASIC {
        write!(brackets, r"\u{number:04x}")
    } else {
        write!(brackets, r"\u{{{number:x}}}")
    };
    written.expect("a string takes any text");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_are_hidden_and_letters_are_not() {
        for c in (char::MIN..=char::MAX).filter(|c| c.is_control()) {
            assert!(is_hidden(c), "{c:?}");
        }
        for c in "aŞß日ع \u{301}👩".chars() {
            assert!(!is_hidden(c), "{c:?}");
        }
    }

    #[test]
    fn brackets_hold_the_hidden_characters() {
        assert_eq!(
            brackets(BASIC, &[]),
            r"\u0000-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb"
        );
        let some = brackets(char::MAX, &['\t', '\n', '\u{200d}']);
        assert!(
            some.starts_with(r"\u0000-\u0008\u000b-\u001f\u007f"),
            "{some}"
        );
        assert!(
            some.contains(r"\u180e\u200b\u200c\u200e\u200f\u2028"),
            "{some}"
        );
        assert!(
            some.ends_with(r"\ufff9-\ufffb\u{e0000}-\u{e007f}"),
            "{some}"
        );
    }
}
