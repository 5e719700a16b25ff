//! Text from outside on its way to a terminal.

/// Whether a terminal shows a character and obeys nothing in it: no control character, no change of the writing's
/// direction, no line of its own.
pub fn is_harmless(c: char) -> bool {
    !c.is_control() && !is_direction(c)
}

/// Characters that make text read in another order than it is written, or begin a line unseen.
fn is_direction(c: char) -> bool {
    let marks = ['\u{061c}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}', '\u{feff}'];
    marks.contains(&c) || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text from outside, such as a commit's message, as lines that a terminal shows and obeys nothing in: no colours, no
/// cursor moves, no change of the writing's direction. What is left out is shown by its number.
pub fn printable(text: &str) -> String {
    shown(text, |c| c == '\n')
}

/// The same as one line.
pub fn printable_line(text: &str) -> String {
    shown(text, |_| false)
}

/// The start of a text from outside for an error that names it: `most` characters at most, control characters escaped.
pub fn excerpt(text: &str, most: usize) -> String {
    text.chars().take(most).flat_map(char::escape_debug).collect()
}

fn shown(text: &str, stays: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => shown.push(' '),
            c if is_harmless(c) || stays(c) => shown.push(c),
            c => shown.extend(c.escape_default()),
        }
    }
    shown
}

/// JSON text, whose strings may hold anything, for a terminal: it means the same.
pub fn printable_json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        // Between its strings JSON has line ends, and in them nothing else that is not above U+0020.
        if is_harmless(c) || c == '\n' {
            shown.push(c);
        } else {
            shown.push_str(&format!("\\u{:04x}", u32::from(c)));
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_terminal_obeys_nothing_that_came_from_outside() {
        let check = |text: &str, expected: &str| assert_eq!(printable(text), expected);
        check("Größe: 10 €\n日本", "Größe: 10 €\n日本");
        check("\x1b[31mred\x07\r\u{9b}2J", "\\u{1b}[31mred\\u{7}\\r\\u{9b}2J");
        check("a\u{202e}b\u{2028}c", "a\\u{202e}b\\u{2028}c");
        assert_eq!(printable_line("a\nb"), "a\\nb");
    }

    proptest! {
        #[test]
        fn nothing_but_harmless_characters_is_left(text in any::<String>()) {
            prop_assert!(printable_line(&text).chars().all(is_harmless));
            prop_assert!(printable(&text).chars().all(|c| is_harmless(c) || c == '\n'));
        }

        #[test]
        fn json_means_the_same_and_commands_nothing(text in any::<String>()) {
            let shown = printable_json(&serde_json::to_string_pretty(&[&text]).unwrap());
            prop_assert!(shown.chars().all(|c| is_harmless(c) || c == '\n'));
            prop_assert_eq!(serde_json::from_str::<Vec<String>>(&shown).unwrap(), [text]);
        }
    }
}
