//! Docker's own client against HQ: the grid as one engine.

use super::servers::fleet_with;
use super::with_app;
use crate::harness::lab::Lab;
use crate::harness::{Hq, Terminal, docker, until};

const IMAGE: &str = "debian:bookworm-slim";

/// Says something again and again.
const TICK: &str = "while :; do echo tick; sleep 0.2; done";

/// What is no text, so many bytes of it.
fn bytes(count: u32) -> Vec<u8> {
    (0..count).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// What came of what somebody wanted, of all events with this in them.
fn results(hq: &Hq, what: &str) -> Vec<String> {
    let events = hq.quarry(&["events", "--json"]).succeeded().json();
    let told = events.as_array().unwrap().iter().filter(|event| event["what"].as_str().unwrap().contains(what));
    told.map(|event| event["result"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_client_speaks_to_hq_as_to_an_engine() {
    let hq = Hq::start();
    let client = hq.docker();
    let version = client.run(&["version", "--format", "{{.Server.Version}} {{.Server.APIVersion}}"]).succeeded();
    assert_eq!(version.text(), format!("{} 1.41\n", env!("CARGO_PKG_VERSION")));
    let info = client.run(&["info"]).succeeded().text();
    assert!(info.contains("Quarry on 1 server") && info.contains(&format!("ID: {}", hq.id())), "{info}");
    assert_eq!(client.list(&["ps", "-aq"]), Vec::<String>::new());
    // Whoever types the command has the client elsewhere.
    hq.by_ssh(&["docker", "ps"]).ended(2).said(&["DOCKER_HOST=ssh://"]);
    // What is not there is told with what is.
    for (words, told) in [
        (&["network", "ls"][..], "each stack has a network of its own"),
        (&["volume", "ls"], "volumes belong to nodes and jobs"),
        (&["node", "ls"], "servers list"),
        (&["system", "df"], "gc"),
        (&["rename", "a", "b"], "jobs and stacks"),
        (&["container", "prune", "-f"], "jobs and stacks"),
        (&["rmi", "debian"], "go by themselves"),
    ] {
        client.run(words).failed().said(&[told]);
    }
    client.run(&["inspect", "nothing"]).failed().said(&["No such object: nothing"]);
}

#[test]
fn an_attached_container_hands_its_streams_and_its_exit_code_through() {
    let hq = Hq::start();
    let client = hq.docker();
    let script = "echo out; echo aside >&2; exit 42";
    let done = client.run(&["run", "--rm", "--name", "probe", "-e", "A=s3cret", IMAGE, "sh", "-c", script]).ended(42);
    assert_eq!((done.text().as_str(), done.stderr.as_str()), ("out\n", "aside\n"));
    let history = hq.quarry(&["jobs", "history", "probe", "--json"]).succeeded().json();
    assert_eq!(history[0]["outcome"], serde_json::json!({ "exited": 42 }));
    let sent = bytes(3_000_000);
    let done = client.run_with(&["run", "--rm", "-i", IMAGE, "cat"], &sent);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stdout == sent, "{} bytes came back of {}", done.stdout.len(), sent.len());
    // The end of what is typed is an end for the program, which goes on to speak.
    let sum = client.run_with(&["run", "--rm", "-i", IMAGE, "sh", "-c", "md5sum; echo done"], &sent).succeeded();
    assert!(sum.text().ends_with("  -\ndone\n"), "{sum}");
    // Without -i there is nothing to read, and nobody waits for it.
    assert_eq!(client.run_with(&["run", "--rm", IMAGE, "cat"], b"unread").succeeded().text(), "");
    let words = ["run", "--rm", "--entrypoint", "echo", "-w", "/tmp", "-m", "64m", "--cpus", "0.5", IMAGE, "said"];
    assert_eq!(client.run(&words).succeeded().text(), "said\n");
    hq.wait_for_containers(&["role=once"], 0);
    let events = hq.quarry(&["events", "--json"]).succeeded().text();
    assert!(events.contains("docker run debian:bookworm-slim cat") && !events.contains("s3cret"), "{events}");
    // Newer clients speak the same.
    let newer = "/usr/local/bin/docker";
    if std::path::Path::new(newer).exists() {
        let done = client.as_program(newer).run_with(&["run", "--rm", "-i", IMAGE, "sh", "-c", "cat; exit 3"], &sent);
        assert!(done.code == 3 && done.stdout == sent, "{} bytes, {}", done.stdout.len(), done.stderr);
    }
}

#[test]
fn a_terminal_and_its_size_reach_what_runs_inside() {
    let hq = Hq::start();
    let client = hq.docker();
    let text = format!(
        "/usr/bin/docker run --rm -it {IMAGE} sh -c 'until stty size | grep -q 31; do sleep 0.1; done; stty size; read x; echo got $x; exit 5'"
    );
    let mut terminal = Terminal::open(97, 31, &text, |command| client.dress(command));
    terminal.wait_for("31 97");
    terminal.write("word\n");
    terminal.wait_for("got word");
    terminal.wait().ended(5);
    hq.wait_for_containers(&["role=once"], 0);
}

#[test]
fn ctrl_c_reaches_what_runs_and_so_does_kill() {
    let hq = Hq::start();
    let client = hq.docker();
    let script = "trap 'echo caught; exit 9' INT; echo up; while :; do sleep 0.1; done";
    let mut running = client.beside(&["run", "--rm", IMAGE, "sh", "-c", script]);
    running.wait_for("up");
    running.interrupt();
    let done = running.wait().ended(9);
    assert_eq!(done.text(), "up\ncaught\n");
    let mut running = client.beside(&["run", "--rm", "--name", "victim", IMAGE, "sh", "-c", "echo up; sleep 1000"]);
    running.wait_for("up");
    client.run(&["kill", "victim"]).succeeded();
    running.wait().ended(137);
    hq.wait_for_containers(&["role=once"], 0);
}

#[test]
fn what_has_ended_is_there_until_it_is_removed() {
    let hq = Hq::start();
    let client = hq.docker();
    client.run(&["run", "--name", "kept", IMAGE, "sh", "-c", "echo said; exit 3"]).ended(3);
    let state = ["inspect", "kept", "--format", "{{.State.Status}} {{.State.ExitCode}}"];
    assert_eq!(client.run(&state).succeeded().text(), "exited 3\n");
    assert_eq!(client.run(&["logs", "kept"]).succeeded().text(), "said\n");
    assert_eq!(client.run(&["wait", "kept"]).succeeded().text(), "3\n");
    assert_eq!(client.list(&["ps", "-q"]).len(), 0);
    assert_eq!(client.list(&["ps", "-q", "-n", "1"]).len(), 1);
    assert_eq!(
        client.list(&["ps", "-aq", "--filter", "status=exited", "--filter", "ancestor=debian:bookworm-slim"]).len(),
        1
    );
    client.run(&["start", "kept"]).failed().said(&["docker run makes it anew"]);
    client.run(&["rm", "kept"]).succeeded();
    client.run(&["inspect", "kept"]).failed();
    // What was made and never started can be taken away, and its name is free again.
    client.run(&["create", "--name", "idle", IMAGE, "true"]).succeeded();
    client.run(&["create", "--name", "idle", IMAGE, "true"]).failed().said(&["has a node `idle` already"]);
    client.run(&["rm", "idle"]).succeeded();
    client.run(&["create", "--name", "idle", IMAGE, "sh", "-c", "exit 4"]).succeeded();
    client.run(&["start", "-a", "idle"]).ended(4);
    client.run(&["rm", "idle"]).succeeded();
    hq.wait_for_containers(&["role=once"], 0);
}

#[test]
fn a_detached_container_is_a_job_that_runs_by_itself() {
    let hq = Hq::start();
    let client = hq.docker();
    let begin = now();
    let script = "echo began $A; echo aside >&2; sleep 1000";
    let words = ["run", "-d", "--name", "ticker", "-e", "A=s3cret", "-m", "64m", IMAGE, "sh", "-c", script];
    let id = client.run(&words).succeeded().text().trim().to_owned();
    assert_eq!(id.len(), 64, "{id}");
    let jobs = hq.quarry(&["jobs", "list", "--json"]).succeeded().json();
    assert_eq!((&jobs[0]["job"], &jobs[0]["daemonized"]), (&"ticker".into(), &true.into()));
    let row =
        client.run(&["ps", "--no-trunc", "--format", "{{.ID}} {{.Image}} {{.Label \"quarry.server\"}} {{.State}}"]);
    let image = client.run(&["inspect", "ticker", "--format", "{{.Config.Image}}"]).succeeded().text();
    assert_eq!(row.succeeded().text(), format!("{id} {} hq running\n", image.trim()));
    until("what it prints", || client.run(&["logs", "ticker"]).text().contains("began s3cret").then_some(()));
    let logged = client.run(&["logs", "--tail", "1", "--timestamps", "ticker"]).succeeded();
    assert!(logged.text().contains("T") || logged.stderr.contains("aside"), "{logged}");
    let mut follower = client.beside(&["logs", "-f", &id[..12]]);
    follower.wait_for("began s3cret");

    // Commands run inside, with their streams and exit codes.
    assert_eq!(client.run(&["exec", "ticker", "sh", "-c", "echo inside; exit 7"]).ended(7).text(), "inside\n");
    let sent = bytes(1_000_000);
    let done = client.run_with(&["exec", "-i", "jobs/ticker", "cat"], &sent);
    assert!(done.code == 0 && done.stdout == sent, "{} bytes, {}", done.stdout.len(), done.stderr);
    client.run(&["exec", "-d", "ticker", "touch", "/tmp/mark"]).succeeded();
    until("what runs beside", || (client.run(&["exec", "ticker", "test", "-e", "/tmp/mark"]).code == 0).then_some(()));
    client.run(&["exec", "--privileged", "ticker", "true"]).failed().said(&["--privileged is not possible"]);
    assert!(client.run(&["top", "ticker"]).succeeded().text().contains("sleep 1000"));
    let stats = client.run(&["stats", "--no-stream", "--format", "{{.Name}}", "ticker"]).succeeded().text();
    assert!(stats.contains("ticker"), "{stats}");

    client.run(&["rm", "ticker"]).failed().said(&["docker rm -f"]);
    client.run(&["restart", "-t", "0", "ticker"]).succeeded();
    let running = || client.list(&["ps", "-q", "--filter", "status=running"]).len() == 1;
    until("it to run again", || running().then_some(()));
    client.run(&["stop", "-t", "0", "ticker"]).succeeded();
    follower.wait();
    hq.wait_for_containers(&[], 0);
    client.run(&["inspect", "ticker"]).failed();

    let end = now();
    let told = ["events", "--since", &begin, "--until", &end, "--format", "{{.Action}} {{.Actor.Attributes.name}}"];
    let told = client.run(&told).succeeded().text();
    for part in ["start jobs.ticker", "exec_start: sh", "die jobs.ticker"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    let only = ["events", "--since", &begin, "--until", &end, "--filter", "event=die", "--format", "{{.Action}}"];
    assert!(client.list(&only).iter().all(|action| action == "die"));
    assert_eq!(results(&hq, "docker stop ticker"), ["done"]);
    assert_eq!(results(&hq, "docker rm ticker"), Vec::<String>::new(), "nothing was tried");
    let events = hq.quarry(&["events", "--json"]).succeeded().text();
    assert!(!events.contains("s3cret"), "{events}");
}

/// The time by the engine's clock.
fn now() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("{}.{:09}", now.as_secs(), now.subsec_nanos())
}

#[test]
fn nothing_of_a_server_can_be_had_and_nothing_is_left_of_who_tries() {
    let hq = Hq::start();
    let client = hq.docker();
    for (options, told) in [
        (&["-v", "/:/host"][..], "-v /:/host is not possible"),
        (&["-v", "/var/run/docker.sock:/s"], "is not possible"),
        (&["--mount", "type=bind,source=/etc,target=/e"], "type=bind is not possible"),
        (&["--privileged"], "--privileged is not possible: containers get no rights"),
        (&["--cap-add", "SYS_ADMIN"], "--cap-add is not possible"),
        (&["--device", "/dev/null"], "--device is not possible"),
        (&["--network", "host"], "--network is not possible"),
        (&["--pid", "host"], "--pid is not possible"),
        (&["--ipc", "host"], "--ipc is not possible"),
        (&["--userns", "host"], "--userns is not possible"),
        (&["--security-opt", "seccomp=unconfined"], "--security-opt is not possible"),
        (&["--volumes-from", "x"], "--volumes-from is not possible"),
        (&["-p", "8080:80"], "write -p 80"),
        (&["-u", "nobody"], "--user is not possible"),
        (&["-d", "--entrypoint", "sh"], "--entrypoint is not possible with -d"),
        (&["--label", "quarry.hq=x"], "Quarry's own"),
        (&["--label", "quarry.server=s9"], "s9"),
        (&["--label", "quarry.stack=nobodys"], "there is no stack `nobodys`"),
    ] {
        let words = [&["run", "--rm"][..], options, &[IMAGE, "true"]].concat();
        let words: Vec<&str> = words.into_iter().filter(|word| *word != "--rm" || !options.contains(&"-d")).collect();
        client.run(&words).failed().said(&[told]);
    }
    client.run(&["run", "--rm", "no-such-image:1", "true"]).failed().said(&["no-such-image:1"]);
    hq.wait_for_containers(&[], 0);
    let refused = results(&hq, "docker run");
    assert!(refused.len() > 15 && refused.iter().all(|result| result != "done"), "{refused:?}");
}

#[test]
fn everybody_sees_and_does_what_they_may_and_nothing_else() {
    let hq = Hq::start();
    let (ada, bob) = (hq.docker(), hq.person("bob"));
    let bob = bob.docker();
    ada.run(&["run", "-d", "--name", "mine", "-e", "A=s3cret", IMAGE, "sh", "-c", TICK]).succeeded();
    let id = ada.list(&["ps", "-q"]).remove(0);
    let grant = |right: &str| hq.quarry(&["rights", "grant", "bob", "jobs", right]).succeeded();

    for name in ["mine", "jobs/mine", id.as_str()] {
        bob.run(&["inspect", name]).failed().said(&["No such object"]);
        bob.run(&["logs", name]).failed().said(&["No such container"]);
        bob.run(&["exec", name, "true"]).failed().said(&["No such container"]);
        bob.run(&["stop", name]).failed().said(&["No such container"]);
        bob.run(&["rm", "-f", name]).said(&["No such container"]);
    }
    assert_eq!(bob.list(&["ps", "-aq"]), Vec::<String>::new());
    assert_eq!(bob.list(&["images", "-q"]), Vec::<String>::new());
    bob.run(&["run", "--rm", IMAGE, "true"]).failed().said(&["--label quarry.stack=NAME"]);
    bob.run(&["pull", IMAGE]).failed().said(&["only operators"]);

    grant("view");
    assert_eq!(bob.list(&["ps", "-q"]), [id.as_str()]);
    let env = |client: &crate::harness::client::Client| client.run(&["inspect", "mine"]).succeeded().text();
    assert!(!env(&bob).contains("s3cret") && env(&ada).contains("s3cret"));
    bob.run(&["logs", "mine"]).succeeded();
    bob.run(&["top", "mine"]).succeeded();
    // `ps e` shows what variables a process has.
    for words in [
        &["exec", "mine", "true"][..],
        &["top", "mine", "e"],
        &["stop", "mine"],
        &["kill", "mine"],
        &["rm", "-f", "mine"],
    ] {
        bob.run(words).failed().said(&["`bob` may only view `jobs`"]);
    }
    bob.run(&["run", "--rm", IMAGE, "true"]).failed().said(&["`bob` may only view `jobs`"]);
    assert_eq!(results(&hq, "docker exec mine true"), ["refused"]);

    grant("deploy");
    bob.run(&["exec", "mine", "true"]).succeeded();
    assert_eq!(bob.run(&["run", "--rm", IMAGE, "echo", "mine"]).succeeded().text(), "mine\n");
    // Whoever follows something is told no more when they may not any more.
    let mut follower = bob.beside(&["attach", "--no-stdin", "mine"]);
    follower.wait_for("tick");
    hq.quarry(&["rights", "revoke", "bob", "jobs"]).succeeded();
    follower.wait();
}

#[test]
fn the_nodes_of_a_repository_are_looked_at_and_left_to_it() {
    let (hq, _repository) = with_app(&[]);
    let client = hq.docker();
    let names = client.list(&["ps", "--format", "{{.Names}}"]);
    assert_eq!(names, hq.containers(&["node=web"]));
    assert_eq!(client.run(&["exec", "blog/web", "echo", "inside"]).succeeded().text(), "inside\n");
    client.run(&["logs", &names[0]]).succeeded();
    for words in [&["stop", "blog/web"][..], &["kill", "blog/web"], &["rm", "-f", "blog/web"]] {
        client.run(words).failed().said(&["scale blog web=0"]);
    }
    assert_eq!(hq.containers(&["node=web"]), names, "it is left as it is");
    assert_eq!(results(&hq, "docker stop blog/web"), ["refused"]);
    let images = client.list(&["images", "--format", "{{.Repository}}"]);
    assert!(images.iter().any(|image| image == "quarry/blog/web"), "{images:?}");
    let image = client.run(&["inspect", "blog/web", "--format", "{{.Image}}"]).succeeded().text();
    let told = client.run(&["image", "inspect", image.trim(), "--format", "{{.Id}}"]).succeeded().text();
    assert_eq!(told, image);
    client.run(&["restart", "blog/web"]).succeeded();
    assert_ne!(hq.wait_for_containers(&["node=web"], 1), names, "a new one has taken its place");
    docker::docker(&["inspect", &hq.containers(&["node=web"])[0]]).succeeded();
}

#[test]
fn several_servers_look_like_one_engine() {
    let lab = Lab::up(2);
    let hq = fleet_with(&lab, 2, &[("lease", "5s")]);
    let client = hq.docker();
    for server in ["s1", "s2"] {
        let label = format!("quarry.server={server}");
        client
            .run(&["run", "-d", "--name", &format!("on-{server}"), "--label", &label, IMAGE, "sleep", "1000"])
            .succeeded();
    }
    let row = "{{.Label \"quarry.server\"}} {{.Label \"quarry.node\"}}";
    assert_eq!(client.list(&["ps", "--format", row]), ["s1 on-s1", "s2 on-s2"]);
    assert_eq!(client.list(&["ps", "--filter", "label=quarry.server=s2", "--format", row]), ["s2 on-s2"]);
    assert_eq!(client.list(&["ps", "--filter", "label=quarry.node=on-s1", "--format", row]), ["s1 on-s1"]);
    assert_eq!(client.run(&["exec", "on-s2", "echo", "inside"]).succeeded().text(), "inside\n");
    let sent = bytes(3_000_000);
    let done = client.run_with(&["run", "--rm", "-i", "--label", "quarry.server=s2", IMAGE, "cat"], &sent);
    assert!(done.code == 0 && done.stdout == sent, "{} bytes, {}", done.stdout.len(), done.stderr);
    let done = client.run_with(&["exec", "-i", "on-s1", "sh", "-c", "cat; exit 6"], &sent);
    assert!(done.code == 6 && done.stdout == sent, "{} bytes, {}", done.stdout.len(), done.stderr);
    let info = client.run(&["info"]).succeeded().text();
    assert!(info.contains("Quarry on 3 servers"), "{info}");
    let images = client.list(&["images", "--filter", "reference=debian", "--format", "{{.ID}}"]);
    let unique: std::collections::BTreeSet<&String> = images.iter().collect();
    assert_eq!(unique.len(), images.len(), "each image is listed once");

    lab.server(2).poweroff();
    let warned = || client.run(&["info"]).stderr.contains("WARNING: s2 does not answer").then_some(());
    until("a server that is missing to be told of", warned);
    assert_eq!(client.list(&["ps", "--format", row]), ["s1 on-s1"]);
}

/// The certificate that a command has printed, in a folder of its own.
fn unpacked(hq: &Hq, name: &str, printed: &[u8]) -> std::path::PathBuf {
    let folder = hq.file(name);
    tar::Archive::new(printed).unpack(&folder).unwrap();
    folder
}

#[test]
fn by_tcp_a_certificate_says_who_somebody_is_until_it_is_revoked() {
    let hq = Hq::start_with(&[("docker-listen", "127.0.0.1:0")]);
    let log = hq.log();
    let told = log.lines().find(|line| line.contains("docker's clients are let in")).unwrap_or_else(|| panic!("{log}"));
    let address = told.rsplit_once("address=").unwrap().1.trim().to_owned();
    let made = hq.by_ssh(&["tokens", "add", "laptop", "--certificate"]).succeeded();
    let certificate = unpacked(&hq, "laptop", &made.stdout);
    let client = hq.docker().by_tcp(&address, &certificate);
    until("the certificate to be known", || (client.run(&["ps"]).code == 0).then_some(()));
    let sent = bytes(3_000_000);
    let done = client.run_with(&["run", "--rm", "-i", IMAGE, "sh", "-c", "cat; exit 5"], &sent);
    assert!(done.code == 5 && done.stdout == sent, "{} bytes, {}", done.stdout.len(), done.stderr);
    let events = hq.quarry(&["events", "--json"]).succeeded().json();
    let ran = events.as_array().unwrap().iter().find(|event| event["what"].as_str().unwrap().starts_with("docker run"));
    assert_eq!((&ran.unwrap()["user"], &ran.unwrap()["from"]), (&"ada".into(), &"127.0.0.1".into()));

    // Another user's is another user.
    let bob = hq.person("bob").run(&["tokens", "add", "mine", "--certificate"]).succeeded();
    let bob = hq.docker().by_tcp(&address, &unpacked(&hq, "bob", &bob.stdout));
    until("his certificate to be known", || (bob.run(&["ps"]).code == 0).then_some(()));
    bob.run(&["run", "--rm", IMAGE, "true"]).failed().said(&["--label quarry.stack=NAME"]);

    // Without one, and with one of another HQ's, nobody comes in.
    let other = Hq::start_with(&[("docker-listen", "127.0.0.1:0")]);
    let strange = other.by_ssh(&["tokens", "add", "laptop", "--certificate"]).succeeded();
    let strange = unpacked(&hq, "strange", &strange.stdout);
    hq.docker().by_tcp(&address, &strange).run(&["ps"]).failed();
    std::fs::copy(certificate.join("ca.pem"), strange.join("ca.pem")).unwrap();
    hq.docker().by_tcp(&address, &strange).run(&["ps"]).failed().said(&["remote error: tls"]);
    for name in ["cert.pem", "key.pem"] {
        std::fs::remove_file(strange.join(name)).unwrap();
    }
    hq.docker().by_tcp(&address, &strange).run(&["ps"]).failed();

    // What it follows ends with it.
    client.run(&["run", "-d", "--name", "ticker", IMAGE, "sh", "-c", TICK]).succeeded();
    let mut follower = client.beside(&["logs", "-f", "ticker"]);
    follower.wait_for("tick");
    hq.by_ssh(&["tokens", "remove", "laptop"]).succeeded();
    follower.wait();
    client.run(&["ps"]).failed().said(&["this certificate opens nothing (any more)"]);
    client.run(&["exec", "ticker", "true"]).failed().said(&["opens nothing"]);
}
