//! The authorities this machine knows.

/// Their certificates, as DER. One that cannot be read is left out.
pub fn roots() -> Vec<Vec<u8>> {
    rustls_native_certs::load_native_certs().certs.into_iter().map(|root| root.to_vec()).collect()
}
