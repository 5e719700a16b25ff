//! What the fake engine understands of docker's own words: looks at its containers.

use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::world::{Held, World};
use crate::docker::passing::{Content, Method};
use crate::docker::{Answered, Asked, State};

/// The answer to a request.
pub(super) fn answer(world: &World, asked: &Asked) -> Answered {
    let path = asked.target.split('?').next().unwrap_or_default();
    let named = path.strip_prefix("/containers/").and_then(|rest| rest.strip_suffix("/json"));
    match (asked.method, named) {
        (Method::Get, Some(name)) => {
            let is = |held: &&Held| held.container.name.as_str() == name || held.container.id == name;
            match world.containers.values().find(is) {
                Some(held) => told(200, &described(held)),
                None => told(404, &json!({ "message": format!("No such container: {name}") })),
            }
        }
        (Method::Get | Method::Post, _) => told(501, &json!({ "message": "the fake engine has no such words" })),
    }
}

fn described(held: &Held) -> Value {
    let container = &held.container;
    let (status, code) = match container.state {
        State::Created => ("created", 0),
        State::Running => ("running", 0),
        State::Restarting => ("restarting", 0),
        State::Paused => ("paused", 0),
        State::Exited(code) => ("exited", code),
        State::Dead => ("dead", 0),
    };
    json!({
        "Id": container.id,
        "Name": format!("/{}", container.name),
        "Image": container.image,
        "State": { "Status": status, "Running": held.is_running(), "ExitCode": code },
        "Config": { "Labels": container.labels, "Image": held.request.image, "Cmd": held.request.command },
    })
}

fn told(status: u16, value: &Value) -> Answered {
    let body = futures_util::stream::iter([Ok(Bytes::from(format!("{value}\n")))]).boxed();
    Answered { status, kind: "application/json".to_owned(), content: Content::Body(body) }
}
