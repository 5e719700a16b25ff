//! From docker's description of a container to a job.

use std::collections::BTreeSet;

use serde_json::Value;

use super::refusals::refused;
use super::trouble::Trouble;
use crate::docker::Log;
use crate::hq::jobs::Hold;
use crate::names::StackName;
use crate::stack::Command;
use crate::stack::job::{Flag, Job, parse};
use crate::units::port::Port;

/// A job that docker's client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// That.
    pub job: Job,
    /// In whose name it runs; in that of jobs as such without.
    pub stack: Option<StackName>,
    /// What whoever is attached has of it.
    pub hold: Hold,
    /// What the person is told of it, if it is made.
    pub warnings: Vec<String>,
}

/// Labels that say something to Quarry, each with the key of a job.
const LABELS: [(&str, &str); 2] = [("quarry.server", "server"), ("quarry.filter", "filter")];

/// In whose name a job runs.
const STACK: &str = "quarry.stack";

/// Reads the body of `POST /containers/create`; `drawn` is its name where it runs by itself and none is given.
///
/// Whoever attaches to none of its streams has it run by itself (`docker run -d`).
///
/// # Errors
/// All that a job cannot be, with status 400.
pub fn read(name: Option<&str>, drawn: &str, body: &Value) -> Result<Order, Trouble> {
    let mut reading = Reading { refused: refused(body), warnings: Vec::new(), flags: Vec::new() };
    let is = |key: &str| body[key] == true;
    let daemonize = !["AttachStdin", "AttachStdout", "AttachStderr"].iter().any(|key| is(key));
    reading.plain(body);
    if let Some(name) = name.or(daemonize.then_some(drawn)) {
        reading.flags.push(Flag::one("name", name));
    }
    reading.flags.push(Flag::one("daemonize", daemonize.to_string()));
    reading.restarts(&body["HostConfig"]["RestartPolicy"]["Name"], daemonize);
    if daemonize && body["HostConfig"]["AutoRemove"] == true {
        reading
            .warnings
            .push("what runs by itself is started again when it ends; docker stop ends and removes it".to_owned());
    }
    reading.ports(body);
    reading.volumes(body, name);
    let stack = reading.labels(body);
    let entrypoint = texts(&body["Entrypoint"]).filter(|_| !body["Entrypoint"].is_null());
    if daemonize && entrypoint.is_some() {
        reading.refused.push("--entrypoint is not possible with -d: an image's entrypoint stays".to_owned());
    }
    let Reading { refused, warnings, flags } = reading;
    if !refused.is_empty() {
        return Err(Trouble::bad(refused.join("; ")));
    }
    let mut job = parse("docker", "", &flags).map_err(|mistakes| Trouble::bad(mistakes.to_string()))?;
    // As they are: among the words of a command an empty one is one.
    job.node.command = texts(&body["Cmd"]).filter(|words| !words.is_empty()).map(Command::Words);
    let stack = match stack {
        Some(stack) => Some(stack.parse::<StackName>().map_err(|error| Trouble::bad(error.to_string()))?),
        None => None,
    };
    let entrypoint = entrypoint.map(|words| words.into_iter().filter(|word| !word.is_empty()).collect());
    let output = if body["HostConfig"]["AutoRemove"] == true { Log::None } else { Log::Kept };
    let hold = Hold { tty: is("Tty"), stdin: is("OpenStdin"), output, entrypoint };
    Ok(Order { job, stack, hold, warnings })
}

/// The image that is asked for and the words it gets, for those who look at what happens. Variables stay out.
pub fn shown(body: &Value) -> String {
    let image = body["Image"].as_str().unwrap_or_default();
    let words = texts(&body["Cmd"]).unwrap_or_default();
    std::iter::once(image.to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// What is known so far.
struct Reading {
    refused: Vec<String>,
    warnings: Vec<String>,
    flags: Vec<Flag>,
}

impl Reading {
    /// What a job calls nearly the same.
    fn plain(&mut self, body: &Value) {
        let text = |key: &str| body[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let number = |value: &Value| value.as_u64().filter(|number| *number > 0);
        let host = &body["HostConfig"];
        let ones = [
            ("image", text("Image")),
            ("cwd", text("WorkingDir")),
            ("size", number(&host["Memory"]).map(|bytes| format!("{}mb", bytes.div_ceil(1 << 20)))),
            ("cpus", number(&host["NanoCpus"]).map(|nanos| format!("{}", nanos as f64 / 1e9))),
            ("grace", number(&body["StopTimeout"]).map(|seconds| format!("{seconds}s"))),
        ];
        self.flags.extend(ones.into_iter().filter_map(|(key, value)| Some(Flag::one(key, value?))));
        let env = texts(&body["Env"]).filter(|values| !values.is_empty());
        self.flags.extend(env.map(|values| Flag::list("env", values)));
    }

    /// Who is attached sees the end; what runs by itself is kept up.
    fn restarts(&mut self, policy: &Value, daemonize: bool) {
        let policy = policy.as_str().unwrap_or_default();
        if !daemonize && !["", "no"].contains(&policy) {
            self.refused.push(format!("--restart {policy} is not possible for what somebody is attached to; use -d"));
        }
    }

    fn ports(&mut self, body: &Value) {
        let bindings = body["HostConfig"]["PortBindings"].as_object();
        let mut ports: BTreeSet<String> = BTreeSet::new();
        let exposed = body["ExposedPorts"].as_object().into_iter().flatten();
        for (port, binding) in exposed.chain(bindings.into_iter().flatten()) {
            match port.parse::<Port>() {
                Ok(own) => drop(ports.insert(own.to_string())),
                Err(_) => self.refused.push(format!("-p {port}: a job's ports are of TCP or UDP")),
            }
            let text = |key: &str, at: &Value| at[key].as_str().unwrap_or_default().to_owned();
            for at in binding.as_array().into_iter().flatten() {
                if !text("HostPort", at).is_empty() || !text("HostIp", at).is_empty() {
                    let advice = format!("write -p {}, and look with `docker port`", port.trim_end_matches("/tcp"));
                    self.refused.push(format!("HQ hands out the ports of its servers: {advice}"));
                }
            }
        }
        if !ports.is_empty() {
            self.flags.push(Flag::list("ports", ports.into_iter().collect()));
        }
    }

    fn volumes(&mut self, body: &Value, job: Option<&str>) {
        let mut paths: Vec<String> =
            body["Volumes"].as_object().into_iter().flatten().map(|(path, _)| path.clone()).collect();
        for bind in texts(&body["HostConfig"]["Binds"]).unwrap_or_default() {
            let mut parts = bind.splitn(3, ':');
            let (source, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            if let Some(mode) = parts.next().filter(|mode| !["rw", "z", "Z"].contains(mode)) {
                self.refused.push(format!("-v {bind}: a job's volumes have no mode `{mode}`"));
            }
            self.volume(source, target, job, &mut paths);
        }
        for mount in body["HostConfig"]["Mounts"].as_array().into_iter().flatten() {
            let text = |key: &str| mount[key].as_str().unwrap_or_default();
            match text("Type") {
                "volume" if mount["ReadOnly"] != true => self.volume(text("Source"), text("Target"), job, &mut paths),
                kind => {
                    self.refused.push(format!("--mount type={kind} is not possible: a job has volumes, by -v /path"))
                }
            }
        }
        paths.sort();
        paths.dedup();
        if !paths.is_empty() {
            self.flags.push(Flag::list("volumes", paths));
        }
    }

    /// One volume. Those of a job are its own, on its server, and are found by the job's name.
    fn volume(&mut self, source: &str, target: &str, job: Option<&str>, paths: &mut Vec<String>) {
        if source.starts_with(['/', '.', '~']) || source.contains('/') {
            let why = "no folder of a server is mounted; -v /path keeps a path of its own for each job";
            self.refused.push(format!("-v {source}:{target} is not possible: {why}"));
        } else if job.is_none() && !source.is_empty() {
            self.refused.push(format!("-v {source}:{target}: volumes are kept by job; give it a --name"));
        } else {
            if !source.is_empty() && job != Some(source) {
                let job = job.unwrap_or_default();
                self.warnings
                    .push(format!("the volume {source} is kept for the job {job}; other jobs do not share it"));
            }
            paths.push(target.to_owned());
        }
    }

    /// Labels that say something to Quarry; others are not kept.
    fn labels(&mut self, body: &Value) -> Option<String> {
        let mut stack = None;
        for (label, value) in body["Labels"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            match LABELS.iter().find(|(known, _)| known == label) {
                Some((_, "filter")) => {
                    let words = value.split([',', ' ']).filter(|word| !word.is_empty());
                    self.flags.push(Flag::list("filter", words.map(str::to_owned).collect()));
                }
                Some((_, key)) => self.flags.push(Flag::one(key, value)),
                None if label == STACK => stack = Some(value.to_owned()),
                None if label.starts_with("quarry.") => {
                    self.refused.push(format!(
                        "the label {label} is Quarry's own; there are {STACK}, quarry.server, quarry.filter"
                    ));
                }
                None => self.warnings.push(format!("the label {label} is not kept: a job has those of Quarry")),
            }
        }
        stack
    }
}

/// A list of texts, or one.
fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(values) => Some(values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()),
        Value::String(text) => Some(vec![text.clone()]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::stack::Source;

    fn order(name: Option<&str>, body: Value) -> Order {
        read(name, "drawn", &body).unwrap_or_else(|trouble| panic!("{}", trouble.message))
    }

    fn wrong(name: Option<&str>, body: Value) -> String {
        let trouble = read(name, "drawn", &body).unwrap_err();
        assert_eq!(trouble.status, 400);
        trouble.message
    }

    #[test]
    fn a_description_becomes_a_job() {
        let body = json!({
            "Image": "redis:7", "Cmd": ["redis-server", "--save", ""], "Env": ["A=1", "B=x y"], "WorkingDir": "/srv",
            "ExposedPorts": {"6379/tcp": {}}, "Volumes": {"/var": {}}, "StopTimeout": 30,
            "Labels": {"quarry.stack": "blog", "quarry.server": "s1", "quarry.filter": "ssd,!eu", "mine": "x"},
            "HostConfig": {"Memory": 268_435_456, "NanoCpus": 1_500_000_000, "Binds": ["data:/data:rw"],
                "PortBindings": {"6379/tcp": [{"HostIp": "", "HostPort": ""}]}, "RestartPolicy": {"Name": "always"}},
        });
        let Order { job, stack, warnings, .. } = order(Some("cache"), body);
        assert_eq!((job.name.unwrap().as_str(), stack.unwrap().as_str(), job.daemonize), ("cache", "blog", true));
        assert_eq!(job.server, Some("s1".parse().unwrap()));
        assert_eq!(job.node.source, Source::Image("redis:7".into()));
        let words = ["redis-server", "--save", ""].map(str::to_owned).to_vec();
        assert_eq!(job.node.command, Some(Command::Words(words)));
        assert_eq!((job.node.cwd.as_deref(), &job.node.expose[..]), (Some("/srv"), &[Port::tcp(6379)][..]));
        assert_eq!((job.node.size, job.node.cpus), ("256mb".parse().ok(), "1.5".parse().ok()));
        assert_eq!(job.node.grace, "30s".parse().unwrap());
        let volumes: Vec<&str> = job.node.volumes.iter().map(|path| path.as_str()).collect();
        assert_eq!(volumes, ["/data", "/var"]);
        assert_eq!(job.node.env.pairs(), ["A=1", "B=x y"]);
        assert!(warnings.len() == 2 && warnings.iter().any(|told| told.contains("label mine")), "{warnings:?}");
    }

    #[test]
    fn whoever_attaches_to_nothing_has_it_run_by_itself() {
        let attached = order(None, json!({"Image": "a", "AttachStdout": true, "OpenStdin": true, "Tty": true}));
        assert!(!attached.job.daemonize && attached.job.name.is_none());
        assert_eq!(attached.hold, Hold { tty: true, stdin: true, output: Log::Kept, entrypoint: None });
        let alone = order(None, json!({"Image": "a", "HostConfig": {"AutoRemove": true}}));
        assert!(alone.job.daemonize && alone.warnings.len() == 1, "{:?}", alone.warnings);
        assert_eq!(alone.job.name.unwrap().as_str(), "drawn");
        let ports = json!({"Image": "a", "AttachStdout": true, "ExposedPorts": {"80/tcp": {}}});
        assert!(!order(None, ports).job.daemonize, "it has ports, and somebody is attached all the same");
    }

    #[test]
    fn other_words_take_the_entrypoint_s_place_where_somebody_is_attached() {
        let body =
            |attached: bool| json!({"Image": "a", "AttachStdout": attached, "Entrypoint": ["sh"], "Cmd": ["-c"]});
        assert_eq!(order(None, body(true)).hold.entrypoint, Some(vec!["sh".to_owned()]));
        assert!(wrong(Some("x"), body(false)).contains("--entrypoint"));
        let cleared = json!({"Image": "a", "AttachStdout": true, "Entrypoint": [""]});
        assert_eq!(order(None, cleared).hold.entrypoint, Some(Vec::new()));
    }

    #[test]
    fn nothing_of_a_server_gets_inside_and_every_mistake_is_told_at_once() {
        let body = json!({"Image": "a", "HostConfig": {"Binds": ["/:/host", "x:/a:ro", "data:/data"], "Privileged": true,
            "Mounts": [{"Type": "bind", "Source": "/", "Target": "/b"}, {"Type": "tmpfs", "Target": "/t"}]}});
        let told = wrong(None, body);
        for part in [
            "--privileged",
            "-v /:/host is not possible",
            "no mode `ro`",
            "give it a --name",
            "type=bind",
            "type=tmpfs",
        ] {
            assert!(told.contains(part), "{part} in {told}");
        }
        for source in ["/etc", "./x", "~/x", "../x", "a/b"] {
            let body = json!({"Image": "a", "HostConfig": {"Binds": [format!("{source}:/x")]}});
            assert!(wrong(Some("x"), body).contains("no folder of a server"), "{source}");
        }
    }

    #[test]
    fn ports_of_servers_and_labels_of_quarry_s_own_are_not_for_sale() {
        let ports =
            |port: &str, at: &str| json!({"Image": "a", "HostConfig": {"PortBindings": {port: [{"HostPort": at}]}}});
        assert!(wrong(None, ports("80/tcp", "8080")).contains("write -p 80"));
        assert!(wrong(None, ports("53/sctp", "")).contains("UDP"));
        let label = json!({"Image": "a", "Labels": {"quarry.hq": "x"}});
        assert!(wrong(None, label).contains("quarry.hq is Quarry's own"));
        assert!(wrong(Some("Not_A-Name-"), json!({"Image": "a"})).contains("node name"));
    }
}
