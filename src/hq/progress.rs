//! The lines a person sees while something happens.

use std::time::Duration;

/// A line that begins a phase.
pub fn phase(text: &str) -> String {
    format!("-----> {}", printable(text))
}

/// A line below a phase.
pub fn detail(text: &str) -> String {
    format!("       {}", printable(text))
}

/// Text from outside, such as a commit's message, so that a terminal shows it and obeys nothing in it: no colours, no
/// cursor moves, no change of the writing's direction.
pub fn printable(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push(c),
            '\t' => shown.push(' '),
            c if c.is_control() || turns(c) => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

/// How long something took, as short as it stays honest.
pub fn took(time: Duration) -> String {
    match time.as_millis() {
        ms if ms < 1000 => format!("{ms} ms"),
        ms if ms < 60_000 => format!("{:.1} s", ms as f64 / 1000.0),
        ms => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_nothing_that_came_from_outside() {
        let check = |text: &str, expected: &str| assert_eq!(printable(text), expected);
        check("Größe: 10 €\n日本", "Größe: 10 €\n日本");
        check("\x1b[31mred\x07\r\u{9b}2J", "\\u{1b}[31mred\\u{7}\\r\\u{9b}2J");
        check("a\u{202e}b", "a\\u{202e}b");
        assert_eq!(phase("\x1b]0;x"), "-----> \\u{1b}]0;x");
    }

    #[test]
    fn times_are_short_and_honest() {
        let check = |ms: u64, expected: &str| assert_eq!(took(Duration::from_millis(ms)), expected);
        check(12, "12 ms");
        check(1500, "1.5 s");
        check(61_000, "1 min 1 s");
    }
}
