//! Tells an agent things in order.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{Remote, above};
use crate::agent::{Agent, AgentError, Applied, Config, Part, Routing, Turn};
use crate::embassy::Table;

/// A router that has not switched by then does not hold up the others.
const SWITCH: Duration = Duration::from_secs(2);

impl Remote {
    /// The agent itself.
    pub fn agent(&self) -> &dyn Agent {
        &*self.agent
    }

    /// Has it apply what `config` gives for a turn. Rules on trial are confirmed at once, over a new connection.
    ///
    /// # Errors
    /// It cannot be reached, has heard of a later HQ, or its new rules keep HQ out: then the old ones come back.
    pub async fn configure(&self, config: impl Fn(Turn) -> Config + Send + Sync) -> Result<Applied, AgentError> {
        let mut turn = self.config.lock().await;
        turn.generation += 1;
        let mut wanted = config(*turn);
        let mut told = self.agent.configure(&wanted).await;
        if let Err(AgentError::Stale { held }) = told
            && let Some(next) = above(*turn, held, self.rivals)
        {
            // After its own word only another one's is newer.
            if matches!(self.state().told, Some(Ok(_))) {
                tracing::error!(?held, "another HQ tells this server what it should be; stop one of the two");
                self.note(|state| state.rival = Some(held));
            }
            *turn = next;
            wanted.turn = next;
            told = self.agent.configure(&wanted).await;
        }
        let stands = told.as_ref().is_ok_and(|applied| !applied.failed.contains_key(&Part::Wall));
        self.note(|state| {
            if let Ok(applied) = &told {
                state.embassy = Some(wanted.embassy.is_some() && !applied.failed.contains_key(&Part::Embassy));
            }
            state.told = Some(told.clone());
            state.wall = wanted.wall.filter(|_| stands);
        });
        let applied = told?;
        if let Some(trial) = &applied.trial {
            let confirmed = self.agent.confirm(trial).await;
            let why = confirmed.as_ref().err().map(ToString::to_string);
            self.note(|state| state.rolled_back = why);
            confirmed?;
        }
        Ok(applied)
    }

    /// Changes the router's tables. One that does not do it in time is behind until it has been told everything.
    ///
    /// # Errors
    /// It was not told in time, or refuses.
    pub async fn route(&self, routing: &Routing) -> Result<(), AgentError> {
        let routed = timeout(SWITCH, async {
            let mut turn = self.routes.lock().await;
            self.in_turn(&mut turn, Word::Route(routing)).await
        });
        let routed = routed.await.unwrap_or_else(|_| Err(late()));
        if routed.is_err() {
            // What its older tables name begins to leave now.
            self.note(|state| state.behind = Some(Instant::now()));
        }
        routed
    }

    /// Gives the router everything, as it is when its turn has come.
    ///
    /// # Errors
    /// As [`Remote::route`]; then it is behind still.
    pub async fn catch_up<E>(&self, all: impl AsyncFnOnce() -> Result<Vec<Routing>, E>) -> Result<(), AgentError>
    where
        E: std::fmt::Display,
    {
        let mut turn = self.routes.lock().await;
        for all in all().await.map_err(|error| AgentError::Router(error.to_string()))? {
            self.in_turn(&mut turn, Word::Route(&all)).await?;
        }
        self.note(|state| state.behind = None);
        Ok(())
    }

    /// Has its embassy's ports be these, unless they are for certain.
    ///
    /// # Errors
    /// It was not told in time, or lacks some of them; it is to be told again.
    pub async fn expose(&self, table: &Arc<Table>) -> Result<(), AgentError> {
        let mut turn = self.ports.lock().await;
        if self.state().exposed.as_ref() == Some(table) {
            return Ok(());
        }
        let told = timeout(SWITCH, self.in_turn(&mut turn, Word::Expose(table))).await;
        let told = told.unwrap_or_else(|_| Err(late()));
        self.note(|state| state.exposed = told.is_ok().then(|| table.clone()));
        told
    }

    /// Its router and its embassy may hold older tables than HQ's.
    pub fn fall_behind(&self) {
        self.note(|state| {
            state.behind.get_or_insert_with(Instant::now);
            state.exposed = None;
        });
    }

    /// Tells it something in the next turn, and once more above what it holds where that was this HQ's own word.
    async fn in_turn(&self, turn: &mut Turn, word: Word<'_>) -> Result<(), AgentError> {
        turn.generation += 1;
        match self.say(*turn, word).await {
            Err(AgentError::Stale { held }) => {
                let Some(next) = above(*turn, held, self.rivals) else { return Err(AgentError::Stale { held }) };
                *turn = next;
                self.say(next, word).await
            }
            other => other,
        }
    }

    async fn say(&self, turn: Turn, word: Word<'_>) -> Result<(), AgentError> {
        match word {
            Word::Route(routing) => self.agent.route(turn, routing).await,
            Word::Expose(table) => self.agent.expose(turn, table).await,
        }
    }
}

/// What an agent is told beside its configuration.
#[derive(Clone, Copy)]
enum Word<'a> {
    Route(&'a Routing),
    Expose(&'a Table),
}

fn late() -> AgentError {
    AgentError::Away { place: "the server".to_owned(), why: "it has not switched in time".to_owned() }
}
