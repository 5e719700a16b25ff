//! An authority's word that a certificate is not revoked, which routers bring along with it (OCSP, RFC 6960): the question
//! and what to make of the answer.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha1::{Digest, Sha1};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::router::tls::Staple;

/// An answer that names no end is believed for so long.
const USUAL: SignedDuration = SignedDuration::from_hours(24);

/// The algorithm by which names and keys are told apart: SHA-1, the one that every responder knows.
const SHA1: [u8; 11] = [0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00];

/// What is asked of a responder about the first certificate of a chain (DER); `None` where its issuer is not in the chain.
pub fn question(chain: &str) -> Option<Vec<u8>> {
    let mut ders = CertificateDer::pem_slice_iter(chain.as_bytes());
    let (leaf, issuer) = (ders.next()?.ok()?, ders.next()?.ok()?);
    let (leaf, issuer) = (X509Certificate::from_der(&leaf).ok()?.1, X509Certificate::from_der(&issuer).ok()?.1);
    let name = Sha1::digest(leaf.issuer().as_raw());
    let key = Sha1::digest(&issuer.public_key().subject_public_key.data);
    let id = [&SHA1[..], &wrap(0x04, &name), &wrap(0x04, &key), &wrap(0x02, leaf.raw_serial())].concat();
    // CertID, Request, requestList, TBSRequest, OCSPRequest.
    Some((0..5).fold(id, |inner, _| wrap(0x30, &inner)))
}

fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = match u8::try_from(length) {
        Ok(short @ 0..=127) => vec![tag, short],
        Ok(long) => vec![tag, 0x81, long],
        Err(_) => vec![tag, 0x82, (length >> 8).to_le_bytes()[0], length.to_le_bytes()[0]],
    };
    [head, content.to_vec()].concat()
}

/// The answer as routers show it; `None` when it is none, is over, or does not say that all is well. Routers check who
/// signed it before they do.
pub fn staple(answer: &[u8], now: Timestamp) -> Option<Staple> {
    let (_, mut response) = only(0x30, answer)?;
    // successful
    if take(0x0a, &mut response)? != [0] {
        return None;
    }
    let mut typed = inside(0x30, take(0xa0, &mut response)?)?;
    take(0x06, &mut typed)?;
    let mut basic = inside(0x30, take(0x04, &mut typed)?)?;
    let mut data = take(0x30, &mut basic)?;
    // A version, and who answers by name or by key.
    skip(&[0xa0], &mut data);
    skip(&[0xa1, 0xa2], &mut data);
    take(0x18, &mut data)?;
    let mut single = inside(0x30, take(0x30, &mut data)?)?;
    take(0x30, &mut single)?;
    // good
    take(0x80, &mut single)?;
    let from = time(take(0x18, &mut single)?)?;
    let until = match take(0xa0, &mut single) {
        Some(next) => time(inside(0x18, next)?)?,
        None => from.checked_add(USUAL).ok()?,
    };
    (until > now).then(|| Staple { response: base64(answer), until: until.as_second() })
}

/// When a staple is asked for anew: half way to its end, and tomorrow at the latest.
pub fn again(staple: &Staple, now: Timestamp) -> Timestamp {
    let left = SignedDuration::from_secs((staple.until - now.as_second()) / 2);
    now.checked_add(left.min(USUAL)).unwrap_or(now)
}

/// The content of the first value, and what comes behind it.
fn only(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    (found == tag).then_some((rest, content))
}

/// The content of the next value, when it has this tag; then the value is behind us.
fn take<'a>(tag: u8, bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (rest, content) = only(tag, bytes)?;
    *bytes = rest;
    Some(content)
}

fn inside(tag: u8, bytes: &[u8]) -> Option<&[u8]> {
    only(tag, bytes).map(|(_, content)| content)
}

fn skip(tags: &[u8], bytes: &mut &[u8]) {
    let _ = tags.iter().find_map(|tag| take(*tag, bytes));
}

/// A GeneralizedTime such as `20261122013000Z`.
fn time(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let time = DateTime::strptime("%Y%m%d%H%M%S", text).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let number = (0..3).fold(0_usize, |number, at| number << 8 | usize::from(chunk.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let digit = DIGITS[number >> (18 - 6 * at) & 63];
            text.push(if at <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-22T00:00:00Z".parse().unwrap()
    }

    /// An answer with this status of the response, of the certificate, and this end.
    fn answer(status: u8, certificate: &[u8], next: Option<&str>) -> Vec<u8> {
        let time = |text: &str| wrap(0x18, text.as_bytes());
        let next = next.map(|next| wrap(0xa0, &time(next))).unwrap_or_default();
        let single = [&wrap(0x30, b"id")[..], certificate, &time("20261121120000Z"), &next].concat();
        let list = wrap(0x30, &wrap(0x30, &single));
        let data = [wrap(0xa2, &[0x04, 0x00]), time("20261121120000Z"), list].concat();
        let basic = wrap(0x30, &[wrap(0x30, &data), vec![0; 300]].concat());
        let typed = wrap(0x30, &[wrap(0x06, b"oid"), wrap(0x04, &basic)].concat());
        wrap(0x30, &[wrap(0x0a, &[status]), wrap(0xa0, &typed)].concat())
    }

    #[test]
    fn only_an_answer_that_all_is_well_is_shown_and_only_until_its_end() {
        let check = |answer: &[u8], expected: Option<&str>| {
            let expected = expected.map(|text| text.parse::<Timestamp>().unwrap().as_second());
            assert_eq!(staple(answer, now()).map(|staple| staple.until), expected);
        };
        let good = wrap(0x80, &[]);
        check(&answer(0, &good, Some("20261128120000Z")), Some("2026-11-28T12:00:00Z"));
        check(&answer(0, &good, None), Some("2026-11-22T12:00:00Z"));
        check(&answer(0, &good, Some("20261121230000Z")), None);
        check(&answer(6, &good, Some("20261128120000Z")), None);
        check(&answer(0, &wrap(0xa1, b"revoked"), Some("20261128120000Z")), None);
        check(&answer(0, &wrap(0x82, &[]), Some("20261128120000Z")), None);
        let whole = answer(0, &good, None);
        for end in 0..whole.len() {
            assert_eq!(staple(&whole[..end], now()), None, "cut at {end}");
        }
    }

    #[test]
    fn it_is_asked_for_again_in_time() {
        let check = |until: &str, expected: &str| {
            let until = until.parse::<Timestamp>().unwrap().as_second();
            let again = again(&Staple { response: String::new(), until }, now());
            assert_eq!(again, expected.parse().unwrap());
        };
        check("2026-11-22T08:00:00Z", "2026-11-22T04:00:00Z");
        check("2026-11-29T00:00:00Z", "2026-11-23T00:00:00Z");
    }

    #[test]
    fn bytes_become_base64() {
        for (bytes, expected) in
            [(&b""[..], ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (b"\xff\xfe", "//4=")]
        {
            assert_eq!(base64(bytes), expected);
        }
    }
}
