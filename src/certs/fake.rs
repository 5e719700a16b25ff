//! An authority in memory, which asks for its challenges as a real one does and can be told to refuse.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair};

use super::authority::{Answers, Authority, Issued, Refusal};
use crate::names::Domain;
use crate::router::tls::{Challenge, PrivateKey};

/// The authority.
#[derive(Debug, Default)]
pub struct FakeAuthority {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    accounts: u32,
    orders: BTreeMap<Domain, u32>,
    refusal: Option<Refusal>,
    life: Option<(Timestamp, Timestamp)>,
}

impl FakeAuthority {
    /// One that certifies everybody.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on every order is refused like this; `None` ends that.
    pub fn refuse(&self, refusal: Option<Refusal>) {
        self.lock().refusal = refusal;
    }

    /// From now on certificates hold from the one time until the other.
    pub fn certify_for(&self, from: Timestamp, until: Timestamp) {
        self.lock().life = Some((from, until));
    }

    /// How many orders there were for a domain, refused ones included.
    pub fn orders(&self, domain: &Domain) -> u32 {
        self.lock().orders.get(domain).copied().unwrap_or(0)
    }

    /// How many accounts there are.
    pub fn accounts(&self) -> u32 {
        self.lock().accounts
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refusal(what: impl ToString) -> Refusal {
    Refusal { what: what.to_string(), until: None }
}

/// A certificate that signed itself.
fn made(domain: &Domain, life: Option<(Timestamp, Timestamp)>) -> Result<Issued, rcgen::Error> {
    let mut params = CertificateParams::new(vec![domain.to_string()])?;
    if let Some((from, until)) = life {
        let day = |time: Timestamp| {
            let date = time.to_zoned(jiff::tz::TimeZone::UTC).date();
            rcgen::date_time_ymd(i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
        };
        (params.not_before, params.not_after) = (day(from), day(until));
    }
    let key = KeyPair::generate()?;
    let chain = params.self_signed(&key)?.pem();
    Ok(Issued { chain, key: PrivateKey(key.serialize_pem()) })
}

#[async_trait]
impl Authority for FakeAuthority {
    async fn account(&self, known: Option<&str>) -> Result<String, Refusal> {
        let mut inner = self.lock();
        if let Some(known) = known {
            return Ok(known.to_owned());
        }
        inner.accounts += 1;
        Ok(format!("account {}", inner.accounts))
    }

    async fn issue(&self, _account: &str, domain: &Domain, answers: &dyn Answers) -> Result<Issued, Refusal> {
        let (number, life, refused) = {
            let mut inner = self.lock();
            let number = inner.orders.entry(domain.clone()).or_default();
            *number += 1;
            (*number, inner.life, inner.refusal.clone())
        };
        if let Some(refusal) = refused {
            return Err(refusal);
        }
        let token = format!("token-{number}").parse().map_err(refusal)?;
        let challenge = Challenge { token, answer: "answer".to_owned() };
        answers.answer(challenge.clone()).await.map_err(refusal)?;
        answers.forget(challenge.token).await;
        made(domain, life).map_err(refusal)
    }
}
