//! Containers find what they link to at one address, wherever it runs: in their own stack, in others they may use, by
//! variable and by name; and nobody else does.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::agents::add;
use super::services::{mongo, store};
use super::{app, greet};
use crate::harness::lab::Lab;
use crate::harness::program::Done;
use crate::harness::{Hq, Repository, until};

const SHARED: &str = "mongo:\n  type: service\n  container: quarry-test/mongo:1\n  volumes: /data/db\n";

const LINKING: &str = "web:\n  dockerfile: Dockerfile\n  expose: 8080\n  health: /\n  link: shared/mongo\n";

/// `ADDRESS PORT`: asks the store for `colour`.
const ASK: &str = r#"use IO::Socket::INET; my ($address, $port) = map { $_ =~ s/^\$//r eq $_ ? $_ : $ENV{substr $_, 1} } @ARGV;
my $to = IO::Socket::INET->new(PeerAddr => $address, PeerPort => $port, Timeout => 5) or die "refused: $!\n";
print $to "GET colour\n"; my $line = <$to>; die "closed\n" unless defined $line; print $line;"#;

fn ask(hq: &Hq, stack: &str, address: &str, port: &str) -> Done {
    hq.quarry(&["run", stack, "perl", "-e", ASK, "--", address, port])
}

fn variable(hq: &Hq, name: &str) -> String {
    hq.page("shop.localhost", &format!("/env/{name}"))
}

#[test]
fn a_link_leads_through_the_embassy_and_only_for_who_links() {
    mongo();
    let mut hq = Hq::with_agent(&[]);
    let embassy = hq.embassy();

    // Within its own stack.
    let yml = "mongo:\n  type: service\n  container: quarry-test/mongo:1\n  volumes: /data/db\nweb:\n  dockerfile: Dockerfile\n  expose: 8080\n  link: mongo\n";
    let blog = app(&[("quarry.yml", yml)]);
    hq.push(&blog, "blog").succeeded();
    let own = |name: &str| hq.page("blog.localhost", &format!("/env/MONGO_PORT_27017_TCP{name}"));
    assert_eq!(own("_ADDR"), embassy);
    let number: u16 = own("_PORT").parse().unwrap();
    assert!((10_000..20_000).contains(&number), "{number}");
    assert_eq!(own(""), format!("tcp://{embassy}:{number}"));
    assert_eq!(store(&hq, "POST", "colour", "green"), "OK\n");
    assert_eq!(store(&hq, "GET", "colour", ""), "green\n");

    // From another stack: who may not use it is not told that it is there.
    hq.push(&Repository::with(&[("quarry.yml", SHARED)]), "shared").succeeded();
    let shop = app(&[("quarry.yml", LINKING)]);
    let eve = hq.person("eve");
    eve.push(&shop, "shop").failed().said(&["there is no stack `shared`"]);
    hq.quarry(&["rights", "grant", "eve", "shared", "deploy"]).succeeded();
    eve.push(&shop, "shop").succeeded();
    assert_eq!(variable(&hq, "SHARED_MONGO_PORT_27017_TCP_ADDR"), embassy);
    let port = variable(&hq, "SHARED_MONGO_PORT_27017_TCP_PORT");
    assert_ne!(port, number.to_string());
    assert_eq!(ask(&hq, "shop", "$SHARED_MONGO_PORT_27017_TCP_ADDR", &port).succeeded().text(), "nothing\n");
    assert_eq!(ask(&hq, "shop", "mongo.shared.quarry", &port).succeeded().text(), "nothing\n");
    // Nobody who did not link.
    ask(&hq, "blog", &embassy, &port).failed();
    ask(&hq, "shop", &embassy, &number.to_string()).failed();

    let rows = hq.quarry(&["links", "shared", "--json"]).succeeded().json();
    let row = &rows[0];
    assert_eq!((&row["node"], &row["linked_by"]), (&"mongo".into(), &serde_json::json!(["shop"])), "{rows}");
    assert_eq!((row["number"].to_string(), &row["healthy"]), (port.clone(), &1.into()), "{rows}");
    assert!(row["refused"].as_u64() >= Some(1) && row["total"].as_u64() >= Some(2), "{rows}");

    // A link that leads nowhere is refused, with what there is.
    let nowhere = LINKING.replace("shared/mongo", "shared/postgres");
    hq.push(&app(&[("quarry.yml", &nowhere)]), "other")
        .failed()
        .said(&["`web` links to `shared/postgres`, but no such node runs there; `shared` has `mongo`"]);

    // The number stays whatever becomes of the containers, of HQ and of the agent.
    hq.quarry(&["restart", "blog/mongo"]).succeeded();
    assert_eq!(store(&hq, "GET", "colour", ""), "green\n");
    greet(&blog, "again");
    hq.push(&blog, "blog").succeeded();
    assert_eq!(hq.page("blog.localhost", "/env/MONGO_PORT_27017_TCP_PORT"), number.to_string());
    hq.stop(Signal::KILL);
    hq.kill_agent();
    assert_ne!(store(&hq, "GET", "colour", ""), "green\n", "nobody carries it");
    hq.start_agent();
    until("the agent to carry on by itself", || (store(&hq, "GET", "colour", "") == "green\n").then_some(()));

    hq.serve();
    hq.quarry(&["destroy", "shared", "--force"]).succeeded();
    assert!(!hq.root().join(format!("embassy/ports/{port}.json")).exists());
    ask(&hq, "shop", &embassy, &port).failed();
}

/// Answers each line with its release; takes thousands of connections.
const API: &str = r#"use IO::Socket::INET; use IO::Select;
my $server = IO::Socket::INET->new(LocalPort => 7000, Listen => 4096, ReuseAddr => 1) or die; my $all = IO::Select->new($server);
$SIG{TERM} = sub { exit 0 };
while (1) { for my $one ($all->can_read) {
    if ($one == $server) { my $new = $server->accept; $all->add($new) if $new; next }
    if (sysread $one, my $line, 100) { syswrite $one, "$ENV{QUARRY_RELEASE}\n" } else { $all->remove($one); close $one }
} }
"#;

/// Holds so many connections, asks each of them again and again until a new one is answered by another release, and five
/// times more then. Any that breaks ends it with 1.
const HOLD: &str = r#"use IO::Socket::INET; $| = 1;
sub one { IO::Socket::INET->new(PeerAddr => $ENV{API_PORT_7000_TCP_ADDR}, PeerPort => $ENV{API_PORT_7000_TCP_PORT}, Timeout => 10) or die "no connection: $!\n" }
sub asked { my $to = shift; syswrite $to, "x\n" or die "cannot ask: $!\n"; sysread($to, my $line, 100) or die "it broke: $!\n"; chomp $line; $line }
my @held = map { one() } 1..$ARGV[0]; my $first = asked($held[0]); my $more = 5; print "held\n";
while ($more) { my $new = asked(one()); for (@held) { my $now = asked($_); die "$now instead of $first\n" if $now ne $first } $more-- if $new ne $first; select undef, undef, undef, 0.1 }
print "kept $ARGV[0] of release $first\n";"#;

/// Asks over and over, each time anew, until it is told to stop.
const LOOP: &str = r#"use IO::Socket::INET; use IO::Select; $| = 1; my ($good, $bad) = (0, 0); $SIG{PIPE} = 'IGNORE';
my $told = IO::Select->new(\*STDIN);
while (!$told->can_read(0.01)) {
    my $to = IO::Socket::INET->new(PeerAddr => "api.blog.quarry", PeerPort => $ENV{API_PORT_7000_TCP_PORT}, Timeout => 10);
    my $line; if ($to && syswrite($to, "x\n") && sysread($to, $line, 100)) { $good++ } else { $bad++; print "bad: $!\n" }
    print "asking\n" if $good == 1 && !$bad }
print "good $good bad $bad\n";"#;

fn api() -> Repository {
    let yml = "api:\n  type: worker\n  dockerfile: |\n    FROM debian:bookworm-slim\n    COPY api.pl /api.pl\n    CMD [\"perl\", \"/api.pl\"]\n  expose: 7000\n  scale: 2\n  size: 64mb\n  grace: 60s\n  health: {tcp: 7000}\nweb:\n  dockerfile: |\n    FROM debian:bookworm-slim\n    COPY app.pl /app.pl\n    CMD [\"perl\", \"/app.pl\"]\n  expose: 8080\n  size: 128mb\n  link: api\n  health: /\n";
    app(&[("quarry.yml", yml), ("api.pl", API)])
}

/// The containers of api.
fn apis(hq: &Hq) -> Vec<Value> {
    let rows = hq.quarry(&["ps", "blog", "--json"]).succeeded().json();
    rows.as_array().unwrap().iter().filter(|row| row["node"] == "api").cloned().collect()
}

/// `CONTAINER`: says when this server's embassy no longer knows it.
const WATCH: &str =
    r#"touch /tmp/watching; while grep -q "$1" /var/lib/quarry-agent/embassy.json; do sleep 0.005; done; date +%s.%N"#;

/// `CONTAINER`: kills it, and says in nanoseconds when docker told of its death.
const KILL: &str = r#"docker kill "$1" >/dev/null; docker events --since 30s --until "$(date -d "+2 sec" +%s)" --filter container="$1" --filter event=die --format '{{.TimeNano}}'"#;

/// Kills a container on the first server. In milliseconds after docker's word of its death: when each of the other
/// embassies, and HQ's, has left it out.
fn left_out_after(hq: &Hq, lab: &Lab, container: &str) -> Vec<f64> {
    let near = hq.root().join("agent/embassy.json");
    let told = std::thread::scope(|scope| {
        let watch = |number| move || lab.server(number).ssh(&["sh", "-c", WATCH, "sh", container]).succeeded().text();
        let far = [scope.spawn(watch(1)), scope.spawn(watch(2))];
        for number in [1, 2] {
            let watches = || (lab.server(number).ssh(&["test", "-e", "/tmp/watching"]).code == 0).then_some(());
            until("somebody to watch", watches);
        }
        let killing = scope.spawn(|| lab.server(1).ssh(&["sh", "-c", KILL, "sh", container]).succeeded().text());
        let knows = || std::fs::read_to_string(&near).unwrap().contains(container);
        let near = until("HQ's own embassy to leave it out", || (!knows()).then(std::time::SystemTime::now));
        let killed = killing.join().unwrap().trim().parse::<f64>().unwrap() / 1e9;
        let near = near.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let far = far.map(|watched| watched.join().unwrap().trim().parse::<f64>().unwrap());
        [far[0], far[1], near].map(|seconds| (seconds - killed) * 1e3)
    });
    told.to_vec()
}

#[test]
fn what_moves_is_found_from_every_server_and_no_connection_breaks() {
    let lab = Lab::up(2);
    let hq = Hq::with_agent(&[("lease", "5s")]);
    for number in [1, 2] {
        add(&hq, &lab, number, &[]);
    }
    let repository = api();
    hq.push(&repository, "blog").succeeded();
    let servers =
        || -> BTreeSet<String> { apis(&hq).iter().map(|row| row["server"].as_str().unwrap().to_owned()).collect() };
    assert_eq!(servers().len(), 2, "one on each of two servers");

    // A thousand connections outlast a deploy, and so does whoever comes anew.
    let mut holding = hq.quarry_beside(&["run", "blog/web", "perl", "-e", HOLD, "--", "1000"]);
    let mut asking = hq.quarry_beside(&["run", "blog/web", "perl", "-e", LOOP]);
    holding.wait_for("held");
    asking.wait_for("asking");
    greet(&repository, "second");
    hq.push(&repository, "blog").succeeded();
    let held = holding.wait_within(Duration::from_secs(120)).succeeded();
    assert!(held.text().contains("kept 1000 of release 1"), "{held}");

    // It moves, becomes fewer and more, and is where it was found.
    hq.quarry(&["servers", "drain", "s1"]).succeeded();
    assert!(!servers().contains("s1"));
    hq.quarry(&["scale", "blog", "api=1"]).succeeded();
    hq.quarry(&["scale", "blog", "api=3"]).succeeded();
    hq.quarry(&["servers", "resume", "s1"]).succeeded();
    hq.quarry(&["restart", "blog/api"]).succeeded();
    asking.end_of_input();
    let asked = asking.wait_within(Duration::from_secs(60)).succeeded();
    assert!(asked.text().contains(" bad 0"), "{asked}");

    // A container that dies is known to be dead everywhere at once.
    hq.quarry(&["servers", "drain", "hq"]).succeeded();
    let table = hq.root().join("agent/embassy.json");
    let own = format!("{}:", lab.server(1).ip());
    let on_one = || {
        let table: Value = serde_json::from_slice(&std::fs::read(&table).unwrap()).unwrap();
        let endpoints = table["ports"].as_array()?.iter().flat_map(|port| port["endpoints"].as_array().unwrap());
        let at = |endpoint: &&Value| endpoint["address"].as_str().unwrap().starts_with(&own);
        let api = |endpoint: &&Value| endpoint["container"].as_str().unwrap().starts_with("blog.api.");
        let endpoint = endpoints.into_iter().find(|endpoint| at(endpoint) && api(endpoint))?;
        Some(endpoint["container"].as_str().unwrap().to_owned())
    };
    let victim = until("a container of api on s1", on_one);
    let after = left_out_after(&hq, &lab, &victim);
    eprintln!(
        "milliseconds after docker's word until three embassies have left out a container that died: {after:.0?}"
    );
    assert!(after.iter().all(|after| *after < 1000.0), "{after:?}");
}

/// Answers each datagram with its release.
const ECHO: &str = r#"use IO::Socket::INET; $SIG{TERM} = sub { exit 0 };
my $server = IO::Socket::INET->new(LocalPort => 5353, Proto => "udp") or die;
while ($server->recv(my $asked, 1500)) { $server->send("$asked from $ENV{QUARRY_RELEASE}\n") }
"#;

/// Asks by datagrams, again and again until one is answered; what is lost on the way is nobody's fault.
const DATAGRAM: &str = r#"use IO::Socket::INET; use IO::Select;
my $to = IO::Socket::INET->new(PeerAddr => $ENV{ECHO_PORT_5353_UDP_ADDR}, PeerPort => $ENV{ECHO_PORT_5353_UDP_PORT}, Proto => "udp") or die;
for (1..20) { $to->send("asked"); if (IO::Select->new($to)->can_read(0.5)) { $to->recv(my $line, 1500); print $line; exit 0 } }
die "nobody answers\n";"#;

#[test]
fn datagrams_find_their_way_too() {
    let hq = Hq::with_agent(&[]);
    let yml = "echo:\n  type: worker\n  dockerfile: |\n    FROM debian:bookworm-slim\n    COPY echo.pl /echo.pl\n    CMD [\"perl\", \"/echo.pl\"]\n  expose: 5353/udp\n  balance: least-connections\nweb:\n  dockerfile: Dockerfile\n  expose: 8080\n  health: /\n  link: echo\n";
    let repository = app(&[("quarry.yml", yml), ("echo.pl", ECHO)]);
    hq.push(&repository, "blog").succeeded();
    let variable = |name: &str| hq.page("blog.localhost", &format!("/env/ECHO_PORT{name}"));
    let (embassy, number) = (hq.embassy(), variable("_5353_UDP_PORT"));
    assert_eq!(variable(""), format!("udp://{embassy}:{number}"));
    assert_eq!(variable("_5353_UDP_PROTO"), "udp");
    let ask = |expected: &str| {
        let asked = hq.quarry(&["run", "blog/web", "perl", "-e", DATAGRAM]).succeeded();
        assert!(asked.text().contains(expected), "{asked}");
    };
    ask("asked from 1");
    greet(&repository, "second");
    hq.push(&repository, "blog").succeeded();
    ask("asked from 2");
    let rows = hq.quarry(&["links", "blog", "--json"]).succeeded().json();
    let echo = rows.as_array().unwrap().iter().find(|row| row["node"] == "echo").unwrap();
    assert_eq!(
        (&echo["port"], &echo["number"], &echo["healthy"]),
        (&"5353/udp".into(), &number.parse::<u16>().unwrap().into(), &1.into())
    );
}

/// Asks over and over, each time anew, and counts in `/tmp/asked`; until there is a `/tmp/stop`.
const PATIENT: &str = r#"use IO::Socket::INET; use IO::Select; use Time::HiRes qw(time sleep); $SIG{PIPE} = 'IGNORE';
my ($good, $bad, $worst) = (0, 0, 0);
until (-e "/tmp/stop") {
    my $began = time; my ($to, $line) = IO::Socket::INET->new(PeerAddr => "api.blog.quarry", PeerPort => $ENV{API_PORT_7000_TCP_PORT}, Timeout => 10);
    if ($to && syswrite($to, "x\n") && IO::Select->new($to)->can_read(5) && sysread($to, $line, 100)) { $good++ } else { $bad++; warn "bad: $!\n" }
    my $took = time - $began; $worst = $took if $took > $worst;
    open my $count, ">", "/tmp/new"; print $count $good; close $count; rename "/tmp/new", "/tmp/asked"; sleep 0.05;
}
printf "bad %d worst %.1f\n", $bad, $worst;"#;

#[test]
fn who_is_cut_off_or_lost_is_left_out_and_found_again() {
    let lab = Lab::up(3);
    let hq = Hq::with_agent(&[("lease", "5s")]);
    for number in [1, 2, 3] {
        add(&hq, &lab, number, &[]);
    }
    hq.quarry(&["servers", "drain", "hq"]).succeeded();
    let repository = api();
    let yml = std::fs::read_to_string(repository.path().join("quarry.yml")).unwrap();
    repository
        .write("quarry.yml", &yml.replace("scale: 2", "scale: 3").replace("size: 128mb", "size: 64mb\n  scale: 3"));
    repository.commit("three of each");
    hq.push(&repository, "blog").succeeded();
    let rows = hq.quarry(&["ps", "blog", "--json"]).succeeded().json();
    let places = |node: &str| -> BTreeSet<String> {
        let rows = rows.as_array().unwrap().iter().filter(|row| row["node"] == node);
        rows.map(|row| row["server"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((places("api").len(), places("web").len()), (3, 3), "{rows}");
    let row = rows.as_array().unwrap().iter().find(|row| row["node"] == "web" && row["server"] == "s1").unwrap();
    let web = row["container"].as_str().unwrap();

    let s1 = lab.server(1);
    let inside = |words: &[&str]| s1.ssh(&[&["docker", "exec", web], words].concat());
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| inside(&["perl", "-e", PATIENT]).succeeded());
        let asked = || inside(&["cat", "/tmp/asked"]).text().trim().parse::<u32>().ok();
        let goes_on = |when: &str| {
            let before = until("somebody to ask", asked);
            until(when, || (asked()? > before + 20).then_some(()));
        };
        goes_on("answers before anything has happened");
        s1.cut_from(lab.server(2));
        goes_on("answers while one server is out of reach of another");
        s1.heal_with(lab.server(2));
        lab.server(3).poweroff();
        goes_on("answers while a server is lost");
        let on_others = || apis(&hq).iter().filter(|row| row["server"] != "s3" && row["state"] == "running").count();
        until("three containers on two servers", || (on_others() == 3).then_some(()));
        lab.server(3).poweron();
        let listed = || hq.quarry(&["servers", "--json"]).succeeded().json();
        let is_up = || listed().as_array().unwrap().iter().any(|row| row["name"] == "s3" && row["state"] == "up");
        until("it to count again", || is_up().then_some(()));
        goes_on("answers after it has come back");
        inside(&["touch", "/tmp/stop"]).succeeded();
        let asked = asking.join().unwrap().text();
        eprintln!("{asked}");
        // At most what was under way when a wire was cut, and when the power went.
        let bad: u32 = asked.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(bad <= 2, "{asked}");
    });
}
