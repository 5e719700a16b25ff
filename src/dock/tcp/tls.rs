//! TLS for docker's clients, both of whose ends show a certificate.

use std::io;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::dock::bundle::digest;
use crate::servers::authority::{Authority, Identity};

/// What HQ shows, and whom it lets speak.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl Tls {
    /// Shows `own`, and lets in whoever has a certificate of the authority's.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(authority: &Authority, own: &Identity) -> Result<Self, String> {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let der = |text: &str| CertificateDer::from_pem_slice(text.as_bytes()).map_err(|error| told(&error));
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).map_err(|error| told(&error))?;
        let mut roots = RootCertStore::empty();
        roots.add(der(&authority.certificate())?).map_err(|error| told(&error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let clients = clients.build().map_err(|error| told(&error))?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| told(&error))?
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![der(&own.certificate)?], key)
            .map_err(|error| told(&error))?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// The conversation behind the handshake, and by what the client's certificate is known.
    ///
    /// # Errors
    /// When the client goes, speaks no TLS, or shows no certificate of the authority's.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, String)> {
        let stream = self.0.accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|leaf| digest(leaf));
        let shown = shown.ok_or_else(|| io::Error::other("the client shows no certificate"))?;
        Ok((stream, shown))
    }
}
