//! Docker behind quarry's back: plain requests over its socket, so that a reference pays for no client's start.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::program::milliseconds;
use super::{end, web};

const SOCKET: &str = "/var/run/docker.sock";

/// The engine of this machine. What is made through it carries the mark and goes at the end.
#[derive(Clone)]
pub struct Engine {
    mark: String,
}

/// The label of what the benchmark itself makes.
const MARK: &str = "quarry.bench";

impl Engine {
    pub fn new() -> Self {
        let engine = Self { mark: std::process::id().to_string() };
        let base = engine.request("GET", "/images/debian:bookworm-slim/json", None).0;
        assert_eq!(base, 200, "docker has no image debian:bookworm-slim; run bin/bench, which makes it");
        let swept = engine.clone();
        end::later(move || swept.sweep(MARK, &swept.mark));
        engine
    }

    /// One request over a connection of its own.
    pub fn request(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let body = body.map(|body| ("application/json", body.to_string().into_bytes()));
        let (code, text) = self.send(method, path, body);
        (code, serde_json::from_slice(&text).unwrap_or(Value::Null))
    }

    fn send(&self, method: &str, path: &str, body: Option<(&str, Vec<u8>)>) -> (u16, Vec<u8>) {
        end::checkpoint();
        let (kind, body) = body.unwrap_or(("text/plain", Vec::new()));
        let mut stream = UnixStream::connect(SOCKET).expect("dockerd runs; bin/bench starts it");
        // HTTP/1.0: the answer comes in one piece and ends with the connection.
        let head = format!(
            "{method} /v1.41{path} HTTP/1.0\r\nHost: docker\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("the engine speaks HTTP");
        let head = String::from_utf8_lossy(&answer[..end]);
        let code = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap();
        (code, answer[end + 4..].to_vec())
    }

    /// Names of the containers with all of these labels.
    pub fn containers(&self, labels: &[String]) -> Vec<String> {
        let (_, found) = self.request("GET", &format!("/containers/json?all=1&filters={}", filters(labels)), None);
        let of = |value: &Value| value["Id"].as_str().map(str::to_owned);
        found.as_array().map(|list| list.iter().filter_map(of).collect()).unwrap_or_default()
    }

    /// Builds an image with the classic builder, as a context comes by the API.
    pub fn build(&self, tag: &str, context: Vec<u8>) {
        let labels = escape(&json!({ MARK: self.mark }).to_string());
        let path = format!("/build?t={tag}&rm=1&labels={labels}");
        let (code, said) = self.send("POST", &path, Some(("application/x-tar", context)));
        let said = String::from_utf8_lossy(&said);
        assert!(code == 200 && !said.contains("\"errorDetail\""), "the image is not built: {said}");
    }

    /// Builds an image that stays for the next run, as one from a registry would: packages are fetched once.
    pub fn keep(&self, tag: &str, dockerfile: &str) {
        if self.request("GET", &format!("/images/{tag}/json"), None).0 == 200 {
            return;
        }
        let mut context = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(dockerfile.len() as u64);
        header.set_mode(0o644);
        context.append_data(&mut header, "Dockerfile", dockerfile.as_bytes()).unwrap();
        let (_, said) = self.send(
            "POST",
            &format!("/build?t={tag}&rm=1"),
            Some(("application/x-tar", context.into_inner().unwrap())),
        );
        let built = self.request("GET", &format!("/images/{tag}/json"), None).0 == 200;
        assert!(built, "the image {tag} is not built: {}", String::from_utf8_lossy(&said));
    }

    /// Makes a container of this image with these labels beside the mark, and does not start it.
    pub fn create(&self, name: &str, mut settings: Value) {
        settings["Labels"][MARK] = json!(self.mark);
        let (code, said) = self.request("POST", &format!("/containers/create?name={name}"), Some(settings));
        assert_eq!(code, 201, "the container {name} is not made: {said}");
    }

    /// The least that brings a container to its first answer at a port published on this address: create, start, ask.
    /// Milliseconds.
    pub fn first_reply(&self, image: &str, port: u16, on: IpAddr) -> f64 {
        let name = format!("quarry-bench-{}", self.mark);
        let at = SocketAddr::new(on, super::place::free_port());
        let binding = json!([{ "HostIp": at.ip().to_string(), "HostPort": at.port().to_string() }]);
        let inside = format!("{port}/tcp");
        let began = Instant::now();
        self.create(
            &name,
            json!({
                "Image": image,
                "ExposedPorts": { &inside: {} },
                "HostConfig": { "PortBindings": { &inside: binding } },
            }),
        );
        let (code, said) = self.request("POST", &format!("/containers/{name}/start"), None);
        assert_eq!(code, 204, "{said}");
        while web::get(at, "localhost", "/").ok() != Some(200) {
            assert!(began.elapsed() < Duration::from_secs(30), "the container does not answer");
            std::thread::sleep(Duration::from_millis(1));
        }
        let took = milliseconds(began);
        self.request("DELETE", &format!("/containers/{name}?force=1&v=1"), None);
        took
    }

    /// Removes everything that carries this label: containers, networks, images.
    pub fn sweep(&self, label: &str, value: &str) {
        let own = [format!("{label}={value}")];
        for id in self.containers(&own) {
            self.request("DELETE", &format!("/containers/{id}?force=1&v=1"), None);
        }
        let filter = filters(&own);
        let (_, networks) = self.request("GET", &format!("/networks?filters={filter}"), None);
        for network in networks.as_array().into_iter().flatten() {
            self.request("DELETE", &format!("/networks/{}", network["Id"].as_str().unwrap()), None);
        }
        // Quarry's images have the end of their tag from its name, not its label.
        let (_, images) = self.request("GET", "/images/json", None);
        for image in images.as_array().into_iter().flatten() {
            let marked = image["Labels"][label] == value;
            for tag in image["RepoTags"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if marked
                    || (tag.starts_with("quarry/") && tag.ends_with(&format!("-{}", &value[..4.min(value.len())])))
                {
                    self.request("DELETE", &format!("/images/{tag}?force=1"), None);
                }
            }
        }
    }
}

fn filters(labels: &[String]) -> String {
    escape(&json!({ "label": labels }).to_string())
}

/// Text in a query.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
