//! Every endpoint, and the command it is.

use serde_json::{Map, Value};

use super::endpoints::{Answer, Asked, Becomes, Body, Endpoint, Kind, Method, Order, Parameter, Wrong};
use crate::names::{NodeName, StackName};

/// Most containers of one node, as `scale` has it.
const MOST: u64 = 100;

/// Longest name of a branch, a tag or a commit, in characters.
const LONGEST_REFERENCE: usize = 250;

const VIEW: &str = "view on the stack";
const DEPLOY: &str = "deploy on the stack";
const ADMIN: &str = "admin on the stack";
const OPERATOR: &str = "operator";
const TOKEN: &str = "any token; shown is what its user may see";

const LINES: Parameter =
    Parameter { name: "lines", kind: Kind::Count(0, 10_000), what: "The last lines to begin with; 100 without" };
const FOLLOW: Parameter = Parameter { name: "follow", kind: Kind::Flag, what: "Go on with what comes" };
const TIMESTAMPS: Parameter = Parameter { name: "timestamps", kind: Kind::Flag, what: "The time before each line" };
const NODE: Parameter = Parameter { name: "node", kind: Kind::Node, what: "Of one node alone" };
const STACK: Parameter = Parameter { name: "stack", kind: Kind::Stack, what: "Of one stack alone" };
const JOB_STACK: Parameter = Parameter { name: "stack", kind: Kind::Stack, what: "Whose job it is; `jobs` without" };
const RESTART: Parameter =
    Parameter { name: "restart", kind: Kind::Unless, what: "false keeps the change for the next release" };
const REPLACE: Parameter = Parameter { name: "replace", kind: Kind::Flag, what: "Take all other variables away" };

/// Something that is looked at.
const fn get(
    path: &'static str,
    summary: &'static str,
    right: &'static str,
    answer: Answer,
    order: Becomes,
) -> Endpoint {
    Endpoint { order: Some(order), ..plain(Method::Get, path, summary, right, answer) }
}

const fn plain(
    method: Method,
    path: &'static str,
    summary: &'static str,
    right: &'static str,
    answer: Answer,
) -> Endpoint {
    Endpoint { method, path, summary, right, parameters: &[], body: Body::None, answer, order: None }
}

/// All of them.
pub(super) const ENDPOINTS: &[Endpoint] = &[
    plain(Method::Get, "/v1/ping", "Whether HQ is there", "nobody needs a token for this", Answer::Pong),
    plain(Method::Get, "/v1/openapi.json", "This description", TOKEN, Answer::Document),
    get("/v1/info", "Which quarry HQ is", TOKEN, Answer::Value("Info"), |_| json(&["version"])),
    get("/v1/network", "How each server stands", OPERATOR, Answer::List("Network", &["server"]), |_| {
        json(&["network", "show"])
    }),
    get("/v1/servers", "All servers", OPERATOR, Answer::List("Server", &["name"]), |_| json(&["servers", "list"])),
    get("/v1/servers/{server}", "One server", OPERATOR, Answer::Value("Server"), |asked| {
        json(&["servers", "show", asked.named("server")])
    }),
    get("/v1/grid", "The servers' memory and what takes it", OPERATOR, Answer::Value("Grid"), |_| {
        json(&["grid", "show"])
    }),
    get("/v1/stacks", "All stacks", TOKEN, Answer::List("Stack", &["stack"]), |_| json(&["stacks", "list"])),
    get("/v1/stacks/{stack}", "One stack", VIEW, Answer::Value("Stack"), |asked| {
        json(&["stacks", "show", asked.named("stack")])
    }),
    get("/v1/stacks/{stack}/nodes", "How many containers of each node should run", VIEW, NODES, |asked| {
        json(&["scale", asked.named("stack")])
    }),
    get("/v1/stacks/{stack}/containers", "What runs of a stack", VIEW, CONTAINERS, |asked| {
        json(&["ps", asked.named("stack")])
    }),
    get("/v1/stacks/{stack}/releases", "The kept releases, newest first", VIEW, RELEASES, |asked| {
        json(&["releases", asked.named("stack")])
    }),
    get("/v1/containers", "What runs", TOKEN, CONTAINERS, |_| json(&["ps"])),
    Endpoint {
        parameters: &[FOLLOW, LINES, TIMESTAMPS, NODE],
        ..get("/v1/stacks/{stack}/logs", "What a stack's containers print", VIEW, Answer::Lines, logs)
    },
    Endpoint {
        parameters: &[STACK],
        ..get("/v1/jobs", "All jobs", TOKEN, Answer::List("Job", &["stack", "job"]), |asked| {
            let stack = asked.query.get("stack").map(String::as_str);
            json(&["jobs", "list"].into_iter().chain(stack).collect::<Vec<_>>())
        })
    },
    Endpoint {
        parameters: &[JOB_STACK],
        ..get("/v1/jobs/{job}", "What a job that is kept up is", VIEW, Answer::Value("Proc"), |asked| {
            json(&["jobs", "show", &asked.job()])
        })
    },
    Endpoint {
        parameters: &[JOB_STACK],
        ..get("/v1/jobs/{job}/runs", "A job's last runs, the oldest first", VIEW, RUNS, |asked| {
            json(&["jobs", "history", &asked.job()])
        })
    },
    Endpoint {
        parameters: &[FOLLOW, LINES, JOB_STACK],
        ..get("/v1/jobs/{job}/logs", "What a job prints", VIEW, Answer::Lines, job_logs)
    },
    Endpoint {
        parameters: &[STACK, LINES, FOLLOW],
        ..get("/v1/events", "What people have done; a stream for `Accept: text/event-stream`", TOKEN, EVENTS, events)
    },
    get("/v1/metrics", "What HQ counts, for Prometheus", TOKEN, Answer::Metrics, |_| Ok(Order::of(&["metrics"]))),
    get("/metrics", "The same", TOKEN, Answer::Metrics, |_| Ok(Order::of(&["metrics"]))),
    Endpoint {
        body: Body::Required("NewStack"),
        order: Some(create),
        ..plain(Method::Post, "/v1/stacks", "Make a stack before its first push", TOKEN, Answer::Made)
    },
    Endpoint {
        order: Some(|asked| {
            let stack = asked.named("stack");
            Ok(Order::of(&["destroy", stack, "--confirm", stack]))
        }),
        ..plain(Method::Delete, "/v1/stacks/{stack}", "Destroy a stack with all it has", ADMIN, Answer::Done)
    },
    Endpoint {
        body: Body::Optional("Deploy"),
        order: Some(deploy),
        ..plain(Method::Post, "/v1/stacks/{stack}/deploy", "Deploy what was pushed before", DEPLOY, Answer::Done)
    },
    Endpoint {
        body: Body::Required("Counts"),
        order: Some(scale),
        ..plain(Method::Post, "/v1/stacks/{stack}/scale", "Set how many containers run", DEPLOY, Answer::Done)
    },
    Endpoint {
        body: Body::Optional("Restart"),
        order: Some(restart),
        ..plain(Method::Post, "/v1/stacks/{stack}/restart", "Replace containers by new ones", DEPLOY, Answer::Done)
    },
    Endpoint {
        body: Body::Optional("Rollback"),
        order: Some(rollback),
        ..plain(Method::Post, "/v1/stacks/{stack}/rollback", "Bring a kept release back", DEPLOY, Answer::Done)
    },
    get("/v1/stacks/{stack}/env", "The variables of a stack", DEPLOY, Answer::Value("Env"), |asked| {
        json(&["env", "list", asked.named("stack")])
    }),
    Endpoint {
        parameters: &[RESTART, REPLACE],
        body: Body::Required("NewEnv"),
        order: Some(set_env),
        ..plain(Method::Put, "/v1/stacks/{stack}/env", "Set variables and launch with them", DEPLOY, Answer::Done)
    },
    Endpoint {
        parameters: &[RESTART],
        body: Body::Required("Variable"),
        order: Some(set_variable),
        ..plain(Method::Put, "/v1/stacks/{stack}/env/{variable}", "Set one variable", DEPLOY, Answer::Done)
    },
    Endpoint {
        parameters: &[RESTART],
        order: Some(unset_variable),
        ..plain(Method::Delete, "/v1/stacks/{stack}/env/{variable}", "Take a variable away", DEPLOY, Answer::Done)
    },
    Endpoint {
        parameters: &[JOB_STACK],
        body: Body::Required("NewJob"),
        order: Some(run_job),
        ..plain(Method::Post, "/v1/jobs", "Run a job that is kept up by itself", DEPLOY, Answer::Made)
    },
    Endpoint {
        parameters: &[JOB_STACK],
        order: Some(|asked| Ok(Order::of(&["jobs", "kill", &asked.job()]))),
        ..plain(Method::Delete, "/v1/jobs/{job}", "End a job", DEPLOY, Answer::Done)
    },
];

const NODES: Answer = Answer::List("Node", &["node"]);
const CONTAINERS: Answer = Answer::List("Container", &["container"]);
const RELEASES: Answer = Answer::List("Release", &["number"]);
const RUNS: Answer = Answer::List("Run", &["run"]);
const EVENTS: Answer = Answer::Events("Event");

impl Order {
    fn of(words: &[&str]) -> Self {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Self { words, input: Vec::new(), makes: None }
    }

    fn and(mut self, words: &[&str]) -> Self {
        self.words.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }
}

/// A command whose output is JSON.
fn json(words: &[&str]) -> Result<Order, Wrong> {
    Ok(Order::of(&["--json"]).and(words))
}

impl Asked {
    /// What stands for a placeholder of the path.
    fn named(&self, name: &str) -> &str {
        self.path.get(name).map_or("", String::as_str)
    }

    fn has(&self, flag: &str) -> bool {
        self.query.get(flag).is_some_and(|value| value == "true")
    }

    fn has_not(&self, flag: &str) -> bool {
        self.query.get(flag).is_some_and(|value| value == "false")
    }

    /// A job by its stack and name.
    fn job(&self) -> String {
        match self.query.get("stack") {
            Some(stack) => format!("{stack}/{}", self.named("job")),
            None => self.named("job").to_owned(),
        }
    }

    fn lines<'a>(&'a self, usual: &'a str) -> &'a str {
        self.query.get("lines").map_or(usual, String::as_str)
    }

    /// Refuses keys of the body that mean nothing.
    fn only(&self, known: &[&str]) -> Result<(), Wrong> {
        match self.body.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => {
                let known = known.join("`, `");
                Err(Wrong::Body(format!("`{}` means nothing here; known is `{known}`", key.escape_debug())))
            }
            None => Ok(()),
        }
    }

    /// A text of the body.
    fn text(&self, key: &str) -> Result<Option<&str>, Wrong> {
        match self.body.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Wrong::Body(format!("`{key}` is a text"))),
        }
    }
}

fn checked<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Wrong> {
    text.parse().map_err(|error: T::Err| Wrong::Body(error.to_string()))
}

/// A number without a fraction; to JSON 2.0 is one, too.
fn whole(value: &Value) -> Option<u64> {
    let exact = |number: f64| number.fract() == 0.0 && (0.0..=9e15).contains(&number);
    value.as_u64().or_else(|| value.as_f64().filter(|number| exact(*number)).map(|number| number as u64))
}

fn logs(asked: &Asked) -> Result<Order, Wrong> {
    let stack = asked.named("stack");
    let target = asked.query.get("node").map_or_else(|| stack.to_owned(), |node| format!("{stack}/{node}"));
    let order = Order::of(&["logs", &target, "-n", asked.lines("100")]);
    let order = if asked.has("follow") { order.and(&["--follow"]) } else { order };
    Ok(if asked.has("timestamps") { order.and(&["--timestamps"]) } else { order })
}

fn job_logs(asked: &Asked) -> Result<Order, Wrong> {
    let order = Order::of(&["jobs", "logs", &asked.job(), "-n", asked.lines("100")]);
    Ok(if asked.has("follow") { order.and(&["--follow"]) } else { order })
}

fn events(asked: &Asked) -> Result<Order, Wrong> {
    let stack = asked.query.get("stack").map(String::as_str);
    let order = Order::of(&["--json", "events", "-n", asked.lines("100")]).and(stack.as_slice());
    Ok(if asked.has("follow") { order.and(&["--follow"]) } else { order })
}

fn create(asked: &Asked) -> Result<Order, Wrong> {
    asked.only(&["name"])?;
    let name = asked.text("name")?.ok_or_else(|| Wrong::Body("`name` is missing".to_owned()))?;
    let name: StackName = checked(name)?;
    let order = Order::of(&["stacks", "create", name.as_str()]);
    Ok(Order { makes: Some(format!("/v1/stacks/{name}")), ..order })
}

fn deploy(asked: &Asked) -> Result<Order, Wrong> {
    asked.only(&["ref"])?;
    let reference = asked.text("ref")?;
    if let Some(reference) = reference {
        let plain = |c: char| !c.is_control() && !c.is_whitespace();
        let good = (1..=LONGEST_REFERENCE).contains(&reference.chars().count()) && reference.chars().all(plain);
        if !good || reference.starts_with('-') {
            return Err(Wrong::Body("`ref` is a branch, a tag, or the first digits of a commit's id".to_owned()));
        }
    }
    // Behind this nothing is an option.
    Ok(Order::of(&["deploy", "--", asked.named("stack")]).and(reference.as_slice()))
}

fn scale(asked: &Asked) -> Result<Order, Wrong> {
    if asked.body.is_empty() {
        return Err(Wrong::Body("name nodes with how many containers of each shall run: {\"web\": 2}".to_owned()));
    }
    let pair = |(node, count): (&String, &Value)| {
        let node: NodeName = checked(node)?;
        let count = whole(count).filter(|count| *count <= MOST);
        let count = count.ok_or_else(|| Wrong::Body(format!("`{node}` is a number of containers from 0 to {MOST}")))?;
        Ok(format!("{node}={count}"))
    };
    let pairs: Vec<String> = asked.body.iter().map(pair).collect::<Result<_, Wrong>>()?;
    let pairs: Vec<&str> = pairs.iter().map(String::as_str).collect();
    Ok(Order::of(&["scale", asked.named("stack")]).and(&pairs))
}

fn restart(asked: &Asked) -> Result<Order, Wrong> {
    asked.only(&["node"])?;
    let stack = asked.named("stack");
    let node: Option<NodeName> = asked.text("node")?.map(checked).transpose()?;
    Ok(Order::of(&["restart", &node.map_or_else(|| stack.to_owned(), |node| format!("{stack}/{node}"))]))
}

fn rollback(asked: &Asked) -> Result<Order, Wrong> {
    asked.only(&["release"])?;
    let number = match asked.body.get("release") {
        None | Some(Value::Null) => None,
        Some(value) => {
            let number = whole(value).filter(|number| *number > 0);
            Some(number.ok_or_else(|| Wrong::Body("`release` is the number of a release".to_owned()))?.to_string())
        }
    };
    Ok(Order::of(&["rollback", asked.named("stack")]).and(number.as_deref().as_slice()))
}

/// Values go in by standard input, which no list of processes and no event shows.
fn set_env(asked: &Asked) -> Result<Order, Wrong> {
    let order = import(asked, &asked.body)?;
    Ok(if asked.has("replace") { order.and(&["--replace"]) } else { order })
}

fn set_variable(asked: &Asked) -> Result<Order, Wrong> {
    asked.only(&["value"])?;
    let value = asked.text("value")?.ok_or_else(|| Wrong::Body("`value` is missing".to_owned()))?;
    let pair = (asked.named("variable").to_owned(), Value::from(value));
    import(asked, &Map::from_iter([pair]))
}

fn import(asked: &Asked, values: &Map<String, Value>) -> Result<Order, Wrong> {
    if let Some((name, _)) = values.iter().find(|(_, value)| !value.is_string()) {
        return Err(Wrong::Body(format!("the value of `{}` is no text", name.escape_debug())));
    }
    let order = Order::of(&["env", "import", asked.named("stack")]);
    let order = if asked.has_not("restart") { order.and(&["--no-restart"]) } else { order };
    Ok(Order { input: serde_json::to_vec(values).expect("texts by name serialise"), ..order })
}

fn unset_variable(asked: &Asked) -> Result<Order, Wrong> {
    let order = Order::of(&["env", "unset", asked.named("stack"), asked.named("variable")]);
    Ok(if asked.has_not("restart") { order.and(&["--no-restart"]) } else { order })
}

fn run_job(asked: &Asked) -> Result<Order, Wrong> {
    let name = asked.text("name")?.ok_or_else(|| Wrong::Body("`name` is missing".to_owned()))?;
    let name: NodeName = checked(name)?;
    let own = asked.text("stack")?.map(checked::<StackName>).transpose()?.map(|stack| stack.to_string());
    let named = asked.query.get("stack");
    let order = named.map_or_else(|| Order::of(&[]), |stack| Order::of(&["--stack", stack]));
    let order = order.and(&["jobs", "run", "--daemonize", "-"]);
    let stack = own.or_else(|| named.cloned()).map_or_else(String::new, |stack| format!("?stack={stack}"));
    let input = serde_json::to_vec(&asked.body).expect("JSON that was read is written again");
    Ok(Order { input, makes: Some(format!("/v1/jobs/{name}{stack}")), ..order })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::endpoints::{Found, find};
    use crate::api::query;

    /// The words and the input that a request becomes.
    fn ordered(method: &str, path: &str, body: &str) -> Result<(String, String), Wrong> {
        let (path, text) = path.split_once('?').unwrap_or((path, ""));
        let Found::Endpoint(endpoint, named) = find(method, path) else { panic!("{method} {path} is no endpoint") };
        let body = if body.is_empty() { Map::new() } else { serde_json::from_str(body).unwrap() };
        let asked = Asked { path: named, query: query::read(endpoint, text)?, body };
        let order = endpoint.order.unwrap()(&asked)?;
        Ok((order.words.join(" "), String::from_utf8(order.input).unwrap()))
    }

    #[test]
    fn every_endpoint_is_a_command() {
        let check = |method: &str, path: &str, body: &str, expected: &str| {
            assert_eq!(ordered(method, path, body).map(|order| order.0).as_deref(), Ok(expected), "{method} {path}");
        };
        check("GET", "/v1/stacks/blog", "", "--json stacks show blog");
        check("GET", "/v1/servers/s1", "", "--json servers show s1");
        check("GET", "/v1/stacks/blog/logs", "", "logs blog -n 100");
        check("GET", "/v1/stacks/blog/logs?node=web&follow=true&lines=0", "", "logs blog/web -n 0 --follow");
        check("GET", "/v1/events?stack=blog&follow=true", "", "--json events -n 100 blog --follow");
        check("GET", "/v1/jobs/cache?stack=blog", "", "--json jobs show blog/cache");
        check("POST", "/v1/stacks", r#"{"name":"blog"}"#, "stacks create blog");
        check("DELETE", "/v1/stacks/blog", "", "destroy blog --confirm blog");
        check("POST", "/v1/stacks/blog/deploy", "", "deploy -- blog");
        check("POST", "/v1/stacks/blog/deploy", r#"{"ref":"v1/x"}"#, "deploy -- blog v1/x");
        check("POST", "/v1/stacks/blog/scale", r#"{"web":2,"w_1":0}"#, "scale blog w_1=0 web=2");
        check("POST", "/v1/stacks/blog/restart", r#"{"node":"web"}"#, "restart blog/web");
        check("POST", "/v1/stacks/blog/rollback", r#"{"release":3}"#, "rollback blog 3");
        check("POST", "/v1/stacks/blog/rollback", "", "rollback blog");
        check("POST", "/v1/stacks/blog/rollback", r#"{"release":2.0}"#, "rollback blog 2");
        check("DELETE", "/v1/stacks/blog/env/A?restart=false", "", "env unset blog A --no-restart");
        check("DELETE", "/v1/jobs/cache", "", "jobs kill cache");
        check("POST", "/v1/jobs?stack=blog", r#"{"name":"c","image":"x"}"#, "--stack blog jobs run --daemonize -");
    }

    #[test]
    fn values_of_variables_are_input_and_no_words() {
        let check = |path: &str, body: &str, words: &str, input: &str| {
            assert_eq!(ordered("PUT", path, body), Ok((words.to_owned(), input.to_owned())), "{path}");
        };
        let all = "/v1/stacks/blog/env?restart=false&replace=true";
        check(all, r#"{"A":"hush"}"#, "env import blog --no-restart --replace", r#"{"A":"hush"}"#);
        check("/v1/stacks/blog/env/B", r#"{"value":"a\nb"}"#, "env import blog", r#"{"B":"a\nb"}"#);
        for wrong in [r#"{"A":1}"#, r#"{"A":null}"#] {
            assert!(matches!(ordered("PUT", "/v1/stacks/blog/env", wrong), Err(Wrong::Body(_))), "{wrong}");
        }
    }

    #[test]
    fn nothing_in_a_body_becomes_an_option() {
        for (path, body) in [
            ("/v1/stacks", r#"{"name":"--force"}"#),
            ("/v1/stacks", r#"{"name":7}"#),
            ("/v1/stacks", r#"{"name":"blog","owner":"eve"}"#),
            ("/v1/stacks", "{}"),
            ("/v1/stacks/blog/deploy", r#"{"ref":"--json"}"#),
            ("/v1/stacks/blog/deploy", r#"{"ref":"a b"}"#),
            ("/v1/stacks/blog/deploy", r#"{"ref":""}"#),
            ("/v1/stacks/blog/scale", r#"{"--dry-run":1}"#),
            ("/v1/stacks/blog/scale", r#"{"web":-1}"#),
            ("/v1/stacks/blog/scale", r#"{"web":"2"}"#),
            ("/v1/stacks/blog/scale", r#"{"web":1.5}"#),
            ("/v1/stacks/blog/scale", r#"{"web":1e300}"#),
            ("/v1/stacks/blog/scale", "{}"),
            ("/v1/stacks/blog/restart", r#"{"node":"a/b"}"#),
            ("/v1/stacks/blog/rollback", r#"{"release":"-1"}"#),
            ("/v1/jobs", r#"{"name":"-x","image":"x"}"#),
            ("/v1/jobs", r#"{"image":"x"}"#),
            ("/v1/jobs", r#"{"name":"a","stack":"../b"}"#),
        ] {
            assert!(matches!(ordered("POST", path, body), Err(Wrong::Body(_))), "{path} {body}");
        }
    }
}
