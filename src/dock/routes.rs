//! From a request's method and path to what is asked for.

use super::trouble::Trouble;
use crate::names::percent::decoded;

/// The version of docker's API that is spoken here, and the oldest that a client may ask for.
pub const API: (&str, &str) = ("1.41", "1.24");

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Whether somebody is there.
    Ping,
    /// Which engine this is.
    Version,
    /// What there is as a whole.
    Info,
    /// The containers.
    Containers,
    /// What happens.
    Events,
    /// The images.
    Images,
    /// One of them.
    Image(String),
    /// To fetch one.
    Pull,
    /// A new container.
    Create,
    /// Something about a container.
    Container(String, Verb),
    /// Something about a command that runs in one.
    Exec(String, ExecVerb),
}

/// What is done with a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Verb {
    Inspect,
    Logs,
    Top,
    Stats,
    Attach,
    Start,
    Stop,
    Kill,
    Restart,
    Wait,
    Resize,
    Exec,
    Remove,
}

/// What is done with a command inside one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ExecVerb {
    Inspect,
    Start,
    Resize,
}

/// What Quarry has in the place of docker's, by the first word of a path.
const INSTEAD: [(&str, &str); 18] = [
    ("build", "nothing is built here by itself: git push builds a repository and deploys it"),
    ("session", "nothing is built here by itself: git push builds a repository and deploys it"),
    ("commit", "images come from git push and from registries, not from containers"),
    ("networks", "each stack has a network of its own; `link: stack/node` in quarry.yml leads to another stack"),
    ("volumes", "volumes belong to nodes and jobs: `volumes` in quarry.yml, or docker run -d --name JOB -v /path"),
    ("swarm", "the grid takes the place of a swarm; its servers are listed by: servers list"),
    ("nodes", "the grid takes the place of a swarm; its servers are listed by: servers list"),
    ("services", "a stack's nodes take the place of services: git push, and scale STACK NODE=3"),
    ("tasks", "a stack's nodes take the place of services; what runs is listed by: ps"),
    ("secrets", "variables take the place of secrets, sealed on disk: env set STACK NAME=VALUE"),
    ("configs", "config files are written to every server by: config write"),
    ("plugins", "there are no plugins; each server keeps its own"),
    ("auth", "HQ fetches images by itself; a registry of your own is named in the setting build/registries"),
    ("search", "look for images where they come from"),
    ("distribution", "HQ finds images by itself when something runs"),
    ("system", "what is no longer needed goes by itself; gc tells of it"),
    ("images", "images are HQ's: they come with what runs, and go by themselves (gc)"),
    ("containers", "a container is made, looked at, stopped and removed here; for the rest see jobs and stacks"),
];

/// Finds out what is asked for.
///
/// # Errors
/// What Quarry has in its place.
pub fn route(method: &str, path: &str) -> Result<Ask, Trouble> {
    let path = decoded(path).ok_or_else(|| Trouble::bad("the path is not UTF-8 in percent encoding"))?;
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.first().is_some_and(|first| is_version(first)) {
        parts.remove(0);
    }
    let Some((first, rest)) = parts.split_first() else { return Err(absent(method, "", &[])) };
    let ask = match (method, *first, rest) {
        ("GET" | "HEAD", "_ping", []) => Some(Ask::Ping),
        ("GET", "version", []) => Some(Ask::Version),
        ("GET", "info", []) => Some(Ask::Info),
        ("GET", "events", []) => Some(Ask::Events),
        ("GET", "images", ["json"]) => Some(Ask::Images),
        ("GET", "images", [name @ .., "json"]) => Some(Ask::Image(name.join("/"))),
        ("POST", "images", ["create"]) => Some(Ask::Pull),
        ("GET", "containers", ["json"]) => Some(Ask::Containers),
        ("POST", "containers", ["create"]) => Some(Ask::Create),
        ("POST", "containers", ["prune"]) => None,
        ("DELETE", "containers", name @ [_, ..]) => Some(Ask::Container(name.join("/"), Verb::Remove)),
        (method, "containers", [name @ .., word]) if !name.is_empty() => {
            verb(method, word).map(|verb| Ask::Container(name.join("/"), verb))
        }
        ("GET", "exec", [id, "json"]) => Some(Ask::Exec((*id).to_owned(), ExecVerb::Inspect)),
        ("POST", "exec", [id, "start"]) => Some(Ask::Exec((*id).to_owned(), ExecVerb::Start)),
        ("POST", "exec", [id, "resize"]) => Some(Ask::Exec((*id).to_owned(), ExecVerb::Resize)),
        _ => None,
    };
    ask.ok_or_else(|| absent(method, first, rest))
}

fn verb(method: &str, word: &str) -> Option<Verb> {
    Some(match (method, word) {
        ("GET", "json") => Verb::Inspect,
        ("GET", "logs") => Verb::Logs,
        ("GET", "top") => Verb::Top,
        ("GET", "stats") => Verb::Stats,
        ("POST", "attach") => Verb::Attach,
        ("POST", "start") => Verb::Start,
        ("POST", "stop") => Verb::Stop,
        ("POST", "kill") => Verb::Kill,
        ("POST", "restart") => Verb::Restart,
        ("POST", "wait") => Verb::Wait,
        ("POST", "resize") => Verb::Resize,
        ("POST", "exec") => Verb::Exec,
        _ => return None,
    })
}

/// `v1.41`.
fn is_version(part: &str) -> bool {
    part.strip_prefix('v')
        .is_some_and(|rest| rest.contains('.') && rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
}

/// A look at one thing of a kind that there is none of says so: `docker inspect` goes on to the next kind then.
fn absent(method: &str, first: &str, rest: &[&str]) -> Trouble {
    let instead = INSTEAD.iter().find(|(word, _)| *word == first).map(|(_, instead)| *instead);
    match (method, instead, rest) {
        ("GET", Some(_), [_, ..]) if !["images", "containers", "system"].contains(&first) => {
            let name = rest.strip_suffix(&["json"]).filter(|name| !name.is_empty()).unwrap_or(rest);
            Trouble::missing(first.trim_end_matches('s'), &name.join("/"))
        }
        (_, Some(instead), _) => Trouble::absent(format!("Quarry does not do that: {instead}")),
        (_, None, _) => Trouble::new(404, "page not found: Quarry knows nothing of this path"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_what_they_ask_for_with_and_without_a_version() {
        let check = |method: &str, path: &str, expected: Ask| {
            assert_eq!(route(method, path), Ok(expected.clone()), "{method} {path}");
            assert_eq!(route(method, &format!("/v1.41{path}")), Ok(expected), "{method} {path}");
        };
        let container = |name: &str, verb| Ask::Container(name.to_owned(), verb);
        check("HEAD", "/_ping", Ask::Ping);
        check("GET", "/containers/json", Ask::Containers);
        check("GET", "/containers/blog/web/json", container("blog/web", Verb::Inspect));
        check("GET", "/containers/json/json", container("json", Verb::Inspect));
        check("POST", "/containers/create", Ask::Create);
        check("POST", "/containers/a/attach", container("a", Verb::Attach));
        check("DELETE", "/containers/blog/web", container("blog/web", Verb::Remove));
        check("GET", "/images/quarry/blog/web:1/json", Ask::Image("quarry/blog/web:1".to_owned()));
        check("GET", "/images/a%3A1/json", Ask::Image("a:1".to_owned()));
        check("POST", "/exec/s1.ab/start", Ask::Exec("s1.ab".to_owned(), ExecVerb::Start));
    }

    #[test]
    fn what_is_not_there_is_told_with_what_is() {
        let check = |method: &str, path: &str, status: u16, part: &str| {
            let trouble = route(method, path).unwrap_err();
            assert_eq!(trouble.status, status, "{method} {path}: {}", trouble.message);
            assert!(trouble.message.contains(part), "{method} {path}: {}", trouble.message);
        };
        check("POST", "/v1.41/build", 501, "git push");
        check("GET", "/networks", 501, "link: stack/node");
        check("GET", "/networks/blog", 404, "No such network: blog");
        check("GET", "/volumes/data", 404, "No such volume: data");
        check("GET", "/networks/jobs/mine", 404, "No such network: jobs/mine");
        check("GET", "/plugins/x/json", 404, "No such plugin: x");
        check("POST", "/containers/prune", 501, "jobs and stacks");
        check("POST", "/containers/a/rename", 501, "jobs and stacks");
        check("GET", "/containers/a/archive", 501, "jobs and stacks");
        check("DELETE", "/images/a", 501, "gc");
        check("GET", "/", 404, "nothing");
        check("GET", "/v1.41", 404, "nothing");
        check("GET", "/%ff", 400, "UTF-8");
    }
}
