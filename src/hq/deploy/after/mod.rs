//! What comes once a release is live: certificates of the commit's own, and commands; see [`act`].

use crate::hq::certs::given::Given;
use crate::names::ReleaseNumber;
use crate::stack::{After, Command};

pub mod act;

/// What a commit brings beside its release. The journal tells of it from the commit of the release on, so that it comes
/// also when HQ ends before it is done; a command that HQ was killed in runs once more.
#[derive(Debug)]
pub struct Aftermath {
    /// Certificates to show.
    pub given: Vec<Given>,
    /// Commands to run, one after the other.
    pub commands: Vec<Command>,
}

impl Aftermath {
    /// That of a release: some commands are only for the first one of a stack.
    pub fn of(number: ReleaseNumber, after: After, given: Vec<Given>) -> Self {
        let first = after.first.filter(|_| number == ReleaseNumber(1));
        Self { given, commands: first.into_iter().chain(after.each).collect() }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.given.is_empty() && self.commands.is_empty()
    }
}
