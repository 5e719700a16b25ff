//! What a person needs who comes with a certificate: three files by the names that docker's client looks for.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::servers::authority::{Authority, Identity};
use crate::units::hex::sha256;

/// By what HQ knows a certificate: the SHA-256 of it, in hexadecimal.
pub fn digest(certificate: &[u8]) -> String {
    sha256(certificate)
}

/// The same of one in PEM; `None` for what is none.
pub fn digest_of_text(certificate: &str) -> Option<String> {
    CertificateDer::from_pem_slice(certificate.as_bytes()).ok().map(|der| digest(&der))
}

/// `ca.pem`, `cert.pem` and `key.pem` as a tar archive, for a folder that `DOCKER_CERT_PATH` names.
pub fn tar(authority: &Authority, identity: &Identity) -> Vec<u8> {
    let ca = authority.certificate();
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in [("ca.pem", &ca), ("cert.pem", &identity.certificate), ("key.pem", &identity.key)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        tar.append_data(&mut header, name, text.as_bytes()).expect("memory takes what is written to it");
    }
    tar.into_inner().expect("memory takes what is written to it")
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use jiff::Timestamp;

    use super::*;
    use crate::servers::authority::{DOCK, Whom};

    #[test]
    fn a_bundle_has_what_the_client_looks_for() {
        let authority = Authority::make(DOCK, Timestamp::UNIX_EPOCH).unwrap();
        let identity = authority.issue(&Whom::Client("ada".parse().unwrap()), Timestamp::UNIX_EPOCH).unwrap();
        let bytes = tar(&authority, &identity);
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut names = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            assert!(text.starts_with("-----BEGIN "), "{text}");
            assert_eq!(entry.header().mode().unwrap(), 0o600);
            names.push(entry.path().unwrap().display().to_string());
        }
        assert_eq!(names, ["ca.pem", "cert.pem", "key.pem"]);
        assert_eq!(digest_of_text(&identity.certificate).map(|digest| digest.len()), Some(64));
        assert_eq!(digest_of_text("nonsense"), None);
    }
}
