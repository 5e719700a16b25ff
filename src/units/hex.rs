//! Bytes in hexadecimal: small letters, two for each byte.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// All of them.
pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all text");
        text
    })
}

/// The SHA-256 of them, 64 letters.
pub fn sha256(bytes: impl AsRef<[u8]>) -> String {
    hex(Sha256::digest(bytes))
}

/// The first so many bytes of the SHA-256 of them: a name that no other bytes have.
pub fn mark(bytes: impl AsRef<[u8]>, count: usize) -> String {
    hex(&Sha256::digest(bytes)[..count])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_has_two_letters() {
        assert_eq!((hex([0, 10, 255]).as_str(), hex([]).as_str()), ("000aff", ""));
        assert_eq!(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(mark("abc", 3), "ba7816");
    }
}
