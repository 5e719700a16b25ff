//! The `shallow` lines at the start of a push: commits whose parents the pusher does not have.
//!
//! `git receive-pack` cannot take them together with a proc-receive hook (it stops with "connectivity check has not
//! been run", seen with 2.39 and 2.47). So HQ takes them out of the stream and writes them into the repository itself;
//! to git the push then looks like any other push into a repository with a shallow history.

use crate::hq::hooks::{self, BadConversation};
use crate::names::CommitId;

/// Most such commits in one push.
const LIMIT: usize = 10_000;

/// What is known of a push after its first bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// Too little to tell.
    More,
    /// The lines are over.
    Over {
        /// The commits they named, in the order they came.
        roots: Vec<CommitId>,
        /// How many bytes the lines took; what follows them is git's.
        length: usize,
    },
}

/// Reads the `shallow` lines that `bytes`, the start of a push, begins with.
///
/// # Errors
/// When the bytes are no pkt-lines, or too many.
pub fn opening(bytes: &[u8]) -> Result<Opening, BadConversation> {
    let mut roots = Vec::new();
    let mut at = 0;
    loop {
        let Some(digits) = bytes[at..].first_chunk::<4>() else { return Ok(Opening::More) };
        let Some(length) = hooks::length(*digits)? else { return Ok(Opening::Over { roots, length: at }) };
        let Some(line) = bytes[at + 4..].get(..length) else {
            // A command line need not be here in full to be known as one.
            let start = &bytes[at + 4..];
            let told = start.len() >= 8 && !start.starts_with(b"shallow ");
            return Ok(if told { Opening::Over { roots, length: at } } else { Opening::More });
        };
        let Some(id) = line.strip_prefix(b"shallow ") else { return Ok(Opening::Over { roots, length: at }) };
        let id = std::str::from_utf8(id.trim_ascii_end()).map_err(|_| BadConversation::Command)?;
        roots.push(id.parse().map_err(|_| BadConversation::Command)?);
        if roots.len() > LIMIT {
            return Err(BadConversation::TooMany);
        }
        at += 4 + length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "1111111111111111111111111111111111111111";

    fn over(roots: usize, length: usize) -> Result<Opening, BadConversation> {
        Ok(Opening::Over { roots: vec![ID.parse().unwrap(); roots], length })
    }

    #[test]
    fn shallow_lines_are_taken_out_and_everything_else_is_left() {
        let line = format!("0034shallow {ID}");
        let command = format!("0067{ID} {ID} refs/heads/master");
        assert_eq!(opening(format!("{line}{line}{command}").as_bytes()), over(2, 104));
        assert_eq!(opening(command.as_bytes()), over(0, 0));
        assert_eq!(opening(b"0000"), over(0, 0));
        assert_eq!(opening(format!("{line}0000PACK").as_bytes()), over(1, 52));
        assert_eq!(opening(format!("0035shallow {ID}\n0000").as_bytes()), over(1, 53));
    }

    #[test]
    fn every_prefix_of_a_push_is_waited_for_or_understood() {
        let push = format!("0034shallow {ID}0067{ID} {ID} refs/heads/master");
        for end in 0..push.len() {
            match opening(&push.as_bytes()[..end]) {
                Ok(Opening::More) => assert!(end < 64, "{end}"),
                whole => assert!(end >= 64 && whole == over(1, 52), "{end}"),
            }
        }
    }

    #[test]
    fn what_is_no_push_is_refused() {
        assert_eq!(opening(b"xxxx"), Err(BadConversation::Packet));
        assert_eq!(opening(b"0010shallow nope"), Err(BadConversation::Command));
        let many = format!("0034shallow {ID}").repeat(LIMIT + 1);
        assert_eq!(opening(many.as_bytes()), Err(BadConversation::TooMany));
    }
}
