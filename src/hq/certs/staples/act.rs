//! Asks authorities about the certificates they gave.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{Asked, due};
use crate::certs::plan::Known;
use crate::certs::{Record, http, ocsp};
use crate::hq::Hq;
use crate::names::Domain;

/// Before one that did not answer is asked again.
const LATER: SignedDuration = SignedDuration::from_hours(1);

impl Hq {
    /// Has those asked about that are due; when there are more.
    pub(in crate::hq::certs) fn ask_about(
        self: &Arc<Self>,
        records: &BTreeMap<Domain, Record>,
        known: &BTreeMap<Domain, Known>,
    ) -> Option<Timestamp> {
        let now = self.clock.now();
        let (due, next) = {
            let mut asked = self.certs.asked();
            asked.retain(|domain, asked| records.get(domain).is_some_and(|record| record.chain == asked.chain));
            let (due, next) = due(records, known, &asked, now);
            // Nobody else asks about them meanwhile.
            for (domain, _) in &due {
                let again = now.checked_add(LATER).unwrap_or(now);
                let chain = records[domain].chain.clone();
                let staple = asked.get(domain).and_then(|asked| asked.staple.clone());
                asked.insert(domain.clone(), Asked { chain, staple, again });
            }
            (due, next)
        };
        if !due.is_empty() {
            let (hq, records) = (self.clone(), records.clone());
            tokio::spawn(async move {
                for (domain, url) in due {
                    hq.ask_about_one(&domain, &records[&domain].chain, &url).await;
                }
                hq.certs.changed.notify_one();
            });
        }
        next
    }

    async fn ask_about_one(&self, domain: &Domain, chain: &str, url: &str) {
        let Some(question) = ocsp::question(chain) else { return };
        match http::ask_responder(url, question).await {
            Ok(answer) => {
                let now = self.clock.now();
                let Some(staple) = ocsp::staple(&answer, now) else {
                    tracing::warn!(%domain, url, "the authority does not say that the certificate is good");
                    return;
                };
                let again = ocsp::again(&staple, now);
                if let Some(asked) = self.certs.asked().get_mut(domain).filter(|asked| asked.chain == chain) {
                    (asked.staple, asked.again) = (Some(staple), again);
                }
            }
            Err(error) => tracing::debug!(%domain, url, %error, "an authority does not answer"),
        }
    }
}
