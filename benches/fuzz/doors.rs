//! What comes by the HTTP api, from docker's client and as a job's description.

use quarry::api::endpoints::{Found, find};
use quarry::api::query::read;
use quarry::api::trouble::Trouble;
use quarry::dock::create;
use quarry::dock::routes::route;
use quarry::stack::job::parse;
use serde_json::Value;

use super::properties::harmless_line;
use super::seeds::texts;
use super::targets::text;

pub fn job_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "name: mongo\nimage: mongo:6\ncommand: [mongod, --quiet]\nvolumes: /data\nports: [27017, 53/udp]\nenv: {VIKING_HEALTH: tcp}\n",
        "{\"image\": \"debian\", \"daemonize\": true, \"name\": \"x\", \"filter\": [\"ssd\", \"!eu\"], \"server\": \"s1\"}",
    ])
}

/// A job's description is a job, or mistakes that can be shown.
pub fn job(bytes: &[u8]) {
    match parse("job.yml", &text(bytes), &[]) {
        Ok(job) => {
            assert!(!job.daemonize || job.name.is_some(), "nobody finds it again");
            let words = job.node.command.iter().flat_map(|command| command.words()).chain(job.node.args.clone());
            words.for_each(|word| assert!(!word.contains('\0'), "a NUL in {word:?}"));
            assert!(job.node.volumes.iter().all(|path| path.as_str().starts_with('/')));
        }
        Err(mistakes) => {
            assert!(!mistakes.0.is_empty(), "refused without a reason");
            mistakes.0.iter().for_each(|mistake| harmless_line(&mistake.to_string()));
        }
    }
}

pub fn docker_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "POST /v1.41/containers/create\n{\"Image\":\"a\",\"Cmd\":[\"x\"],\"AttachStdout\":true,\"HostConfig\":{\"Memory\":67108864}}",
        "GET /v1.41/containers/jobs%2Fmine/json\n{\"Image\":\"a\",\"ExposedPorts\":{\"53/udp\":{}},\"HostConfig\":{\"Binds\":[\"/:/x\"]}}",
        "POST /exec/s1.0aff/start\n{\"Image\":\"a\",\"HostConfig\":{\"Privileged\":true,\"Mounts\":[{\"Type\":\"volume\",\"Target\":\"/d\"}]}}",
    ])
}

/// A first line with a method and a path, and then what is to be made.
pub fn docker(bytes: &[u8]) {
    let text = text(bytes);
    let (line, body) = text.split_once('\n').unwrap_or((&text, ""));
    let (method, path) = line.split_once(' ').unwrap_or(("GET", line));
    if let Err(trouble) = route(method, path) {
        assert!((400..600).contains(&trouble.status) && !trouble.message.is_empty(), "{trouble:?}");
    }
    let Ok(body) = serde_json::from_str::<Value>(body) else { return };
    match create::read(None, "job-1", &body) {
        Ok(order) => {
            let rights = &body["HostConfig"];
            assert_ne!(rights["Privileged"], true, "a container gets no rights over its server");
            assert_eq!(order.job.daemonize, order.job.daemonize && order.job.name.is_some(), "nobody finds it again");
            assert!(order.job.node.volumes.iter().all(|path| path.as_str().starts_with('/')));
        }
        Err(trouble) => assert_eq!(trouble.status, 400, "{trouble:?}"),
    }
}

pub fn api_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "GET /v1/stacks/blog/logs?follow=true&lines=10",
        "POST /v1/stacks/blog/scale",
        "DELETE /v1/stacks/%2e%2e%2f",
        "GET /v1/jobs?limit=10&after=a%20b",
    ])
}

/// A line with a method, a path and a query.
pub fn api(bytes: &[u8]) {
    let text = text(bytes);
    for line in text.lines() {
        let (method, place) = line.split_once(' ').unwrap_or(("GET", line));
        let (path, query) = place.split_once('?').unwrap_or((place, ""));
        let wrong = match find(method, path) {
            Found::Endpoint(endpoint, named) => {
                named.values().for_each(|name| assert!(!name.contains(['\0', '\n']), "{name:?}"));
                read(endpoint, query).err()
            }
            Found::Name(wrong) => Some(wrong),
            Found::Methods(methods) => {
                assert!(!methods.is_empty());
                None
            }
            Found::Nothing => None,
        };
        wrong.into_iter().for_each(|wrong| harmless_line(&Trouble::from(wrong).message));
    }
}
