//! The lines a person sees while something happens.

use std::time::Duration;

use crate::names::printable::printable;

/// A line that begins a phase.
pub fn phase(text: &str) -> String {
    format!("-----> {}", printable(text))
}

/// A line below a phase.
pub fn detail(text: &str) -> String {
    format!("       {}", printable(text))
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
    fn a_phase_is_no_command_for_a_terminal() {
        assert_eq!(phase("\x1b]0;x"), "-----> \\u{1b}]0;x");
        assert_eq!(detail("a\u{202e}b"), "       a\\u{202e}b");
    }

    #[test]
    fn times_are_short_and_honest() {
        let check = |ms: u64, expected: &str| assert_eq!(took(Duration::from_millis(ms)), expected);
        check(12, "12 ms");
        check(1500, "1.5 s");
        check(61_000, "1 min 1 s");
    }
}
