//! What nobody can guess.

use rustix::rand::{GetRandomFlags, getrandom};

/// So many bytes of the kernel's, 256 at most.
pub fn bytes<const COUNT: usize>() -> [u8; COUNT] {
    const { assert!(COUNT <= 256, "the kernel gives more only in pieces") };
    let mut bytes = [0; COUNT];
    getrandom(&mut bytes, GetRandomFlags::empty()).expect("the kernel gives random bytes");
    bytes
}

/// So many bytes of the kernel's as hexadecimal digits.
pub fn hex<const BYTES: usize>() -> String {
    super::hex::hex(bytes::<BYTES>())
}
