//! Authorities: one says who may be a member of HQ's etcd, and who may ask it; another whose docker's clients are.

use std::net::IpAddr;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::names::UserName;

/// What the authority of HQ's etcd calls itself.
pub const ETCD: &str = "quarry's etcd";

/// What that of docker's clients calls itself.
pub const DOCK: &str = "quarry's docker";

/// How long certificates hold, in years. Nothing renews them by itself, so none may end while its cluster lives.
const YEARS: i16 = 20;

/// The line a block of PEM text ends with begins like this.
const END: &str = "-----END ";

/// An authority: its key and its certificate.
pub struct Authority {
    name: &'static str,
    key: KeyPair,
    certificate: String,
}

/// A certificate and its key, as PEM text.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// For everybody.
    pub certificate: String,
    /// For its owner.
    pub key: String,
}

/// Whose certificate it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// A member at this address, which answers others and asks them.
    Member {
        /// Its name.
        name: String,
        /// Its address.
        ip: IpAddr,
    },
    /// HQ, which only asks.
    Hq,
    /// HQ, which answers docker's clients by these names and addresses.
    Engine(Vec<String>),
    /// Somebody who asks with docker's client.
    Client(UserName),
}

/// No certificate was made, or none can be read.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The text is not what [`Authority::text`] gave.
    #[error("it does not hold the authority's key and certificate")]
    Damaged,
    /// The library.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
}

impl Authority {
    /// A new one of this name, whose certificates hold from `now` on.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn make(name: &'static str, now: Timestamp) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let certificate = params(name, now).self_signed(&key)?.pem();
        Ok(Self { name, key, certificate })
    }

    /// The one of this name with this text.
    ///
    /// # Errors
    /// When the text is another one's, or damaged.
    pub fn parse(name: &'static str, text: &str) -> Result<Self, AuthorityError> {
        let end = text.find(END).ok_or(AuthorityError::Damaged)?;
        let line = text[end..].find('\n').ok_or(AuthorityError::Damaged)?;
        let (key, certificate) = text.split_at(end + line + 1);
        let key = KeyPair::from_pem(key).map_err(|_| AuthorityError::Damaged)?;
        if !certificate.trim_end().ends_with("CERTIFICATE-----") {
            return Err(AuthorityError::Damaged);
        }
        Ok(Self { name, key, certificate: certificate.to_owned() })
    }

    /// Its key and its certificate, to be kept where nobody else reads it.
    pub fn text(&self) -> String {
        format!("{}{}", self.key.serialize_pem().replace("\r\n", "\n"), self.certificate.replace("\r\n", "\n"))
    }

    /// The certificate by which those it signed are known.
    pub fn certificate(&self) -> String {
        self.certificate.replace("\r\n", "\n")
    }

    /// A new certificate that holds from `now` on.
    ///
    /// # Errors
    /// When none can be made.
    pub fn issue(&self, whom: &Whom, now: Timestamp) -> Result<Identity, AuthorityError> {
        let mut leaf = CertificateParams::default();
        limit(&mut leaf, now);
        leaf.use_authority_key_identifier_extension = true;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.distinguished_name = match whom {
            Whom::Member { name, .. } => named(name),
            Whom::Hq | Whom::Engine(_) => named("hq"),
            Whom::Client(user) => named(user.as_str()),
        };
        let (asks, answers) = (ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth);
        (leaf.extended_key_usages, leaf.subject_alt_names) = match whom {
            Whom::Member { ip, .. } => (vec![asks, answers], vec![SanType::IpAddress(*ip)]),
            Whom::Hq | Whom::Client(_) => (vec![asks], Vec::new()),
            Whom::Engine(names) => (vec![answers], CertificateParams::new(names.clone())?.subject_alt_names),
        };
        let key = KeyPair::generate()?;
        let authority = params(self.name, now);
        let issuer = Issuer::from_params(&authority, &self.key);
        let certificate = leaf.signed_by(&key, &issuer)?.pem().replace("\r\n", "\n");
        Ok(Identity { certificate, key: key.serialize_pem().replace("\r\n", "\n") })
    }
}

/// What every certificate of the authority's own has in common; signing needs no more than that.
fn params(name: &str, now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    limit(&mut params, now);
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// It holds from the day before, as clocks differ, for [`YEARS`].
fn limit(params: &mut CertificateParams, now: Timestamp) {
    let today = now.to_zoned(TimeZone::UTC).date();
    let day = |span: Span| {
        let date = today.saturating_add(span);
        rcgen::date_time_ymd(i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    params.not_before = day(Span::new().days(-1));
    params.not_after = day(Span::new().years(YEARS));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn an_authority_is_the_same_after_a_rest_on_disk() {
        let authority = Authority::make(ETCD, now()).unwrap();
        let again = Authority::parse(ETCD, &authority.text()).unwrap();
        assert_eq!(again.text(), authority.text());
        assert_eq!(again.certificate(), authority.certificate());
        let whom = Whom::Member { name: "s1".into(), ip: [10, 0, 0, 1].into() };
        let member = again.issue(&whom, now()).unwrap();
        assert!(member.certificate.starts_with("-----BEGIN CERTIFICATE-----\n"));
        assert!(member.key.starts_with("-----BEGIN PRIVATE KEY-----\n"));
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        let whole = Authority::make(ETCD, now()).unwrap().text();
        for damaged in ["", "-----END ", &whole[..whole.len() / 2], &whole[60..]] {
            assert!(Authority::parse(ETCD, damaged).is_err(), "{damaged}");
        }
    }
}
