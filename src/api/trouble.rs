//! Why a request gets no answer, as HTTP and JSON say it.

use serde_json::{Value, json};

use super::endpoints::{Method, Wrong};
use crate::hq::door::{Ended, Why};

/// Why a request gets no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Of what kind it is.
    pub kind: Kind,
    /// What is wrong and what helps.
    pub message: String,
    /// What was said before that.
    pub output: Vec<String>,
}

/// Kinds of trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The request cannot be understood.
    Bad,
    /// It has no token that opens anything.
    Stranger,
    /// The token's user may not.
    Forbidden,
    /// What is named does not exist.
    Missing,
    /// The path takes these methods.
    Method(Vec<Method>),
    /// It did not come in time.
    Slow,
    /// A name is taken, or something else is in the way.
    Conflict,
    /// Its body is too long.
    Long,
    /// Its body does not say what it should, or what it says cannot be done.
    Mistake,
    /// Too many wrong tokens from there.
    Often,
    /// A bug.
    Bug,
    /// Not at this moment.
    Away,
}

impl Kind {
    /// The status and the word for it.
    pub fn status(&self) -> (u16, &'static str) {
        match self {
            Kind::Bad => (400, "bad_request"),
            Kind::Stranger => (401, "unauthorized"),
            Kind::Forbidden => (403, "forbidden"),
            Kind::Missing => (404, "not_found"),
            Kind::Method(_) => (405, "method_not_allowed"),
            Kind::Slow => (408, "timeout"),
            Kind::Conflict => (409, "conflict"),
            Kind::Long => (413, "too_large"),
            Kind::Mistake => (422, "unprocessable"),
            Kind::Often => (429, "too_many_requests"),
            Kind::Bug => (500, "internal"),
            Kind::Away => (503, "unavailable"),
        }
    }

    /// What clients understand besides.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        match self {
            Kind::Stranger => vec![("www-authenticate", "Bearer realm=\"quarry\"".to_owned())],
            Kind::Method(methods) => {
                let words: Vec<&str> = methods.iter().map(|method| method.word()).collect();
                vec![("allow", words.join(", "))]
            }
            Kind::Often => vec![("retry-after", "10".to_owned())],
            Kind::Away => vec![("retry-after", "2".to_owned())],
            _ => Vec::new(),
        }
    }
}

impl Trouble {
    /// Trouble in a sentence.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), output: Vec::new() }
    }

    /// As JSON.
    pub fn body(&self, request: &str) -> Value {
        let (_, code) = self.kind.status();
        let mut error = json!({ "code": code, "message": self.message, "request_id": request });
        if !self.output.is_empty() {
            error["output"] = json!(self.output);
        }
        json!({ "error": error })
    }

    /// A command that did not do what it was asked to, with what it said beside its data. `None` for one that did.
    pub fn of(ended: Ended, said: &str) -> Option<Self> {
        let kind = match ended.why {
            None if ended.code == 0 => return None,
            Some(Why::Missing) => Kind::Missing,
            Some(Why::Mistake) | None => Kind::Mistake,
            Some(Why::Usage) => Kind::Bad,
            Some(Why::Forbidden) => Kind::Forbidden,
            Some(Why::Taken | Why::Refused) => Kind::Conflict,
            Some(Why::Away) => Kind::Away,
            Some(Why::Bug) => Kind::Bug,
        };
        let (output, message) = parted(said);
        let message = if message.is_empty() { format!("it ended with exit code {}", ended.code) } else { message };
        Some(Self { kind, message, output })
    }
}

impl From<Wrong> for Trouble {
    fn from(wrong: Wrong) -> Self {
        match wrong {
            Wrong::Query(message) => Self::new(Kind::Bad, message),
            Wrong::Body(message) => Self::new(Kind::Mistake, message),
        }
    }
}

/// The lines a command said while it worked, and the last word of one that failed.
fn parted(said: &str) -> (Vec<String>, String) {
    const OURS: &str = "quarry: ";
    let lines: Vec<&str> = said.lines().collect();
    let Some(last) = lines.iter().rposition(|line| line.starts_with(OURS)) else {
        return (Vec::new(), said.trim().trim_start_matches("error: ").to_owned());
    };
    let message = lines[last..].join("\n");
    let output = lines[..last].iter().map(|line| (*line).to_owned()).collect();
    (output, message[OURS.len()..].trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_ended_with_becomes_a_status_and_a_message() {
        let check = |code: u8, why: Option<Why>, said: &str, status: u16, message: &str| {
            let trouble = Trouble::of(Ended { code, why }, said).unwrap();
            assert_eq!((trouble.kind.status().0, trouble.message.as_str()), (status, message));
        };
        check(1, Some(Why::Missing), "quarry: there is no stack `x`\n", 404, "there is no stack `x`");
        check(1, Some(Why::Mistake), "quarry: no\n  really\n", 422, "no\n  really");
        check(2, Some(Why::Usage), "error: unexpected\n\nUsage: x\n", 400, "unexpected\n\nUsage: x");
        check(3, Some(Why::Forbidden), "-----> A\nquarry: only operators\n", 403, "only operators");
        check(3, Some(Why::Refused), "quarry: in the way\n", 409, "in the way");
        check(3, Some(Why::Away), "", 503, "it ended with exit code 3");
        check(70, Some(Why::Bug), "quarry: bug\n", 500, "bug");
        check(130, None, "", 422, "it ended with exit code 130");
        assert_eq!(Trouble::of(Ended { code: 0, why: None }, "done\n"), None);
    }

    #[test]
    fn an_error_carries_its_request_and_what_was_said_before() {
        let ended = Ended { code: 3, why: Some(Why::Refused) };
        let trouble = Trouble::of(ended, "-----> Building\nquarry: it failed\n").unwrap();
        let expected = json!({"error": {
            "code": "conflict", "message": "it failed", "request_id": "r1", "output": ["-----> Building"],
        }});
        assert_eq!(trouble.body("r1"), expected);
    }
}
