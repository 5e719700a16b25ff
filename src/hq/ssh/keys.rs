//! Public keys: what may stand in `keys/<user>/<name>.pub`, and how a key is written and compared.

use std::fmt;
use std::str::FromStr;

use russh::keys::ssh_key;

use crate::names::printable::excerpt;

/// A public key in its one text form, `ssh-ed25519 AAAA…` without a comment: equal keys are equal texts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey {
    text: String,
    fingerprint: String,
}

/// The types that are taken, as keys name them.
const TAKEN: [&str; 5] =
    ["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"];

/// A line that is no usable public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// Somebody pastes the secret half.
    #[error("this is a private key, which nobody else should see; give the file that ends in `.pub`")]
    Private,
    /// Not the form `ssh-keygen` writes.
    #[error("this is not a public key as in an `id_ed25519.pub` file")]
    NotAKey,
    /// DSA, or hardware-bound types that cannot be verified here.
    #[error("keys of type `{0}` are not taken; make one with `ssh-keygen -t ed25519`")]
    Type(String),
    /// RSA below 2048 bits.
    #[error("this RSA key has {0} bits, fewer than the 2048 it takes; make one with `ssh-keygen -t ed25519`")]
    Short(usize),
}

impl PublicKey {
    /// `ssh-ed25519 AAAA…`, as an authorized_keys line without its comment.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `SHA256:…`, as `ssh-keygen -l` shows it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The key a client offers; `None` for types that are not taken.
    pub(crate) fn offered(key: &ssh_key::PublicKey) -> Option<PublicKey> {
        let mut key = key.clone();
        key.set_comment("");
        checked(&key).ok()
    }
}

impl FromStr for PublicKey {
    type Err = BadKey;

    /// Reads one line as `ssh-keygen` writes it; a comment behind the key is left out.
    fn from_str(line: &str) -> Result<Self, BadKey> {
        if line.contains("PRIVATE KEY-----") {
            return Err(BadKey::Private);
        }
        let mut words = line.split_whitespace();
        let (Some(algorithm), Some(data)) = (words.next(), words.next()) else { return Err(BadKey::NotAKey) };
        let line = format!("{algorithm} {data}");
        match ssh_key::PublicKey::from_openssh(&line) {
            Ok(key) => checked(&key),
            Err(_) if !TAKEN.contains(&algorithm) && (algorithm.starts_with("ssh-") || algorithm.contains('@')) => {
                Err(BadKey::Type(excerpt(algorithm, 60)))
            }
            Err(_) => Err(BadKey::NotAKey),
        }
    }
}

fn checked(key: &ssh_key::PublicKey) -> Result<PublicKey, BadKey> {
    match key.key_data() {
        ssh_key::public::KeyData::Ed25519(_) | ssh_key::public::KeyData::Ecdsa(_) => {}
        ssh_key::public::KeyData::Rsa(rsa) => {
            let bits = rsa.key_size() as usize;
            if bits < 2048 {
                return Err(BadKey::Short(bits));
            }
        }
        _ => return Err(BadKey::Type(key.algorithm().to_string())),
    }
    let text = key.to_openssh().map_err(|_| BadKey::NotAKey)?;
    let fingerprint = key.fingerprint(ssh_key::HashAlg::Sha256).to_string();
    Ok(PublicKey { text: text.trim_end().to_owned(), fingerprint })
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    #[test]
    fn equal_keys_are_equal_whatever_stands_around_them() {
        let key: PublicKey = ED25519.parse().unwrap();
        assert_eq!(format!("  {ED25519} me@home of mine\n").parse(), Ok(key.clone()));
        assert_eq!(key.as_str(), ED25519);
        assert!(key.fingerprint().starts_with("SHA256:"));
        assert!(!format!("{key:?}").contains("AAAA"));
    }

    #[test]
    fn what_is_no_usable_public_key_is_refused_with_a_reason() {
        let check = |line: &str, expected: BadKey| assert_eq!(line.parse::<PublicKey>(), Err(expected), "{line}");
        check("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn", BadKey::Private);
        for line in ["", "hello", "ssh-ed25519", "ssh-ed25519 AAAA", "ssh-ed25519 ####", "ssh-rsa not a key"] {
            check(line, BadKey::NotAKey);
        }
        let truncated = &ED25519[..ED25519.len() - 8];
        check(truncated, BadKey::NotAKey);
        let dsa = "AAAAB3NzaC1kc3MAAAADAQABAAAAAwEAAQAAAAMBAAEAAAADAQAB";
        assert!(matches!(format!("ssh-dss {dsa}").parse::<PublicKey>(), Err(BadKey::Type(_))));
    }
}
