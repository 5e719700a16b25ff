//! Printing for people: aligned tables, colours where a terminal shows them.

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;

use super::failure::{Failure, hung_up};
use crate::build::output::clean;
use crate::hq::door::{Frame, Terminal};
use crate::names::printable::{printable, printable_json, printable_line};

/// Where a command prints to.
#[derive(Clone)]
pub struct Out {
    frames: mpsc::Sender<Frame>,
    terminal: Option<Terminal>,
    /// Listings come as JSON.
    pub json: bool,
}

impl Out {
    /// Printing into these frames; a terminal gets colours.
    pub fn new(frames: mpsc::Sender<Frame>, terminal: Option<Terminal>, json: bool) -> Self {
        Self { frames, terminal, json }
    }

    /// Where frames go that somebody else prints.
    pub fn frames(&self) -> mpsc::Sender<Frame> {
        self.frames.clone()
    }

    /// Whether colours mean something to the reader.
    pub fn coloured(&self) -> bool {
        self.terminal.as_ref().is_some_and(|terminal| terminal.term != "dumb" && !terminal.term.is_empty())
    }

    /// Whether a person looks at a terminal.
    pub fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// The reader's width in characters.
    pub fn width(&self) -> usize {
        let columns = self.terminal.as_ref().map_or(0, |terminal| terminal.columns);
        if columns == 0 { 80 } else { columns.into() }
    }

    /// Bytes of data, as they are.
    ///
    /// # Errors
    /// When the reader is gone.
    pub async fn data(&self, bytes: impl Into<Bytes>) -> Result<(), Failure> {
        self.frames.send(Frame::Stdout(bytes.into())).await.map_err(|_| hung_up())
    }

    /// Bytes beside the data.
    ///
    /// # Errors
    /// When the reader is gone.
    pub async fn aside(&self, bytes: impl Into<Bytes>) -> Result<(), Failure> {
        self.frames.send(Frame::Stderr(bytes.into())).await.map_err(|_| hung_up())
    }

    /// Lines of data. They may repeat what came from outside: a terminal obeys nothing in them.
    ///
    /// # Errors
    /// When the reader is gone.
    pub async fn line(&self, text: &str) -> Result<(), Failure> {
        self.drawn(&printable(text)).await
    }

    /// Lines with colours of our own, in which all that came from outside is harmless already.
    ///
    /// # Errors
    /// When the reader is gone.
    pub async fn drawn(&self, text: &str) -> Result<(), Failure> {
        self.data(self.ended(text)).await
    }

    /// What a container has printed: its colours stay.
    ///
    /// # Errors
    /// When the reader is gone.
    pub async fn printed(&self, bytes: &[u8]) -> Result<(), Failure> {
        let text = String::from_utf8_lossy(bytes);
        for line in text.lines() {
            self.drawn(&clean(line)).await?;
        }
        Ok(())
    }

    /// One value exactly as it is, for programs; on a terminal it is shown.
    ///
    /// # Errors
    /// When the reader is gone.
    pub async fn exact(&self, text: &str) -> Result<(), Failure> {
        if self.is_terminal() { self.line(text).await } else { self.data(format!("{text}\n")).await }
    }

    /// One line beside the data: what happens, what to do next. It may repeat what a server said.
    ///
    /// # Errors
    /// When the reader is gone.
    pub async fn note(&self, text: &str) -> Result<(), Failure> {
        self.aside(self.ended(&printable(text))).await
    }

    /// A raw terminal needs the carriage return that nobody adds for it.
    fn ended(&self, text: &str) -> String {
        if self.terminal.is_some() { format!("{}\r\n", text.replace('\n', "\r\n")) } else { format!("{text}\n") }
    }

    /// A value as JSON.
    ///
    /// # Errors
    /// When the reader is gone.
    pub async fn value<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).expect("listings have string keys and serialise");
        self.drawn(&printable_json(&text)).await
    }

    /// A value as JSON on one line.
    ///
    /// # Errors
    /// When the reader is gone.
    pub async fn compact<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string(value).expect("listings have string keys and serialise");
        self.drawn(&printable_json(&text)).await
    }

    /// A table with a header; columns as wide as their widest cell.
    ///
    /// # Errors
    /// When the reader is gone.
    pub async fn table(&self, header: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
        self.drawn(&table(header, rows, self.coloured())).await
    }
}

/// The text of a table without its last newline. Its cells may hold anything.
pub fn table(header: &[&str], rows: &[Vec<String>], coloured: bool) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| printable_line(cell)).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let mut text = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            text.push_str(&format!("{cell:<width$}  "));
        }
        text.trim_end().to_owned()
    };
    let head = line(header.to_vec());
    let mut text = if coloured { format!("\x1b[2m{head}\x1b[0m") } else { head };
    for row in &rows {
        text.push('\n');
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text
}

/// The colour of the n-th name, as a prefix and suffix.
pub fn colour(n: usize) -> (String, &'static str) {
    const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];
    (format!("\x1b[{}m", COLOURS[n % COLOURS.len()]), "\x1b[0m")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::printable::is_harmless;

    #[tokio::test]
    async fn what_a_server_says_of_itself_is_no_command_for_a_terminal() {
        let (frames, mut printed) = mpsc::channel(1);
        let out = Out::new(frames, None, false);
        out.note("s1 is down: \x1b]0;owned\x07").await.unwrap();
        let Some(Frame::Stderr(bytes)) = printed.recv().await else { panic!("nothing beside the data") };
        assert_eq!(bytes, "s1 is down: \\u{1b}]0;owned\\u{7}\n");
    }

    #[tokio::test]
    async fn no_way_of_printing_lets_a_terminal_be_commanded() {
        const EVIL: &str = "a\x1b]0;owned\x07\u{9b}2J\u{202e}b\r\x08";
        let terminal = Terminal { term: "xterm".to_owned(), columns: 80, rows: 24 };
        for terminal in [None, Some(terminal)] {
            let (frames, mut printed) = mpsc::channel(20);
            let out = Out::new(frames, terminal.clone(), false);
            out.line(EVIL).await.unwrap();
            out.note(EVIL).await.unwrap();
            out.value(&[EVIL]).await.unwrap();
            out.compact(&[EVIL]).await.unwrap();
            out.table(&["NAME"], &[vec![EVIL.to_owned()]]).await.unwrap();
            out.printed(EVIL.as_bytes()).await.unwrap();
            if terminal.is_some() {
                out.exact(EVIL).await.unwrap();
            }
            drop(out);
            while let Some(Frame::Stdout(bytes) | Frame::Stderr(bytes)) = printed.recv().await {
                // The header's own colour, and the carriage return that a raw terminal needs, are ours.
                let text = String::from_utf8(bytes.to_vec()).unwrap();
                let text = text.replace("\x1b[2m", "").replace("\x1b[0m", "").replace("\r\n", "\n");
                assert!(text.chars().all(|c| is_harmless(c) || c == '\n'), "{text:?}");
            }
        }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_have_no_trailing_blanks() {
        let rows = vec![vec!["a".to_owned(), "1".to_owned()], vec!["longer".to_owned(), String::new()]];
        assert_eq!(table(&["NODE", "N"], &rows, false), "NODE    N\na       1\nlonger");
    }
}
