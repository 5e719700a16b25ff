//! A command's output as it comes, in the form of server-sent events (WHATWG HTML, section 9.2).

use serde_json::Value;

/// Longest line of output, in bytes; what is longer is cut.
const LONGEST: usize = 1 << 20;

/// Keeps the connection alive, and finds out who has gone.
pub const HEARTBEAT: &str = ": \n\n";

/// Cuts chunks into lines.
#[derive(Debug, Default)]
pub struct Lines {
    open: Vec<u8>,
}

impl Lines {
    /// The events of the lines that are whole now.
    pub fn add(&mut self, chunk: &[u8]) -> String {
        let mut events = String::new();
        for &byte in chunk {
            match byte {
                b'\n' => {
                    events.push_str(&event(&String::from_utf8_lossy(&self.open)));
                    self.open.clear();
                }
                byte if self.open.len() < LONGEST => self.open.push(byte),
                _ => {}
            }
        }
        events
    }
}

/// A line of JSON as an event, with its `id` where it has one.
fn event(line: &str) -> String {
    if line.trim().is_empty() {
        return String::new();
    }
    let value: Value = serde_json::from_str(line).unwrap_or_default();
    let id = value["id"].as_u64().map_or_else(String::new, |id| format!("id: {id}\n"));
    format!("{id}data: {}\n\n", line.replace('\r', ""))
}

/// The last event of a stream that ended in trouble.
pub fn trouble(body: &Value) -> String {
    format!("event: error\ndata: {body}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_events_however_they_are_cut() {
        let text = "{\"id\":7,\"what\":\"scale\"}\n\n{\"id\":8}\r\nplain";
        let expected = "id: 7\ndata: {\"id\":7,\"what\":\"scale\"}\n\nid: 8\ndata: {\"id\":8}\n\n";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let events: String = text.as_bytes().chunks(size).map(|chunk| lines.add(chunk)).collect();
            assert_eq!(events, expected, "{size}");
        }
    }

    #[test]
    fn a_line_without_end_takes_bounded_memory() {
        let mut lines = Lines::default();
        for _ in 0..3 {
            assert_eq!(lines.add(&vec![b'x'; LONGEST]), "");
        }
        assert_eq!(lines.add(b"\n").len(), "data: \n\n".len() + LONGEST);
    }
}
