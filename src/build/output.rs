//! A builder's output, made fit for a terminal: hostile characters out, the builder's own chatter out.

use crate::names::printable::is_harmless;

/// Follows a build's lines.
#[derive(Debug, Default)]
pub struct Output {
    /// The step's line, held back until it is known whether the cache had it.
    held: Option<String>,
    step: Option<String>,
}

/// What the classic builder says of itself and nobody needs.
const CHATTER: [&str; 6] = [
    " ---> ",
    "Removing intermediate container ",
    "Successfully built ",
    "Successfully tagged ",
    "[Warning] One or more build-args ",
    "exporting to image",
];

impl Output {
    /// Takes one line and gives those to show.
    pub fn line(&mut self, line: &str) -> Vec<String> {
        let line = clean(line);
        if line == " ---> Using cache" {
            return self.held.take().map(|step| format!("{step} (cached)")).into_iter().collect();
        }
        let mut shown: Vec<String> = self.held.take().into_iter().collect();
        if let Some(instruction) = instruction(&line) {
            self.step = Some(without_colours(instruction));
            self.held = Some(short(&line));
        } else if !line.trim().is_empty() && !CHATTER.iter().any(|chatter| line.starts_with(chatter)) {
            shown.push(line);
        }
        shown
    }

    /// The line still held back, and the Dockerfile instruction that came last.
    pub fn end(self) -> (Option<String>, Option<String>) {
        (self.held, self.step)
    }
}

/// Characters of a step's line that are shown; a buildpack's steps are pages long.
const STEP_WIDTH: usize = 100;

/// A step's line on one line of a terminal, without colours: it could be cut within one.
fn short(line: &str) -> String {
    let plain = without_colours(line);
    let mut words = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = words.char_indices().nth(STEP_WIDTH) {
        words.truncate(end);
        words.push('…');
    }
    words
}

/// The instruction in `Step 3/9 : RUN x` (classic) or `[stage 3/9] RUN x` (BuildKit).
fn instruction(line: &str) -> Option<&str> {
    let numbers =
        |text: &str| text.split_once('/').is_some_and(|(a, b)| a.parse::<u32>().is_ok() && b.parse::<u32>().is_ok());
    if let Some(rest) = line.strip_prefix("Step ") {
        return rest.split_once(" : ").filter(|(count, _)| numbers(count)).map(|(_, instruction)| instruction);
    }
    let (place, instruction) = line.strip_prefix('[')?.split_once("] ")?;
    let count = place.rsplit(' ').next().unwrap_or(place);
    numbers(count).then_some(instruction)
}

/// The line without anything that moves the cursor, renames the window or turns the writing direction. Colours stay,
/// and end with the line.
pub fn clean(line: &str) -> String {
    let mut clean = String::with_capacity(line.len());
    let mut coloured = false;
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\x1b' => {
                let (sequence, after) = escape(rest);
                if let Some(colour) = sequence {
                    let ends = matches!(colour, "[m" | "[0m");
                    if coloured || !ends {
                        clean.push('\x1b');
                        clean.push_str(colour);
                    }
                    coloured = !ends;
                }
                rest = after;
            }
            '\t' => clean.push('\t'),
            c if !is_harmless(c) => {}
            c => clean.push(c),
        }
    }
    if coloured {
        clean.push_str("\x1b[0m");
    }
    clean
}

/// A clean line without its colours.
fn without_colours(clean: &str) -> String {
    let mut pieces = clean.split('\x1b');
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |text, piece| text + escape(piece).1)
}

/// What follows an escape character: a colour (`[1;31m`) if it is one, and the text after the sequence.
fn escape(rest: &str) -> (Option<&str>, &str) {
    let after = |at: usize| rest.get(at..).unwrap_or_default();
    match rest.as_bytes().first() {
        Some(b'[') => {
            let end = rest.bytes().skip(1).position(|b| (0x40..=0x7e).contains(&b) || !(0x20..0x80).contains(&b));
            match end.map(|end| end + 1) {
                Some(end) if rest.as_bytes()[end] == b'm' => {
                    let plain = rest[1..end].bytes().all(|b| b.is_ascii_digit() || b == b';' || b == b':');
                    (plain.then_some(&rest[..=end]), after(end + 1))
                }
                Some(end) if rest.as_bytes()[end].is_ascii_graphic() => (None, after(end + 1)),
                Some(end) => (None, after(end)),
                None => (None, ""),
            }
        }
        // Window titles, links, clipboards: up to a bell or the string terminator.
        Some(b']' | b'P' | b'^' | b'_' | b'X') => {
            let bell = rest.find('\x07').map(|at| at + 1);
            let terminator = rest.find("\x1b\\").map(|at| at + 2);
            (None, after(bell.into_iter().chain(terminator).min().unwrap_or(rest.len())))
        }
        Some(b) if b.is_ascii_graphic() => (None, after(1)),
        Some(_) | None => (None, rest),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn colours_stay_and_everything_else_that_moves_goes() {
        let check = |text: &str, expected: &str| assert_eq!(clean(text), expected, "{text:?}");
        check("plain\ttext é", "plain\ttext é");
        check("\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m");
        check("\x1b[0mStep 1/2", "Step 1/2");
        check("\x1b[91merror", "\x1b[91merror\x1b[0m");
        check("\x1b[2J\x1b[Hgone\x1b[K", "gone");
        check("\x1b]0;title\x07a\x1b]8;;http://x\x1b\\b", "ab");
        check("\x1b[38;2;1;2;3mx", "\x1b[38;2;1;2;3mx\x1b[0m");
        check("\x1b[>4;2mx\x1b", "x");
        check("a\u{202e}b\x08\x07\u{9b}2Jc", "ab2Jc");
        check("\x1b[31", "");
        check("\x1b]open", "");
    }

    #[test]
    fn the_classic_builders_steps_are_shown_compactly() {
        let mut output = Output::default();
        let mut shown = Vec::new();
        for line in [
            "Step 1/3 : FROM debian",
            " ---> 0123456789ab",
            "Step 2/3 : RUN a",
            " ---> Using cache",
            " ---> 0123456789ab",
            "Step 3/3 : RUN b",
            " ---> Running in 0123456789ab",
            "hello",
            "",
            "Removing intermediate container 0123456789ab",
            "Successfully built 0123456789ab",
        ] {
            shown.extend(output.line(line));
        }
        assert_eq!(shown, ["Step 1/3 : FROM debian", "Step 2/3 : RUN a (cached)", "Step 3/3 : RUN b", "hello"]);
        assert_eq!(output.end(), (None, Some("RUN b".to_owned())));
    }

    #[test]
    fn a_long_step_is_not_cut_within_a_colour() {
        let mut output = Output::default();
        let line = format!("Step 1/1 : RUN {}\x1b[1;31mred", "x".repeat(STEP_WIDTH - 16));
        assert_eq!(output.line(&line), [""; 0]);
        let (held, step) = output.end();
        let shown = held.unwrap() + &step.unwrap();
        assert!(!shown.contains('\x1b') && shown.ends_with("xred"), "{shown:?}");
    }

    #[test]
    fn the_step_that_fails_is_known_for_both_builders() {
        let check = |line: &str, expected: Option<&str>| assert_eq!(instruction(line), expected, "{line}");
        check("Step 2/3 : RUN make", Some("RUN make"));
        check("[2/3] RUN make", Some("RUN make"));
        check("[builder 2/3] RUN make", Some("RUN make"));
        check("[info] 2/3 done", None);
        check("Step by step : a", None);
    }

    proptest! {
        #[test]
        fn nothing_but_colours_gets_through(text in "[\\x00-\\x7f\u{80}-\u{9f}é\u{202e}]{0,60}") {
            let cleaned = clean(&text);
            let mut rest = cleaned.as_str();
            while let Some((_, after)) = rest.split_once('\x1b') {
                let (colour, behind) = escape(after);
                prop_assert!(colour.is_some());
                rest = behind;
            }
            prop_assert!(cleaned.chars().all(|c| is_harmless(c) || c == '\t' || c == '\x1b'));
        }
    }
}
