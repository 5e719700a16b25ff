//! Requests through deploys, scales, rollbacks and new domains: none may fail; and the router beside a plain nginx.
//!
//! While 20 redeploys, 5 scales, 5 rollbacks and 20 new domains happen, wrk asks over connections that are kept, and
//! small clients post bodies in pieces, load slowly and hold WebSockets that end within `grace`: every answer that is
//! missing, short, wrong or no success counts. Then requests a second through quarry's router beside an nginx with
//! nothing but an `upstream` and the same headers, both in front of the same container. Names of parts may be given
//! (`drop speed`), and `QUARRY_ROUNDS` (of both; the usual are 20 and 9).

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::fs;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use self::common::clients::{Clients, Tally};
use self::common::engine::Engine;
use self::common::hq::Hq;
use self::common::place::Place;
use self::common::program::done;
use self::common::repository::Repository;
use self::common::table::{Pairs, Target, heading, row};
use self::common::wrk::{Found, Wrk};
use self::common::{Parts, app, end, ours_first, plain, rounds, web, wrk};

mod common;

/// Connections of wrk beside everything else.
const CONNECTIONS: usize = 16;

fn main() -> ExitCode {
    end::run(|| {
        let parts = Parts::wanted();
        let place = Place::new();
        let engine = Engine::new();
        let hq = Hq::start(&place, &engine);
        let bench = Bench { place, engine, hq };
        if parts.want("drop") {
            bench.drop();
        }
        if parts.want("speed") {
            bench.speed();
        }
    })
}

struct Bench {
    place: Place,
    engine: Engine,
    hq: Hq,
}

impl Bench {
    fn drop(&self) {
        let repository = app::repository(&self.place, "app");
        done(&mut self.hq.push(&repository, "app"));
        let (address, host) = (SocketAddr::from(([127, 0, 0, 1], self.hq.http)), "app.localhost");
        self.hq.wait_for_page(host);
        let began = Instant::now();
        let wrk = Wrk::start(CONNECTIONS, self.hq.http, host);
        let clients = Clients::start(address, host);
        let changes = self.change(&repository);
        // The last of the old containers still serve what they had begun.
        self.hq.wait_for_rest("app", 1);
        let (found, tally) = (wrk.end(), clients.end());
        println!("{changes} in {:.0} s", began.elapsed().as_secs_f64());
        report(&found, &tally);
    }

    /// Everything that must not be noticed; a line that says what.
    fn change(&self, repository: &Repository) -> String {
        let many = rounds(20);
        let few = many.div_ceil(4);
        for release in 0..many {
            repository.write("version", format!("{release}\n").as_bytes());
            repository.commit();
            done(&mut self.hq.push(repository, "app"));
        }
        for count in [3, 1, 4, 2, 1].into_iter().cycle().take(few) {
            done(self.hq.quarry().args(["scale", "app", &format!("web={count}")]));
        }
        for _ in 0..few {
            done(self.hq.quarry().args(["rollback", "app"]));
        }
        done(self.hq.quarry().args(["scale", "app", "web=1"]));
        let mut domains = Vec::new();
        for number in 0..many {
            domains.push(format!("d{number}.example.test"));
            repository.write("quarry.yml", app::with_domains(&domains).as_bytes());
            repository.commit();
            done(&mut self.hq.push(repository, "app"));
            let code = web::get(("127.0.0.1", self.hq.http), &domains[number], "/").unwrap();
            assert_eq!(code, 200, "the new domain {} does not answer", domains[number]);
        }
        format!("{many} redeploys, {few} scales, {few} rollbacks, {many} new domains")
    }

    fn speed(&self) {
        self.engine.keep("quarry-bench-nginx", BACKEND);
        let repository = Repository::with(&self.place, "speed", &[("quarry.yml", BACKEND_STACK.as_bytes())]);
        done(&mut self.hq.push(&repository, "speed"));
        self.hq.wait_for_page("speed.localhost");
        let ours = fs::read_to_string(self.place.path("root/router/current/nginx.conf")).unwrap();
        let plain = plain::start(&self.place, &ours, self.hq.peer("speed"), "");
        let mut pairs = Pairs::default();
        for round in 0..rounds(9) {
            let through = |port| {
                let found = wrk::run(64, Duration::from_secs(4), port, "speed.localhost");
                assert_eq!(found.failures, 0, "{}", found.said);
                found.per_second
            };
            let (ours, reference) = if ours_first(round) {
                let ours = through(self.hq.http);
                (ours, through(plain))
            } else {
                let reference = through(plain);
                (through(self.hq.http), reference)
            };
            pairs.add(ours, reference);
        }
        heading("requests per second");
        row("routed, beside a plain nginx upstream", &pairs, Target::RatioAtLeast(0.9));
    }
}

fn report(found: &Found, tally: &Tally) {
    println!("{:<34}{:>10}{:>10}   target", "requests", "served", "failed");
    let line = |name: &str, served: usize, failed: usize| {
        let word = if failed == 0 { "met" } else { "MISSED" };
        println!("{name:<34}{served:>10}{failed:>10}   0, {word}");
    };
    line("wrk over kept connections", found.requests - found.failures, found.failures);
    if found.failures > 0 {
        println!("{}", found.said);
    }
    for kind in tally.kinds() {
        line(kind.name, kind.served, kind.failures.len());
        kind.failures.iter().take(5).for_each(|failure| println!("    {failure}"));
    }
}

/// The app behind both routers must not be what is measured.
const BACKEND: &str = "FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends nginx-light && rm -rf /var/lib/apt/lists/*
RUN printf 'worker_processes 2; events { worker_connections 4096; } http { access_log off; keepalive_requests 1000000; \\
server { listen 8080; location / { return 200 hello; } } }' > /etc/nginx/nginx.conf
CMD [\"nginx\", \"-g\", \"daemon off;\"]
";

const BACKEND_STACK: &str = "web:
  image: quarry-bench-nginx
  expose: 8080
  health: /
";
