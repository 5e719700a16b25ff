//! Let's Encrypt's test server, with a DNS of its own in which every name is this machine.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;

use super::authority::{TestAuthority, Visitor};
use super::program::run;
use super::wait::until;

/// A running authority; it ends with the test.
pub struct Pebble {
    folder: TempDir,
    children: Vec<Child>,
    acme: u16,
    management: u16,
    dns_management: u16,
}

impl Pebble {
    /// One that asks for challenges at this port, whose certificates hold so many seconds and which thinks so many seconds
    /// before it asks.
    pub fn start(http_port: u16, life: u64, thinks: u64) -> Self {
        let folder = tempfile::Builder::new().prefix("quarry-it-pebble-").tempdir().unwrap();
        let held = [(); 4].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [acme, management, dns, dns_management] =
            held.each_ref().map(|listener| listener.local_addr().unwrap().port());
        drop(held);
        let own = TestAuthority::new();
        let given = own.issue(&["127.0.0.1", "localhost"]);
        let path = |name: &str| folder.path().join(name);
        for (name, text) in [("ca.pem", own.root()), ("cert.pem", &given.chain()), ("key.pem", &given.key)] {
            fs::write(path(name), text).unwrap();
        }
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{acme}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": path("cert.pem"),
            "privateKey": path("key.pem"),
            "httpPort": http_port,
            "tlsPort": 5001,
            "certificateValidityPeriod": life,
        }});
        fs::write(path("config.json"), config.to_string()).unwrap();
        let log = |name: &str| fs::File::create(path(name)).unwrap();
        let dns = format!("127.0.0.1:{dns}");
        let mut names = Command::new("pebble-challtestsrv");
        names.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""]);
        names.args(["-dns01", &dns, "-management", &format!("127.0.0.1:{dns_management}")]);
        let mut pebble = Command::new("pebble");
        pebble.arg("-config").arg(path("config.json")).args(["-dnsserver", &dns]);
        match thinks {
            0 => pebble.env("PEBBLE_VA_NOSLEEP", "1"),
            seconds => pebble.env("PEBBLE_VA_SLEEPTIME", seconds.to_string()),
        };
        let start = |command: &mut Command, name: &str| {
            let started = command.stdin(Stdio::null()).stdout(log(name)).stderr(log(&format!("{name}.err"))).spawn();
            started.unwrap_or_else(|error| panic!("pebble is missing ({error}): run bin/test, which installs it"))
        };
        let children = vec![start(&mut names, "dns.log"), start(&mut pebble, "pebble.log")];
        let pebble = Self { folder, children, acme, management, dns_management };
        until("an answer of pebble", || (pebble.curl(&pebble.directory(), None).code == 0).then_some(()));
        pebble
    }

    pub fn directory(&self) -> String {
        format!("https://127.0.0.1:{}/dir", self.acme)
    }

    /// The settings of an HQ that has its certificates from here.
    pub fn settings(&self, http_port: u16) -> [(&'static str, String); 4] {
        let ca = self.folder.path().join("ca.pem").display().to_string();
        [
            ("acme/email", "ops@example.com\n".to_owned()),
            ("acme/directory", self.directory()),
            ("acme/ca", ca),
            ("acme/http-port", http_port.to_string()),
        ]
    }

    /// From now on this name is this address for pebble.
    pub fn lead(&self, host: &str, address: &str) {
        let body = serde_json::json!({ "host": format!("{host}."), "addresses": [address] }).to_string();
        for verb in ["clear-a", "add-a"] {
            let url = format!("http://127.0.0.1:{}/{verb}", self.dns_management);
            self.curl(&url, Some(&body)).succeeded();
        }
    }

    /// Somebody who trusts its certificates.
    pub fn visitor(&self) -> Visitor {
        let root = self.curl(&format!("https://127.0.0.1:{}/roots/0", self.management), None).succeeded().text();
        Visitor::trusting(CertificateDer::from_pem_slice(root.as_bytes()).unwrap())
    }

    fn curl(&self, url: &str, body: Option<&str>) -> super::program::Done {
        let mut command = Command::new("curl");
        command.args(["-sSf", "--noproxy", "*", "--max-time", "10", "--cacert"]).arg(self.folder.path().join("ca.pem"));
        if let Some(body) = body {
            command.args(["-d", body]);
        }
        run(command.arg(url))
    }

    /// What it says.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("pebble.log")).unwrap_or_default()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- pebble's log\n{}", self.log());
        }
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
