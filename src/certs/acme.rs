//! Authorities that speak ACME (RFC 8555), asked by HTTP (http-01).

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hyper::body::Bytes;
use hyper::header::RETRY_AFTER;
use hyper::{Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, BodyWrapper, BytesResponse, ChallengeType, Error, HttpClient,
    Identifier, NewAccount, NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::timeout;

use super::authority::{Answers, Authority, Issued, Refusal};
use crate::clock::Clock;
use crate::names::Domain;
use crate::router::tls::{Challenge, PrivateKey, Token};

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(30);

/// How an order is asked about until it is decided. The first answers come within a tenth of a second or within seconds.
const POLLS: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(50)).backoff(1.6).timeout(Duration::from_secs(90));

/// An authority by the address of its directory.
pub struct Acme {
    directory: String,
    contact: Option<String>,
    web: Web,
    /// The account that was opened last, with its text.
    open: AsyncMutex<Option<(String, Account)>>,
}

/// Why an authority cannot even be asked.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// Its own root is no certificate.
    #[error("the certificate of the authority's own root cannot be read")]
    Root(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The TLS library.
    #[error("cannot speak TLS")]
    Tls(#[from] rustls::Error),
}

impl Acme {
    /// The authority with this directory. Beside the roots of this machine the ones in `ca` (PEM) count.
    ///
    /// # Errors
    /// `ca` cannot be read.
    pub fn new(
        directory: &str,
        email: Option<&str>,
        ca: Option<&str>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AcmeError> {
        let contact = email.map(|email| format!("mailto:{email}"));
        let web = Web::new(ca, clock)?;
        Ok(Self { directory: directory.to_owned(), contact, web, open: AsyncMutex::default() })
    }

    fn contacts(&self) -> Vec<&str> {
        self.contact.as_deref().into_iter().collect()
    }

    /// The account of this text, opened once.
    async fn opened(&self, text: &str) -> Result<Account, Refusal> {
        let mut open = self.open.lock().await;
        if let Some((known, account)) = &*open
            && known == text
        {
            return Ok(account.clone());
        }
        let credentials: AccountCredentials = serde_json::from_str(text).map_err(|error| Refusal {
            what: format!("the account that was kept cannot be read: {error}"),
            until: None,
        })?;
        let opening = Account::builder_with_http(Box::new(self.web.clone())).from_credentials(credentials).await;
        let account = opening.map_err(|error| self.refusal(error))?;
        *open = Some((text.to_owned(), account.clone()));
        Ok(account)
    }

    fn refusal(&self, error: Error) -> Refusal {
        let asked = self.web.asked_to_wait();
        match error {
            Error::Api(problem) => of_problem(&problem, asked),
            Error::Timeout(_) => Refusal { what: "the authority takes too long to decide".to_owned(), until: asked },
            other => Refusal { what: format!("the authority cannot be asked: {}", chain(&other)), until: asked },
        }
    }

    async fn order(
        &self,
        order: &mut Order,
        answers: &dyn Answers,
        tokens: &mut Vec<Token>,
    ) -> Result<Issued, Refusal> {
        let refusal = |error| self.refusal(error);
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(refusal)?;
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                status => return Err(plain(format!("the authority has closed the authorization ({status:?})"))),
            }
            let none = || plain("the authority does not ask by HTTP for this domain".to_owned());
            let mut asked = authorization.challenge(ChallengeType::Http01).ok_or_else(none)?;
            let token: Token = asked.token.parse().map_err(plain)?;
            let answer = asked.key_authorization().as_str().to_owned();
            tokens.push(token.clone());
            answers.answer(Challenge { token, answer }).await.map_err(plain)?;
            asked.set_ready().await.map_err(refusal)?;
        }
        let status = order.poll_ready(&POLLS).await;
        if !matches!(status, Ok(OrderStatus::Ready)) {
            return Err(match self.why_invalid(order).await {
                Some(why) => why,
                None => status.map_or_else(refusal, |status| plain(format!("the order ended as {status:?}"))),
            });
        }
        let key = order.finalize().await.map_err(refusal)?;
        let chain = order.poll_certificate(&POLLS).await.map_err(refusal)?;
        Ok(Issued { chain, key: PrivateKey(key) })
    }

    /// What the authority says of the challenge that failed: the order itself often says nothing.
    async fn why_invalid(&self, order: &mut Order) -> Option<Refusal> {
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            let state = authorization.refresh().await.ok()?;
            if let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
                return Some(of_problem(problem, self.web.asked_to_wait()));
            }
        }
        None
    }
}

#[async_trait]
impl Authority for Acme {
    async fn account(&self, known: Option<&str>) -> Result<String, Refusal> {
        if let Some(known) = known {
            return self.opened(known).await.map(|_| known.to_owned());
        }
        let new = NewAccount { contact: &self.contacts(), terms_of_service_agreed: true, only_return_existing: false };
        let builder = Account::builder_with_http(Box::new(self.web.clone()));
        let created = builder.create(&new, self.directory.clone(), None).await;
        let (account, credentials) = created.map_err(|error| self.refusal(error))?;
        let text = serde_json::to_string(&credentials).expect("credentials have string keys and serialise");
        *self.open.lock().await = Some((text.clone(), account));
        Ok(text)
    }

    async fn issue(&self, account: &str, domain: &Domain, answers: &dyn Answers) -> Result<Issued, Refusal> {
        let account = self.opened(account).await?;
        let identifiers = [Identifier::Dns(domain.to_string())];
        let ordered = account.new_order(&NewOrder::new(&identifiers)).await;
        let mut order = ordered.map_err(|error| self.refusal(error))?;
        let mut tokens = Vec::new();
        let issued = self.order(&mut order, answers, &mut tokens).await;
        for token in tokens {
            answers.forget(token).await;
        }
        issued
    }
}

fn plain(what: String) -> Refusal {
    Refusal { what, until: None }
}

/// In the authority's own words.
fn of_problem(problem: &Problem, asked: Option<Timestamp>) -> Refusal {
    let kind = problem.r#type.as_deref().map(|kind| kind.trim_start_matches("urn:ietf:params:acme:error:"));
    let detail = problem.detail.as_deref().unwrap_or("it does not say why");
    let what = match kind {
        Some(kind) => format!("the authority says {kind}: {detail}"),
        None => format!("the authority says: {detail}"),
    };
    Refusal { what, until: asked }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    let mut causes: Vec<String> = causes.collect();
    causes.dedup();
    causes.join(": ")
}

/// HTTP over TLS, with the authority's wish to be left alone for a while.
#[derive(Clone)]
struct Web {
    client: Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>,
    clock: Arc<dyn Clock>,
    wait: Arc<Mutex<Option<Timestamp>>>,
}

impl Web {
    fn new(ca: Option<&str>, clock: Arc<dyn Clock>) -> Result<Self, AcmeError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for root in ca.into_iter().flat_map(|text| CertificateDer::pem_slice_iter(text.as_bytes())) {
            roots.add(root.map_err(|error| AcmeError::Root(Box::new(error)))?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, clock, wait: Arc::default() })
    }

    /// Until when the authority wants to be left alone, if it has just said so.
    fn asked_to_wait(&self) -> Option<Timestamp> {
        self.wait.lock().unwrap_or_else(PoisonError::into_inner).filter(|until| *until > self.clock.now())
    }

    async fn send(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let late = |_| Error::Other("it does not answer in time".into());
        let response = timeout(REQUEST, self.client.request(request)).await.map_err(late)?;
        let response = response.map_err(|error| Error::Other(Box::new(error)))?;
        if [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&response.status()) {
            let value = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let until = value.and_then(|value| retry_after(value, self.clock.now()));
            *self.wait.lock().unwrap_or_else(PoisonError::into_inner) = until;
        }
        Ok(BytesResponse::from(response))
    }
}

impl HttpClient for Web {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        Box::pin(self.clone().send(request))
    }
}

/// The time a Retry-After header names: seconds from now, or a date (RFC 9110, 10.2.3).
fn retry_after(value: &str, now: Timestamp) -> Option<Timestamp> {
    let value = value.trim();
    match value.parse::<i64>() {
        Ok(seconds) => now.checked_add(SignedDuration::from_secs(seconds)).ok(),
        Err(_) => jiff::fmt::rfc2822::parse(value).ok().map(|date| date.timestamp()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_asks_to_be_left_alone_in_seconds_or_until_a_date() {
        let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let check = |value: &str, expected: Option<&str>| {
            let expected = expected.map(|text| text.parse::<Timestamp>().unwrap());
            assert_eq!(retry_after(value, now), expected, "{value}");
        };
        check("120", Some("2026-11-22T00:02:00Z"));
        check("Sun, 22 Nov 2026 01:00:00 GMT", Some("2026-11-22T01:00:00Z"));
        check("soon", None);
    }
}
