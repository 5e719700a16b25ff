//! Shows certificates on every router, orders those that are missing, and renews those that get old.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::future::select_all;
use jiff::Timestamp;
use tokio::time::sleep;

use super::{CertsError, Row, UnderWay, known, owners, rows, url, wanted};
use crate::certs::authority::{Answers, Authority, Issued, Refusal};
use crate::certs::chain::{self, Checked, Roots};
use crate::certs::plan::{Situation, work};
use crate::certs::tries::{By, Tries};
use crate::certs::{Kind, Record, files, http};
use crate::db::{DbError, layout};
use crate::etc::ETC;
use crate::etc::acme::{Acme, Look};
use crate::hq::deploy::act::answered;
use crate::hq::{Hq, HqError};
use crate::names::Domain;
use crate::router::StackRoutes;
use crate::router::edge::{Edge, EdgeError};
use crate::router::tls::{Certificate, Challenge, TlsChange, TlsState, Token};
use crate::units::hex::sha256;

/// Before what did not work is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// The longest rest: clocks are set, and machines sleep.
const REST: Duration = Duration::from_secs(3600);

/// The routers as authorities see them.
struct OverRouters(Arc<dyn Edge>);

#[async_trait]
impl Answers for OverRouters {
    async fn answer(&self, challenge: Challenge) -> Result<(), String> {
        let answered = self.0.secure(&TlsChange::Answer(challenge)).await;
        answered.map_err(|error| format!("the router does not answer for it: {error}"))
    }

    async fn forget(&self, token: Token) {
        if let Err(error) = self.0.secure(&TlsChange::Forget(token)).await {
            tracing::debug!(%error, "a challenge that is over is answered on");
        }
    }
}

impl Hq {
    /// From now on certificates come from this authority.
    pub fn certify_by(&self, authority: Arc<dyn Authority>) {
        // Whoever came first stays.
        let _ = self.certs.authority.set(authority);
    }

    /// Shows certificates, orders and renews them, until it is dropped.
    pub async fn keep_certificates(self: Arc<Self>) {
        let heard = [layout::ROUTES, layout::CERTIFICATES].map(|prefix| Box::pin(self.clone().hear_changes(prefix)));
        let keep = async {
            loop {
                let rest = match self.look_after_certificates().await {
                    Ok(Some(next)) => {
                        let left = next.duration_until(self.clock.now()).abs();
                        let due = next <= self.clock.now();
                        if due { Duration::ZERO } else { left.try_into().unwrap_or(REST) }
                    }
                    Ok(None) => REST,
                    Err(error) => {
                        tracing::warn!(error = ?error, "certificates cannot be looked after: {error}");
                        AGAIN
                    }
                };
                tokio::select! {
                    () = self.certs.changed.notified() => {}
                    () = sleep(rest.clamp(Duration::from_millis(50), REST)) => {}
                }
            }
        };
        tokio::select! {
            () = keep => {}
            _ = select_all(heard) => {}
        }
    }

    /// Domains that come and go, and certificates that somebody writes by hand, are news.
    async fn hear_changes(self: Arc<Self>, prefix: &'static str) {
        loop {
            match self.db.watch(prefix).await {
                Ok(mut changes) => {
                    self.certs.changed.notify_one();
                    while changes.next().await.is_some() {
                        self.certs.changed.notify_one();
                    }
                }
                Err(error) => tracing::warn!(%error, prefix, "changes are not heard"),
            }
            sleep(AGAIN).await;
        }
    }

    /// One look at everything; when there is something to do next.
    async fn look_after_certificates(self: &Arc<Self>) -> Result<Option<Timestamp>, HqError> {
        self.show_certificates().await?;
        let (Some(acme), Some(authority)) = (&self.settings.acme, self.certs.authority.get()) else { return Ok(None) };
        let wanted = wanted(owners(&self.tables().await?).keys(), acme);
        let records = self.certificates().await?;
        let (known, tries) = (known(&records), self.tries().await?);
        let ask = self.ask_about(&records, &known);
        let under_way = self.certs.under_way().clone();
        let situation =
            Situation { now: self.clock.now(), wanted: &wanted, known: &known, tries: &tries, under_way: &under_way };
        let work = work(&situation);
        for one in work.order.iter().filter_map(|domain| self.certs.begin(domain)) {
            let (hq, authority) = (self.clone(), authority.clone());
            tokio::spawn(async move {
                let domain = one.domain.clone();
                match hq.order_certificate(&*authority, one).await {
                    Ok(checked) => tracing::info!(%domain, expires = %checked.facts.until, "a new certificate"),
                    Err(error) => tracing::warn!(%domain, error = ?error, "no new certificate"),
                }
            });
        }
        // Whatever else is not wanted any more, nobody waits for.
        for domain in tries.keys().filter(|domain| !wanted.contains(*domain)) {
            self.db.delete(&layout::tries(domain), crate::db::Guard::Any).await?;
        }
        Ok(work.next.into_iter().chain(ask).min())
    }

    /// Has every router show what the tree holds. When it returns, new visitors see it.
    ///
    /// # Errors
    /// When the tree cannot be read, or HQ's router does not take it.
    pub async fn show_certificates(&self) -> Result<(), HqError> {
        let Some(edge) = &self.launcher.edge else { return Ok(()) };
        let mut shown = self.certs.shown.lock().await;
        let wanted: BTreeMap<Domain, Certificate> = self
            .certificates()
            .await?
            .into_iter()
            .map(|(domain, record)| (domain.clone(), record.shown(&domain)))
            .collect();
        let wanted = self.with_staples(wanted);
        let digests: BTreeMap<Domain, String> =
            wanted.iter().map(|(domain, certificate)| (domain.clone(), digest(certificate))).collect();
        let showing = match &*shown {
            Some(before) => show_changes(&**edge, before, &digests, &wanted).await,
            None => {
                let certificates = wanted.into_values().collect();
                edge.secure(&TlsChange::All(TlsState { certificates, challenges: Vec::new() })).await
            }
        };
        // What a change that failed has left is not known.
        *shown = showing.is_ok().then_some(digests);
        Ok(showing.map_err(CertsError::Shown)?)
    }

    /// With what their authorities say of them.
    fn with_staples(&self, mut shown: BTreeMap<Domain, Certificate>) -> BTreeMap<Domain, Certificate> {
        let asked = self.certs.asked();
        for (domain, certificate) in &mut shown {
            let same = asked.get(domain).filter(|asked| asked.chain == certificate.chain);
            certificate.staple = same.and_then(|asked| asked.staple.clone());
        }
        shown
    }

    /// Orders a certificate, keeps and shows it. What did not work is kept, too.
    async fn order_certificate(&self, authority: &dyn Authority, one: UnderWay) -> Result<Checked, HqError> {
        let domain = &one.domain;
        match self.obtain(authority, domain).await? {
            Ok(checked) => {
                let record = Record { kind: Kind::Automatic, chain: checked.chain.clone(), key: checked.key.clone() };
                self.put_certificate(domain, &record).await?;
                self.show_certificates().await?;
                Ok(checked)
            }
            Err((by, refusal)) => {
                let before = layout::read_json::<Tries>(&*self.db, &layout::tries(domain)).await.ok().flatten();
                let tries = Tries::after(before.as_ref(), domain, by, refusal, self.clock.now());
                self.put_tries(domain, &tries).await?;
                Err(CertsError::Failed { domain: domain.clone(), tries }.into())
            }
        }
    }

    /// A new certificate, checked; or who says why there is none.
    async fn obtain(
        &self,
        authority: &dyn Authority,
        domain: &Domain,
    ) -> Result<Result<Checked, (By, Refusal)>, HqError> {
        let (Some(edge), Some(acme)) = (&self.launcher.edge, &self.settings.acme) else { return Err(HqError::Asleep) };
        let answers = OverRouters(edge.clone());
        if acme.look == Look::First
            && let Err(what) = look(domain, acme.http_port, &answers).await
        {
            return Ok(Err((By::Look, Refusal { what, until: None })));
        }
        let account = match self.open_account(authority, acme).await? {
            Ok(account) => account,
            Err(refusal) => return Ok(Err((By::Authority, refusal))),
        };
        let Issued { chain, key } = match authority.issue(&account, domain, &answers).await {
            Ok(issued) => issued,
            Err(refusal) => return Ok(Err((By::Authority, refusal))),
        };
        // What everybody is shown is checked, whoever made it.
        let text = format!("{chain}\n{}", key.0);
        let checked = chain::check(&text, std::slice::from_ref(domain), self.clock.now(), Roots::Any);
        Ok(checked.map_err(|mistakes| {
            let what = format!("what the authority gave cannot be used: {}", super::lines(&mistakes));
            (By::Authority, Refusal { what, until: None })
        }))
    }

    async fn open_account(&self, authority: &dyn Authority, acme: &Acme) -> Result<Result<String, Refusal>, DbError> {
        let _one = self.certs.account.lock().await;
        let known = self.account(&acme.directory).await?;
        let opened = authority.account(known.as_deref()).await;
        if let Ok(account) = &opened
            && known.as_ref() != Some(account)
        {
            self.put_account(&acme.directory, account).await?;
        }
        Ok(opened)
    }

    // What people ask for.

    /// Gives domains a certificate of a person's own.
    ///
    /// # Errors
    /// Every mistake in it; and when it cannot be kept or shown.
    pub async fn add_certificate(&self, domains: &[Domain], text: &str) -> Result<Checked, HqError> {
        self.check_awake()?;
        let roots = tokio::task::spawn_blocking(files::roots).await.unwrap_or_default();
        let checked = chain::check(text, domains, self.clock.now(), Roots::Of(&roots)).map_err(CertsError::Bad)?;
        for domain in domains {
            let record = Record { kind: Kind::Custom, chain: checked.chain.clone(), key: checked.key.clone() };
            self.put_certificate(domain, &record).await?;
        }
        self.show_certificates().await?;
        Ok(checked)
    }

    /// Takes a domain's certificate away. Where an authority is set, the domain gets another one from there.
    ///
    /// # Errors
    /// When it has none, or the router does not forget it.
    pub async fn remove_certificate(&self, domain: &Domain) -> Result<(), HqError> {
        self.check_awake()?;
        if self.db.read(&layout::certificate(domain)).await?.is_none() {
            return Err(CertsError::None(domain.clone()).into());
        }
        self.delete_certificate(domain).await?;
        self.show_certificates().await
    }

    /// Orders a certificate now, whenever it would have been due.
    ///
    /// # Errors
    /// Why there is none; then the one before is shown on.
    pub async fn renew_certificate(&self, domain: &Domain) -> Result<Checked, HqError> {
        self.check_awake()?;
        let (Some(acme), Some(authority)) = (&self.settings.acme, self.certs.authority.get()) else {
            return Err(CertsError::NoAuthority { etc: ETC }.into());
        };
        let owners = owners(&self.tables().await?);
        if !owners.contains_key(domain) {
            return Err(CertsError::NotRouted(domain.clone()).into());
        }
        if !wanted([domain], acme).contains(domain) {
            return Err(CertsError::NotCertified(domain.clone()).into());
        }
        let one = self.certs.begin(domain).ok_or_else(|| CertsError::UnderWay(domain.clone()))?;
        self.order_certificate(&**authority, one).await
    }

    /// Whether a domain leads to a router of ours at this port; where no router is at hand, it does.
    ///
    /// # Errors
    /// Where it leads instead.
    pub async fn leads_here(&self, domain: &Domain, port: u16) -> Result<(), String> {
        match &self.launcher.edge {
            Some(edge) => look(domain, port, &OverRouters(edge.clone())).await,
            None => Ok(()),
        }
    }

    /// The addresses people can open of a stack.
    pub async fn urls(&self, table: &StackRoutes) -> Vec<String> {
        let names = self.db.names(layout::CERTIFICATES).await.unwrap_or_default();
        let domain = |name: &String| name.strip_suffix(".json").and_then(|name| name.parse().ok());
        let certified = names.iter().filter_map(domain).collect();
        let https = self.certs.port.get().map(String::as_str);
        answered(table).map(|domain| url(domain, &certified, &self.url_port, https)).collect()
    }

    /// Every domain that has a certificate or should have one, by name.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn certificate_rows(&self) -> Result<Vec<Row>, HqError> {
        let owners = owners(&self.tables().await?);
        let wanted = self.settings.acme.as_ref().map(|acme| wanted(owners.keys(), acme)).unwrap_or_default();
        let (records, tries) = (self.certificates().await?, self.tries().await?);
        Ok(rows(&owners, &wanted, &records, &tries, self.clock.now()))
    }
}

/// Whether a domain leads to a router of ours, by a challenge of HQ's own.
async fn look(domain: &Domain, port: u16, answers: &OverRouters) -> Result<(), String> {
    let challenge = http::challenge();
    answers.answer(challenge.clone()).await?;
    let looked = http::look(domain, port, &challenge).await;
    answers.forget(challenge.token).await;
    looked.map_err(|elsewhere| elsewhere.to_string())
}

/// Makes what is shown by the digests `before` what it should be.
async fn show_changes(
    edge: &dyn Edge,
    before: &BTreeMap<Domain, String>,
    digests: &BTreeMap<Domain, String>,
    wanted: &BTreeMap<Domain, Certificate>,
) -> Result<(), EdgeError> {
    for domain in before.keys().filter(|domain| !wanted.contains_key(*domain)) {
        edge.secure(&TlsChange::Remove(domain.clone())).await?;
    }
    for (_, certificate) in wanted.iter().filter(|(domain, _)| before.get(*domain) != digests.get(*domain)) {
        edge.secure(&TlsChange::Set(certificate.clone())).await?;
    }
    Ok(())
}

fn digest(certificate: &Certificate) -> String {
    let text = serde_json::to_vec(certificate).expect("a certificate has no value that JSON lacks");
    sha256(text)
}
