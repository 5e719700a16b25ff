//! What people have done, or were refused: an append-only record; [`act`] writes and reads it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::hq::door::{Caller, Origin};
use crate::names::printable::printable;
use crate::names::{StackName, UserName};

pub mod act;
pub mod files;

/// One thing somebody did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Ascending by the time of its beginning, in microseconds since 1970. Beginning and end share it.
    pub id: u64,
    /// When this was written.
    pub at: Timestamp,
    /// Who.
    pub user: UserName,
    /// From where: an address, or `socket` on HQ's machine.
    pub from: String,
    /// With which stack, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<StackName>,
    /// What: the command's words, without the values of variables.
    pub what: String,
    /// What came of it.
    pub result: Outcome,
    /// The first line of why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What came of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is under way.
    Begun,
    /// It was done.
    Done,
    /// It was not allowed, or stood in the way of something.
    Refused,
    /// It did not work out.
    Failed,
    /// HQ ended before it did.
    Unknown,
}

impl Outcome {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Begun => "begun",
            Outcome::Done => "done",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
            Outcome::Unknown => "unknown",
        }
    }
}

/// The longest text of an event, in characters.
const LONGEST: usize = 400;

impl Event {
    /// Something that begins.
    pub fn begin(id: u64, at: Timestamp, caller: &Caller, what: &str) -> Self {
        let from = match caller.from {
            Origin::Address(address) => address.to_canonical().to_string(),
            Origin::Socket => "socket".to_owned(),
        };
        let what = cut(what);
        Self { id, at, user: caller.user.clone(), from, stack: None, what, result: Outcome::Begun, why: None }
    }

    /// The same, as it ended.
    #[must_use]
    pub fn end(self, at: Timestamp, result: Outcome, why: Option<&str>) -> Self {
        let why = why.and_then(|why| why.lines().next()).map(cut).filter(|why| !why.is_empty());
        Self { at, result, why, ..self }
    }
}

/// One line that shows on every terminal.
fn cut(text: &str) -> String {
    let text = printable(text).replace(['\n', '\t'], " ");
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text,
    }
}

/// Ends and beginnings brought together, in the order of their beginning; what began before `since` and has no end was
/// cut off. The last `count` of them.
pub fn merged(events: impl IntoIterator<Item = Event>, since: u64, count: usize) -> Vec<Event> {
    let mut all = BTreeMap::new();
    for event in events {
        let known = all.entry(event.id).or_insert_with(|| event.clone());
        if event.result != Outcome::Begun {
            // When it began is what people look for.
            *known = Event { at: known.at, ..event };
        }
    }
    let skipped = all.len().saturating_sub(count);
    let cut_off = |event: &Event| event.result == Outcome::Begun && event.id < since;
    let shown = all.into_values().skip(skipped);
    shown.map(|event| if cut_off(&event) { Event { result: Outcome::Unknown, ..event } } else { event }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: u64) -> Event {
        let caller = Caller { user: "ada".parse().unwrap(), from: Origin::Address([192, 0, 2, 7].into()) };
        Event::begin(id, Timestamp::UNIX_EPOCH, &caller, "scale blog web=2")
    }

    #[test]
    fn an_event_is_shown_once_with_what_came_of_it() {
        let end = Timestamp::from_second(9).unwrap();
        let done = event(1).end(end, Outcome::Done, None);
        let refused = event(2).end(end, Outcome::Refused, Some("no\nreally"));
        let events = [event(1), event(2), done.clone(), event(3), refused, event(4)];
        let shown = merged(events.clone(), 4, 10);
        let results: Vec<_> = shown.iter().map(|event| (event.id, event.result)).collect();
        let expected = [(1, Outcome::Done), (2, Outcome::Refused), (3, Outcome::Unknown), (4, Outcome::Begun)];
        assert_eq!(results, expected);
        assert_eq!((shown[0].at, shown[1].why.as_deref()), (Timestamp::UNIX_EPOCH, Some("no")));
        assert_eq!(merged(events, 0, 1).len(), 1);
    }

    #[test]
    fn an_event_is_one_short_line_that_a_terminal_can_bear() {
        let caller = Caller { user: "ada".parse().unwrap(), from: Origin::Socket };
        let long = format!("run blog \x1b[2J\n{}", "x".repeat(5000));
        let event = Event::begin(1, Timestamp::UNIX_EPOCH, &caller, &long);
        let text = serde_json::to_string(&event).unwrap();
        assert!(text.len() < 1000 && !text.contains("\\u001b") && !event.what.contains('\n'), "{text}");
        assert_eq!(event.from, "socket");
    }
}
