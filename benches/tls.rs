//! HTTPS through quarry's router beside a plain nginx with the same certificate, and what 1,000 certificates cost.
//!
//! Both stand before the same app. `speed` asks over connections that are kept, `handshakes` over a new one each time:
//! wrk resumes no sessions. `memory` is what all processes of the router hold (PSS), before and after 1,000 certificates,
//! each of which every worker has shown. Names of parts may be given, and `QUARRY_ROUNDS`.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use quarry::names::ReleaseNumber;
use quarry::router::edge::Edge;
use quarry::router::nginx::{Listen, Nginx};
use quarry::router::tls::{Certificate, PrivateKey, TlsChange};
use quarry::router::{NodeRoutes, Peer, StackRoutes, Target};
use tokio::runtime::Runtime;

use self::common::place::{Place, free_port};
use self::common::program::done;
use self::common::table::{Pairs, Target as Promise, figure, heading, row};
use self::common::{Parts, end, number, ours_first, plain, rounds, wrk};

mod common;

/// Certificates that are kept.
const CERTIFICATES: usize = 1000;
/// Handshakes of each, so that every worker has had some.
const VISITS: usize = 8;

fn main() -> ExitCode {
    end::run(|| {
        let parts = Parts::wanted();
        let bench = Bench::start();
        if parts.want("speed") {
            bench.beside("requests per second by HTTPS", None, Promise::RatioAtLeast(0.9));
        }
        if parts.want("handshakes") {
            bench.beside("new connections per second by HTTPS", Some("Connection: close"), Promise::None);
        }
        if parts.want("memory") {
            bench.memory();
        }
    })
}

struct Bench {
    place: Place,
    runtime: Runtime,
    nginx: Nginx,
    folder: PathBuf,
    https: u16,
    app: SocketAddr,
    pem: PathBuf,
}

/// A certificate with another one behind it, as authorities give them, and its key.
fn made(domain: &str) -> (String, String) {
    let [made, link] =
        [domain, "link.test"].map(|name| rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap());
    (format!("{}{}", made.cert.pem(), link.cert.pem()), made.signing_key.serialize_pem())
}

fn certificate(domain: &str, (chain, key): (String, String)) -> TlsChange {
    TlsChange::Set(Certificate { domain: domain.parse().unwrap(), chain, key: PrivateKey(key), staple: None })
}

impl Bench {
    fn start() -> Self {
        let (place, runtime) = (Place::new(), Runtime::new().unwrap());
        let app = plain::start_app(&place);
        let [http, https] = [(); 2].map(|()| free_port());
        let at = |port: u16| vec![SocketAddr::from(([127, 0, 0, 1], port))];
        let nginx = Nginx::listening(place.folder(), Listen { http: at(http), https: at(https), ..Listen::default() });
        runtime.block_on(nginx.start_or_adopt()).unwrap();
        let folder = place.path("router");
        let pid: u32 = fs::read_to_string(folder.join("nginx.pid")).unwrap().trim().parse().unwrap();
        end::later(move || drop(Command::new("kill").arg(pid.to_string()).status()));
        let own = made("localhost");
        let pem = place.path("localhost.pem");
        fs::write(&pem, format!("{}{}", own.0, own.1)).unwrap();
        let peer = Peer { container: "app.web.1.1".parse().unwrap(), address: app };
        let node = NodeRoutes::new(vec!["localhost".parse().unwrap()], Target::Peers(vec![peer]));
        let table = StackRoutes::new("app".parse().unwrap(), ReleaseNumber(1), [("web".parse().unwrap(), node)]);
        runtime.block_on(nginx.set(&table)).unwrap();
        runtime.block_on(nginx.secure(&certificate("localhost", own))).unwrap();
        Self { place, runtime, nginx, folder, https, app, pem }
    }

    fn beside(&self, title: &str, header: Option<&str>, promise: Promise) {
        let ours = fs::read_to_string(self.folder.join("current/nginx.conf")).unwrap();
        let kept = |line: &&str| {
            let words = ["ssl_protocols", "ssl_ciphers", "ssl_prefer", "ssl_session"];
            words.iter().any(|word| line.trim().starts_with(word))
        };
        let settings: Vec<&str> = ours.lines().filter(kept).map(str::trim).collect();
        let pem = self.pem.display();
        let settings = settings.join(" ");
        let tls =
            format!(" ssl http2; ssl_certificate {pem}; ssl_certificate_key {pem}; {}", settings.trim_end_matches(';'));
        let plain = plain::start(&self.place, &ours, self.app, &tls);
        let mut pairs = Pairs::default();
        for round in 0..rounds(9) {
            let through = |port| {
                let found = wrk::run_secure(64, Duration::from_secs(4), port, header);
                assert_eq!(found.failures, 0, "{}", found.said);
                found.per_second
            };
            let (ours, reference) = if ours_first(round) {
                let ours = through(self.https);
                (ours, through(plain))
            } else {
                let reference = through(plain);
                (through(self.https), reference)
            };
            pairs.add(ours, reference);
        }
        heading(title);
        row("routed, beside a plain nginx", &pairs, promise);
    }

    fn memory(&self) {
        let count = number("QUARRY_CERTIFICATES", CERTIFICATES);
        self.visit("localhost");
        let before = self.held();
        for number in 0..count {
            let domain = format!("d{number}.example.test");
            self.runtime.block_on(self.nginx.secure(&certificate(&domain, made(&domain)))).unwrap();
        }
        for number in 0..count {
            self.visit(&format!("d{number}.example.test"));
        }
        heading("memory of the router in MiB");
        figure(&format!("{count} certificates"), self.held() - before, Promise::AtMost(50.0));
    }

    /// Handshakes with a host, all of which must succeed.
    fn visit(&self, host: &str) {
        let to = format!("127.0.0.1:{}", self.https);
        let one = format!("openssl s_client -connect {to} -servername {host} </dev/null >/dev/null 2>&1");
        let all = vec![one; VISITS].join(" && ");
        done(Command::new("sh").args(["-c", &all]).stdin(Stdio::null()));
    }

    /// What all processes of the router hold, in MiB.
    fn held(&self) -> f64 {
        let master = fs::read_to_string(self.folder.join("nginx.pid")).unwrap().trim().to_owned();
        let workers = fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap();
        let pss = |pid: &str| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
        };
        std::iter::once(master.as_str()).chain(workers.split_whitespace()).map(pss).sum()
    }
}
