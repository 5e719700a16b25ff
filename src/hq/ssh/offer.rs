//! The ciphers that clients are offered, and who is offered which.
//!
//! In SSH the client's preference decides among what both sides have, and OpenSSH's puts ChaCha20 before AES-GCM even
//! where processors have instructions for AES: it then sends a gigabyte at two thirds of the pace. A server's one way to
//! decide is to offer less, so whoever has named AES-GCM in time is offered nothing else. It costs each login the wait
//! for those names, and a client without such instructions some of its pace: nothing it says tells of that. (A large
//! push gains nothing: its time is git's `index-pack`.)

use russh::cipher::{self, Name};

/// For everybody.
pub(crate) const ALL: &[Name] = &[
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

/// The fastest, where both sides have instructions for it.
pub(crate) const GCM: &[Name] = &[cipher::AES_128_GCM, cipher::AES_256_GCM];

/// The longest greeting in bytes, its end included. Source: RFC 4253, 4.2.
const LONGEST: usize = 255;

/// Where the lists of names begin in the packet that opens the key exchange, behind its length (4 bytes), the length
/// of its padding, its number and a cookie (16 bytes). Source: RFC 4253, 6 and 7.1.
const LISTS: usize = 4 + 1 + 1 + 16;

/// The number of that packet, and where it stands.
const KEXINIT: (u8, usize) = (20, 5);

/// Whether a client would use the same AES-GCM in both directions (russh knows one cipher for both), from all that it has
/// said so far; `None` while that is too little.
pub(crate) fn has_gcm(said: &[u8]) -> Option<bool> {
    let Some(end) = said.iter().take(LONGEST).position(|byte| *byte == b'\n') else {
        return (said.len() >= LONGEST).then_some(false);
    };
    let packet = &said[end + 1..];
    if *packet.get(KEXINIT.1)? != KEXINIT.0 {
        return Some(false);
    }
    let mut lists = packet.get(LISTS..)?;
    let (_key_exchanges, _host_keys) = (names(&mut lists)?, names(&mut lists)?);
    let (inward, outward) = (first_gcm(names(&mut lists)?), first_gcm(names(&mut lists)?));
    Some(inward.is_some() && inward == outward)
}

/// The AES-GCM that a list prefers.
fn first_gcm(list: &[u8]) -> Option<&[u8]> {
    let is_gcm = |name: &&[u8]| GCM.iter().any(|cipher| cipher.as_ref().as_bytes() == *name);
    list.split(|byte| *byte == b',').find(is_gcm)
}

/// Whether this machine's processor has instructions for AES-GCM.
pub(crate) fn is_gcm_fast() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

/// Takes a list of names from the front: its length in four bytes, then the names with commas between them.
fn names<'a>(lists: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = lists.split_first_chunk()?;
    let (names, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *lists = rest;
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client says that has these ciphers, to HQ and from there.
    fn said(inward: &str, outward: &str) -> Vec<u8> {
        let mut said = b"SSH-2.0-client\r\n\0\0\x01\0\x08\x14".to_vec();
        said.extend([7; 16]);
        for list in ["curve25519-sha256", "ssh-ed25519", inward, outward] {
            said.extend((list.len() as u32).to_be_bytes());
            said.extend(list.as_bytes());
        }
        said
    }

    #[test]
    fn a_client_has_it_that_prefers_the_same_in_both_directions() {
        let with = "chacha20-poly1305@openssh.com,aes256-ctr,aes256-gcm@openssh.com,aes128-gcm@openssh.com";
        assert_eq!(has_gcm(&said(with, with)), Some(true));
        assert_eq!(has_gcm(&said("aes256-gcm@openssh.com", with)), Some(true));
        let others = ["", "chacha20-poly1305@openssh.com", "aes256-gcm", "xaes256-gcm@openssh.com"];
        for other in others.into_iter().chain(["aes128-gcm@openssh.com"]) {
            assert_eq!(has_gcm(&said(with, other)), Some(false), "{other}");
            assert_eq!(has_gcm(&said(other, with)), Some(false), "{other}");
        }
        assert_eq!(has_gcm(&said("aes256-gcm", "aes256-gcm")), Some(false));
    }

    #[test]
    fn less_than_all_of_it_is_waited_for() {
        let whole = said("aes128-gcm@openssh.com", "aes128-gcm@openssh.com");
        for length in 0..whole.len() {
            assert_eq!(has_gcm(&whole[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn what_is_no_ssh_is_not_waited_for() {
        assert_eq!(has_gcm(&[b'x'; LONGEST]), Some(false));
        assert_eq!(has_gcm(b"GET / HTTP/1.1\r\nHost: quarry\r\n\r\n"), Some(false));
        // A list of four gigabytes is, until whoever listens has had enough.
        let mut endless = said("", "");
        endless.truncate("SSH-2.0-client\r\n".len() + LISTS);
        endless.extend([0xff; 64]);
        assert_eq!(has_gcm(&endless), None);
    }
}
