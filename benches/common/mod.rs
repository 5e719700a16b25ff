//! What the benchmarks share: an HQ and an sshd of their own, docker behind quarry's back, tables, an orderly end.

// Each benchmark is a program of its own and uses its part.
#![allow(dead_code)]

pub mod app;
pub mod clients;
pub mod end;
pub mod engine;
pub mod hq;
pub mod lab;
pub mod place;
pub mod plain;
pub mod program;
pub mod repository;
pub mod sshd;
pub mod table;
pub mod web;
pub mod wrk;

/// How many rounds are run: `QUARRY_ROUNDS`, else the benchmark's usual number.
pub fn rounds(usual: usize) -> usize {
    number("QUARRY_ROUNDS", usual)
}

/// A number from the environment.
pub fn number(name: &str, usual: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// The parts that were asked for by name on the command line; all when there are none.
pub struct Parts(Vec<String>);

impl Parts {
    pub fn wanted() -> Self {
        // Cargo adds words of its own.
        Self(std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect())
    }

    pub fn want(&self, name: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|word| word == name)
    }
}

/// Who goes first in a round: it changes, so that what one leaves behind for the other weighs on both.
pub fn ours_first(round: usize) -> bool {
    round.is_multiple_of(2)
}
