//! Answers docker's client: who may see what, and who does it.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::find::find;
use super::http::{Call, Content, Reply, Service, serve};
use super::query::{Query, asked, written};
use super::routes::{Ask, Verb, route};
use super::shown::{self, Whole};
use super::trouble::Trouble;
use crate::docker::passing;
use crate::docker::{Answered, Asked};
use crate::hq::door::Caller;
use crate::hq::events::Outcome;
use crate::hq::fleet::{Seen, Survey};
use crate::hq::rights::{Access, Right};
use crate::hq::{Hq, HqError};
use crate::launch::label;
use crate::names::{NodeName, ServerName, StackName};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Pause between two looks at what somebody who follows something may still see.
const LOOK: Duration = Duration::from_secs(2);

/// The longest list or description that an engine is read of, in bytes.
const LONGEST: usize = 64 << 20;

/// One client's connection.
#[derive(Clone)]
pub struct Desk {
    pub(super) hq: Arc<Hq>,
    pub(super) caller: Caller,
    pub(super) hung_up: CancellationToken,
}

/// A container that somebody may see.
pub(super) struct Found {
    pub(super) seen: Seen,
    pub(super) stack: StackName,
    pub(super) node: NodeName,
    pub(super) access: Access,
}

/// What somebody may see.
pub(super) struct Sight {
    pub(super) access: Access,
    pub(super) stacks: BTreeSet<StackName>,
    pub(super) survey: Survey,
}

/// Answers the client at the other end of this connection until it goes.
pub async fn attend<S>(hq: Arc<Hq>, caller: Caller, stream: S, hung_up: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let desk = Desk { hq, caller, hung_up: hung_up.clone() };
    tokio::select! {
        () = serve(stream, Arc::new(desk)) => {}
        () = hung_up.cancelled() => {}
    }
}

#[async_trait]
impl Service for Desk {
    async fn answer(&self, call: Call) -> Reply {
        match self.decided(call).await {
            Ok(reply) => reply,
            Err(trouble) => Reply::json(trouble.status, &trouble.body()),
        }
    }
}

impl Desk {
    async fn decided(&self, call: Call) -> Result<Reply, Trouble> {
        let query = Query::read(&call.query);
        match route(&call.method, &call.path)? {
            Ask::Ping => {
                Ok(Reply { content: Content::Whole("OK".into()), kind: "text/plain".to_owned(), ..Reply::empty(200) })
            }
            Ask::Version => Ok(Reply::json(200, &shown::version(VERSION, &self.architecture().await?))),
            Ask::Info => self.info().await,
            Ask::Containers => self.containers(&query).await,
            Ask::Events => self.events(&query).await,
            Ask::Images => {
                let wanted = query.only(&["all", "digests", "filters"]);
                Ok(Reply::json(200, &self.images(&self.sight().await?, &wanted).await?.into()))
            }
            Ask::Image(name) => self.image(&name).await,
            Ask::Pull => self.pull(&query).await,
            Ask::Create => self.create(&query, body(call).await?).await,
            Ask::Container(name, verb) => self.container(&name, verb, &query, call).await,
            Ask::Exec(id, verb) => self.exec(&id, verb, &query, call).await,
        }
    }

    async fn container(&self, name: &str, verb: Verb, query: &Query, call: Call) -> Result<Reply, Trouble> {
        match verb {
            Verb::Inspect => self.inspect(name).await,
            Verb::Logs | Verb::Top | Verb::Stats | Verb::Wait => self.look(name, verb, query).await,
            Verb::Attach => self.attach(name, query, call.streams).await,
            Verb::Resize => self.resize(name, query).await,
            Verb::Exec => self.new_exec(name, body(call).await?).await,
            Verb::Start => self.start(name).await,
            Verb::Stop => self.stop(name, query).await,
            Verb::Kill => self.kill(name, query).await,
            Verb::Restart => self.restart(name, query).await,
            Verb::Remove => self.remove(name, query).await,
        }
    }

    async fn architecture(&self) -> Result<String, Trouble> {
        Ok(self.hq.engines().local().architecture().await?)
    }

    /// What the caller may see now, and what there is.
    pub(super) async fn sight(&self) -> Result<Sight, Trouble> {
        let access = self.hq.access(&self.caller).await?;
        let seen = |(stack, owner): (StackName, Option<_>)| {
            let right = owner.and_then(|owner| access.on(&stack, &owner));
            (access.is_operator() || right.is_some()).then_some(stack)
        };
        let stacks = self.hq.owners().await?.into_iter().filter_map(seen).collect();
        let mut survey = self.hq.survey().await?;
        let own = &self.hq.launcher.identity.id;
        survey.containers.retain(|seen| seen.container.labels.get(label::HQ) == Some(own));
        Ok(Sight { access, stacks, survey })
    }

    /// The container that is meant, for a caller who has this right on its stack. Who may not is refused in the record of
    /// events, with what they wanted.
    pub(super) async fn found(&self, name: &str, needed: Right, what: &str) -> Result<Found, Trouble> {
        let Sight { access, stacks, mut survey } = self.sight().await?;
        survey.containers.retain(|seen| stack_of(seen).is_some_and(|stack| stacks.contains(&stack)));
        let seen = find(name, &survey.containers)?.clone();
        let node = seen.container.labels.get(label::NODE).and_then(|node| node.parse().ok());
        let (Some(stack), Some(node)) = (stack_of(&seen), node) else {
            return Err(Trouble::missing("container", name));
        };
        self.allowed(&access, &stack, needed, what).await?;
        if let Some(why) = survey.silent.get(&seen.server) {
            return Err(Trouble::away(format!("{} does not answer: {why}", seen.server)));
        }
        Ok(Found { seen, stack, node, access })
    }

    /// Refuses whoever has not this right on a stack.
    pub(super) async fn allowed(
        &self,
        access: &Access,
        stack: &StackName,
        needed: Right,
        what: &str,
    ) -> Result<(), Trouble> {
        match self.hq.check_right(access, stack, needed).await {
            Ok(_) => Ok(()),
            Err(error) => {
                let refused = matches!(error, HqError::Rights(_));
                let trouble = Trouble::from(error);
                if refused {
                    self.note_refusal(stack, what, &trouble).await;
                }
                Err(trouble)
            }
        }
    }

    /// Writes down that somebody did not get what they wanted.
    pub(super) async fn note_refusal(&self, stack: &StackName, what: &str, why: &Trouble) {
        let event = self.hq.new_event(&self.caller, Some(stack.clone()), what);
        self.hq.end_event(event, Outcome::Refused, Some(&why.message)).await;
    }

    /// Does what changes something, and writes down that it began and how it ended. It goes on to its end when the client
    /// goes, and whoever upgrades HQ waits for it.
    pub(super) async fn noted<T, F>(&self, stack: &StackName, what: String, work: F) -> Result<T, Trouble>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Trouble>> + Send + 'static,
    {
        let (hq, told) = (self.hq.clone(), format!("`{what}` by {}", self.caller.user));
        let event = hq.new_event(&self.caller, Some(stack.clone()), &what);
        let done = tokio::spawn(async move {
            let _work = hq.traffic.work(told);
            hq.write_event(event.clone()).await;
            let done = work.await;
            let (outcome, why) = match &done {
                Ok(_) => (Outcome::Done, None),
                Err(trouble) if trouble.is_refusal() => (Outcome::Refused, Some(trouble.message.as_str())),
                Err(trouble) => (Outcome::Failed, Some(trouble.message.as_str())),
            };
            hq.end_event(event, outcome, why).await;
            done
        });
        done.await.unwrap_or_else(|bug| Err(Trouble::new(500, format!("this is a bug: {bug}"))))
    }

    /// Passes a request on to the engine of a server.
    pub(super) async fn pass(&self, server: &ServerName, asked: Asked) -> Result<Answered, Trouble> {
        Ok(self.hq.engines().of(server)?.pass(asked).await?)
    }

    /// The same for what is one value of JSON; the engine's own trouble is that of the caller.
    pub(super) async fn value(&self, server: &ServerName, asked: Asked) -> Result<Value, Trouble> {
        let Answered { status, content, .. } = self.pass(server, asked).await?;
        let bytes = whole(content).await.map_err(|error| Trouble::away(format!("{server} broke off: {error}")))?;
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        match status {
            200..300 => Ok(value),
            _ => Err(Trouble::new(status, value["message"].as_str().unwrap_or("docker gives no reason"))),
        }
    }

    /// The answers of every server that speaks, in the servers' order. One that breaks off or has no such thing is left out.
    async fn of_all(&self, survey: &Survey, target: &str) -> Result<Vec<(ServerName, Value)>, Trouble> {
        let speaks = |server: &ServerName| !survey.silent.contains_key(server);
        let servers = self.hq.engines().all().into_iter().map(|(server, _)| server).filter(speaks);
        let answers = servers.map(|server| async move {
            let answer = self.value(&server, Asked::get(target)).await;
            (server, answer)
        });
        let mut all = Vec::new();
        for (server, answer) in join_all(answers).await {
            match answer {
                Ok(value) => all.push((server, value)),
                Err(trouble) if trouble.status == 404 => {}
                Err(trouble) if trouble.status == 400 => return Err(trouble),
                Err(trouble) => {
                    tracing::warn!(%server, why = trouble.message, "a docker client is not told of a server")
                }
            }
        }
        Ok(all)
    }

    /// `docker ps`.
    async fn containers(&self, query: &Query) -> Result<Reply, Trouble> {
        let sight = self.sight().await?;
        let mut filters = query.filters()?;
        let only = shown::server_filter(&mut filters);
        for relative in ["before", "since"] {
            if filters.contains_key(relative) {
                return Err(Trouble::bad(format!(
                    "containers of several servers have no order for the filter `{relative}`"
                )));
            }
        }
        filters.entry("label".to_owned()).or_default().push(format!("{}={}", label::HQ, self.hq.launcher.identity.id));
        let limit = query.number("limit").and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
        let all = query.says("all") || limit.is_some();
        let pairs = [("all", u8::from(all).to_string()), ("filters", written(&filters))];
        let size = query.says("size").then(|| ("size", "1".to_owned()));
        let target = format!("/containers/json{}", asked(pairs.into_iter().chain(size)));
        let mut found = Vec::new();
        for (server, list) in self.of_all(&sight.survey, &target).await? {
            if only.as_ref().is_none_or(|only| server.as_str() == only) {
                found.extend(shown::entries(list, &server, &sight.stacks));
            }
        }
        Ok(Reply::json(200, &shown::joined(found, limit).into()))
    }

    /// `docker info`.
    async fn info(&self) -> Result<Reply, Trouble> {
        let sight = self.sight().await?;
        let seen = sight
            .survey
            .containers
            .iter()
            .filter(|seen| stack_of(seen).is_some_and(|stack| sight.stacks.contains(&stack)));
        let state = |seen: &Seen| match seen.container.state {
            crate::docker::State::Running => "running",
            crate::docker::State::Paused => "paused",
            _ => "stopped",
        };
        let states: Vec<&str> = seen.map(state).collect();
        let images = self.images(&sight, "").await?.len();
        let members = self.hq.members();
        let memory =
            if sight.access.is_operator() { members.values().map(|member| member.size.bytes()).sum() } else { 0 };
        let (servers, id) = (members.into_keys().collect::<Vec<_>>(), &self.hq.launcher.identity.id);
        let silent = sight.survey.silent.keys().collect::<Vec<_>>();
        let whole = Whole { version: VERSION, id, servers: &servers, silent: &silent, memory, states: &states, images };
        Ok(Reply::json(200, &shown::info(&whole)))
    }

    /// The images that somebody may see, of those that these parameters ask for.
    async fn images(&self, sight: &Sight, wanted: &str) -> Result<Vec<Value>, Trouble> {
        let lists = self
            .of_all(&sight.survey, &format!("/images/json{wanted}"))
            .await?
            .into_iter()
            .map(|(_, list)| list)
            .collect();
        if sight.access.is_operator() {
            return Ok(shown::images(lists, None));
        }
        let theirs = sight
            .survey
            .containers
            .iter()
            .filter(|seen| stack_of(seen).is_some_and(|stack| sight.stacks.contains(&stack)));
        let used = theirs.map(|seen| seen.container.image.clone()).collect();
        Ok(shown::images(lists, Some((&sight.stacks, &used))))
    }

    /// `docker image inspect`, on the first server that has it. What an image was built with is for operators.
    async fn image(&self, name: &str) -> Result<Reply, Trouble> {
        let sight = self.sight().await?;
        let all = self.images(&sight, "").await?;
        let listed = shown::image(name, &all).ok_or_else(|| Trouble::missing("image", name))?;
        let id = listed["Id"].as_str().unwrap_or_default();
        let (_, mut image) = self
            .of_all(&sight.survey, &format!("/images/{id}/json"))
            .await?
            .into_iter()
            .next()
            .ok_or_else(|| Trouble::missing("image", name))?;
        if !sight.access.is_operator() {
            image["RepoTags"] = listed["RepoTags"].clone();
            image["RepoDigests"] = json!([]);
            for place in ["Config", "ContainerConfig"] {
                if image[place].is_object() {
                    image[place]["Env"] = json!([]);
                }
            }
        }
        Ok(Reply::json(200, &image))
    }

    /// `docker inspect`.
    async fn inspect(&self, name: &str) -> Result<Reply, Trouble> {
        let Found { seen, stack, access, .. } = self.found(name, Right::View, "docker inspect").await?;
        let container = self.value(&seen.server, Asked::get(format!("/containers/{}/json", seen.container.id))).await?;
        let may_change = self.hq.check_right(&access, &stack, Right::Deploy).await.is_ok();
        Ok(Reply::json(200, &shown::inspected(container, &seen.server, may_change)))
    }

    /// Ends when the caller may no longer do this with a stack.
    pub(super) fn revoked(&self, stack: &StackName, needed: Right) -> impl Future<Output = ()> + Send + 'static {
        let (Desk { hq, caller, hung_up }, stack) = (self.clone(), stack.clone());
        async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    () = hung_up.cancelled() => return,
                }
                // While the tree cannot be read, nothing is taken away.
                let Ok(access) = hq.access(&caller).await else { continue };
                let checked = hq.check_right(&access, &stack, needed).await;
                if let Err(HqError::Rights(_) | HqError::NoStack(_)) = checked {
                    return;
                }
            }
        }
    }
}

/// The stack of a container.
pub(super) fn stack_of(seen: &Seen) -> Option<StackName> {
    seen.container.labels.get(label::STACK)?.parse().ok()
}

/// A request's description.
async fn body(call: Call) -> Result<Value, Trouble> {
    let bytes = call.body().await.map_err(|error| Trouble::bad(format!("the body cannot be read: {error}")))?;
    if bytes.is_empty() {
        return Ok(json!({}));
    }
    serde_json::from_slice(&bytes).map_err(|error| Trouble::bad(format!("the body is no JSON: {error}")))
}

async fn whole(content: passing::Content) -> std::io::Result<Vec<u8>> {
    use futures_util::StreamExt;
    let passing::Content::Body(mut chunks) = content else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    while let Some(chunk) = chunks.next().await {
        all.extend_from_slice(&chunk?);
        if all.len() > LONGEST {
            return Err(std::io::Error::other("its answer is too long"));
        }
    }
    Ok(all)
}
