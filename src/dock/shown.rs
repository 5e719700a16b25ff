//! What the grid shows as one engine, in docker's shapes (API version 1.41).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::query::Filters;
use super::routes::API;
use crate::launch::label;
use crate::names::{ServerName, StackName};

/// On which server something is.
pub const SERVER: &str = "quarry.server";

/// What stands in the place of the engine's version.
pub fn version(own: &str, architecture: &str) -> Value {
    let component =
        json!({ "Name": "Quarry", "Version": own, "Details": { "ApiVersion": API.0, "MinAPIVersion": API.1 } });
    json!({
        "Platform": { "Name": "Quarry" },
        "Components": [component],
        "Version": own,
        "ApiVersion": API.0,
        "MinAPIVersion": API.1,
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": architecture,
        "KernelVersion": "",
        "BuildTime": "",
    })
}

/// What there is as a whole.
pub struct Whole<'a> {
    /// Quarry's version.
    pub version: &'a str,
    /// Which HQ this is.
    pub id: &'a str,
    /// The servers.
    pub servers: &'a [ServerName],
    /// Those that do not answer at the moment.
    pub silent: &'a [&'a ServerName],
    /// How much memory they have, in bytes.
    pub memory: u64,
    /// The states of the containers that somebody may see, in docker's words.
    pub states: &'a [&'a str],
    /// How many images they may see.
    pub images: usize,
}

/// Tells of it in the shape of `docker info`.
pub fn info(whole: &Whole<'_>) -> Value {
    let count = |state: &str| whole.states.iter().filter(|given| **given == state).count();
    let (running, paused) = (count("running"), count("paused"));
    let lacking =
        |server: &&ServerName| format!("WARNING: {server} does not answer: what runs and lies there is in no list");
    json!({
        "ID": whole.id,
        "Containers": whole.states.len(),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": whole.states.len() - running - paused,
        "Images": whole.images,
        "Driver": "quarry",
        "DriverStatus": whole.servers.iter().map(|server| json!(["Server", server])).collect::<Vec<_>>(),
        "Plugins": { "Volume": [], "Network": [], "Authorization": null, "Log": [] },
        "OperatingSystem": format!("Quarry on {} server{}", whole.servers.len(), if whole.servers.len() == 1 { "" } else { "s" }),
        "OSType": "linux",
        "Architecture": std::env::consts::ARCH,
        "NCPU": 0,
        "MemTotal": whole.memory,
        "Name": "quarry",
        "ServerVersion": whole.version,
        "Swarm": { "LocalNodeState": "inactive", "ControlAvailable": false },
        "MemoryLimit": true,
        "SwapLimit": true,
        "PidsLimit": true,
        "IPv4Forwarding": true,
        "SecurityOptions": [],
        "Warnings": whole.silent.iter().map(lacking).collect::<Vec<_>>(),
    })
}

/// The stack that a label in docker's own answer names.
pub fn stack_of(labels: &Value) -> Option<StackName> {
    labels[label::STACK].as_str()?.parse().ok()
}

/// The entries of an engine's list that somebody may see, each with its server.
pub fn entries(list: Value, server: &ServerName, seen: &BTreeSet<StackName>) -> Vec<Value> {
    let Value::Array(list) = list else { return Vec::new() };
    let may = list.into_iter().filter(|entry| stack_of(&entry["Labels"]).is_some_and(|stack| seen.contains(&stack)));
    may.map(|mut entry| {
        entry["Labels"][SERVER] = json!(server);
        entry
    })
    .collect()
}

/// The lists of all engines as one, the youngest first; the first `limit` of them.
pub fn joined(mut all: Vec<Value>, limit: Option<usize>) -> Vec<Value> {
    let name = |entry: &Value| entry["Names"][0].as_str().unwrap_or_default().to_owned();
    all.sort_by_cached_key(|entry| (std::cmp::Reverse(entry["Created"].as_i64().unwrap_or(0)), name(entry)));
    all.truncate(limit.unwrap_or(usize::MAX));
    all
}

/// Takes a filter of a server out of docker's: engines know nothing of it.
pub fn server_filter(filters: &mut Filters) -> Option<String> {
    let labels = filters.get_mut("label")?;
    let place = labels.iter().position(|label| label.starts_with(&format!("{SERVER}=")))?;
    let named = labels.remove(place);
    named.split_once('=').map(|(_, server)| server.to_owned())
}

/// A container's description for somebody who may change its stack, or who may only look: variables are secrets.
pub fn inspected(mut container: Value, server: &ServerName, may_change: bool) -> Value {
    container["Config"]["Labels"][SERVER] = json!(server);
    if !may_change {
        container["Config"]["Env"] = json!([]);
    }
    container
}

/// What happened, in one line, for somebody who may see these stacks; `None` when it concerns none of them.
pub fn event(line: &[u8], server: &ServerName) -> Option<(StackName, Value)> {
    let mut event: Value = serde_json::from_slice(line).ok()?;
    let stack = stack_of(&event["Actor"]["Attributes"])?;
    event["Actor"]["Attributes"][SERVER] = json!(server);
    Some((stack, event))
}

/// The images of all engines as one list, each once, for somebody who may see these stacks and has containers of these
/// images. `seen` is `None` for who may see all.
pub fn images(lists: Vec<Value>, seen: Option<(&BTreeSet<StackName>, &BTreeSet<String>)>) -> Vec<Value> {
    let mut all: BTreeMap<String, Value> = BTreeMap::new();
    for mut image in lists.into_iter().flat_map(|list| list.as_array().cloned().unwrap_or_default()) {
        let id = image["Id"].as_str().unwrap_or_default().to_owned();
        if let Some((stacks, used)) = seen {
            let tags = texts(&image["RepoTags"]);
            let of_theirs = |tag: &String| own_stack(tag).is_some_and(|stack| stacks.contains(&stack));
            if !used.contains(&id) && !tags.iter().any(of_theirs) {
                continue;
            }
            // By the names of other stacks' images nobody else may find them.
            let kept = tags.into_iter().filter(|tag| of_theirs(tag) || !tag.starts_with(BUILT));
            image["RepoTags"] = kept.collect();
            image["RepoDigests"] = json!([]);
        }
        let known = all.entry(id).or_insert_with(|| image.clone());
        let tags: BTreeSet<String> = texts(&known["RepoTags"]).into_iter().chain(texts(&image["RepoTags"])).collect();
        known["RepoTags"] = tags.into_iter().collect();
    }
    let mut all: Vec<Value> = all.into_values().collect();
    all.sort_by_cached_key(|image| std::cmp::Reverse(image["Created"].as_i64().unwrap_or(0)));
    all
}

/// The image of this id, this name, or whose id begins so.
pub fn image<'a>(reference: &str, images: &'a [Value]) -> Option<&'a Value> {
    let tagged = match reference.rsplit('/').next().is_some_and(|last| last.contains(':')) {
        true => reference.to_owned(),
        false => format!("{reference}:latest"),
    };
    let id = |image: &Value| image["Id"].as_str().unwrap_or_default().to_owned();
    let named = images.iter().find(|image| texts(&image["RepoTags"]).contains(&tagged) || id(image) == reference);
    named.or_else(|| {
        let digits = reference.trim_start_matches("sha256:");
        let begins = |image: &&Value| id(image).trim_start_matches("sha256:").starts_with(digits);
        let is_id = digits.len() >= 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        images.iter().find(begins).filter(|_| is_id)
    })
}

/// How the names of images begin that HQ has built.
const BUILT: &str = "quarry/";

/// The stack for which an image of this name was built.
fn own_stack(tag: &str) -> Option<StackName> {
    tag.strip_prefix(BUILT)?.split('/').next()?.parse().ok()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stacks(names: &[&str]) -> BTreeSet<StackName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn lists_of_several_engines_become_one_of_what_somebody_may_see() {
        let list = |names: &[(&str, &str, i64)]| -> Value {
            let entry = |(name, stack, at): &(&str, &str, i64)| json!({ "Names": [format!("/{name}")], "Created": at, "Labels": { "quarry.stack": stack } });
            names.iter().map(entry).collect()
        };
        let (s1, s2) = ("s1".parse().unwrap(), "s2".parse().unwrap());
        let mine = stacks(&["blog"]);
        let mut all = entries(list(&[("a", "blog", 1), ("x", "shop", 9)]), &s1, &mine);
        all.extend(entries(list(&[("b", "blog", 2), ("c", "blog", 1)]), &s2, &mine));
        all.extend(entries(json!({"message": "no list"}), &s2, &mine));
        let names = |list: Vec<Value>| -> Vec<String> {
            list.iter().map(|entry| format!("{}{}", entry["Labels"][SERVER], entry["Names"][0])).collect()
        };
        assert_eq!(names(joined(all.clone(), None)), [r#""s2""/b""#, r#""s1""/a""#, r#""s2""/c""#]);
        assert_eq!(joined(all, Some(1)).len(), 1);
    }

    #[test]
    fn variables_are_for_those_who_may_change_something() {
        let container = json!({ "Config": { "Env": ["A=secret"], "Labels": {} } });
        let server = "s1".parse().unwrap();
        assert!(inspected(container.clone(), &server, true).to_string().contains("secret"));
        let told = inspected(container, &server, false);
        assert!(!told.to_string().contains("secret") && told["Config"]["Labels"][SERVER] == "s1");
    }

    #[test]
    fn an_event_belongs_to_the_stack_of_its_container() {
        let server = "s1".parse().unwrap();
        let line = br#"{"Action":"die","Actor":{"Attributes":{"quarry.stack":"blog","name":"x"}}}"#;
        let (stack, told) = event(line, &server).unwrap();
        assert_eq!((stack.as_str(), &told["Actor"]["Attributes"][SERVER]), ("blog", &json!("s1")));
        assert!(event(br#"{"Action":"pull","Actor":{"Attributes":{}}}"#, &server).is_none());
        assert!(event(b"nonsense", &server).is_none());
    }

    #[test]
    fn images_are_listed_once_and_those_of_other_stacks_not_at_all() {
        let image = |id: &str, tags: &[&str]| json!({ "Id": id, "RepoTags": tags, "RepoDigests": ["d"], "Created": 1 });
        let first = json!([image("sha256:aaaa1", &["debian:12"]), image("sha256:bbbb2", &["quarry/blog/web:1-x"])]);
        let second =
            json!([image("sha256:aaaa1", &["debian:bookworm"]), image("sha256:cccc3", &["quarry/shop/web:1-y"])]);
        let lists = vec![first, second];
        let all = images(lists.clone(), None);
        assert_eq!(all.len(), 3);
        assert_eq!(texts(&super::image("aaaa1", &all).unwrap()["RepoTags"]), ["debian:12", "debian:bookworm"]);
        let used = BTreeSet::from(["sha256:cccc3".to_owned()]);
        let mine = images(lists, Some((&stacks(&["blog"]), &used)));
        let text = json!(mine).to_string();
        assert!(mine.len() == 2 && text.contains("quarry/blog/web") && !text.contains("shop"), "{text}");
        assert!(super::image("quarry/blog/web:1-x", &mine).is_some() && super::image("debian:12", &mine).is_none());
        assert!(super::image("debian", &all).is_none() && super::image("zzzz", &all).is_none());
    }

    #[test]
    fn a_server_is_named_by_a_label() {
        let mut filters: Filters = [("label".to_owned(), vec!["a=b".to_owned(), "quarry.server=s2".to_owned()])].into();
        assert_eq!(server_filter(&mut filters).as_deref(), Some("s2"));
        assert_eq!((server_filter(&mut filters), &filters["label"][..]), (None, &["a=b".to_owned()][..]));
    }
}
