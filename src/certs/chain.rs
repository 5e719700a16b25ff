//! Reads certificates, and checks a chain and its key before anybody is shown them.

use jiff::Timestamp;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS, OID_PKIX_ACCESS_DESCRIPTOR_OCSP};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use crate::names::Domain;
use crate::router::tls::PrivateKey;

/// No chain is longer than this.
const LONGEST_CHAIN: usize = 16;

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The domains it is for, in lowercase.
    pub names: Vec<String>,
    /// Who signed it, by name.
    pub issuer: String,
    /// From when it holds.
    pub from: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// Where its authority tells whether it was revoked.
    pub responder: Option<String>,
}

impl Facts {
    /// Whether it is good for a domain. A wildcard in it stands for exactly one label, and only a wildcard is good for one.
    pub fn covers(&self, domain: &Domain) -> bool {
        let over = super::wildcard_over(domain);
        let good = |name: &String| name == domain.as_str() || over.as_ref().is_some_and(|over| name == over.as_str());
        self.names.iter().any(good)
    }
}

/// A chain and a key that were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// PEM text in the right order, without the root.
    pub chain: String,
    /// PEM text.
    pub key: PrivateKey,
    /// What the first certificate says.
    pub facts: Facts,
    /// The chain leads to an authority that this machine does not know.
    pub is_private: bool,
}

/// Why a certificate cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadChain {
    /// There is no certificate.
    #[error("there is no certificate in it (-----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    /// There is no key.
    #[error(
        "there is no private key in it (-----BEGIN PRIVATE KEY-----); give chain and key as one: cat chain.pem key.pem"
    )]
    NoKey,
    /// The key has a password.
    #[error("the private key is encrypted; nobody is there to type its password: openssl pkey -in key.pem")]
    EncryptedKey,
    /// The key is of no kind that is understood.
    #[error("the private key cannot be used: {0}")]
    BadKey(String),
    /// A block is no certificate.
    #[error("certificate {place} cannot be read: {why}")]
    Unreadable {
        /// Which, from 1.
        place: usize,
        /// Why.
        why: String,
    },
    /// There are too many.
    #[error("there are {0} certificates in it; a chain has at most {LONGEST_CHAIN}")]
    TooMany(usize),
    /// The key belongs to none of them.
    #[error("the private key does not fit the certificate of {0}")]
    OtherKey(String),
    /// A certificate leads nowhere.
    #[error("the certificate of `{0}` is no part of the chain")]
    Stray(String),
    /// A link is missing.
    #[error("the chain is not complete: the certificate of `{0}` is missing; append it, as your authority gives it")]
    Incomplete(String),
    /// It is over.
    #[error("the certificate has expired on {0}")]
    Expired(Timestamp),
    /// It has not begun.
    #[error("the certificate holds from {0} on, not yet")]
    NotYet(Timestamp),
    /// It is for others.
    #[error("the certificate is not for `{domain}`; it is for {names}")]
    OtherDomain {
        /// Which domain.
        domain: Domain,
        /// Those it is for.
        names: String,
    },
}

/// To whom a chain has to lead.
#[derive(Debug, Clone, Copy)]
pub enum Roots<'a> {
    /// To one of these certificates (DER), or so that it says nothing of a further one.
    Of(&'a [Vec<u8>]),
    /// To anybody: its authority knows best how long it has to be.
    Any,
}

/// Checks PEM text with a chain in any order and its key, for these domains.
///
/// # Errors
/// Every mistake that can be seen.
pub fn check(text: &str, domains: &[Domain], now: Timestamp, roots: Roots<'_>) -> Result<Checked, Vec<BadChain>> {
    let key = read_key(text);
    let certificates = blocks(text);
    let ders = ders(&certificates);
    let (key, ders) = match (key, ders) {
        (Ok(key), Ok(ders)) => (key, ders),
        (key, ders) => return Err([key.err(), ders.err()].into_iter().flatten().collect()),
    };
    let mut parsed = Vec::new();
    for (at, der) in ders.iter().enumerate() {
        parsed.push(parse(der, at + 1).map_err(|bad| vec![bad])?);
    }
    let order = order(&parsed, &key.public).map_err(|bad| vec![bad])?;
    let mut mistakes: Vec<BadChain> =
        order.strays.iter().map(|at| BadChain::Stray(name(parsed[*at].subject()))).collect();
    let (leaf, last) = (&parsed[order.chain[0]], &parsed[order.chain[order.chain.len() - 1]]);
    let facts = facts(leaf);
    let is_private = match roots {
        Roots::Of(roots) => !leads_to(last, roots),
        Roots::Any => false,
    };
    if is_private
        && !order.has_root
        && last.subject() != last.issuer()
        && access(last, &OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS).is_some()
    {
        mistakes.push(BadChain::Incomplete(name(last.issuer())));
    }
    if facts.until <= now {
        mistakes.push(BadChain::Expired(facts.until));
    } else if facts.from > now {
        mistakes.push(BadChain::NotYet(facts.from));
    }
    for domain in domains.iter().filter(|domain| !facts.covers(domain)) {
        let names = if facts.names.is_empty() { "none".to_owned() } else { facts.names.join(", ") };
        mistakes.push(BadChain::OtherDomain { domain: domain.clone(), names });
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let chain = order.chain.iter().map(|at| certificates[*at].as_str()).collect();
    Ok(Checked { chain, key: PrivateKey(key.text), facts, is_private })
}

/// What the first certificate of a chain says.
///
/// # Errors
/// There is none that can be read.
pub fn read(chain: &str) -> Result<Facts, BadChain> {
    let der = CertificateDer::pem_slice_iter(chain.as_bytes()).next().ok_or(BadChain::NoCertificate)?;
    let der = der.map_err(|error| BadChain::Unreadable { place: 1, why: error.to_string() })?;
    parse(&der, 1).map(|leaf| facts(&leaf))
}

struct Key {
    text: String,
    /// Its other half as certificates carry it (SubjectPublicKeyInfo).
    public: Vec<u8>,
}

fn read_key(text: &str) -> Result<Key, BadChain> {
    let is_key = |block: &&String| block.lines().next().is_some_and(|first| first.ends_with("PRIVATE KEY-----"));
    let all = all_blocks(text);
    let block = all.iter().find(is_key).ok_or(BadChain::NoKey)?;
    if block.contains("ENCRYPTED") {
        return Err(BadChain::EncryptedKey);
    }
    let der = PrivateKeyDer::from_pem_slice(block.as_bytes()).map_err(|error| BadChain::BadKey(error.to_string()))?;
    let key = any_supported_type(&der).map_err(|error| BadChain::BadKey(error.to_string()))?;
    let public = key.public_key().ok_or_else(|| BadChain::BadKey("it has no public half".to_owned()))?;
    Ok(Key { text: block.clone(), public: public.to_vec() })
}

/// Every block of PEM, from its BEGIN line to its END line.
fn all_blocks(text: &str) -> Vec<String> {
    let (mut blocks, mut open) = (Vec::new(), None::<String>);
    for line in text.lines().map(str::trim) {
        if line.starts_with("-----BEGIN ") {
            open = Some(String::new());
        }
        if let Some(block) = &mut open {
            block.push_str(line);
            block.push('\n');
            if line.starts_with("-----END ") {
                blocks.extend(open.take());
            }
        }
    }
    blocks
}

fn blocks(text: &str) -> Vec<String> {
    all_blocks(text).into_iter().filter(|block| block.starts_with("-----BEGIN CERTIFICATE-----")).collect()
}

fn ders(blocks: &[String]) -> Result<Vec<CertificateDer<'static>>, BadChain> {
    match blocks.len() {
        0 => return Err(BadChain::NoCertificate),
        1..=LONGEST_CHAIN => {}
        count => return Err(BadChain::TooMany(count)),
    }
    let read = |(at, block): (usize, &String)| {
        let read = CertificateDer::from_pem_slice(block.as_bytes());
        read.map_err(|error| BadChain::Unreadable { place: at + 1, why: error.to_string() })
    };
    blocks.iter().enumerate().map(read).collect()
}

fn parse<'der>(der: &'der CertificateDer<'_>, place: usize) -> Result<X509Certificate<'der>, BadChain> {
    match X509Certificate::from_der(der.as_ref()) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(BadChain::Unreadable { place, why: "there is something behind its end".to_owned() }),
        Err(error) => Err(BadChain::Unreadable { place, why: error.to_string() }),
    }
}

/// Places of certificates.
struct Order {
    /// From the domain's own to the last before the root.
    chain: Vec<usize>,
    /// The root was among them.
    has_root: bool,
    /// Those that are no part of it.
    strays: Vec<usize>,
}

fn order(certificates: &[X509Certificate<'_>], key: &[u8]) -> Result<Order, BadChain> {
    let leaf = certificates.iter().position(|one| one.public_key().raw == key);
    let leaf = leaf.ok_or_else(|| BadChain::OtherKey(whose(&certificates[0])))?;
    let (mut chain, mut has_root) = (vec![leaf], false);
    loop {
        let last = &certificates[chain[chain.len() - 1]];
        if last.subject() == last.issuer() {
            // A certificate that signed itself is shown only where it is all there is.
            has_root = true;
            if chain.len() > 1 {
                chain.pop();
            }
            break;
        }
        let next = certificates.iter().enumerate().position(|(at, one)| !chain.contains(&at) && signed(last, one));
        match next {
            Some(next) => chain.push(next),
            None => break,
        }
    }
    // The same one twice, and roots, are in nobody's way.
    let is_stray = |at: &usize| {
        let one = &certificates[*at];
        one.subject() != one.issuer() && chain.iter().all(|other| certificates[*other].as_raw() != one.as_raw())
    };
    let strays = (0..certificates.len()).filter(is_stray).collect();
    Ok(Order { chain, has_root, strays })
}

/// Whether `issuer` has signed `one`. Where the signature is of a kind that cannot be checked here, the name counts.
fn signed(one: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    one.issuer() == issuer.subject()
        && matches!(
            one.verify_signature(Some(issuer.public_key())),
            Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm)
        )
}

/// Whether one of these roots is `last`, or has signed it.
fn leads_to(last: &X509Certificate<'_>, roots: &[Vec<u8>]) -> bool {
    let parsed = roots.iter().filter_map(|root| X509Certificate::from_der(root).ok());
    parsed.into_iter().any(|(_, root)| root.as_raw() == last.as_raw() || signed(last, &root))
}

fn facts(certificate: &X509Certificate<'_>) -> Facts {
    let time = |seconds: i64| Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
    let validity = certificate.validity();
    Facts {
        names: names(certificate),
        issuer: name(certificate.issuer()),
        from: time(validity.not_before.timestamp()),
        until: time(validity.not_after.timestamp()),
        responder: access(certificate, &OID_PKIX_ACCESS_DESCRIPTOR_OCSP),
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let alternatives = alternatives.iter().flat_map(|found| &found.value.general_names);
    let names = alternatives.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    names.collect()
}

/// An address in the certificate's Authority Information Access.
fn access(certificate: &X509Certificate<'_>, method: &x509_parser::der_parser::oid::Oid<'_>) -> Option<String> {
    certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityInfoAccess(access) => {
            access.iter().find_map(|access| match &access.access_location {
                GeneralName::URI(uri) if access.access_method == *method => Some((*uri).to_owned()),
                _ => None,
            })
        }
        _ => None,
    })
}

/// The common name, or everything.
fn name(name: &X509Name<'_>) -> String {
    let common = name.iter_common_name().next().and_then(|common| common.as_str().ok());
    common.map_or_else(|| name.to_string(), str::to_owned)
}

fn whose(certificate: &X509Certificate<'_>) -> String {
    match names(certificate).first() {
        Some(first) => format!("`{first}`"),
        None => format!("`{}`", name(certificate.subject())),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    /// A root, an authority it has signed, and what that has signed: PEM text of each.
    struct Given {
        root: String,
        link: String,
        leaf: String,
        key: String,
    }

    /// id-pe-authorityInfoAccess with one caIssuers at `http://a/`.
    const ISSUERS: [u8; 24] = [
        0x30, 0x16, 0x30, 0x14, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x02, 0x86, 0x08, b'h', b't',
        b't', b'p', b':', b'/', b'/', b'a',
    ];

    fn named(name: &str, is_ca: IsCa) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = is_ca;
        params
    }

    fn given(names: &[&str]) -> Given {
        let keys = [(); 3].map(|()| KeyPair::generate().unwrap());
        let root = named("root", IsCa::Ca(BasicConstraints::Unconstrained));
        let link = named("link", IsCa::Ca(BasicConstraints::Unconstrained));
        let mut leaf = named("leaf", IsCa::NoCa);
        leaf.subject_alt_names =
            names.iter().map(|name| rcgen::SanType::DnsName((*name).try_into().unwrap())).collect();
        let access = CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], ISSUERS.to_vec());
        leaf.custom_extensions = vec![access];
        leaf.not_before = rcgen::date_time_ymd(2026, 1, 1);
        leaf.not_after = rcgen::date_time_ymd(2026, 4, 1);
        let signed_link = link.signed_by(&keys[1], &Issuer::from_params(&root, &keys[0])).unwrap();
        Given {
            root: root.self_signed(&keys[0]).unwrap().pem(),
            leaf: leaf.signed_by(&keys[2], &Issuer::from_params(&link, &keys[1])).unwrap().pem(),
            link: signed_link.pem(),
            key: keys[2].serialize_pem(),
        }
    }

    fn now() -> Timestamp {
        "2026-02-01T00:00:00Z".parse().unwrap()
    }

    fn checked(parts: &[&str], domains: &[&str]) -> Result<Checked, Vec<BadChain>> {
        let domains: Vec<Domain> = domains.iter().map(|domain| domain.parse().unwrap()).collect();
        check(&parts.join("\n"), &domains, now(), Roots::Of(&[]))
    }

    fn count(chain: &str) -> usize {
        chain.matches("BEGIN CERTIFICATE").count()
    }

    #[test]
    fn a_chain_in_any_order_becomes_one_in_the_right_order_without_its_root() {
        let Given { root, link, leaf, key } = given(&["a.test", "*.B.test"]);
        for parts in [[&leaf, &link, &root, &key], [&key, &root, &link, &leaf], [&link, &leaf, &leaf, &key]] {
            let parts: Vec<&str> = parts.iter().map(|part| part.as_str()).collect();
            let checked = checked(&parts, &["a.test", "x.b.test", "*.b.test"]);
            // Without its root it says that there is more to come.
            match parts.contains(&root.as_str()) {
                true => assert_eq!(checked.unwrap().chain.replace("\r", ""), format!("{leaf}{link}").replace("\r", "")),
                false => assert_eq!(count(&checked.unwrap().chain), 2),
            }
        }
        let checked = checked(&[&leaf, &link, &key], &["a.test"]).unwrap();
        assert!(checked.is_private, "nobody knows this authority");
        assert_eq!((checked.facts.issuer.as_str(), checked.facts.names.len()), ("link", 2));
        assert_eq!(checked.facts.until, "2026-04-01T00:00:00Z".parse().unwrap());
        assert_eq!(read(&checked.chain), Ok(checked.facts));
    }

    #[test]
    fn an_authority_that_is_known_needs_no_root_in_the_chain() {
        let Given { root, link, leaf, key } = given(&["a.test"]);
        let roots = [CertificateDer::from_pem_slice(root.as_bytes()).unwrap().to_vec()];
        let text = format!("{leaf}{link}{key}");
        assert!(!check(&text, &[], now(), Roots::Of(&roots)).unwrap().is_private);
    }

    #[test]
    fn every_mistake_is_told() {
        let Given { root: _, link, leaf, key } = given(&["a.test"]);
        let other = given(&["a.test"]);
        let check = |parts: &[&str], domains: &[&str], expected: &[&str]| {
            let mistakes = checked(parts, domains).unwrap_err();
            let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            assert_eq!(told.len(), expected.len(), "{told:?}");
            for (told, expected) in told.iter().zip(expected) {
                assert!(told.contains(expected), "{told}: {expected}");
            }
        };
        check(&[], &[], &["no private key", "no certificate"]);
        check(&[&key], &[], &["no certificate"]);
        check(&[&leaf, &link], &[], &["no private key"]);
        check(&[&leaf, &link, &other.key], &[], &["does not fit the certificate of `a.test`"]);
        check(&[&leaf, &key], &[], &["certificate of `link` is missing"]);
        check(&[&leaf, &other.link, &key], &[], &["`link` is no part of the chain", "`link` is missing"]);
        check(&[&leaf, &link, &key], &["b.test", "x.a.test"], &["not for `b.test`; it is for a.test", "x.a.test"]);
        check(&[&leaf.replace('M', "N"), &link, &key], &[], &["certificate 1 cannot be read"]);
        let locked = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        check(&[&leaf, &link, &locked], &[], &["is encrypted"]);
        let text = format!("{leaf}{link}{key}");
        let late = super::check(&text, &[], "2026-04-02T00:00:00Z".parse().unwrap(), Roots::Any).unwrap_err();
        assert_eq!(late, [BadChain::Expired("2026-04-01T00:00:00Z".parse().unwrap())]);
        let early = super::check(&text, &[], "2025-12-31T00:00:00Z".parse().unwrap(), Roots::Any).unwrap_err();
        assert_eq!(early, [BadChain::NotYet("2026-01-01T00:00:00Z".parse().unwrap())]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd(text in "(-----BEGIN CERTIFICATE-----\n|-----END CERTIFICATE-----\n|-----BEGIN PRIVATE KEY-----\n|-----END PRIVATE KEY-----\n|[A-Za-z0-9+/=\n]{0,40}){0,12}") {
            let _ = check(&text, &[], now(), Roots::Any);
        }
    }
}
