//! HQ keeps certificates, with fakes for everything around it and a clock that is set.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use quarry::certs::authority::Refusal;
use quarry::certs::fake::FakeAuthority;
use quarry::certs::{Kind, Record};
use quarry::clock::SetClock;
use quarry::db::{Db, Guard, fake, layout};
use quarry::docker::engines::Engines;
use quarry::etc::acme::{Acme, Look};
use quarry::hq::certs::Row;
use quarry::hq::{Awake, Hq, Parts};
use quarry::launch::{Ground, Identity};
use quarry::names::{Domain, ReleaseNumber};
use quarry::router::edge::Edge;
use quarry::router::fake::FakeEdge;
use quarry::router::tls::PrivateKey;
use quarry::router::{NodeRoutes, StackRoutes, Target};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::authority::TestAuthority;

struct Bench {
    _root: tempfile::TempDir,
    db: Arc<fake::Fake>,
    edge: Arc<FakeEdge>,
    clock: Arc<SetClock>,
    authority: Arc<FakeAuthority>,
    hq: Arc<Hq>,
}

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

fn days(count: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * count)
}

impl Bench {
    fn new() -> Self {
        let (db, edge) = (Arc::new(fake::Fake::new()), Arc::new(FakeEdge::new()));
        let (clock, authority) = (Arc::new(SetClock::at(now())), Arc::new(FakeAuthority::new()));
        authority.certify_for(now(), now() + days(90));
        let root = tempfile::tempdir().unwrap();
        let hq = Self::hq(&root, &db, &edge, &clock, &authority);
        Self { _root: root, db, edge, clock, authority, hq }
    }

    fn hq(
        root: &tempfile::TempDir,
        db: &Arc<fake::Fake>,
        edge: &Arc<FakeEdge>,
        clock: &Arc<SetClock>,
        authority: &Arc<FakeAuthority>,
    ) -> Arc<Hq> {
        let acme = Acme {
            email: None,
            directory: "https://fake.test/dir".to_owned(),
            ca: None,
            http_port: 80,
            look: Look::Never,
        };
        let hq = Hq::new(Parts {
            root: root.path().to_owned(),
            settings: quarry::etc::Settings { acme: Some(acme), ..Default::default() },
            db: db.clone(),
            engines: Engines::new("hq".parse().unwrap(), Arc::new(quarry::docker::fake::Fake::new())),
            edge: Some(edge.clone()),
            awake: Awake::Yes,
            clock: clock.clone(),
            identity: Identity { id: "0123abcd".into(), suffix: String::new(), secret: String::new() },
            ground: Ground { address: "10.0.0.1".parse().unwrap(), ports: 20_000..=20_099 },
            url_port: String::new(),
            seal: crate::harness::seal(),
        });
        hq.certify_by(authority.clone());
        hq
    }

    async fn route(&self, stack: &str, domains: &[&str]) {
        let domains = domains.iter().map(|domain| domain.parse().unwrap()).collect();
        let node = NodeRoutes::new(domains, Target::Peers(Vec::new()));
        let table = StackRoutes::new(stack.parse().unwrap(), ReleaseNumber(1), [("web".parse().unwrap(), node)]);
        layout::put_json(&*self.db, &layout::routes(&table.stack), &table, Guard::Any).await.unwrap();
    }

    /// The chains that are shown, by domain.
    async fn shown(&self) -> BTreeMap<String, String> {
        let state = self.edge.secured().await.unwrap();
        state.certificates.into_iter().map(|one| (one.domain.to_string(), one.chain)).collect()
    }

    async fn row(&self, domain: &str) -> Option<Row> {
        let rows = self.hq.certificate_rows().await.unwrap();
        rows.into_iter().find(|row| row.domain.as_str() == domain)
    }

    fn orders(&self, domain: &str) -> u32 {
        self.authority.orders(&domain.parse::<Domain>().unwrap())
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..2000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited in vain for: {what}");
}

#[tokio::test]
async fn domains_that_are_routed_get_certificates_from_one_account_and_wildcards_do_not() {
    let bench = Bench::new();
    bench.route("blog", &["a.test", "*.a.test"]).await;
    tokio::spawn(bench.hq.clone().keep_certificates());
    until("a.test is shown", async || bench.shown().await.len() == 1).await;
    bench.route("shop", &["b.test", "c.test"]).await;
    until("all are shown", async || bench.shown().await.len() == 3).await;
    assert_eq!((bench.authority.accounts(), bench.orders("a.test"), bench.orders("b.test")), (1, 1, 1));
    assert_eq!(bench.edge.secured().await.unwrap().challenges, [], "nothing is left of the orders");
    let row = bench.row("a.test").await.unwrap();
    assert_eq!((row.kind, row.expires, row.problem), (Some(Kind::Automatic), Some(now() + days(90)), None));
}

#[tokio::test]
async fn a_certificate_is_renewed_in_time_and_an_hq_that_restarts_has_the_same() {
    let bench = Bench::new();
    bench.route("blog", &["a.test"]).await;
    let first = tokio::spawn(bench.hq.clone().keep_certificates());
    until("a.test is shown", async || bench.shown().await.len() == 1).await;
    let shown = bench.shown().await;
    first.abort();
    bench.clock.set(now() + days(54));
    let hq = Bench::hq(&bench._root, &bench.db, &bench.edge, &bench.clock, &bench.authority);
    let second = tokio::spawn(hq.keep_certificates());
    bench.route("blog", &["a.test", "b.test"]).await;
    until("b.test is shown", async || bench.shown().await.len() == 2).await;
    assert_eq!(bench.shown().await["a.test"], shown["a.test"], "it is not due");
    second.abort();
    bench.clock.set(now() + days(66));
    bench.authority.certify_for(now() + days(66), now() + days(156));
    let hq = Bench::hq(&bench._root, &bench.db, &bench.edge, &bench.clock, &bench.authority);
    tokio::spawn(hq.keep_certificates());
    until("it is renewed", async || bench.shown().await["a.test"] != shown["a.test"]).await;
    assert_eq!((bench.authority.accounts(), bench.orders("a.test")), (1, 2));
}

#[tokio::test]
async fn a_refused_domain_is_not_asked_for_again_before_its_time() {
    let bench = Bench::new();
    let until_then = now() + SignedDuration::from_hours(2);
    bench.authority.refuse(Some(Refusal { what: "rateLimited: later".into(), until: Some(until_then) }));
    bench.route("blog", &["a.test"]).await;
    tokio::spawn(bench.hq.clone().keep_certificates());
    until("it was refused", async || bench.row("a.test").await.is_some_and(|row| row.problem.is_some())).await;
    let row = bench.row("a.test").await.unwrap();
    assert_eq!((row.kind, row.next, row.problem.as_deref()), (None, Some(until_then), Some("rateLimited: later")));
    bench.authority.refuse(None);
    bench.route("shop", &["b.test"]).await;
    until("b.test is shown", async || bench.shown().await.len() == 1).await;
    assert_eq!(bench.orders("a.test"), 1);
    // A person who knows better.
    bench.hq.renew_certificate(&"a.test".parse().unwrap()).await.unwrap();
    assert_eq!(bench.row("a.test").await.unwrap().problem, None);
    assert!(bench.hq.renew_certificate(&"*.a.test".parse().unwrap()).await.is_err());
    assert!(bench.hq.renew_certificate(&"nobody.test".parse().unwrap()).await.is_err());
}

#[tokio::test]
async fn a_persons_certificate_stays_and_the_authoritys_comes_when_it_goes() {
    let bench = Bench::new();
    bench.route("blog", &["a.test"]).await;
    let domains = ["a.test".parse().unwrap()];
    let given = TestAuthority::new().issue(&["a.test"]);
    let checked = bench.hq.add_certificate(&domains, &given.text()).await.unwrap();
    assert!(checked.is_private);
    tokio::spawn(bench.hq.clone().keep_certificates());
    bench.route("shop", &["b.test"]).await;
    until("b.test is shown", async || bench.shown().await.len() == 2).await;
    assert_eq!(bench.orders("a.test"), 0);
    assert_eq!(bench.row("a.test").await.unwrap().kind, Some(Kind::Custom));
    bench.hq.remove_certificate(&domains[0]).await.unwrap();
    until("the authority's is shown", async || bench.orders("a.test") == 1 && bench.shown().await.len() == 2).await;
    assert_eq!(bench.row("a.test").await.unwrap().kind, Some(Kind::Automatic));
}

#[tokio::test]
async fn what_the_authority_says_of_its_certificates_is_shown_and_nobody_elses_addresses_are_followed() {
    let bench = Bench::new();
    let authority = TestAuthority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/ocsp", listener.local_addr().unwrap());
    let given = authority.issue_with_responder(&["a.test", "b.test"], &url);
    let question = quarry::certs::ocsp::question(&given.chain()).unwrap();
    bench.clock.set(Timestamp::now());
    let answer = authority.vouch(bench._root.path(), &given, &question);
    tokio::spawn(async move {
        // Whoever asks twice waits in vain.
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(&question) {
            assert_ne!(stream.read_buf(&mut asked).await.unwrap(), 0);
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len());
        stream.write_all(&[head.as_bytes(), &answer].concat()).await.unwrap();
        stream.shutdown().await.unwrap();
        std::future::pending::<()>().await;
    });
    // A person's comes first: were it asked about, nobody would answer for the other.
    bench.hq.add_certificate(&["a.test".parse().unwrap()], &given.text()).await.unwrap();
    let record = Record { kind: Kind::Automatic, chain: given.chain(), key: PrivateKey(given.key.clone()) };
    let key = layout::certificate(&"b.test".parse().unwrap());
    layout::put_json(&*bench.db, &key, &record, Guard::Any).await.unwrap();
    tokio::spawn(bench.hq.clone().keep_certificates());
    let stapled = async || {
        let certificates = bench.edge.secured().await.unwrap().certificates;
        let stapled = certificates.into_iter().filter(|one| one.staple.is_some());
        stapled.map(|one| one.domain.to_string()).collect::<Vec<_>>()
    };
    until("the authority's word is shown", async || stapled().await == ["b.test"]).await;
}

#[tokio::test]
async fn a_router_that_was_away_shows_everything_when_it_is_back_and_hand_written_ones_too() {
    let bench = Bench::new();
    bench.edge.go_down();
    let given = TestAuthority::new().issue(&["a.test"]);
    let added = bench.hq.add_certificate(&["a.test".parse().unwrap()], &given.text()).await;
    assert!(added.unwrap_err().to_string().contains("shown as soon as the router takes it"));
    tokio::spawn(bench.hq.clone().keep_certificates());
    bench.edge.come_up();
    until("a.test is shown", async || bench.shown().await.contains_key("a.test")).await;
    let entry = bench.db.read(&layout::certificate(&"a.test".parse().unwrap())).await.unwrap().unwrap();
    bench.db.put(&layout::certificate(&"b.test".parse().unwrap()), &entry.value, Guard::Any, None).await.unwrap();
    until("b.test is shown", async || bench.shown().await.contains_key("b.test")).await;
}
