//! Lines out of chunks.

use super::Say;

/// A line is cut after this many bytes: a program that never ends its line must not fill the memory.
const LONGEST: usize = 16 * 1024;

/// Collects chunks of output into lines. A carriage return begins the line anew, as on a terminal.
#[derive(Debug, Default)]
pub struct Lines {
    open: Vec<u8>,
}

impl Lines {
    /// Takes a chunk and says each line it ends.
    pub fn add(&mut self, chunk: &[u8], say: Say<'_>) {
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            let ended = piece.last() == Some(&b'\n');
            let mut rest = &piece[..piece.len() - usize::from(ended)];
            while self.open.len() + rest.len() > LONGEST {
                let (now, later) = rest.split_at(LONGEST - self.open.len());
                self.open.extend_from_slice(now);
                self.flush(say);
                rest = later;
            }
            self.open.extend_from_slice(rest);
            if ended {
                self.flush(say);
            }
        }
    }

    /// Whether no line is open: the next byte begins one.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Says the last line when it was never ended.
    pub fn end(mut self, say: Say<'_>) {
        if !self.open.is_empty() {
            self.flush(say);
        }
    }

    fn flush(&mut self, say: Say<'_>) {
        let text = String::from_utf8_lossy(&self.open);
        let text = text.trim_end_matches('\r');
        say(text.rsplit('\r').next().unwrap_or(text));
        self.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn check(chunks: &[&str], expected: &[&str]) {
        let said = Mutex::new(Vec::new());
        let say = |line: &str| said.lock().unwrap().push(line.to_owned());
        let mut lines = Lines::default();
        for chunk in chunks {
            lines.add(chunk.as_bytes(), &say);
        }
        lines.end(&say);
        assert_eq!(said.into_inner().unwrap(), expected);
    }

    #[test]
    fn lines_may_come_in_any_pieces() {
        check(&["a\nb", "c\n", "\n", "d"], &["a", "bc", "", "d"]);
        check(&[], &[]);
        check(&["10%\r50%\r100%\r\n"], &["100%"]);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let long = "x".repeat(LONGEST + 1);
        check(&[&long[..LONGEST], "x"], &[&long[..LONGEST], "x"]);
        check(&[&long], &[&long[..LONGEST], "x"]);
    }
}
