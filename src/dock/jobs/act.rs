//! Starts jobs and ends them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Kind, ends, kind};
use crate::dock::act::{Desk, Found};
use crate::dock::create::{Order, read, shown};
use crate::dock::http::Reply;
use crate::dock::query::Query;
use crate::dock::trouble::Trouble;
use crate::docker::{Asked, Engine, EngineError, State};
use crate::hq::jobs::act::Ready;
use crate::hq::jobs::{JobError, common_stack};
use crate::hq::rights::Right;
use crate::hq::runs::Outcome;
use crate::hq::{Hq, HqError};
use crate::launch::label;
use crate::names::{NodeName, ServerName, StackName};
use crate::units::Millis;
use crate::units::random::hex;

/// How long what is stopped may finish where nobody says.
const GRACE: Millis = Millis::seconds(10);

/// The longest that it may, in seconds.
const LONGEST: i64 = 3600;

/// How long a container is kept for a client who has yet to start it.
const UNSTARTED: Duration = Duration::from_secs(600);

/// Before a server that was cut off is asked again what became of a job.
const AGAIN: Duration = Duration::from_secs(2);

impl Desk {
    /// `docker create`: a container for whoever attaches to it and starts it then. A job that runs by itself is started at
    /// once: its container is the launch's to make.
    pub(in crate::dock) async fn create(&self, query: &Query, body: Value) -> Result<Reply, Trouble> {
        let what = format!("docker run {}", shown(&body));
        let access = self.hq.access(&self.caller).await?;
        let named = body["Labels"]["quarry.stack"].as_str().and_then(|name| name.parse::<StackName>().ok());
        let drawn = format!("job-{}", hex::<3>());
        let order = match read(query.text("name").filter(|name| !name.is_empty()), &drawn, &body) {
            Ok(order) => order,
            Err(trouble) => {
                self.note_refusal(&named.unwrap_or_else(common_stack), &what, &trouble).await;
                return Err(trouble);
            }
        };
        let Order { job, stack, hold, warnings } = order;
        let (named, stack) = (stack.is_some(), stack.unwrap_or_else(common_stack));
        self.hq.found_job_stack(&stack, &access).await?;
        self.allowed(&access, &stack, Right::Deploy, &what).await.map_err(|trouble| match trouble.status {
            // They have named none, and learn how to.
            404 if !named => Trouble::from(HqError::from(JobError::NoStack)),
            _ => without_404(trouble),
        })?;
        let (hq, user, of) = (self.hq.clone(), self.caller.user.clone(), stack.clone());
        let desk = self.clone();
        let made = self
            .noted(&stack, what, async move {
                if let (true, Some(name)) = (job.daemonize, job.name.clone()) {
                    let _turn = hq.turn(&of, format!("the job by {user}"), &|_| {}).await;
                    hq.start_job(&of, &name, job, &user, &|_| {}).await?;
                    return id_of_job(&hq, &of, &name).await;
                }
                let ready = hq.prepare_job(&of, job, hold, &user, &|_| {}).await?;
                let engine = desk.engine(&ready.server)?;
                let made = engine.container(&ready.container).await?;
                let made = made.ok_or_else(|| Trouble::missing("container", ready.container.as_str()))?;
                tokio::spawn(forget_unstarted(hq, engine, ready));
                Ok(made.id)
            })
            .await;
        // With 404 the client would fetch the image and ask again.
        let id = made.map_err(without_404)?;
        Ok(Reply::json(201, &json!({ "Id": id, "Warnings": warnings })))
    }

    /// The container that somebody means who may change it, and what runs in it.
    async fn meant(&self, name: &str, what: &str) -> Result<(Kind, Found), Trouble> {
        let found = self.found(name, Right::Deploy, what).await?;
        let jobs = self.hq.job_procs(&found.stack).await?;
        let runs = self.hq.job_runs(&found.stack, &found.node).await?;
        let container = &found.seen.container;
        let kind = kind((&container.name, &container.labels), &found.node, &jobs, &runs);
        Ok((kind, found))
    }

    fn engine(&self, server: &ServerName) -> Result<Arc<dyn Engine>, Trouble> {
        Ok(self.hq.engines().of(server)?)
    }

    /// `docker start`: what was made for whoever is attached begins.
    pub(in crate::dock) async fn start(&self, name: &str) -> Result<Reply, Trouble> {
        let what = format!("docker start {name}");
        let (kind, Found { seen, stack, node, .. }) = self.meant(name, &what).await?;
        match (kind, seen.container.state) {
            (_, State::Running | State::Restarting | State::Paused) => return Ok(Reply::empty(304)),
            (Kind::Attached(number), State::Created) => {
                let (hq, engine) = (self.hq.clone(), self.engine(&seen.server)?);
                let (server, container) = (seen.server.clone(), seen.container.name.clone());
                let ready = Ready { stack: stack.clone(), name: node, number, server, container };
                let stays = seen.container.labels.contains_key(label::STAYS);
                let told = format!("`docker run` of {}/{} by {}", ready.stack, ready.name, self.caller.user);
                self.noted(&stack, what, async move {
                    let begun = engine.start(&ready.container).await;
                    if let Err(error) = begun {
                        let outcome = Outcome::Failed(error.to_string());
                        hq.end_job_run(&ready, outcome).await?;
                        return Err(error.into());
                    }
                    tokio::spawn(see_through(hq, engine, ready, stays, told));
                    Ok(())
                })
                .await?;
            }
            (Kind::Alone | Kind::Node, _) => {
                let advice = format!("restart {stack}/{node}, or docker restart");
                return Err(Trouble::conflict(format!("HQ starts it again by itself; at once: {advice}")));
            }
            (Kind::Attached(_) | Kind::Once, _) => {
                return Err(Trouble::conflict("what has run once is not started again; docker run makes it anew"));
            }
        }
        Ok(Reply::empty(204))
    }

    /// Ends a job that runs by itself.
    async fn end_job(&self, stack: &StackName, node: &NodeName, what: String) -> Result<(), Trouble> {
        let (hq, user) = (self.hq.clone(), self.caller.user.clone());
        let (of, node) = (stack.clone(), node.clone());
        self.noted(stack, what, async move {
            let _turn = hq.turn(&of, format!("the end of a job by {user}"), &|_| {}).await;
            Ok(hq.kill_job(&of, &node, &|_| {}).await?)
        })
        .await
    }

    /// `docker stop`.
    pub(in crate::dock) async fn stop(&self, name: &str, query: &Query) -> Result<Reply, Trouble> {
        let what = format!("docker stop {name}");
        let (kind, Found { seen, stack, node, .. }) = self.meant(name, &what).await?;
        match kind {
            Kind::Alone => self.end_job(&stack, &node, what).await?,
            Kind::Node => return Err(self.of_repository(stack, node, &what).await),
            Kind::Attached(_) | Kind::Once if seen.container.state != State::Running => return Ok(Reply::empty(304)),
            Kind::Attached(_) | Kind::Once => {
                let (engine, container) = (self.engine(&seen.server)?, seen.container.name);
                let seconds = query.number("t").map(|seconds| u64::try_from(seconds.clamp(0, LONGEST)).unwrap_or(0));
                let grace = seconds.map_or(GRACE, Millis::seconds);
                self.noted(&stack, what, async move { Ok(engine.stop(&container, grace).await?) }).await?;
            }
        }
        Ok(Reply::empty(204))
    }

    /// `docker kill`, and what Ctrl-C in `docker run` becomes.
    pub(in crate::dock) async fn kill(&self, name: &str, query: &Query) -> Result<Reply, Trouble> {
        let signal = query.text("signal").filter(|signal| !signal.is_empty()).unwrap_or("KILL").to_owned();
        let what = format!("docker kill --signal {signal} {name}");
        let (kind, Found { seen, stack, node, .. }) = self.meant(name, &what).await?;
        match kind {
            Kind::Alone if ends(&signal) => self.end_job(&stack, &node, what).await?,
            Kind::Node if ends(&signal) => return Err(self.of_repository(stack, node, &what).await),
            Kind::Alone | Kind::Node | Kind::Attached(_) | Kind::Once => {
                let (desk, server) = (self.clone(), seen.server.clone());
                let target = format!("/containers/{}/kill{}", seen.container.id, query.only(&["signal"]));
                let sent = async move { desk.value(&server, Asked::post(target, Bytes::new())).await };
                self.noted(&stack, what, sent).await?;
            }
        }
        Ok(Reply::empty(204))
    }

    /// `docker restart`: a node's containers are replaced without dropping a request.
    pub(in crate::dock) async fn restart(&self, name: &str, query: &Query) -> Result<Reply, Trouble> {
        let what = format!("docker restart {name}");
        let (kind, Found { seen, stack, node, .. }) = self.meant(name, &what).await?;
        match kind {
            Kind::Node => {
                let (hq, user, of) = (self.hq.clone(), self.caller.user.clone(), stack.clone());
                self.noted(&stack, what, async move {
                    let _turn = hq.turn(&of, format!("the restart by {user}"), &|_| {}).await;
                    Ok(hq.restart(&of, &BTreeSet::from([node]), &|_| {}).await?)
                })
                .await?;
            }
            Kind::Alone => {
                let (desk, server) = (self.clone(), seen.server.clone());
                let target = format!("/containers/{}/restart{}", seen.container.id, query.only(&["t"]));
                let done = async move { desk.value(&server, Asked::post(target, Bytes::new())).await };
                self.noted(&stack, what, done).await?;
            }
            Kind::Attached(_) | Kind::Once => {
                return Err(Trouble::conflict("what runs once is not restarted; docker run makes it anew"));
            }
        }
        Ok(Reply::empty(204))
    }

    /// `docker rm`.
    pub(in crate::dock) async fn remove(&self, name: &str, query: &Query) -> Result<Reply, Trouble> {
        let what = format!("docker rm {name}");
        let (kind, Found { seen, stack, node, .. }) = self.meant(name, &what).await?;
        let runs = matches!(seen.container.state, State::Running | State::Restarting | State::Paused);
        if kind == Kind::Node {
            return Err(self.of_repository(stack, node, &what).await);
        }
        if runs && !query.says("force") {
            return Err(Trouble::conflict(format!(
                "{name} runs; stop it first, or end and remove it at once: docker rm -f"
            )));
        }
        let (engine, container, server) = (self.engine(&seen.server)?, seen.container.name, seen.server);
        match kind {
            Kind::Alone => self.end_job(&stack, &node, what).await?,
            Kind::Attached(number) => {
                let ready = Ready { stack: stack.clone(), name: node, number, server, container };
                let hq = self.hq.clone();
                self.noted(&stack, what, async move { Ok(hq.end_job_run(&ready, Outcome::Ended).await?) }).await?;
            }
            Kind::Node | Kind::Once => {
                self.noted(&stack, what, async move { Ok(engine.remove(&container).await?) }).await?;
            }
        }
        Ok(Reply::empty(204))
    }

    /// A node of a repository stays as its repository says.
    async fn of_repository(&self, stack: StackName, name: NodeName, what: &str) -> Trouble {
        let trouble = Trouble::from(HqError::from(JobError::Node { stack: stack.clone(), name }));
        self.note_refusal(&stack, what, &trouble).await;
        trouble
    }
}

/// The id of the container in which a job runs that was just started.
async fn id_of_job(hq: &Hq, stack: &StackName, name: &NodeName) -> Result<String, Trouble> {
    let is = |seen: &crate::hq::fleet::Seen, key: &str, value: &str| {
        seen.container.labels.get(key).is_some_and(|label| label == value)
    };
    let of = |seen: &&crate::hq::fleet::Seen| {
        is(seen, label::HQ, &hq.launcher.identity.id)
            && is(seen, label::STACK, stack.as_str())
            && is(seen, label::NODE, name.as_str())
    };
    let containers = hq.containers().await?;
    let made = containers.iter().filter(of).max_by_key(|seen| seen.container.created);
    Ok(made.ok_or_else(|| Trouble::missing("container", name.as_str()))?.container.id.clone())
}

/// What is missing for a container is the mistake of who wants it.
fn without_404(trouble: Trouble) -> Trouble {
    if trouble.status == 404 { Trouble::bad(trouble.message) } else { trouble }
}

/// What a client has made and not started has been left by it.
async fn forget_unstarted(hq: Arc<Hq>, engine: Arc<dyn Engine>, ready: Ready) {
    tokio::time::sleep(UNSTARTED).await;
    if let Ok(Some(container)) = engine.container(&ready.container).await
        && container.state == State::Created
        && let Err(error) = hq.end_job_run(&ready, Outcome::Failed("nobody started it".to_owned())).await
    {
        tracing::warn!(container = %ready.container, ?error, "a job that nobody started is still there");
    }
}

/// Waits for the end of a job that somebody was attached to, whoever is attached still, and notes it. The container goes
/// unless it stays.
async fn see_through(hq: Arc<Hq>, engine: Arc<dyn Engine>, ready: Ready, stays: bool, told: String) {
    let _work = hq.traffic.work(told);
    let outcome = loop {
        match engine.wait(&ready.container).await {
            Ok(code) => break Outcome::Exited(code),
            Err(EngineError::NotFound { .. }) => break Outcome::Ended,
            Err(error) => tracing::debug!(container = %ready.container, %error, "a job is lost sight of"),
        }
        tokio::time::sleep(AGAIN).await;
    };
    let noted = match stays {
        true => hq.note_job_run(&ready, outcome).await.map_err(HqError::from),
        false => hq.end_job_run(&ready, outcome).await,
    };
    if let Err(error) = noted {
        tracing::warn!(container = %ready.container, ?error, "what became of a job is not noted");
    }
}
