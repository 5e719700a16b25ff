//! What nobody can guess.

/// So many bytes of the kernel's as hexadecimal digits.
pub fn hex<const BYTES: usize>() -> String {
    let mut bytes = [0; BYTES];
    // The kernel gives as few at once.
    let given = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    given.expect("the kernel gives random bytes");
    crate::units::hex::hex(bytes)
}
