//! The text nginx runs with: its configuration, the Lua behind it and the page it shows by itself.
//!
//! Of what comes from outside only snippets are part of it, written anew from checked words: what is routed is data, and
//! all paths are relative to the router's folder.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use sha2::{Digest, Sha256};

use crate::etc::Balancers;
use crate::front::Snippet;
use crate::units::hex::hex;

const CONFIGURATION: &str = include_str!("../../router/nginx.conf");
const LUA: &str = include_str!("../../router/quarry.lua");
const JSON: &str = include_str!("../../router/json.lua");
const RULES: &str = include_str!("../../router/rules.lua");
const TALLIES: &str = include_str!("../../router/tallies.lua");
const PAGE: &str = include_str!("../../router/page.html");

/// The file of the snippets that a text has.
pub const SNIPPETS: &str = "snippets.json";

/// Most connections of one worker; each costs memory from the start.
const CONNECTIONS: u64 = 8192;

/// Files by name, and one word that tells this set from every other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// Hexadecimal digits; a running nginx answers with those of its own text.
    pub version: String,
    /// Name and contents.
    pub files: [(&'static str, String); 7],
}

impl Text {
    /// The folder the files belong in, inside the router's.
    pub fn folder(&self) -> String {
        format!("text-{}", self.version)
    }
}

/// How large an nginx is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Processes that answer requests, at least one.
    pub workers: usize,
    /// Most open files and connections of each.
    pub files: u64,
}

/// Where a router listens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listen {
    /// For HTTP.
    pub http: Vec<SocketAddr>,
    /// For HTTPS. Whoever has a certificate is led to the port of the first.
    pub https: Vec<SocketAddr>,
    /// Balancers in front of it.
    pub front: Balancers,
}

impl Listen {
    /// Every address.
    pub fn all(&self) -> impl Iterator<Item = &SocketAddr> {
        self.http.iter().chain(&self.https)
    }
}

/// The text for an nginx of this size that listens there, with these snippets.
pub fn render(listen: &Listen, size: Size, snippets: &BTreeSet<Snippet>) -> Text {
    let proxied = if listen.front.proxy_protocol { " proxy_protocol" } else { "" };
    let plain = listen.http.iter().map(|address| listen_line(address, proxied));
    let secure = listen.https.iter().map(|address| listen_line(address, &format!(" ssl http2{proxied}")));
    let listens = lines(plain.chain(secure));
    let https = listen.https.first().map_or_else(|| "nil".to_owned(), |address| address.port().to_string());
    let (scheme, port) = match listen.front.speak_for_visitors() {
        true => ("$quarry_scheme", "$quarry_port"),
        false => ("$scheme", "$server_port"),
    };
    let configuration = CONFIGURATION
        .replace("{{listen}}", &listens)
        .replace("{{scheme}}", scheme)
        .replace("{{port}}", port)
        .replace("{{https}}", &https)
        .replace("{{known}}", &lua_set(snippets.iter().map(Snippet::digest)))
        .replace("{{front}}", &front(&listen.front))
        .replace("{{snippets}}", &lines(snippets.iter().map(locations)))
        .replace("{{workers}}", &size.workers.to_string())
        .replace("{{files}}", &size.files.to_string())
        .replace("{{connections}}", &size.files.min(CONNECTIONS).to_string());
    let version = digest(&[&configuration, LUA, JSON, RULES, PAGE]);
    let configuration = configuration.replace("{{version}}", &version);
    let own = |text: &str| text.to_owned();
    let files = [
        ("nginx.conf", configuration),
        ("quarry.lua", own(LUA)),
        ("json.lua", own(JSON)),
        ("rules.lua", own(RULES)),
        ("tallies.lua", own(TALLIES)),
        ("page.html", own(PAGE)),
        (SNIPPETS, serde_json::to_string(snippets).expect("a snippet is text")),
    ];
    Text { version, files }
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.collect::<Vec<_>>().join("\n")
}

/// Words without anything that needs quoting as the keys of a table of Lua's.
fn lua_set(words: impl Iterator<Item = String>) -> String {
    words.map(|word| format!("[\"{word}\"] = true, ")).collect()
}

/// What is known of a visitor who comes by himself, for the Lua; the configuration names nginx's own variables, which are
/// at hand.
const ALONE: &str = r#"    map "" $quarry_trusted { default 0; }
    map "" $quarry_scheme { default $scheme; }
    map "" $quarry_port { default $server_port; }"#;

/// The same for those of balancers, who know more of their visitors than the router does.
const BEHIND: &str = r#"    geo $realip_remote_addr $quarry_trusted {
        default 0;
{{trusted}}
    }
    map "$quarry_trusted:$http_x_forwarded_proto" $quarry_scheme {
        "1:https" https;
        "1:http" http;
        default $scheme;
    }
    map "$quarry_trusted:$http_x_forwarded_port" $quarry_port {
        "~^1:(?<quarry_forwarded_port>[0-9]{1,5})$" $quarry_forwarded_port;
        default $server_port;
    }"#;

/// Which address counts as the visitor's, and who is believed what a request's headers say. With the PROXY protocol a
/// balancer says it outside of them, and passes on what visitors write there.
fn front(front: &Balancers) -> String {
    if front.trusted.is_empty() {
        return ALONE.to_owned();
    }
    let (header, of_visitors) = match front.speak_for_visitors() {
        false => ("proxy_protocol", ALONE.to_owned()),
        true => {
            let trusted = lines(front.trusted.iter().map(|net| format!("        {net} 1;")));
            ("X-Forwarded-For", BEHIND.replace("{{trusted}}", &trusted))
        }
    };
    let from = front.trusted.iter().map(|net| format!("    set_real_ip_from {net};"));
    let rest = [format!("    real_ip_header {header};"), "    real_ip_recursive on;".to_owned(), of_visitors];
    lines(from.chain(rest))
}

/// The locations of a snippet: for a node that runs, for its requests that may have a body unannounced, and for a node of
/// files. What it does not set is as everywhere.
fn locations(snippet: &Snippet) -> String {
    let of_node = [
        "access_by_lua_block { quarry.route_body() }",
        "proxy_request_buffering off;",
        "proxy_pass http://$quarry_upstream;",
        "error_page 413 500 502 504 @failed;",
    ];
    let small = [&["client_max_body_size 1m;"], &of_node[..]].concat();
    let of_files = [
        "index index.html;",
        "try_files $uri $uri/ $uri.html =404;",
        "error_page 403 404 = @elsewhere;",
        "error_page 405 500 @failed;",
    ];
    let usual = ["gzip", "charset"].into_iter().zip(["on", "utf-8"]).filter(|(name, _)| !snippet.sets(name));
    let usual: Vec<String> = usual.map(|(name, value)| format!("{name} {value};")).collect();
    let files = usual.iter().map(String::as_str).chain(of_files).collect::<Vec<_>>();
    [("node", false, &of_node[..]), ("small", false, &small), ("files", true, &files)]
        .map(|(name, of_files, own)| location(snippet, name, of_files, own))
        .join("\n")
}

fn location(snippet: &Snippet, name: &str, of_files: bool, own: &[&str]) -> String {
    // Headers that a location adds stand in place of those from outside of it.
    let hsts = "add_header Strict-Transport-Security $quarry_hsts always;";
    let mut lines = snippet.lines(of_files);
    lines.extend([hsts].iter().chain(own).map(|line| (*line).to_owned()));
    let lines: String = lines.iter().map(|line| format!("            {line}\n")).collect();
    format!("        location @{name}_{} {{\n{lines}        }}", snippet.digest())
}

fn listen_line(address: &SocketAddr, speaks: &str) -> String {
    let only = if address.is_ipv6() { " ipv6only=on" } else { "" };
    format!("        listen {address}{speaks} default_server backlog=4096 so_keepalive=on{only};")
}

fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(listen: &[&str], workers: usize) -> String {
        let http = listen.iter().map(|address| address.parse().unwrap()).collect();
        render(&Listen { http, ..Listen::default() }, Size { workers, files: 1024 }, &BTreeSet::new()).version
    }

    #[test]
    fn every_difference_in_the_text_is_another_version() {
        let one = version(&["127.0.0.1:80"], 2);
        assert_eq!(one, version(&["127.0.0.1:80"], 2));
        assert_ne!(one, version(&["127.0.0.1:81"], 2));
        assert_ne!(one, version(&["127.0.0.1:80"], 3));
        assert_ne!(one, version(&["127.0.0.1:80", "[::1]:80"], 2));
    }

    #[test]
    fn no_placeholder_is_left_in_the_configuration() {
        let (http, https) = (vec!["[::]:80".parse().unwrap()], vec!["1.2.3.4:443".parse().unwrap()]);
        let snippet: Snippet = "expires 1h;".parse().unwrap();
        let listen = Listen { http, https, ..Listen::default() };
        let text = render(&listen, Size { workers: 2, files: 65_536 }, &BTreeSet::from([snippet.clone()]));
        let configuration = &text.files[0].1;
        assert!(!configuration.contains("{{"), "{configuration}");
        assert!(configuration.contains("listen [::]:80 default_server backlog=4096 so_keepalive=on ipv6only=on;"));
        assert!(configuration.contains("listen 1.2.3.4:443 ssl http2 default_server backlog=4096 so_keepalive=on;"));
        assert!(configuration.contains(&format!("quarry.start(\"{}\", 443, {{", text.version)));
        assert!(configuration.contains(&format!("$prefix/{}/?.lua", text.folder())));
        for name in ["node", "small", "files"] {
            assert!(configuration.contains(&format!("location @{name}_{} {{", snippet.digest())));
        }
    }
}
