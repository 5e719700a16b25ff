//! The lab of several servers, and SSH to them.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use quarry::docker::bollard::Docker;
use quarry::docker::{ContainerRequest, Engine, EngineError, LogRequest, Restart};
use quarry::env::Env;
use quarry::servers::ssh::{KeyPair, Line, Link, LinkError, Login, State};
use quarry::units::Millis;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::harness::lab::{Lab, Server};
use crate::harness::wait::PATIENCE;

/// A cable that is cut shows within this time.
const NOTICED: Duration = Duration::from_secs(6);

const LIMIT: Duration = Duration::from_secs(30);

async fn up(line: &Line) {
    let mut state = line.state();
    let seen = timeout(PATIENCE, state.wait_for(|state| *state == State::Up)).await;
    assert!(seen.is_ok(), "still {:?}", *line.state().borrow());
}

async fn link(server: Server<'_>, lab: &Lab) -> Arc<Link> {
    let login = Login::Key(lab.key());
    Arc::new(Link::connect(&server.address(), &login, &server.host_key()).await.unwrap())
}

fn engine(line: Line) -> (Arc<Line>, Docker) {
    let line = Arc::new(line);
    (line.clone(), Docker::over(line))
}

/// A container that does what `script` says.
async fn container(engine: &Docker, name: &str, script: &str) -> quarry::names::ContainerName {
    let name: quarry::names::ContainerName = name.parse().unwrap();
    let request = ContainerRequest {
        name: name.clone(),
        image: "debian:bookworm-slim".to_owned(),
        entrypoint: None,
        command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        cwd: None,
        env: Env::new(),
        labels: Default::default(),
        ports: Vec::new(),
        binds: Vec::new(),
        network: None,
        hosts: Default::default(),
        memory: None,
        cpus: None,
        pids: None,
        restart: Restart::UnlessStopped,
        stop_timeout: Millis::seconds(1),
        tty: false,
        log: Default::default(),
        stdin: false,
    };
    engine.create(request).await.unwrap();
    engine.start(&name).await.unwrap();
    name
}

/// Runs `what` and tells how long it took.
async fn timed<T>(what: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    (timeout(PATIENCE, what).await.expect("it has a deadline of its own"), began.elapsed())
}

fn reaches(from: Server<'_>, to: Server<'_>) -> bool {
    let probe = format!("timeout 2 bash -c ': </dev/tcp/{}/22'", to.ip());
    from.ssh(&["bash", "-c", &probe]).code == 0
}

// ---- the lab ----

#[test]
fn labs_live_beside_each_other_and_leave_nothing() {
    let (one, other) = (Lab::up(2), Lab::up(1));
    assert_ne!(one.id(), other.id());
    assert!(reaches(one.server(1), one.server(2)));
    assert_eq!(one.server(2).ssh(&["hostname"]).succeeded().text(), "s2\n");
    let places = [one.folder(), format!("/run/netns/quarry-lab-{}-s2", one.id()).into()];
    let device = format!("/sys/class/net/qlab{}", one.id());
    let all_are =
        |there: bool| places.iter().all(|place| place.exists() == there) && Path::new(&device).exists() == there;
    assert!(all_are(true));
    drop(one);
    // Another test may have taken the number again by now: then its own things are there.
    assert!(all_are(false) || places[0].join("owner").exists());
    other.server(1).ssh(&["docker", "version"]).succeeded();
}

/// Whether a process is there and has not ended: one that nobody has waited for yet has.
fn runs(process: &Path) -> bool {
    let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[test]
fn the_lab_of_a_killed_owner_is_swept_by_the_next() {
    let mut owner = Command::new("sleep").arg("600").spawn().unwrap();
    let orphan = Lab::owned_by(owner.id(), 1, &[]);
    let process = std::fs::read_to_string(orphan.folder().join("s1/process")).unwrap();
    let process = Path::new("/proc").join(process.split(' ').next().unwrap());
    assert!(runs(&process));
    owner.kill().unwrap();
    owner.wait().unwrap();
    let _next = Lab::up(1);
    assert!(!runs(&process));
    // Its number may be another's by now: nothing is left to take down.
    std::mem::forget(orphan);
}

#[test]
fn labs_are_taken_and_removed_by_many_at_once() {
    // Owners that are gone while their lab is taken down: that is when somebody else may sweep it.
    let script = r#"
        set -euo pipefail
        . bin/lib.sh
        . tests/lab/lab.sh
        for round in {1..20}; do
            sleep 600 &
            owner=$!
            take_lab $owner
            read -r pid _ <"$FOLDER/owner"
            [[ $pid == "$owner" ]]
            kill $owner
            # It ends by that signal.
            wait $owner 2>/dev/null || true
            remove_lab
        done"#;
    let taker = || Command::new("bash").args(["-c", script]).current_dir(env!("CARGO_MANIFEST_DIR")).spawn().unwrap();
    let takers = [(); 4].map(|()| taker());
    for mut taker in takers {
        assert!(taker.wait().unwrap().success());
    }
}

#[test]
fn a_server_has_nothing_of_a_quarry_that_this_machine_has() {
    let lab = Lab::up(1);
    let server = lab.server(1);
    let places = "/etc/quarry /usr/local/lib/quarry /var/lib/quarry-agent /var/lib/quarry-etcd";
    let check = |expected: &str| {
        let script = format!("ls -d {places} 2>/dev/null; grep -c quarry: /etc/hosts; ls /var/lib/quarry-agent; true");
        assert_eq!(server.ssh(&["sh", "-c", &script]).text(), expected);
    };
    check("0\n");
    // Whiteouts, and not only absence: what a quarry here makes later is not seen there either.
    let upper = lab.folder().join("s1/disk/upper");
    for place in places.split(' ') {
        assert!(upper.join(&place[1..]).symlink_metadata().unwrap().file_type().is_char_device(), "{place}");
    }
    server.ssh(&["sh", "-c", "mkdir /var/lib/quarry-agent && touch /var/lib/quarry-agent/own"]).succeeded();
    check("/var/lib/quarry-agent\n0\nown\n");
    server.poweroff();
    server.poweron();
    check("/var/lib/quarry-agent\n0\nown\n");
}

#[test]
fn an_etcd_that_the_lab_has_not_started_is_killed_like_its_own() {
    let lab = Lab::up(1);
    let server = lab.server(1);
    server.ssh(&["sh", "-c", "cp /bin/sleep /tmp/etcd; setsid /tmp/etcd 600 >/dev/null 2>&1 </dev/null &"]).succeeded();
    assert!(lab.tell(&["status"]).succeeded().text().contains("dockerd etcd sshd"));
    server.kill("etcd");
    assert!(!lab.tell(&["status"]).succeeded().text().contains("etcd"));
    assert_eq!(lab.tell(&["start", "1", "etcd"]).code, 1);
}

#[test]
fn power_off_ends_everything_at_once_and_the_disk_stays() {
    let lab = Lab::up(2);
    let (one, other) = (lab.server(1), lab.server(2));
    one.ssh(&["sh", "-c", "echo kept > /etc/kept; echo gone > /run/gone"]).succeeded();
    one.ssh(&["docker", "run", "-d", "--name", "kept", "--restart", "always", "debian:bookworm-slim", "sleep", "600"])
        .succeeded();
    one.poweroff();
    assert!(!reaches(other, one));
    one.poweron();
    assert_eq!(one.ssh(&["sh", "-c", "cat /etc/kept; ls /run/gone 2>&1"]).text().lines().next(), Some("kept"));
    one.ssh(&["test", "-e", "/run/gone"]).ended(1);
    crate::harness::until("the container to run again", || {
        let listed = one.ssh(&["docker", "ps", "-q"]).text();
        (!listed.is_empty()).then_some(())
    });
    assert!(reaches(other, one));
    // The machine's own files are as they were.
    assert!(!Path::new("/etc/kept").exists());
}

#[test]
fn two_servers_are_cut_apart_while_a_third_reaches_both() {
    let lab = Lab::up(3);
    let [one, two, three] = [1, 2, 3].map(|number| lab.server(number));
    one.cut_from(two);
    assert!(!reaches(one, two) && !reaches(two, one) && reaches(three, one) && reaches(three, two));
    one.heal_with(two);
    assert!(reaches(one, two));
}

#[test]
fn etcd_outlives_one_of_three_servers() {
    let lab = Lab::with_etcd(3, 3);
    let put = |server: Server<'_>, value: &str| {
        server.ssh(&["env", "ETCDCTL_API=3", "etcdctl", "--command-timeout=20s", "put", "key", value])
    };
    put(lab.server(1), "first").succeeded();
    lab.server(1).poweroff();
    // A write that the lost leader had begun may fail once more.
    let written = || (put(lab.server(2), "second").code == 0).then_some(());
    crate::harness::until("the other two to take a write", written);
}

#[test]
fn a_bare_server_has_no_docker_and_can_install_it() {
    let lab = Lab::bare(1);
    let server = lab.server(1);
    server.ssh(&["which", "dockerd"]).failed();
    server.ssh(&["apt-get", "update"]).succeeded();
    server.ssh(&["apt-get", "install", "--download-only", "-y", "docker.io"]).succeeded();
}

// ---- one connection ----

#[tokio::test]
async fn commands_get_their_words_and_input_and_give_their_output_and_code() {
    let lab = Lab::up(1);
    let link = link(lab.server(1), &lab).await;
    let odd = "a 'b' \"c\" $HOME `id` \\ \n;|&*?";
    let done = link.exec(&["printf", "%s", odd], tokio::io::empty(), LIMIT).await.unwrap();
    assert_eq!((done.code, String::from_utf8(done.stdout).unwrap().as_str()), (0, odd));
    let script = "cat; echo wrong >&2; exit 7";
    let done = link.exec(&["sh", "-c", script], &b"input"[..], LIMIT).await.unwrap();
    assert_eq!((done.code, &done.stdout[..], &done.stderr[..]), (7, &b"input"[..], &b"wrong\n"[..]));
    // What it does not read is no failure, and a signal is told as shells do.
    let large = tokio::io::repeat(b'x').take(64 << 20);
    assert_eq!(link.exec(&["sh", "-c", "kill -9 $$"], large, LIMIT).await.unwrap().code, 137);
    let late = link.exec(&["sleep", "60"], tokio::io::empty(), Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(late, LinkError::Late { .. }) && late.to_string().contains("did not end `sleep`"), "{late}");
    assert!(link.exec(&["echo", "\0"], tokio::io::empty(), LIMIT).await.is_err());
}

#[tokio::test]
async fn more_commands_than_sshd_takes_at_once_wait_for_their_turn() {
    let lab = Lab::up(1);
    let link = link(lab.server(1), &lab).await;
    let commands = (0..30).map(|number| {
        let link = link.clone();
        async move { link.exec(&["sh", "-c", &format!("sleep 0.1; exit {number}")], tokio::io::empty(), LIMIT).await }
    });
    let codes: Vec<_> =
        futures_util::future::join_all(commands).await.into_iter().map(|done| done.unwrap().code).collect();
    assert_eq!(codes, (0..30).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_server_with_another_host_key_is_refused_before_it_learns_anything() {
    let lab = Lab::up(2);
    let (one, other) = (lab.server(1), lab.server(2));
    let login = Login::Password("never sent".to_owned());
    let error = Link::connect(&one.address(), &login, &other.host_key()).await.err().unwrap();
    let text = error.to_string();
    assert!(text.contains(&one.host_key().fingerprint()) && text.contains(&other.host_key().fingerprint()), "{text}");
    assert!(matches!(error, LinkError::HostKey { .. }), "{error:?}");
    let log = std::fs::read_to_string(lab.folder().join("s1/log/sshd.log")).unwrap();
    assert!(!log.contains("Failed password"), "{log}");
    assert_eq!(Link::host_key(&one.address()).await.unwrap(), one.host_key());
}

#[tokio::test]
async fn a_password_lets_in_and_a_strange_key_does_not() {
    let lab = Lab::up(1);
    let server = lab.server(1);
    server.ssh(&["sh", "-c", "echo root:only-here | chpasswd"]).succeeded();
    let log_in = |login: Login| async move { Link::connect(&server.address(), &login, &server.host_key()).await };
    let link = log_in(Login::Password("only-here".to_owned())).await.unwrap();
    assert_eq!(link.exec(&["id", "-un"], tokio::io::empty(), LIMIT).await.unwrap().stdout, b"root\n");
    let folder = tempfile::tempdir().unwrap();
    let strange = KeyPair::open_or_create(&folder.path().join("key")).unwrap();
    for login in [Login::Password("wrong".to_owned()), Login::Key(strange)] {
        let error = log_in(login).await.err().unwrap();
        assert!(matches!(error, LinkError::Refused { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_port_of_the_servers_loopback_leads_to_hq() {
    let lab = Lab::up(1);
    let (line, _) = engine(lab.server(1).line());
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let target: SocketAddr = listener.local_addr().unwrap();
    let (port, held) = line.forward(0, target).await.unwrap();
    let answering = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = [0; 5];
        stream.read_exact(&mut asked).await.unwrap();
        stream.write_all(b"from HQ\n").await.unwrap();
        asked
    });
    let ask = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; printf hello >&3; cat <&3");
    let done = held.exec(&["bash", "-c", &ask], tokio::io::empty(), LIMIT).await.unwrap();
    assert_eq!(done.stdout, b"from HQ\n");
    assert_eq!(&answering.await.unwrap(), b"hello");
    let error = line.forward(22, target).await.err();
    assert!(error.is_none() || matches!(error, Some(LinkError::Denied { .. })), "{error:?}");
}

// ---- docker over a line that breaks ----

#[tokio::test]
async fn a_cut_server_fails_its_calls_soon_disturbs_no_other_and_works_again_when_healed() {
    let lab = Lab::up(2);
    let (cut, whole) = (lab.server(1), lab.server(2));
    let ((line, far), (other_line, other)) = (engine(cut.line()), engine(whole.line()));
    up(&line).await;
    up(&other_line).await;
    let name = container(&far, "quiet", "echo hello; sleep 600").await;
    let mut log = far.logs(&name, LogRequest { tail: None, follow: true, timestamps: false }).await.unwrap();
    log.next().await.unwrap().unwrap();
    let mut unread = far.logs(&name, LogRequest { tail: None, follow: true, timestamps: false }).await.unwrap();
    let mut events = far.events().await.unwrap();
    let disturbed = tokio::spawn({
        let other = other.clone();
        async move {
            let mut longest = Duration::ZERO;
            for _ in 0..60 {
                let (answer, took) = timed(other.version()).await;
                answer.unwrap();
                longest = longest.max(took);
                sleep(Duration::from_millis(100)).await;
            }
            longest
        }
    });
    cut.cut();
    let began = Instant::now();
    let (version, wait, logged, begun, event) = tokio::join!(
        timed(far.version()),
        timed(far.wait(&name)),
        timed(log.next()),
        // Its connection is opened when it is first asked: now.
        timed(unread.next()),
        timed(events.next())
    );
    assert!(began.elapsed() < NOTICED, "{:?}", began.elapsed());
    for error in [
        version.0.unwrap_err(),
        wait.0.unwrap_err(),
        logged.0.unwrap().unwrap_err(),
        begun.0.unwrap().unwrap_err(),
        event.0.unwrap().unwrap_err(),
    ] {
        assert!(matches!(error, EngineError::Unreachable { .. }), "{error:?}");
        assert!(error.to_string().contains(&format!("docker on `s1` ({})", cut.ip())), "{error}");
    }
    assert!(matches!(*line.state().borrow(), State::Down { .. }));
    // From now on nobody waits at all.
    let (error, took) = timed(far.version()).await;
    assert!(error.is_err() && took < Duration::from_millis(100), "{took:?}");
    cut.heal();
    up(&line).await;
    far.version().await.unwrap();
    let longest = disturbed.await.unwrap();
    eprintln!("noticed after {:?}, healed; the other server's slowest answer meanwhile: {longest:?}", version.1);
    assert!(longest < Duration::from_secs(2), "{longest:?}");
}

#[tokio::test]
async fn a_stalled_engine_fails_its_calls_by_their_deadline_and_its_server_s_line_stays_up() {
    let lab = Lab::up(2);
    let (stalled, whole) = (lab.server(1), lab.server(2));
    let ((line, far), (_other_line, other)) = (engine(stalled.line()), engine(whole.line()));
    up(&line).await;
    let name = container(&far, "quiet", "sleep 600").await;
    stalled.stall("dockerd");
    let (calls, alive) = tokio::join!(
        async { tokio::join!(timed(far.version()), timed(far.containers("a")), timed(far.start(&name))) },
        timed(other.containers("a")),
    );
    alive.0.unwrap();
    assert!(alive.1 < Duration::from_secs(2), "{:?}", alive.1);
    for (error, took) in [(calls.0.0.err(), calls.0.1), (calls.1.0.err(), calls.1.1), (calls.2.0.err(), calls.2.1)] {
        assert!(matches!(error, Some(EngineError::Unreachable { .. })), "{error:?}");
        assert!(took < Duration::from_secs(15), "{took:?}");
    }
    assert_eq!(*line.state().borrow(), State::Up);
    stalled.resume("dockerd");
    far.version().await.unwrap();
}

#[tokio::test]
async fn a_reader_who_stops_reading_holds_up_nobody() {
    let lab = Lab::up(1);
    let (line, engine) = engine(lab.server(1).line());
    up(&line).await;
    let name = container(&engine, "chatty", "yes some longer line of text that fills buffers").await;
    let mut log = engine.logs(&name, LogRequest { tail: None, follow: true, timestamps: false }).await.unwrap();
    log.next().await.unwrap().unwrap();
    // Long enough for every buffer on the way to be full.
    for _ in 0..20 {
        let (version, took) = timed(engine.version()).await;
        version.unwrap();
        assert!(took < Duration::from_secs(2), "{took:?}");
        sleep(Duration::from_millis(100)).await;
    }
    assert!(log.next().await.unwrap().is_ok());
}

#[tokio::test]
async fn a_server_that_comes_back_from_a_power_cut_is_connected_again() {
    let lab = Lab::up(1);
    let (line, engine) = engine(lab.server(1).line());
    up(&line).await;
    lab.server(1).poweroff();
    let mut state = line.state();
    let (down, took) = timed(state.wait_for(|state| matches!(state, State::Down { .. }))).await;
    down.unwrap();
    assert!(took < NOTICED, "{took:?}");
    lab.server(1).poweron();
    up(&line).await;
    engine.version().await.unwrap();
}

#[tokio::test]
async fn an_engine_that_is_killed_is_gone_at_once_and_found_again() {
    let lab = Lab::up(1);
    let (line, engine) = engine(lab.server(1).line());
    up(&line).await;
    lab.server(1).kill("dockerd");
    let (error, took) = timed(engine.version()).await;
    assert!(
        matches!(error, Err(EngineError::Unreachable { .. })) && took < Duration::from_secs(1),
        "{took:?} {error:?}"
    );
    assert_eq!(*line.state().borrow(), State::Up);
    lab.server(1).start("dockerd");
    let back = async {
        while engine.version().await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, back).await.unwrap();
}

#[tokio::test]
async fn a_slow_cable_full_of_images_is_not_taken_for_a_cut_one() {
    let lab = Lab::up(1);
    let (line, engine) = engine(lab.server(1).line());
    up(&line).await;
    let bulk = line.bulk().await.unwrap();
    lab.server(1).slow("2mbit");
    let image = tokio::io::repeat(b'x').take(2_000_000);
    let sending = timed(bulk.exec(&["wc", "-c"], image, PATIENCE));
    let asking = async {
        for _ in 0..5 {
            engine.version().await.unwrap();
            sleep(Duration::from_secs(1)).await;
        }
    };
    let ((done, took), ()) = tokio::join!(sending, asking);
    assert_eq!(done.unwrap().stdout, b"2000000\n");
    assert!(took > Duration::from_secs(5), "the cable was not slow: {took:?}");
    assert_eq!(*line.state().borrow(), State::Up);
}

#[tokio::test]
async fn images_pass_at_the_speed_of_the_cable_while_calls_go_on() {
    let lab = Lab::up(1);
    let (line, engine) = engine(lab.server(1).line());
    up(&line).await;
    let image = tempfile::NamedTempFile::new().unwrap();
    let path = image.path().to_str().unwrap();
    crate::harness::docker::docker(&["save", "-o", path, "debian:bookworm-slim"]).succeeded();
    let megabytes = image.path().metadata().unwrap().len() as f64 / 1e6;
    let bulk = line.bulk().await.unwrap();
    for words in [&["sh", "-c", "cat > /dev/null"][..], &["docker", "load"]] {
        let file = tokio::fs::File::open(path).await.unwrap();
        let sending = timed(bulk.exec(words, file, PATIENCE));
        let asking = async {
            let mut longest = Duration::ZERO;
            for _ in 0..5 {
                let (version, took) = timed(engine.version()).await;
                version.unwrap();
                longest = longest.max(took);
            }
            longest
        };
        let ((done, took), longest) = tokio::join!(sending, asking);
        assert_eq!(done.unwrap().code, 0);
        let speed = megabytes / took.as_secs_f64();
        eprintln!("{words:?}: {megabytes:.0} MB in {took:?}, {speed:.0} MB/s; slowest call meanwhile {longest:?}");
        assert!(speed > 10.0, "{speed} MB/s");
    }
}
