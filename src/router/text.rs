//! The text nginx runs with: its configuration, the Lua behind it and the page it shows by itself.
//!
//! Nothing of it comes from outside: what is routed is data, and all paths are relative to the router's folder.

use std::net::SocketAddr;

use sha2::{Digest, Sha256};

const CONFIGURATION: &str = include_str!("../../router/nginx.conf");
const LUA: &str = include_str!("../../router/quarry.lua");
const JSON: &str = include_str!("../../router/json.lua");
const PAGE: &str = include_str!("../../router/page.html");

/// Most connections of one worker; each costs memory from the start.
const CONNECTIONS: u64 = 8192;

/// Files by name, and one word that tells this set from every other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// Hexadecimal digits; a running nginx answers with those of its own text.
    pub version: String,
    /// Name and contents.
    pub files: [(&'static str, String); 4],
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
}

impl Listen {
    /// Every address.
    pub fn all(&self) -> impl Iterator<Item = &SocketAddr> {
        self.http.iter().chain(&self.https)
    }
}

/// The text for an nginx of this size that listens there.
pub fn render(listen: &Listen, size: Size) -> Text {
    let plain = listen.http.iter().map(|address| listen_line(address, ""));
    let secure = listen.https.iter().map(|address| listen_line(address, " ssl http2"));
    let lines: Vec<String> = plain.chain(secure).collect();
    let https = listen.https.first().map_or_else(|| "nil".to_owned(), |address| address.port().to_string());
    let configuration = CONFIGURATION
        .replace("{{listen}}", &lines.join("\n"))
        .replace("{{https}}", &https)
        .replace("{{workers}}", &size.workers.to_string())
        .replace("{{files}}", &size.files.to_string())
        .replace("{{connections}}", &size.files.min(CONNECTIONS).to_string());
    let version = digest(&[&configuration, LUA, JSON, PAGE]);
    let configuration = configuration.replace("{{version}}", &version);
    let own = |text: &str| text.to_owned();
    let files =
        [("nginx.conf", configuration), ("quarry.lua", own(LUA)), ("json.lua", own(JSON)), ("page.html", own(PAGE))];
    Text { version, files }
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
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(listen: &[&str], workers: usize) -> String {
        let http = listen.iter().map(|address| address.parse().unwrap()).collect();
        render(&Listen { http, https: Vec::new() }, Size { workers, files: 1024 }).version
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
        let listen = Listen { http: vec!["[::]:80".parse().unwrap()], https: vec!["1.2.3.4:443".parse().unwrap()] };
        let text = render(&listen, Size { workers: 2, files: 65_536 });
        let configuration = &text.files[0].1;
        assert!(!configuration.contains("{{"), "{configuration}");
        assert!(configuration.contains("listen [::]:80 default_server backlog=4096 so_keepalive=on ipv6only=on;"));
        assert!(configuration.contains("listen 1.2.3.4:443 ssl http2 default_server backlog=4096 so_keepalive=on;"));
        assert!(configuration.contains(&format!("quarry.start(\"{}\", 443)", text.version)));
        assert!(configuration.contains(&format!("$prefix/{}/?.lua", text.folder())));
    }
}
