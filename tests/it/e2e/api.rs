//! The HTTP api: what people do over SSH, for programs.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::servers::{fleet, listed};
use super::with_app;
use crate::harness::lab::Lab;
use crate::harness::{Hq, Running, docker, until};

mod schema;

const IMAGE: &str = "debian:bookworm-slim";

/// A program with a token, or without one.
struct Client {
    address: SocketAddr,
    token: Option<String>,
}

/// What it is answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The answer, which must have this status.
    #[track_caller]
    fn with(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        if status >= 400 {
            let error = &self.json()["error"];
            let id = error["request_id"].as_str();
            assert_eq!(id, self.headers.get("x-request-id").map(String::as_str), "{self:?}");
            assert!(error["code"].is_string() && error["message"] != "", "{self:?}");
        }
        self
    }

    /// The message of an error, which must hold this.
    #[track_caller]
    fn said(&self, text: &str) {
        let message = self.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains(text), "`{text}` is not in {self:?}");
    }
}

impl Client {
    fn of(hq: &Hq, token: &str) -> Self {
        Self { address: hq.api, token: Some(token.to_owned()) }
    }

    fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", "")
    }

    fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, "", &body.to_string())
    }

    /// One request over a connection of its own; HTTP/1.0, so that the answer ends with it.
    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        let token = self.token.as_ref().map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.0\r\nHost: hq\r\n{token}{headers}Content-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        // Whoever is refused for the length of a body may hear so before it is written.
        let _ = stream.write_all(body.as_bytes());
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        let (head, text) =
            text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {path}: no answer: {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_ascii_lowercase(), value.to_owned()))
        };
        Answer { status, headers: head.lines().filter_map(header).collect(), text: text.to_owned() }
    }

    /// A stream, as curl shows it.
    fn follow(&self, path: &str, headers: &[&str]) -> Running {
        let mut command = Command::new("curl");
        command.args(["-sSN", "--max-time", "120", "-H"]);
        command.arg(format!("Authorization: Bearer {}", self.token.as_deref().unwrap_or_default()));
        for header in headers {
            command.args(["-H", header]);
        }
        Running::start(command.arg(format!("http://{}{path}", self.address)))
    }
}

/// A token of ada's.
fn token(hq: &Hq, name: &str) -> String {
    hq.by_ssh(&["tokens", "add", name]).succeeded().text().trim().to_owned()
}

#[test]
fn a_token_opens_the_api_with_the_rights_of_its_user() {
    let (hq, _repository) = with_app(&[]);
    let nobody = Client { address: hq.api, token: None };
    let pong = nobody.get("/v1/ping").with(200);
    assert_eq!(pong.json()["pong"], json!(true));
    assert!(pong.headers["x-request-id"].len() >= 8, "{pong:?}");
    let named = nobody.send("GET", "/v1/stacks", "X-Request-Id: mine-1\r\n", "").with(401);
    assert_eq!((named.headers["x-request-id"].as_str(), &named.headers["www-authenticate"][..6]), ("mine-1", "Bearer"));
    nobody.get("/v1/nothing").with(401).said("Authorization: Bearer");
    nobody.get("/v1/openapi.json").with(401);

    hq.quarry(&["tokens", "add", "ci"]).ended(2).said(&["--user USER"]);
    let secret = token(&hq, "ci");
    assert!(secret.starts_with("qry_") && secret.len() == 68, "{secret}");
    hq.by_ssh(&["tokens", "add", "ci"]).ended(3).said(&["ada has a token `ci` already"]);
    let kept = std::fs::read_to_string(hq.root().join("tokens/ada/ci.json")).unwrap();
    assert!(!kept.contains(&secret[4..]) && !hq.log().contains(&secret[4..]), "{kept}");
    let ada = Client::of(&hq, &secret);
    until("HQ to know the token", || (ada.get("/v1/info").status == 200).then_some(()));
    assert_eq!(ada.get("/v1/stacks").with(200).json(), hq.by_ssh(&["stacks", "--json"]).succeeded().json());
    ada.get("/v1/servers/hq").with(200);

    // Somebody else sees what they see over SSH: nothing, and no difference from what there is not.
    let eve = hq.person("eve");
    eve.run(&["tokens", "add", "x", "--user", "ada"]).ended(3).said(&["only operators"]);
    eve.run(&["tokens", "remove", "ci", "--user", "ada"]).ended(3);
    assert!(!eve.run(&["tokens"]).succeeded().text().contains("ada"));
    let secret = eve.run(&["tokens", "add", "mine", "--expires", "1h"]).succeeded().text();
    let stranger = Client::of(&hq, secret.trim());
    until("HQ to know the token", || (stranger.get("/v1/info").status == 200).then_some(()));
    assert_eq!(stranger.get("/v1/stacks").with(200).json(), json!([]));
    for (method, path, body) in [
        ("GET", "/v1/stacks/STACK", ""),
        ("GET", "/v1/stacks/STACK/logs", ""),
        ("GET", "/v1/stacks/STACK/env", ""),
        ("POST", "/v1/stacks/STACK/scale", "{\"web\": 0}"),
        ("PUT", "/v1/stacks/STACK/env", "{\"A\": \"1\"}"),
        ("DELETE", "/v1/stacks/STACK", ""),
    ] {
        let told = |stack: &str| {
            let answer = stranger.send(method, &path.replace("STACK", stack), "", body).with(404);
            answer.json()["error"]["message"].as_str().unwrap().replace(stack, "STACK")
        };
        assert_eq!(told("blog"), told("nothing"), "{method} {path}");
    }
    for path in ["/v1/servers", "/v1/servers/hq", "/v1/grid", "/v1/network"] {
        stranger.get(path).with(403).said("only operators may do that");
    }
    let metrics = stranger.get("/metrics").with(200).text;
    assert!(
        metrics.contains("quarry_up 1\n") && !metrics.contains("blog") && !metrics.contains("quarry_server"),
        "{metrics}"
    );
    hq.by_ssh(&["rights", "grant", "eve", "blog", "view"]).succeeded();
    stranger.get("/v1/stacks/blog").with(200);
    stranger.post("/v1/stacks/blog/scale", &json!({"web": 0})).with(403).said("may only view `blog`");
    assert_eq!(hq.page("blog.localhost", "/").lines().count(), 1);

    // A key that goes takes no token with it, and says so.
    hq.quarry(&["keys", "remove", "eve"]).succeeded().said(&["eve still has tokens of the api (1)"]);

    // What has ended opens nothing, and neither does what was taken away.
    let path = hq.root().join("tokens/eve/mine.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut record: Value = serde_json::from_str(&text).unwrap();
    record["expires"] = json!("2020-01-01T00:00:00Z");
    std::fs::write(&path, record.to_string()).unwrap();
    until("the end of a token", || (stranger.get("/v1/info").status == 401).then_some(()));
    hq.quarry(&["tokens", "remove", "ci", "--user", "ada"]).succeeded();
    until("the token to open nothing", || (ada.get("/v1/info").status == 401).then_some(()));
    ada.get("/v1/stacks").with(401).said("opens nothing");
}

#[test]
fn what_is_wrong_with_a_request_is_said_as_json() {
    let hq = Hq::start();
    let ada = Client::of(&hq, &token(&hq, "ci"));
    until("HQ to know the token", || (ada.get("/v1/info").status == 200).then_some(()));
    ada.get("/v1/nothing").with(404).said("openapi.json");
    ada.get("/v1/stacks/Blog").with(400).said("not a stack name");
    ada.get("/v1/stacks/--force").with(400).said("not a stack name");
    ada.get("/v1/stacks?first=1").with(400).said("there are: limit, after");
    ada.get("/v1/stacks?limit=0").with(400).said("from 1 to 1000");
    ada.get("/v1/stacks?after=nothing").with(404).said("begin again");
    let refused = ada.send("PATCH", "/v1/stacks", "", "").with(405);
    assert_eq!(refused.headers["allow"], "GET, POST");
    ada.send("POST", "/v1/stacks", "", "").with(400).said("the body is missing");
    ada.send("POST", "/v1/stacks", "", "{name").with(400).said("no JSON");
    ada.post("/v1/stacks", &json!({"nome": "blog"})).with(422).said("`nome` means nothing here");
    ada.post("/v1/stacks", &json!({"name": "-blog"})).with(422).said("not a stack name");
    ada.post("/v1/stacks", &json!({"name": "x".repeat(2 << 20)})).with(413).said("longer than");
    ada.get("/v1/stacks/blog").with(404).said("there is no stack `blog`");
    ada.get("/v1/servers/s9").with(404).said("there is no server `s9`");
    ada.get("/v1/jobs/none").with(404);
    ada.post("/v1/jobs", &json!({"name": "a", "image": IMAGE, "imag": "x"})).with(422).said("unknown key");
    let head = ada.send("HEAD", "/v1/stacks", "", "");
    assert_eq!((head.status, head.text.as_str()), (200, ""));

    // Pages together are the list.
    for name in ["one", "two", "three", "four", "five"] {
        let made = ada.post("/v1/stacks", &json!({ "name": name })).with(201);
        assert_eq!(made.headers["location"], format!("/v1/stacks/{name}"));
    }
    ada.post("/v1/stacks", &json!({"name": "one"})).with(409).said("exists already");
    let (mut rows, mut path) = (Vec::new(), "/v1/stacks?limit=2".to_owned());
    loop {
        let page = ada.get(&path).with(200);
        let Value::Array(more) = page.json() else { panic!("{page:?}") };
        assert!(!more.is_empty() && more.len() <= 2, "{page:?}");
        rows.extend(more);
        let Some(link) = page.headers.get("link") else { break };
        path = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")).unwrap().to_owned();
    }
    assert_eq!(Value::Array(rows), hq.by_ssh(&["stacks", "--json"]).succeeded().json());

    // Who guesses is slowed, who knows is not.
    let guesses: Vec<_> = (0..120)
        .map(|number| {
            let guess = Client::of(&hq, &format!("qry_{number:064x}"));
            std::thread::spawn(move || guess.get("/v1/stacks").status)
        })
        .collect();
    let began = Instant::now();
    ada.get("/v1/stacks").with(200);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let statuses: Vec<u16> = guesses.into_iter().map(|guess| guess.join().unwrap()).collect();
    assert!(statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&429) && statuses.contains(&401), "{statuses:?}");
}

#[test]
fn what_is_done_over_the_api_is_done_as_by_command() {
    let (hq, _repository) = with_app(&[]);
    let ada = Client::of(&hq, &token(&hq, "ci"));
    until("HQ to know the token", || (ada.get("/v1/info").status == 200).then_some(()));
    let scaled = ada.post("/v1/stacks/blog/scale", &json!({"web": 2})).with(200).json();
    assert!(scaled["output"][0].as_str().unwrap().contains("Scaling blog to web=2"), "{scaled}");
    hq.wait_for_containers(&["stack=blog", "node=web"], 2);
    assert_eq!(ada.get("/v1/stacks/blog/nodes").with(200).json(), json!([{"node": "web", "count": 2}]));
    assert_eq!(ada.get("/v1/stacks/blog/containers").with(200).json().as_array().unwrap().len(), 2);
    ada.post("/v1/stacks/blog/scale", &json!({"nope": 1})).with(404);
    ada.post("/v1/stacks/blog/rollback", &json!({})).with(409).said("no earlier release");

    let set = ada.send("PUT", "/v1/stacks/blog/env?restart=false", "", r#"{"SECRET": "hush\n", "B": "2"}"#).with(200);
    assert!(!set.text.contains("hush"), "{set:?}");
    ada.send("PUT", "/v1/stacks/blog/env/C", "", r#"{"value": "-x $HOME"}"#).with(200);
    ada.send("DELETE", "/v1/stacks/blog/env/B?restart=false", "", "").with(200);
    ada.send("DELETE", "/v1/stacks/blog/env/B?restart=false", "", "").with(404);
    let env = json!({"SECRET": "hush\n", "C": "-x $HOME"});
    assert_eq!(ada.get("/v1/stacks/blog/env").with(200).json(), env);
    assert_eq!(hq.by_ssh(&["env", "list", "blog", "--json"]).succeeded().json(), env);
    let web = hq.wait_for_containers(&["stack=blog", "node=web"], 2);
    let inside = docker::docker(&["inspect", "--format", "{{json .Config.Env}}", &web[0]]).succeeded().text();
    assert!(inside.contains("\"C=-x $HOME\""), "{inside}");

    ada.post("/v1/stacks/blog/restart", &json!({"node": "web"})).with(200);
    let before = hq.wait_for_containers(&["stack=blog", "node=web"], 2);
    assert!(before.iter().all(|container| !web.contains(container)), "{web:?} {before:?}");
    ada.post("/v1/stacks/blog/deploy", &json!({"ref": "no-such"})).with(409).said("no branch, tag or commit");
    ada.send("POST", "/v1/stacks/blog/deploy", "", "").with(200);
    let releases = ada.get("/v1/stacks/blog/releases").with(200).json();
    assert_eq!((&releases[0]["number"], &releases[0]["user"]), (&json!(3), &json!("ada")), "{releases}");
    ada.post("/v1/stacks/blog/rollback", &json!({"release": 1})).with(200);

    let job = json!({"name": "ticker", "image": IMAGE, "command": ["sh", "-c", "echo began; sleep 1000"]});
    let made = ada.post("/v1/jobs", &job).with(201);
    assert_eq!(made.headers["location"], "/v1/jobs/ticker");
    assert_eq!(ada.get("/v1/jobs").with(200).json()[0]["state"], "running");
    until("what it prints", || ada.get("/v1/jobs/ticker/logs").text.contains("began").then_some(()));
    ada.post("/v1/jobs", &job).with(409);
    ada.send("DELETE", "/v1/jobs/ticker", "", "").with(200);
    ada.send("DELETE", "/v1/jobs/ticker", "", "").with(404);
    assert_eq!(ada.get("/v1/jobs/ticker/runs").with(200).json()[0]["outcome"], json!("ended"));

    let events = ada.get("/v1/events?stack=blog").with(200);
    assert!(!events.text.contains("hush") && !events.text.contains("$HOME"), "{}", events.text);
    let done = |event: &&Value| event["from"] == "127.0.0.1" && event["user"] == "ada" && event["result"] == "done";
    let events = events.json();
    let whats: Vec<&str> =
        events.as_array().unwrap().iter().filter(done).map(|event| event["what"].as_str().unwrap()).collect();
    for what in ["scale blog web=2", "env import blog --no-restart", "restart blog/web", "deploy -- blog"] {
        assert!(whats.contains(&what), "{what}: {whats:?}");
    }
    assert!(!whats.iter().any(|what| what.contains("--json scale")), "{whats:?}");

    let metrics = ada.get("/v1/metrics").with(200);
    assert_eq!(metrics.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        "quarry_containers_running{stack=\"blog\",node=\"web\",server=\"hq\"} 2\n",
        "quarry_containers_wanted{stack=\"blog\",node=\"web\"} 2\n",
        "quarry_server_up{server=\"hq\"} 1\n",
        "quarry_operations 0\n",
        "quarry_container_healthy{stack=\"blog\",node=\"web\",server=\"hq\"",
        "quarry_container_memory_bytes{stack=\"blog\",node=\"web\",server=\"hq\"",
    ] {
        assert!(metrics.text.contains(line), "{line}{}", metrics.text);
    }
    // What the router has answered is added up once a second.
    hq.get("blog.localhost", "/");
    let answered = "quarry_router_requests_total{stack=\"blog\",server=\"hq\",status=\"";
    until("the request to count", || ada.get("/v1/metrics").text.contains(answered).then_some(()));
    ada.send("DELETE", "/v1/stacks/blog", "", "").with(200);
    ada.get("/v1/stacks/blog").with(404);
    hq.wait_for_containers(&["stack=blog"], 0);
}

/// What finds out by itself what the description says, and asks for all of it in all ways; bin/test installs it.
const SCHEMATHESIS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/schemathesis/bin/schemathesis");

#[test]
fn whatever_the_description_allows_or_not_is_answered_as_it_says() {
    let hq = Hq::start();
    let secret = token(&hq, "ci");
    let ada = Client::of(&hq, &secret);
    until("HQ to know the token", || (ada.get("/v1/info").status == 200).then_some(()));
    for name in ["blog", "shop"] {
        ada.post("/v1/stacks", &json!({ "name": name })).with(201);
    }
    let mut command = Command::new(SCHEMATHESIS);
    command.args(["run", &format!("http://{}/v1/openapi.json", hq.api)]);
    command.args(["--header", &format!("Authorization: Bearer {secret}")]);
    // Streams do not end, and jobs would fetch images of any name.
    command.args(["--exclude-path-regex", "logs|events", "--exclude-operation-id", "postJobs"]);
    command.args(["--checks", "all", "--max-examples", "10", "--seed", "1", "--no-color"]);
    let folder = hq.file("schemathesis");
    std::fs::create_dir(&folder).unwrap();
    let done = Running::start(command.current_dir(folder)).wait().succeeded();
    let text = done.text();
    let tested = text.split("Tested: ").nth(1).and_then(|rest| rest.lines().next()?.trim().parse::<usize>().ok());
    assert!(tested.is_some_and(|tested| tested > 20), "{done}");
    assert!(!hq.log().contains(" ERROR "), "{}", hq.log());
}

#[test]
fn with_a_certificate_it_speaks_tls() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let files = [("api.crt", made.cert.pem()), ("api.key", made.signing_key.serialize_pem())];
    let etc = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let hq = Hq::prepare(&etc, |root| {
        let key = root.with_file_name("etc").join("api.key");
        std::fs::set_permissions(key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    });
    let ping = |scheme: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--noproxy", "*", "--cacert"]).arg(hq.file("etc/api.crt"));
        Running::start(curl.arg(format!("{scheme}://{}/v1/ping", hq.api))).wait()
    };
    assert_eq!(ping("https").succeeded().json()["pong"], json!(true));
    ping("http").failed();
}

/// How many sockets and files HQ has open.
fn open_files(hq: &Hq) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", hq.pid())).unwrap().count()
}

#[test]
fn streams_go_on_until_somebody_leaves_or_the_token_goes() {
    let hq = Hq::start();
    let ada = Client::of(&hq, &token(&hq, "ci"));
    until("HQ to know the token", || (ada.get("/v1/info").status == 200).then_some(()));
    hq.by_ssh(&["stacks", "create", "blog"]).succeeded();
    let ticker = "i=0; while sleep 0.2; do i=$((i+1)); echo tick $i; done";
    let job = json!({"name": "ticker", "image": IMAGE, "command": ["sh", "-c", ticker]});
    ada.post("/v1/jobs", &job).with(201);

    let mut events = ada.follow("/v1/events?lines=0", &["Accept: text/event-stream"]);
    // It hears what happens from its beginning on, and nobody tells when that is.
    until("the follower", || {
        hq.by_ssh(&["env", "set", "blog", "A=1", "--no-restart"]).succeeded();
        events.stdout().contains("env set blog A=…").then_some(())
    });
    hq.by_ssh(&["env", "set", "blog", "LAST=hush", "--no-restart"]).succeeded();
    events.wait_for("env set blog LAST=… --no-restart");
    let text = events.stdout();
    let data: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let ids: Vec<u64> =
        text.lines().filter_map(|line| line.strip_prefix("id: ")).map(|id| id.parse().unwrap()).collect();
    assert_eq!(ids, data.iter().map(|event| event["id"].as_u64().unwrap()).collect::<Vec<_>>());
    assert!(!text.contains("hush"), "{text}");

    // Whoever leaves takes the command with them.
    let before = open_files(&hq);
    let mut logs: Vec<Running> = (0..5).map(|_| ada.follow("/v1/jobs/ticker/logs?follow=true&lines=1", &[])).collect();
    logs.iter_mut().for_each(|logs| logs.wait_for("tick "));
    assert!(open_files(&hq) >= before + 5);
    let last = logs.pop().unwrap();
    drop(logs);
    until("the streams to end", || (open_files(&hq) <= before + 3).then_some(()));

    hq.by_ssh(&["tokens", "remove", "ci"]).succeeded();
    let ended = last.wait();
    assert_ne!(ended.code, 0, "it breaks off, and does not look like the end of the log: {ended}");
    events.wait_for("event: error");
    assert!(events.wait().text().contains("opens nothing any more"));
    // What runs, runs on.
    assert_eq!(hq.by_ssh(&["jobs", "list", "--json"]).succeeded().json()[0]["state"], "running");
}

#[test]
fn every_answer_is_as_the_description_says() {
    let (hq, _repository) = with_app(&[]);
    let ada = Client::of(&hq, &token(&hq, "ci"));
    until("HQ to know the token", || (ada.get("/v1/info").status == 200).then_some(()));
    ada.post("/v1/jobs", &json!({"name": "ticker", "image": IMAGE, "command": ["sleep", "1000"]})).with(201);
    hq.by_ssh(&["env", "set", "blog", "A=1", "--no-restart"]).succeeded();
    let document = ada.get("/v1/openapi.json").with(200).json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut looked_at = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        let Some(get) = operations.get("get") else { continue };
        let real = path.replace("{stack}", "blog").replace("{server}", "hq").replace("{job}", "ticker");
        let answer = ada.get(&real).with(200);
        let content = get["responses"]["200"]["content"].as_object().unwrap();
        let kind = answer.headers["content-type"].split(';').next().unwrap().to_owned();
        assert!(content.contains_key(&kind), "{path} is {kind}: {content:?}");
        if kind == "application/json" {
            let wrong = schema::violations(&document, &content[&kind]["schema"], &answer.json());
            assert!(wrong.is_empty(), "{path}: {wrong:#?}\n{}", answer.text);
        }
        looked_at += 1;
    }
    assert!(looked_at > 15, "{looked_at}");
    let error = ada.get("/v1/stacks/nothing").with(404).json();
    let described = &document["paths"]["/v1/stacks/{stack}"]["get"]["responses"]["404"]["content"]["application/json"];
    assert_eq!(schema::violations(&document, &described["schema"], &error), Vec::<String>::new());
    let wrong =
        schema::violations(&document, &json!({"$ref": "#/components/schemas/Pong"}), &json!({"pong": 1, "x": 2}));
    assert_eq!(wrong.len(), 3, "a wrong answer is found out: {wrong:?}");
    hq.by_ssh(&["jobs", "kill", "ticker"]).succeeded();
}

#[test]
fn every_server_answers_and_again_when_it_was_lost() {
    let lab = Lab::up(1);
    let hq = fleet(&lab, 1);
    let token = token(&hq, "probe");
    let s1 = lab.server(1);
    let ask = |path: &str, token: &str| {
        let (token, url) =
            (format!("Authorization: Bearer {token}"), format!("http://127.0.0.1:{}{path}", hq.api.port()));
        s1.ssh(&["curl", "-sS", "--max-time", "10", "-H", &token, &url]).text()
    };
    let answers = || ask("/v1/ping", "").contains("\"pong\":true").then_some(());
    until("the api to answer on the server", answers);
    let shown: Value = serde_json::from_str(&ask("/v1/servers/s1", &token)).unwrap();
    assert_eq!((&shown["name"], &shown["state"]), (&json!("s1"), &json!("up")));
    assert!(ask("/v1/servers/s1", "").contains("Authorization: Bearer"), "who has no token learns how to have one");
    s1.poweroff();
    s1.poweron();
    until("the api to answer there again", answers);
    // HQ finds the connection dead, the server does not: its end still holds the port.
    s1.cut();
    until("HQ to miss the server", || (listed(&hq, "s1")["state"] == "down").then_some(()));
    s1.heal();
    until("the api to answer there once more", answers);
}
