//! What the containers of the fake engine do.

use crate::units::Millis;

/// What a container does once it is started. By default it runs until it is stopped and says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// Lines it prints when it starts.
    pub prints: Vec<String>,
    /// After how long it ends by itself, and with which code.
    pub ends: Option<(Millis, i64)>,
    /// Lines a command run inside prints, and its code.
    pub exec: (Vec<String>, i64),
    /// Prints what it reads until its input ends, then ends with 0.
    pub echo: bool,
    /// Does not heed SIGTERM: a stop takes its whole grace and ends it with 137.
    pub deaf: bool,
}

impl Behaviour {
    /// Ends by itself after `millis` with `code`.
    pub fn exits(millis: u64, code: i64) -> Self {
        Self { ends: Some((Millis(millis), code)), ..Self::default() }
    }

    /// Prints what it reads.
    pub fn echo() -> Self {
        Self { echo: true, ..Self::default() }
    }

    /// The same, and prints these lines first.
    pub fn printing(self, lines: &[&str]) -> Self {
        Self { prints: lines.iter().map(ToString::to_string).collect(), ..self }
    }

    /// The same, and commands run inside print these lines and end with `code`.
    pub fn inside(self, lines: &[&str], code: i64) -> Self {
        Self { exec: (lines.iter().map(ToString::to_string).collect(), code), ..self }
    }
}
