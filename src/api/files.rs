//! The certificate that the api shows: the machine owner's, or one of its own making.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::http::Tls;
use crate::etc::API_CERTIFICATE;

/// In HQ's root: the certificate and key that HQ has made itself.
const OWN: &str = "api.pem";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read the key.
    #[error("others may read it; chmod 600 {}", .0.display())]
    Open(PathBuf),
    /// What is in them.
    #[error("{} and {} make no certificate: {why}", certificate.display(), key.display())]
    Unfit {
        /// The certificate.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
        /// Why.
        why: String,
    },
    /// It cannot be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
}

/// What the api shows at `address`: with `api.crt` and `api.key` in the settings' folder `etc` that; without them nothing on
/// the machine itself, and elsewhere a certificate of HQ's own, which is kept in `root` and is for these names.
///
/// # Errors
/// When a file is there and cannot be used.
pub fn tls(etc: &Path, root: &Path, address: SocketAddr, names: Vec<String>) -> Result<Option<Tls>, TlsError> {
    let [certificate, key] = API_CERTIFICATE.map(|name| etc.join(name));
    let unfit = |certificate: &Path, key: &Path, why: String| TlsError::Unfit {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        why,
    };
    if certificate.exists() || key.exists() {
        let chain = read(&certificate)?;
        let secret = private(&key)?;
        return Tls::new(&chain, &secret).map(Some).map_err(|why| unfit(&certificate, &key, why));
    }
    if address.ip().is_loopback() {
        return Ok(None);
    }
    let own = root.join(OWN);
    if !own.exists() {
        let made = rcgen::generate_simple_self_signed(names)?;
        let text = format!("{}{}", made.cert.pem(), made.signing_key.serialize_pem());
        write(&own, text.as_bytes()).map_err(|source| TlsError::File { path: own.clone(), source })?;
    }
    let text = private(&own)?;
    Tls::new(&text, &text).map(Some).map_err(|why| unfit(&own, &own, why))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::File { path: path.to_owned(), source })
}

/// A file with a key in it.
fn private(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mode = fs::metadata(path).map(|found| found.permissions().mode());
    match mode.map_err(|source| TlsError::File { path: path.to_owned(), source })? & 0o077 {
        0 => read(path),
        _ => Err(TlsError::Open(path.to_owned())),
    }
}

/// Writes a file that is root's alone, whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_added_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elsewhere_than_on_the_machine_itself_there_is_a_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let (etc, root) = (folder.path().join("etc"), folder.path().join("root"));
        fs::create_dir(&etc).unwrap();
        fs::create_dir(&root).unwrap();
        let tls = |address: &str| tls(&etc, &root, address.parse().unwrap(), vec!["hq.example".to_owned()]);
        assert!(tls("127.0.0.1:1").unwrap().is_none() && tls("[::1]:1").unwrap().is_none());
        assert!(tls("0.0.0.0:1").unwrap().is_some());
        let made = fs::read(root.join(OWN)).unwrap();
        assert!(tls("10.0.0.7:1").unwrap().is_some());
        assert_eq!(fs::read(root.join(OWN)).unwrap(), made, "it stays the same");

        fs::write(etc.join("api.crt"), &made).unwrap();
        assert!(matches!(tls("127.0.0.1:1"), Err(TlsError::File { .. })), "its key is missing");
        fs::write(etc.join("api.key"), &made).unwrap();
        assert!(matches!(tls("127.0.0.1:1"), Err(TlsError::Open(_))));
        fs::set_permissions(etc.join("api.key"), fs::Permissions::from_mode(0o600)).unwrap();
        assert!(tls("127.0.0.1:1").unwrap().is_some());
        fs::write(etc.join("api.key"), "nonsense").unwrap();
        assert!(matches!(tls("127.0.0.1:1"), Err(TlsError::Unfit { .. })));
    }
}
