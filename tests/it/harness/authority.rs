//! An authority of the test's own, and a visitor who trusts nobody else.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::program::{Done, run};

/// A root, and an authority below it that signs.
pub struct TestAuthority {
    root: CertificateDer<'static>,
    root_pem: String,
    link_pem: String,
    params: CertificateParams,
    key: KeyPair,
}

/// A certificate with its chain, and its key, as PEM text.
pub struct Given {
    pub leaf: String,
    pub link: String,
    pub key: String,
}

impl Given {
    pub fn chain(&self) -> String {
        format!("{}{}", self.leaf, self.link)
    }

    /// As `certs add` takes it.
    pub fn text(&self) -> String {
        format!("{}{}", self.chain(), self.key)
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

impl TestAuthority {
    pub fn new() -> Self {
        let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let (root_params, params) = (authority("test root"), authority("test link"));
        let root = root_params.self_signed(&root_key).unwrap();
        let link = params.signed_by(&key, &Issuer::from_params(&root_params, &root_key)).unwrap();
        Self { root: root.der().clone(), root_pem: root.pem(), link_pem: link.pem(), params, key }
    }

    pub fn issue(&self, names: &[&str]) -> Given {
        self.issue_as(names, |_| ())
    }

    /// The same, with `change` made to it.
    pub fn issue_as(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Given {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        Given { leaf: leaf.pem(), link: self.link_pem.clone(), key: key.serialize_pem() }
    }

    /// The same, with the address of a responder in it.
    pub fn issue_with_responder(&self, names: &[&str], url: &str) -> Given {
        const OCSP: [u8; 10] = [0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01];
        let wrap = |tag: u8, content: &[u8]| [&[tag, u8::try_from(content.len()).unwrap()], content].concat();
        let access = wrap(0x30, &wrap(0x30, &[&OCSP[..], &wrap(0x86, url.as_bytes())].concat()));
        let extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], access);
        self.issue_as(names, |params| params.custom_extensions = vec![extension])
    }

    /// What its responder answers: all is well with this certificate.
    pub fn vouch(&self, folder: &Path, given: &Given, question: &[u8]) -> Vec<u8> {
        let file = |name: &str, bytes: &[u8]| {
            std::fs::write(folder.join(name), bytes).unwrap();
        };
        file("leaf.pem", given.leaf.as_bytes());
        file("issuer.pem", given.link.as_bytes());
        file("link.pem", self.link_pem.as_bytes());
        file("link.key", self.key.serialize_pem().as_bytes());
        file("question.der", question);
        let openssl = |words: &str| run(Command::new("openssl").args(words.split(' ')).current_dir(folder)).succeeded();
        let serial = openssl("x509 -in leaf.pem -noout -serial").text();
        let serial = serial.trim().trim_start_matches("serial=");
        file("index.txt", format!("V\t491231235959Z\t\t{serial}\tunknown\t/CN=leaf\n").as_bytes());
        let words =
            "ocsp -index index.txt -CA issuer.pem -rsigner link.pem -rkey link.key -reqin question.der -ndays 7";
        openssl(&format!("{words} -respout answer.der"));
        std::fs::read(folder.join("answer.der")).unwrap()
    }

    pub fn root(&self) -> &str {
        &self.root_pem
    }

    /// A visitor who trusts this authority and no other.
    pub fn visitor(&self) -> Visitor {
        Visitor::trusting(self.root.clone())
    }

    /// `curl` with the root in this folder, for a host at this address.
    pub fn curl(&self, folder: &Path, to: SocketAddr, host: &str, words: &[&str]) -> Done {
        let root = folder.join("root.pem");
        std::fs::write(&root, &self.root_pem).unwrap();
        let resolve = format!("{host}:{}:{}", to.port(), to.ip());
        let mut command = Command::new("curl");
        run(command
            .args(["-sS", "--noproxy", "*", "--max-time", "20", "--resolve", &resolve, "--cacert"])
            .arg(&root)
            .args(words))
    }
}

/// Somebody with a browser.
#[derive(Clone)]
pub struct Visitor(TlsConnector);

impl Visitor {
    pub fn trusting(root: CertificateDer<'static>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(root).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        // One who remembers is not shown the certificate again.
        config.resumption = Resumption::disabled();
        Self(TlsConnector::from(Arc::new(config)))
    }

    pub async fn connect(&self, to: SocketAddr, host: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(to).await?;
        self.0.connect(ServerName::try_from(host.to_owned()).unwrap(), stream).await
    }

    /// The certificate that is shown (DER).
    pub async fn shown(&self, to: SocketAddr, host: &str) -> std::io::Result<Vec<u8>> {
        let stream = self.connect(to, host).await?;
        Ok(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec())
    }

    /// The whole answer to one request.
    pub async fn get(&self, to: SocketAddr, host: &str, path: &str) -> std::io::Result<String> {
        let mut stream = self.connect(to, host).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}
