//! Who is in the cluster: asked, added, promoted, removed.

use std::time::Duration;

use etcd_client::{Client, Error, MemberAddOptions};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use crate::db::etcd::{Cluster, options, plain};
use crate::servers::member::{Health, Seat, Voice};

/// How long one member may take to answer.
const ANSWER: Duration = Duration::from_secs(3);
/// How long the members may take to agree on a change: for five seconds after each one they refuse the next.
const AGREE: Duration = Duration::from_secs(60);
/// Pause between two tries.
const AGAIN: Duration = Duration::from_millis(200);

/// What etcd says while a change has to wait.
const PASSING: [&str; 5] =
    ["unhealthy cluster", "not enough started members", "in sync with leader", "leader changed", "no leader"];

/// A cluster as those speak to it who change who is in it.
pub struct Circle {
    cluster: Cluster,
}

/// Why there was no change or answer.
#[derive(Debug, thiserror::Error)]
pub enum CircleError {
    /// No member answers.
    #[error("etcd does not answer at {place} ({what})")]
    Away {
        /// Where it was asked.
        place: String,
        /// What was heard last.
        what: String,
    },
    /// They answer and refuse.
    #[error("etcd refuses to {doing}: {what}")]
    Refused {
        /// What was asked for.
        doing: &'static str,
        /// Its words.
        what: String,
    },
}

impl Circle {
    /// The members are asked with the certificates of `cluster`, at its endpoints.
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }

    /// Every member, in the order of their addresses.
    ///
    /// # Errors
    /// When none answers.
    pub async fn look(&self) -> Result<Vec<Seat>, CircleError> {
        let listed = self.ask(|mut client| async move { client.member_list().await }).await?;
        let seat = async |member: &etcd_client::Member| Seat {
            id: member.id(),
            name: Some(member.name().to_owned()).filter(|name| !name.is_empty()),
            peer: member.peer_urls().first().cloned().unwrap_or_default(),
            voice: if member.is_learner() { Voice::Learner } else { Voice::Voter },
            health: match member.client_urls().first() {
                Some(endpoint) => self.health(endpoint).await,
                None => Health::Away { why: "it has not been started yet".to_owned() },
            },
        };
        let mut seats = join_all(listed.members().iter().map(seat)).await;
        seats.sort_by(|one, other| one.peer.cmp(&other.peer));
        Ok(seats)
    }

    /// How the member at this address answers.
    pub async fn health(&self, endpoint: &str) -> Health {
        let asked = async {
            let mut client = Client::connect([endpoint], Some(options(&self.cluster))).await?;
            client.status().await
        };
        match timeout(ANSWER, asked).await {
            Ok(Ok(status)) if status.leader() == 0 => Health::Away { why: "it knows no leader".to_owned() },
            Ok(Ok(status)) => Health::Healthy {
                leads: status.header().is_some_and(|header| header.member_id() == status.leader()),
                version: status.version().to_owned(),
                bytes: u64::try_from(status.db_size()).unwrap_or_default(),
            },
            Ok(Err(error)) => Health::Away { why: plain(&error) },
            Err(_) => Health::Away { why: format!("no answer within {ANSWER:?}") },
        }
    }

    /// A member without a voice: whatever becomes of it, the others go on. The answer is its number.
    ///
    /// # Errors
    /// When the members do not agree in time.
    pub async fn add(&self, peer: &str) -> Result<u64, CircleError> {
        let added = self.change("add a member", |mut client| async move {
            client.member_add([peer], Some(MemberAddOptions::new().with_is_learner())).await
        });
        Ok(added.await?.member().map_or(0, etcd_client::Member::id))
    }

    /// Its voice counts from now on; waits until it has caught up with the others.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn promote(&self, id: u64) -> Result<(), CircleError> {
        let promoted = self.change("let a member vote", |mut client| async move { client.member_promote(id).await });
        promoted.await.map(drop)
    }

    /// It is a member no more.
    ///
    /// # Errors
    /// When the members do not agree in time, as when those that are left would be too few.
    pub async fn remove(&self, id: u64) -> Result<(), CircleError> {
        let removed = self.change("remove a member", |mut client| async move { client.member_remove(id).await });
        removed.await.map(drop)
    }

    /// Asks until they agree.
    async fn change<T, F>(&self, doing: &'static str, question: impl Fn(Client) -> F) -> Result<T, CircleError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let until = Instant::now() + AGREE;
        loop {
            match self.ask(&question).await {
                Err(CircleError::Refused { what, .. })
                    if Instant::now() < until && PASSING.iter().any(|passing| what.contains(passing)) =>
                {
                    sleep(AGAIN).await;
                }
                Err(CircleError::Refused { what, .. }) => return Err(CircleError::Refused { doing, what }),
                other => return other,
            }
        }
    }

    /// Asks one member after the other until one says yes or no.
    async fn ask<T, F>(&self, question: impl Fn(Client) -> F) -> Result<T, CircleError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let (mut told, mut refused) = (String::new(), None);
        for endpoint in &self.cluster.endpoints {
            let asked = async {
                let client = Client::connect([endpoint], Some(options(&self.cluster))).await?;
                question(client).await
            };
            match timeout(ANSWER, asked).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if is_a_no(&error) => refused = Some(plain(&error)),
                Ok(Err(error)) => told = plain(&error),
                Err(_) => told = format!("no answer within {ANSWER:?}"),
            }
        }
        match refused {
            Some(what) => Err(CircleError::Refused { doing: "answer", what }),
            None => Err(CircleError::Away { place: self.cluster.endpoints.join(", "), what: told }),
        }
    }
}

/// Whether the member has heard the question and says no; a learner sends one on to the others.
fn is_a_no(error: &Error) -> bool {
    let text = plain(error);
    match error {
        Error::GRpcStatus(_) if text.contains("not supported for learner") => false,
        Error::GRpcStatus(status) => status.message().starts_with("etcdserver: "),
        _ => false,
    }
}
