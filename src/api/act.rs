//! Requests become commands, and what comes of those becomes answers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::endpoints::{Answer, Asked, Body, Endpoint, Found, Order, find};
use super::http::{Call, Content, Reply, Service, Unread};
use super::openapi::document;
use super::pages::page;
use super::query::read;
use super::running::act::Running;
use super::trouble::{Kind, Trouble};
use crate::hq::door::{Caller, Door, Origin};
use crate::hq::guard::{Ending, Guard, Limits, Verdict};
use crate::hq::tokens::digest;
use crate::hq::upgrade::{Guest, Traffic};
use crate::names::UserName;
use crate::names::percent::encoded;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const EVENTS: &str = "text/event-stream";

/// Rows of a page without `limit`.
const PAGE: usize = 1000;

/// What a stream has to say within this time may still be an error with a status; after it the answer has begun.
const BEGINNING: Duration = Duration::from_secs(2);

/// The api of an HQ.
pub struct Api {
    door: Arc<dyn Door>,
    traffic: Arc<Traffic>,
    /// Those whose tokens are wrong.
    guard: Mutex<Guard>,
}

/// Who asks.
struct Known {
    user: UserName,
    /// Of the token.
    digest: String,
    caller: Caller,
}

impl Api {
    /// The api before this door.
    pub fn new(door: Arc<dyn Door>, traffic: Arc<Traffic>) -> Arc<Self> {
        Arc::new(Self { door, traffic, guard: Mutex::new(Guard::new(Limits::default())) })
    }

    async fn decided(&self, call: Call) -> Result<Reply, Trouble> {
        let found = find(&call.method, &call.path);
        if let Found::Endpoint(Endpoint { answer: Answer::Pong, .. }, _) = found {
            return Ok(whole(200, json!({ "pong": true, "version": VERSION })));
        }
        let known = self.known(&call).await?;
        // Whoever upgrades HQ counts those who are inside before it looks whether somebody still comes.
        let guest = self.traffic.guest();
        if self.traffic.watch().borrow().held {
            return Err(Trouble::new(Kind::Away, "HQ is being upgraded; try again in a moment"));
        }
        let (endpoint, named) = match found {
            Found::Endpoint(endpoint, named) => (endpoint, named),
            Found::Methods(methods) => {
                let message = format!("{} takes no {}", call.path, call.method);
                return Err(Trouble::new(Kind::Method(methods), message));
            }
            Found::Name(wrong) => return Err(wrong.into()),
            Found::Nothing => {
                let message = "there is nothing at this path; /v1/openapi.json describes what there is";
                return Err(Trouble::new(Kind::Missing, message));
            }
        };
        let mut asked = Asked { path: named, query: read(endpoint, &call.query)?, body: Map::new() };
        let streamed = match endpoint.answer {
            Answer::Events(_) if call.events => {
                asked.query.insert("follow", "true".to_owned());
                true
            }
            Answer::Events(_) => asked.query.get("follow").is_some_and(|follow| follow == "true"),
            _ => matches!(endpoint.answer, Answer::Lines),
        };
        let place = format!("{}?{}", call.path, call.query);
        if endpoint.body != Body::None {
            asked.body = body(call, endpoint.body).await?;
        }
        let Some(order) = endpoint.order else { return Ok(whole(200, document(VERSION))) };
        let order = order(&asked)?;
        match streamed {
            true => self.stream(endpoint, known, order, guest).await,
            false => self.whole(endpoint, known, order, (&asked, &place), guest).await,
        }
    }

    /// Whose token a request shows. Wrong ones are answered ever later, as wrong keys are.
    async fn known(&self, call: &Call) -> Result<Known, Trouble> {
        let stranger = |message: &str| Trouble::new(Kind::Stranger, message);
        let Some(token) = &call.token else {
            return Err(stranger("show a token in the header `Authorization: Bearer …`; `tokens add NAME` makes one"));
        };
        if let Some(digest) = digest(token)
            && let Some(user) = self.door.bearer(&digest).await
        {
            let caller = Caller { user: user.clone(), from: Origin::Address(call.from) };
            return Ok(Known { user, digest, caller });
        }
        let wait = {
            let mut guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            match guard.arrive(call.from, now) {
                Verdict::Enter { visit, after, .. } => {
                    guard.leave(visit, Ending::Failed, now);
                    Some(after)
                }
                Verdict::Refuse => None,
            }
        };
        let Some(wait) = wait else {
            tracing::debug!(from = %call.from, "too many wrong tokens");
            return Err(Trouble::new(Kind::Often, "too many wrong tokens came from there; wait a moment"));
        };
        tokio::time::sleep(wait).await;
        Err(stranger("this token opens nothing (any more); `tokens` lists those there are"))
    }

    /// Runs a command to its end and answers then.
    async fn whole(
        &self,
        endpoint: &Endpoint,
        known: Known,
        order: Order,
        (asked, place): (&Asked, &str),
        guest: Guest,
    ) -> Result<Reply, Trouble> {
        let makes = order.makes.clone();
        let running = Running::begin(self.door.clone(), known.caller, order, guest);
        let (output, said) = running.to_end().await?;
        match endpoint.answer {
            Answer::List(_, keys) => list(&output, keys, asked, place),
            Answer::Done => Ok(whole(200, done(&said))),
            Answer::Made => {
                let headers = makes.map(|path| ("location", path)).into_iter().collect();
                Ok(Reply { headers, ..whole(201, done(&said)) })
            }
            Answer::Metrics => Ok(reply(200, METRICS, Content::Whole(output.into()))),
            Answer::Lines => Ok(reply(200, TEXT, Content::Whole(output.into()))),
            Answer::Pong | Answer::Document | Answer::Value(_) | Answer::Events(_) => {
                Ok(reply(200, JSON, Content::Whole(output.into())))
            }
        }
    }

    /// Runs a command and answers with its output as it comes. A client who goes ends it, and so does the end of the token.
    async fn stream(&self, endpoint: &Endpoint, known: Known, order: Order, guest: Guest) -> Result<Reply, Trouble> {
        let mut running = Running::begin(self.door.clone(), known.caller, order, guest);
        running.while_holds(known.digest, known.user);
        let first = match tokio::time::timeout(BEGINNING, running.next()).await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => match running.trouble() {
                Some(trouble) => return Err(trouble),
                None => Bytes::new(),
            },
            Err(_) => Bytes::new(),
        };
        Ok(match endpoint.answer {
            Answer::Events(_) => reply(200, EVENTS, Content::Stream(running.events(first))),
            _ => reply(200, TEXT, Content::Stream(running.bytes(first))),
        })
    }
}

#[async_trait]
impl Service for Api {
    async fn answer(&self, call: Call) -> Reply {
        let id = call.id.clone();
        match self.decided(call).await {
            Ok(reply) => reply,
            Err(trouble) => {
                if trouble.kind == Kind::Bug {
                    tracing::error!(request = %id, "a request of the api ended in a bug");
                }
                Reply { headers: trouble.kind.headers(), ..whole(trouble.kind.status().0, trouble.body(&id)) }
            }
        }
    }
}

/// The object in a request's body.
async fn body(call: Call, wanted: Body) -> Result<Map<String, Value>, Trouble> {
    let bytes = call.body().await.map_err(|error| {
        let kind = match error {
            Unread::Long => Kind::Long,
            Unread::Slow => Kind::Slow,
            Unread::Broken => Kind::Bad,
        };
        Trouble::new(kind, error.to_string())
    })?;
    if bytes.is_empty() {
        return match wanted {
            Body::Required(_) => Err(Trouble::new(Kind::Bad, "the body is missing; it is an object of JSON")),
            Body::Optional(_) | Body::None => Ok(Map::new()),
        };
    }
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(body)) => Ok(body),
        Ok(_) => Err(Trouble::new(Kind::Mistake, "the body is no object")),
        Err(error) => Err(Trouble::new(Kind::Bad, format!("the body is no JSON: {error}"))),
    }
}

/// A page of a list that a command printed.
fn list(output: &[u8], keys: &[&str], asked: &Asked, place: &str) -> Result<Reply, Trouble> {
    let rows: Vec<Value> = serde_json::from_slice(output)
        .map_err(|error| Trouble::new(Kind::Bug, format!("this is a bug: a listing is no list: {error}")))?;
    let limit = asked.query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(PAGE);
    let page = page(rows, keys, limit, asked.query.get("after").map(String::as_str));
    let page = page.map_err(|message| Trouble::new(Kind::Missing, message))?;
    let link = page.next.map(|next| {
        let (path, query) = place.split_once('?').unwrap_or((place, ""));
        let kept = query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("after="));
        let after = format!("after={}", encoded(&next));
        let query: Vec<&str> = kept.chain([after.as_str()]).collect();
        ("link", format!("<{path}?{}>; rel=\"next\"", query.join("&")))
    });
    Ok(Reply { headers: link.into_iter().collect(), ..whole(200, Value::Array(page.rows)) })
}

/// What a command said while it did what it was asked to.
fn done(said: &str) -> Value {
    json!({ "output": said.lines().collect::<Vec<_>>() })
}

fn whole(status: u16, value: Value) -> Reply {
    let mut bytes = serde_json::to_vec(&value).expect("JSON serialises");
    bytes.push(b'\n');
    reply(status, JSON, Content::Whole(bytes.into()))
}

fn reply(status: u16, kind: &'static str, content: Content) -> Reply {
    Reply { status, headers: Vec::new(), kind, content }
}
