//! Reads and writes certificates and HQ's accounts at authorities, both sealed like variables, and what became of tries.

use std::collections::BTreeMap;

use crate::certs::Record;
use crate::certs::tries::Tries;
use crate::db::{DbError, Entry, Guard, Key, layout};
use crate::hq::Hq;
use crate::names::Domain;
use crate::units::hex::mark;

impl Hq {
    /// Every certificate. One that is damaged is left out with a warning.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn certificates(&self) -> Result<BTreeMap<Domain, Record>, DbError> {
        self.by_domain(layout::CERTIFICATES).await
    }

    /// What became of tries.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn tries(&self) -> Result<BTreeMap<Domain, Tries>, DbError> {
        self.by_domain(layout::TRIES).await
    }

    async fn by_domain<T: serde::de::DeserializeOwned>(&self, prefix: &str) -> Result<BTreeMap<Domain, T>, DbError> {
        let mut found = BTreeMap::new();
        for entry in layout::all(&*self.db, prefix).await? {
            let value = self.opened_json(&entry);
            match (layout::domain_of(&entry.key), value) {
                (Some(domain), Ok(value)) => drop(found.insert(domain, value)),
                (_, Err(error)) => tracing::warn!(%error, "it counts as if it were not there"),
                (None, Ok(_)) => tracing::warn!(key = %entry.key, "this is no domain; left out"),
            }
        }
        Ok(found)
    }

    fn opened_json<T: serde::de::DeserializeOwned>(&self, entry: &Entry) -> Result<T, DbError> {
        let value = self.launcher.opened(&entry.key, &entry.value)?.into_owned();
        layout::parse_json(&*self.db, &Entry { value, ..entry.clone() })
    }

    pub(in crate::hq::certs) async fn put_certificate(&self, domain: &Domain, record: &Record) -> Result<(), DbError> {
        let text = serde_json::to_vec(record).expect("a certificate has string keys and serialises");
        self.db.put(&layout::certificate(domain), &self.launcher.seal.seal(&text), Guard::Any, None).await?;
        self.db.delete(&layout::tries(domain), Guard::Any).await
    }

    pub(in crate::hq::certs) async fn delete_certificate(&self, domain: &Domain) -> Result<(), DbError> {
        self.db.delete(&layout::certificate(domain), Guard::Any).await?;
        self.db.delete(&layout::tries(domain), Guard::Any).await
    }

    pub(in crate::hq::certs) async fn put_tries(&self, domain: &Domain, tries: &Tries) -> Result<(), DbError> {
        layout::put_json(&*self.db, &layout::tries(domain), tries, Guard::Any).await
    }

    /// HQ's account at an authority as that wrote it.
    pub(in crate::hq::certs) async fn account(&self, directory: &str) -> Result<Option<String>, DbError> {
        let key = account_key(directory);
        let Some(entry) = self.db.read(&key).await? else { return Ok(None) };
        Ok(String::from_utf8(self.launcher.opened(&key, &entry.value)?.into_owned()).ok())
    }

    pub(in crate::hq::certs) async fn put_account(&self, directory: &str, text: &str) -> Result<(), DbError> {
        let sealed = self.launcher.seal.seal(text.as_bytes());
        self.db.put(&account_key(directory), &sealed, Guard::Any, None).await.map(drop)
    }
}

fn account_key(directory: &str) -> Key {
    layout::account(&mark(directory, 8))
}
