//! Tokens: by which programs come to the HTTP api in a user's name. HQ keeps their digests alone.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::units::hex::sha256;

/// How a token begins, so that people and scanners of leaks know one when they see it.
const PREFIX: &str = "qry_";

/// The secret part: 32 bytes in hexadecimal.
const DIGITS: usize = 64;

/// What is kept of a token: `tokens/<user>/<name>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The SHA-256 of its text, in hexadecimal.
    pub digest: String,
    /// When it was made.
    pub created: Timestamp,
    /// From when on it opens nothing; never without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

impl Record {
    /// Whether it still opens something.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// The token with this secret.
pub fn token(secret: &str) -> String {
    format!("{PREFIX}{secret}")
}

/// What HQ knows a token by; `None` for what cannot be one. Secrets are found by their digest, so that how long it takes to
/// compare them tells nothing.
pub fn digest(token: &str) -> Option<String> {
    let secret = token.strip_prefix(PREFIX)?;
    let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let good = secret.len() == DIGITS && secret.bytes().all(hexadecimal);
    good.then(|| sha256(token))
}

/// When something ends that holds for `90d`, `12h` or `4w` from now, or until a time in RFC 3339.
///
/// # Errors
/// What a right one looks like.
pub fn end(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let wrong =
        || format!("`{}` is no end: write 12h, 90d, 4w, or a time such as 2030-01-31T12:00:00Z", text.escape_debug());
    let end = match text.parse::<Timestamp>() {
        Ok(time) => time,
        Err(_) => {
            let units = [("h", 1), ("d", 24), ("w", 7 * 24)];
            let of = |(unit, hours): (&str, i64)| Some((text.strip_suffix(unit)?, hours));
            let (number, hours) = units.into_iter().find_map(of).ok_or_else(wrong)?;
            let number = number.parse::<u16>().map_err(|_| wrong())?;
            now.checked_add(SignedDuration::from_hours(i64::from(number) * hours)).map_err(|_| wrong())?
        }
    };
    if end > now { Ok(end) } else { Err(format!("`{}` has passed already", text.escape_debug())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_a_digest_that_does_not_tell_it() {
        let text = token(&"0a".repeat(32));
        let known = digest(&text).unwrap();
        assert!(known.len() == 64 && !text.contains(&known));
        assert_ne!(digest(&token(&"0b".repeat(32))), Some(known));
        for wrong in ["", "qry_", "0a", &text[..text.len() - 1], &text.to_uppercase(), &format!("{text}0"), "qry_é"] {
            assert_eq!(digest(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_token_ends_after_a_time_or_at_one() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(end(text, now).ok().map(|end| end.to_string()).as_deref(), expected, "{text}");
        };
        check("12h", Some("2026-11-23T00:00:00Z"));
        check("90d", Some("2027-02-20T12:00:00Z"));
        check("2w", Some("2026-12-06T12:00:00Z"));
        check("2030-01-31T12:00:00Z", Some("2030-01-31T12:00:00Z"));
        for wrong in ["", "d", "0d", "-1d", "5", "5y", "99999999d", "2020-01-31T12:00:00Z", "é", "1é"] {
            check(wrong, None);
        }
    }

    #[test]
    fn a_token_opens_nothing_from_its_end_on() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let record = Record { digest: String::new(), created: at(0), expires: Some(at(10)) };
        assert!(record.holds(at(9)) && !record.holds(at(10)));
        assert!(Record { expires: None, ..record }.holds(at(1_000_000)));
    }
}
