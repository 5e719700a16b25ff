//! Git's proc-receive protocol, version 1, in pkt-lines (gitprotocol-common, githooks(5)).
//!
//! A pkt-line is four hexadecimal digits, the length with themselves, and the content; `0000` is a flush.

use crate::names::CommitId;
use crate::names::printable::is_harmless;

/// The longest pkt-line's content.
const LINE_LIMIT: usize = 65_516;

/// Most references one push may change.
pub const COMMANDS: usize = 1_000;

/// One reference a push wants changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What git saw it point to; `None` when it is new.
    pub old: Option<CommitId>,
    /// What it is to point to; `None` when it is to go.
    pub new: Option<CommitId>,
    /// The whole reference.
    pub reference: String,
}

/// What is wrong with the conversation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadConversation {
    /// A length that is none.
    #[error("git sent a malformed packet")]
    Packet,
    /// Another version of the protocol.
    #[error("git speaks another version of the proc-receive protocol than 1; git 2.29 and later speak it")]
    Version,
    /// Not `<old> <new> <reference>`.
    #[error("git sent a malformed command")]
    Command,
    /// More lines than a push may have.
    #[error("the push changes more branches, or cuts more histories, than one push may")]
    TooMany,
}

/// One packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// The end of a section.
    Flush,
    /// A line, without its newline.
    Line(&'a [u8]),
}

/// The length in bytes of what follows the four digits; `None` for a flush.
///
/// # Errors
/// When they are no length.
pub fn length(digits: [u8; 4]) -> Result<Option<usize>, BadConversation> {
    let text = std::str::from_utf8(&digits).map_err(|_| BadConversation::Packet)?;
    match usize::from_str_radix(text, 16).map_err(|_| BadConversation::Packet)? {
        0 => Ok(None),
        length @ 4.. if length - 4 <= LINE_LIMIT && !text.starts_with('+') => Ok(Some(length - 4)),
        _ => Err(BadConversation::Packet),
    }
}

/// Writes one packet behind `into`. A line longer than git takes is cut.
pub fn write(into: &mut Vec<u8>, packet: Packet<'_>) {
    match packet {
        Packet::Flush => into.extend_from_slice(b"0000"),
        Packet::Line(line) => {
            let line = &line[..line.len().min(LINE_LIMIT)];
            into.extend_from_slice(format!("{:04x}", line.len() + 4).as_bytes());
            into.extend_from_slice(line);
        }
    }
}

/// What git offers in its first section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// All references change, or none.
    pub atomic: bool,
    /// A section of push options follows the commands.
    pub push_options: bool,
}

/// Reads git's first line: `version=1`, NUL, features.
///
/// # Errors
/// Unless it is version 1.
pub fn offer(line: &[u8]) -> Result<Offer, BadConversation> {
    let mut parts = line.splitn(2, |byte| *byte == 0);
    if parts.next().map(<[u8]>::trim_ascii) != Some(b"version=1") {
        return Err(BadConversation::Version);
    }
    let features: Vec<&[u8]> = parts.next().unwrap_or_default().trim_ascii().split(|byte| *byte == b' ').collect();
    Ok(Offer { atomic: features.contains(&&b"atomic"[..]), push_options: features.contains(&&b"push-options"[..]) })
}

/// What is answered to an offer: the same features, so that no section is a surprise.
pub fn acceptance(offer: Offer) -> Vec<u8> {
    let mut line = b"version=1\0".to_vec();
    let mut features = Vec::new();
    if offer.push_options {
        features.push("push-options");
    }
    if offer.atomic {
        features.push("atomic");
    }
    line.extend_from_slice(features.join(" ").as_bytes());
    let mut answer = Vec::new();
    write(&mut answer, Packet::Line(&line));
    write(&mut answer, Packet::Flush);
    answer
}

/// Reads `<old> <new> <reference>`; an id of zeros is none.
///
/// # Errors
/// When it is not of this form.
pub fn command(line: &[u8]) -> Result<Command, BadConversation> {
    let text = std::str::from_utf8(line).map_err(|_| BadConversation::Command)?;
    let mut words = text.trim_end_matches('\n').splitn(3, ' ');
    let mut id = || {
        let word = words.next().ok_or(BadConversation::Command)?;
        let id: CommitId = word.parse().map_err(|_| BadConversation::Command)?;
        Ok(Some(id).filter(|id| id.as_str().bytes().any(|byte| byte != b'0')))
    };
    let (old, new) = (id()?, id()?);
    let is_one = |name: &&str| name.starts_with("refs/") && !name.contains(|c: char| c.is_ascii_control() || c == ' ');
    let reference = words.next().filter(is_one).ok_or(BadConversation::Command)?.to_owned();
    Ok(Command { old, new, reference })
}

/// What the hook reports for one reference. A reason is one line: what would break it is replaced.
pub fn report(into: &mut Vec<u8>, reference: &str, result: Result<(), &str>) {
    match result {
        Ok(()) => write(into, Packet::Line(format!("ok {reference}").as_bytes())),
        Err(reason) => {
            let reason: String = reason.chars().take(1_000).map(|c| if is_harmless(c) { c } else { ' ' }).collect();
            write(into, Packet::Line(format!("ng {reference} {}", reason.trim()).as_bytes()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZEROS: &str = "0000000000000000000000000000000000000000";
    const ONES: &str = "1111111111111111111111111111111111111111";

    #[test]
    fn packets_carry_their_length_in_hexadecimal() {
        let mut bytes = Vec::new();
        write(&mut bytes, Packet::Line(b"hello"));
        write(&mut bytes, Packet::Flush);
        assert_eq!(bytes, b"0009hello0000");
        assert_eq!(length(*b"0009"), Ok(Some(5)));
        assert_eq!(length(*b"0004"), Ok(Some(0)));
        assert_eq!(length(*b"fff0"), Ok(Some(LINE_LIMIT)));
        assert_eq!(length(*b"0000"), Ok(None));
        for wrong in [b"0001", b"0003", b"fff1", b"xxxx", b"+009", b"\xff\xff\xff\xff"] {
            assert_eq!(length(*wrong), Err(BadConversation::Packet));
        }
    }

    #[test]
    fn only_version_one_is_spoken_and_its_features_are_answered_alike() {
        let both = offer(b"version=1\0push-options atomic\n").unwrap();
        assert_eq!(both, Offer { atomic: true, push_options: true });
        assert_eq!(acceptance(both), b"0021version=1\0push-options atomic0000"[..].to_vec());
        assert_eq!(offer(b"version=1"), Ok(Offer { atomic: false, push_options: false }));
        assert_eq!(offer(b"version=2\0atomic"), Err(BadConversation::Version));
        assert_eq!(offer(b""), Err(BadConversation::Version));
    }

    #[test]
    fn commands_tell_new_changed_and_deleted_branches_apart() {
        let check = |old: &str, new: &str, expected: (bool, bool)| {
            let command = command(format!("{old} {new} refs/heads/master\n").as_bytes()).unwrap();
            assert_eq!((command.old.is_some(), command.new.is_some()), expected);
            assert_eq!(command.reference, "refs/heads/master");
        };
        check(ZEROS, ONES, (false, true));
        check(ONES, ONES, (true, true));
        check(ONES, ZEROS, (true, false));
        for wrong in [
            "",
            "a b refs/x",
            &format!("{ONES} {ONES}"),
            &format!("{ONES} {ONES} HEAD"),
            &format!("{ONES} {ONES} refs/a b"),
        ] {
            assert_eq!(command(wrong.as_bytes()), Err(BadConversation::Command), "{wrong}");
        }
    }

    #[test]
    fn a_reason_stays_one_line_whatever_it_contains() {
        let mut bytes = Vec::new();
        report(&mut bytes, "refs/heads/a", Ok(()));
        report(&mut bytes, "refs/heads/b", Err("bad\nok refs/heads/c\x1b"));
        assert_eq!(bytes, b"0013ok refs/heads/a0027ng refs/heads/b bad ok refs/heads/c"[..].to_vec());
    }
}
