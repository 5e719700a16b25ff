//! A key pair of HQ's own, made once and kept: its host key, by which clients know it, and the key with which it logs
//! in to servers.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};

use crate::units::random;

/// What went wrong with a key pair.
#[derive(Debug, thiserror::Error)]
pub enum KeyPairError {
    /// The file cannot be read or made.
    #[error("cannot {doing} the key {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// An RSA key: signing with it leaks through its timing (RUSTSEC-2023-0071).
    #[error("the key {} is an RSA key, which is not used here; put an Ed25519 or ECDSA key there", path.display())]
    Rsa {
        /// Which file.
        path: PathBuf,
    },
    /// The file holds something else.
    #[error("the key {} is no private key in OpenSSH's form; restore it from a backup", path.display())]
    Broken {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: russh::keys::ssh_key::Error,
    },
}

/// A private key, and with it the public one.
#[derive(Clone)]
pub struct KeyPair(pub(crate) Arc<PrivateKey>);

impl KeyPair {
    /// Reads the key, or makes an Ed25519 key (every client of the last ten years knows them) that only its owner can
    /// read. An administrator may put an ECDSA key there.
    ///
    /// # Errors
    /// When the file cannot be read, made or understood. A broken key is never replaced.
    pub fn open_or_create(path: &Path) -> Result<KeyPair, KeyPairError> {
        let file = |doing| move |source| KeyPairError::File { doing, path: path.to_owned(), source };
        let broken = |source| KeyPairError::Broken { path: path.to_owned(), source };
        match fs::read_to_string(path) {
            Ok(text) => match PrivateKey::from_openssh(text).map_err(broken)? {
                key if key.algorithm().is_rsa() => Err(KeyPairError::Rsa { path: path.to_owned() }),
                key => Ok(KeyPair(Arc::new(key))),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&random::bytes()));
                let key = PrivateKey::new(pair, "quarry").map_err(broken)?;
                let text = key.to_openssh(LineEnding::LF).map_err(broken)?;
                keep(path, text.as_bytes()).map_err(file("write"))?;
                Ok(KeyPair(Arc::new(key)))
            }
            Err(error) => Err(file("read")(error)),
        }
    }

    /// Reads a person's private key; one under a passphrase is of no use here.
    pub fn parse(text: &str) -> Option<KeyPair> {
        let key = PrivateKey::from_openssh(text).ok().filter(|key| !key.is_encrypted())?;
        Some(KeyPair(Arc::new(key)))
    }

    /// The public key in OpenSSH's form, as a line of `authorized_keys`.
    pub fn authorized_key(&self) -> String {
        self.0.public_key().to_openssh().expect("a key of ours has a form")
    }

    /// `SHA256:…`, as clients show it at the first connection.
    pub fn fingerprint(&self) -> String {
        self.0.public_key().fingerprint(russh::keys::HashAlg::Sha256).to_string()
    }
}

/// Written under another name first: a crash leaves no half key that would be taken for a broken one.
fn keep(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_only_its_owner_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("etc/host_key");
        let made = KeyPair::open_or_create(&path).unwrap().fingerprint();
        assert_eq!(KeyPair::open_or_create(&path).unwrap().fingerprint(), made);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_broken_key_is_reported_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host_key");
        fs::write(&path, "half a k").unwrap();
        assert!(matches!(KeyPair::open_or_create(&path), Err(KeyPairError::Broken { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "half a k");
    }
}
