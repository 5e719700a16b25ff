//! What every engine promises: one contract, run on the fake, on the real dockerd, and on a server's over SSH.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use quarry::docker::bollard::Docker;
use quarry::docker::fake::{Behaviour, Fake};
use quarry::docker::passing::Content;
use quarry::docker::{
    Answered, Archive, Asked, Attachment, BuildRequest, Builder, ContainerRequest, Engine, EngineError, Log,
    LogRequest, Network, Output, Published, Restart, State, handover,
};
use quarry::env::Env;
use quarry::names::ContainerName;
use quarry::servers::ssh::Line;
use quarry::units::port::Port;
use quarry::units::{Megabytes, MilliCpus, Millis};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::harness::lab::Lab;
use crate::harness::registry::OwnRegistry;

/// Longer than anything here takes; a promise that is not kept by then is broken.
const DEADLINE: Duration = Duration::from_secs(60);

/// An engine and the name under which a test keeps its things there. All of them go when it is dropped.
struct Bench {
    engine: Arc<dyn Engine>,
    fake: Option<Arc<Fake>>,
    /// The servers, when the engine is on one of them.
    lab: Option<(Lab, Arc<Line>)>,
    prefix: String,
    image: String,
}

impl Bench {
    async fn real() -> Bench {
        let engine = Arc::new(Docker::local());
        engine.version().await.expect("these tests need dockerd: apt install docker.io && systemctl start docker");
        let base = engine.image("debian:bookworm-slim").await.unwrap();
        base.expect("these tests need the image debian:bookworm-slim: docker pull debian:bookworm-slim");
        Bench::new(engine, None).await
    }

    async fn far() -> Bench {
        let lab = Lab::up(1);
        let line = Arc::new(lab.server(1).line());
        let mut bench = Bench::new(Arc::new(Docker::over(line.clone())), None).await;
        bench.lab = Some((lab, line));
        bench
    }

    async fn fake() -> Bench {
        let fake = Arc::new(Fake::new());
        fake.add_image("debian:bookworm-slim");
        Bench::new(fake.clone(), Some(fake)).await
    }

    async fn new(engine: Arc<dyn Engine>, fake: Option<Arc<Fake>>) -> Bench {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("quarrytest-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let bench = Bench { engine, fake, lab: None, image: format!("{prefix}/app:1"), prefix };
        // The first line is the test's own: removing an image takes unnamed parents along, which another may build on.
        let own = bench.label();
        let rest = "EXPOSE 8080 90/udp\nVOLUME /data\nCMD [\"sleep\", \"600\"]\n";
        bench.build(&format!("FROM debian:bookworm-slim\nLABEL {own}\n{rest}")).await;
        bench
    }

    fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("quarry.test".to_owned(), self.prefix.clone())])
    }

    fn label(&self) -> String {
        format!("quarry.test={}", self.prefix)
    }

    async fn build(&self, dockerfile: &str) -> quarry::names::ImageId {
        let request = BuildRequest {
            tag: self.image.clone(),
            dockerfile: "Dockerfile".to_owned(),
            args: BTreeMap::new(),
            builder: Builder::Classic,
            no_cache: false,
            memory: None,
            group: None,
        };
        // A name that moves on would leave an image without one behind.
        self.engine.remove_image(&self.image).await.unwrap();
        self.engine.build(request, archive(dockerfile), &|_| {}).await.unwrap()
    }

    fn name(&self, short: &str) -> ContainerName {
        format!("{}.{short}", self.prefix).parse().unwrap()
    }

    /// A container that does what `script` says; the fake is told what that comes to.
    fn request(&self, short: &str, script: &str, behaviour: Behaviour) -> ContainerRequest {
        let name = self.name(short);
        if let Some(fake) = &self.fake {
            fake.behave(&name, behaviour);
        }
        ContainerRequest {
            name,
            image: self.image.clone(),
            entrypoint: None,
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            cwd: None,
            env: Env::new(),
            labels: self.labels(),
            ports: Vec::new(),
            binds: Vec::new(),
            network: None,
            hosts: Default::default(),
            memory: Some(Megabytes(64)),
            cpus: None,
            pids: Some(64),
            restart: Restart::No,
            stop_timeout: Millis::seconds(1),
            tty: false,
            log: Default::default(),
            stdin: false,
        }
    }

    fn sleeper(&self, short: &str) -> ContainerRequest {
        self.request(short, "sleep 600", Behaviour::default())
    }

    /// Makes and starts a container.
    async fn run(&self, request: ContainerRequest) -> ContainerName {
        let name = request.name.clone();
        self.engine.create(request).await.unwrap();
        self.engine.start(&name).await.unwrap();
        name
    }

    async fn state(&self, name: &ContainerName) -> Option<State> {
        self.engine.container(name).await.unwrap().map(|container| container.state)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if self.lab.is_some() {
            // Its server goes with everything on it.
            return;
        }
        let (engine, label, image) = (self.engine.clone(), self.label(), self.image.clone());
        // A test's own runtime cannot wait while it unwinds: another thread cleans up.
        let cleaning = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                for container in engine.containers(&label).await.unwrap_or_default() {
                    let _ = engine.remove(&container.name).await;
                }
                for network in engine.networks(&label).await.unwrap_or_default() {
                    let _ = engine.remove_network(&network.name).await;
                }
                let _ = engine.remove_image(&image).await;
            });
        });
        let _ = cleaning.join();
    }
}

/// A build context of one Dockerfile.
fn archive(dockerfile: &str) -> Archive {
    let mut header = tar::Header::new_gnu();
    header.set_size(dockerfile.len() as u64);
    header.set_mode(0o644);
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_data(&mut header, "Dockerfile", dockerfile.as_bytes()).unwrap();
    Box::new(std::io::Cursor::new(tar.into_inner().unwrap()))
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    timeout(DEADLINE, what).await.expect("done within the deadline")
}

/// All of a container's output, each stream as text.
async fn texts(mut output: impl futures_util::Stream<Item = Result<Output, EngineError>> + Unpin) -> (String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(chunk) = output.next().await {
        match chunk.unwrap() {
            Output::Stdout(bytes) => out.extend(bytes),
            Output::Stderr(bytes) => err.extend(bytes),
        }
    }
    (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

/// Each promise becomes one test per engine.
macro_rules! contract {
    ($($promise:ident),* $(,)?) => {
        mod on_the_fake {
            $(#[tokio::test] async fn $promise() { super::in_time(super::$promise(&super::Bench::fake().await)).await })*
        }
        mod on_docker {
            $(#[tokio::test] async fn $promise() { super::in_time(super::$promise(&super::Bench::real().await)).await })*
        }
        mod on_a_server {
            $(#[tokio::test] async fn $promise() { super::in_time(super::$promise(&super::Bench::far().await)).await })*
        }
    };
}

contract![
    starting_stopping_and_removing_twice_is_success,
    a_name_is_taken_once,
    a_missing_image_or_container_is_named,
    containers_are_listed_by_name_with_their_labels,
    an_exit_code_is_waited_for_and_found_later,
    the_restart_policy_brings_a_fallen_container_back,
    a_running_container_can_be_kept_running_from_then_on,
    a_log_is_read_whole_by_tail_and_followed,
    commands_run_inside_and_give_their_exit_code,
    standard_input_reaches_the_process_and_its_end_too,
    a_network_is_made_once_and_keeps_its_subnet,
    a_container_has_its_address_on_its_network,
    an_address_that_is_asked_for_is_not_given_away,
    events_tell_of_a_death,
    an_image_tells_its_ports_and_volumes,
    tags_are_given_and_taken,
    all_names_of_an_image_may_go_at_once,
    a_pushed_image_comes_back_the_same,
    a_saved_image_comes_back_the_same,
    an_image_and_its_engine_tell_their_architecture,
    a_signal_reaches_the_process,
    the_bridge_has_an_address,
    a_port_is_published_once,
    a_request_in_docker_s_own_words_is_answered_in_them,
];

async fn starting_stopping_and_removing_twice_is_success(bench: &Bench) {
    let engine = &bench.engine;
    let name = bench.name("a");
    engine.create(bench.sleeper("a")).await.unwrap();
    assert_eq!(bench.state(&name).await, Some(State::Created));
    for _ in 0..2 {
        engine.start(&name).await.unwrap();
        assert_eq!(bench.state(&name).await, Some(State::Running));
    }
    for _ in 0..2 {
        engine.stop(&name, Millis::seconds(5)).await.unwrap();
        // 143 is SIGTERM taken at once: process 1 passes it on.
        assert_eq!(bench.state(&name).await, Some(State::Exited(143)));
    }
    engine.start(&name).await.unwrap();
    for _ in 0..2 {
        engine.remove(&name).await.unwrap();
        assert_eq!(bench.state(&name).await, None);
    }
    engine.stop(&name, Millis(0)).await.unwrap();
    engine.signal(&name, "SIGINT").await.unwrap();
}

async fn a_name_is_taken_once(bench: &Bench) {
    bench.engine.create(bench.sleeper("a")).await.unwrap();
    let error = bench.engine.create(bench.sleeper("a")).await.unwrap_err();
    assert!(
        matches!(&error, EngineError::Conflict { message } if message.contains(bench.name("a").as_str())),
        "{error}"
    );
}

async fn a_missing_image_or_container_is_named(bench: &Bench) {
    let engine = &bench.engine;
    let mut request = bench.sleeper("a");
    request.image = format!("{}:missing", bench.prefix);
    let check = |error: EngineError, name: &str| {
        assert!(matches!(&error, EngineError::NotFound { what } if what.contains(name)), "{name}: {error:?}");
    };
    check(engine.create(request).await.unwrap_err(), ":missing");
    let nobody = bench.name("nobody");
    check(engine.start(&nobody).await.unwrap_err(), "nobody");
    check(engine.wait(&nobody).await.unwrap_err(), "nobody");
    check(engine.exec(&nobody, &["true".to_owned()], &|_| {}).await.unwrap_err(), "nobody");
    check(engine.attach(&nobody).await.err().unwrap(), "nobody");
    let all = LogRequest { tail: None, follow: false, timestamps: false };
    check(engine.logs(&nobody, all).await.err().unwrap(), "nobody");
    assert_eq!(engine.image(&format!("{}:missing", bench.prefix)).await.unwrap(), None);
}

async fn containers_are_listed_by_name_with_their_labels(bench: &Bench) {
    for short in ["b", "c", "a"] {
        let mut request = bench.sleeper(short);
        request.labels.insert("quarry.short".to_owned(), short.to_owned());
        bench.engine.create(request).await.unwrap();
    }
    let listed = bench.engine.containers(&bench.label()).await.unwrap();
    let names: Vec<_> = listed.iter().map(|container| container.name.clone()).collect();
    assert_eq!(names, ["a", "b", "c"].map(|short| bench.name(short)));
    assert_eq!(listed[1].labels["quarry.short"], "b");
    assert_eq!(listed[1].image, bench.engine.image(&bench.image).await.unwrap().unwrap().id.as_str());
    assert_eq!(bench.engine.containers("quarry.test=nobody").await.unwrap(), []);
}

async fn an_exit_code_is_waited_for_and_found_later(bench: &Bench) {
    let name = bench.run(bench.request("a", "sleep 0.2; exit 7", Behaviour::exits(200, 7))).await;
    assert_eq!(bench.engine.wait(&name).await.unwrap(), 7);
    assert_eq!(bench.engine.wait(&name).await.unwrap(), 7);
    assert_eq!(bench.state(&name).await, Some(State::Exited(7)));
}

async fn the_restart_policy_brings_a_fallen_container_back(bench: &Bench) {
    let mut request = bench.request("a", "sleep 0.1; exit 1", Behaviour::exits(100, 1));
    request.restart = Restart::UnlessStopped;
    let mut events = bench.engine.events().await.unwrap();
    let name = bench.run(request).await;
    let mut starts = 0;
    while starts < 2 {
        let event = events.next().await.unwrap().unwrap();
        starts += u32::from(event.container == name.as_str() && event.action == "start");
    }
    bench.engine.stop(&name, Millis(0)).await.unwrap();
    assert!(matches!(bench.state(&name).await, Some(State::Exited(_))));
}

async fn a_running_container_can_be_kept_running_from_then_on(bench: &Bench) {
    let mut events = bench.engine.events().await.unwrap();
    let name = bench.run(bench.request("a", "sleep 1; exit 1", Behaviour::exits(1000, 1))).await;
    bench.engine.keep_running(&name).await.unwrap();
    let mut starts = 0;
    while starts < 2 {
        let event = events.next().await.unwrap().unwrap();
        starts += u32::from(event.container == name.as_str() && event.action == "start");
    }
    bench.engine.stop(&name, Millis(0)).await.unwrap();
    let gone = "quarry-gone".parse().unwrap();
    assert!(matches!(bench.engine.keep_running(&gone).await, Err(EngineError::NotFound { .. })));
}

async fn a_log_is_read_whole_by_tail_and_followed(bench: &Bench) {
    let behaviour = Behaviour::exits(300, 0).printing(&["one", "two", "three"]);
    let name = bench.run(bench.request("a", "echo one; echo two; echo three; sleep 0.3", behaviour)).await;
    let read = |tail, follow, timestamps| {
        let request = LogRequest { tail, follow, timestamps };
        async { texts(bench.engine.logs(&name, request).await.unwrap()).await.0 }
    };
    assert_eq!(read(None, true, false).await, "one\ntwo\nthree\n");
    assert_eq!(read(None, false, false).await, "one\ntwo\nthree\n");
    assert_eq!(read(Some(1), false, false).await, "three\n");
    let stamped = read(Some(1), false, true).await;
    let (time, text) = stamped.split_once(' ').unwrap();
    assert!(time.ends_with('Z') && time.contains('T') && text == "three\n", "{stamped}");
}

async fn commands_run_inside_and_give_their_exit_code(bench: &Bench) {
    let behaviour = Behaviour::default().inside(&["hello", "again"], 3);
    let name = bench.run(bench.request("a", "sleep 600", behaviour)).await;
    let said = std::sync::Mutex::new(Vec::new());
    let words = ["sh", "-c", "echo hello; printf again; exit 3"].map(str::to_owned);
    let code = bench.engine.exec(&name, &words, &|line| said.lock().unwrap().push(line.to_owned())).await.unwrap();
    assert_eq!(code, 3);
    assert_eq!(said.into_inner().unwrap(), ["hello", "again"]);
    bench.engine.stop(&name, Millis(0)).await.unwrap();
    let error = bench.engine.exec(&name, &words, &|_| {}).await.unwrap_err();
    assert!(matches!(error, EngineError::Conflict { .. }), "{error:?}");
}

async fn standard_input_reaches_the_process_and_its_end_too(bench: &Bench) {
    for (short, log) in [("a", Log::Kept), ("b", Log::None), ("c", Log::Handed)] {
        echoes(bench, ContainerRequest { stdin: true, log, ..bench.request(short, "cat", Behaviour::echo()) }).await;
    }
}

async fn echoes(bench: &Bench, request: ContainerRequest) {
    let name = request.name.clone();
    bench.engine.create(request).await.unwrap();
    let attached = bench.engine.attach(&name).await.unwrap();
    bench.engine.start(&name).await.unwrap();
    // Every byte there is, a megabyte of it.
    let sent: Vec<u8> = (0..1024 * 1024_u32).map(|i| (i ^ (i >> 8)) as u8).collect();
    let mut input = attached.input;
    let (written, received) = tokio::join!(
        async {
            input.write_all(&sent).await.unwrap();
            input.shutdown().await.unwrap();
            drop(input);
        },
        attached.output.fold(Vec::new(), |mut all, chunk| async {
            match chunk.unwrap() {
                Output::Stdout(bytes) => all.extend(bytes),
                Output::Stderr(bytes) => panic!("{}", String::from_utf8_lossy(&bytes)),
            }
            all
        }),
    );
    let () = written;
    assert!(received == sent, "{} of {} bytes came back as they were sent", received.len(), sent.len());
    assert_eq!(bench.engine.wait(&name).await.unwrap(), 0);
}

/// The answer to a request in docker's own words, whose content is a value.
async fn passed(bench: &Bench, asked: Asked) -> (u16, serde_json::Value) {
    let Answered { status, content, .. } = bench.engine.pass(asked).await.unwrap();
    let Content::Body(mut chunks) = content else { panic!("it has become streams") };
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        bytes.extend_from_slice(&chunk.unwrap());
    }
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

async fn a_request_in_docker_s_own_words_is_answered_in_them(bench: &Bench) {
    let name = bench.run(bench.request("a", "sleep 600", Behaviour::default())).await;
    let id = bench.engine.container(&name).await.unwrap().unwrap().id;
    for named in [name.as_str(), id.as_str()] {
        let (status, told) = passed(bench, Asked::get(format!("/containers/{named}/json"))).await;
        assert_eq!((status, &told["Id"], &told["Name"]), (200, &id.clone().into(), &format!("/{name}").into()));
        assert_eq!(
            (&told["State"]["Running"], &told["Config"]["Labels"]["quarry.test"]),
            (&true.into(), &bench.prefix.clone().into())
        );
    }
    let (status, told) = passed(bench, Asked::get("/containers/none-of-this-name/json")).await;
    assert_eq!(status, 404);
    assert!(told["message"].as_str().unwrap().contains("No such container"), "{told}");
}

#[tokio::test]
async fn a_connection_that_has_become_streams_speaks_on_after_the_end_of_its_input() {
    in_time(async {
        let bench = Bench::real().await;
        let name = bench.run(bench.sleeper("a")).await;
        let body = r#"{"AttachStdin":true,"AttachStdout":true,"Cmd":["cat"]}"#;
        let (status, made) = passed(&bench, Asked::post(format!("/containers/{name}/exec"), body)).await;
        assert_eq!(status, 201, "{made}");
        let target = format!("/exec/{}/start", made["Id"].as_str().unwrap());
        let begun = Asked { streams: true, ..Asked::post(target, r#"{"Detach":false,"Tty":false}"#) };
        let Answered { status: 101, content: Content::Streams(pipe), .. } = bench.engine.pass(begun).await.unwrap()
        else {
            panic!("it has not become streams")
        };
        let sent: Vec<u8> = (0..1024 * 1024_u32).map(|i| (i ^ (i >> 8)) as u8).collect();
        let (mut reader, mut writer) = tokio::io::split(pipe);
        let mut framed = Vec::new();
        let (written, read) = tokio::join!(
            async {
                writer.write_all(&sent).await?;
                writer.shutdown().await
            },
            reader.read_to_end(&mut framed)
        );
        written.unwrap();
        read.unwrap();
        let (mut received, mut rest) = (Vec::new(), &framed[..]);
        while let Some((header, more)) = rest.split_first_chunk::<8>() {
            let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
            received.extend_from_slice(&more[..length]);
            rest = &more[length..];
        }
        assert!(received == sent, "{} of {} bytes came back as they were sent", received.len(), sent.len());
    })
    .await;
}

/// A subnet of its own for each test process, so that runs beside each other do not collide.
fn subnet(last: u32) -> String {
    let own = std::process::id() % 4096 * 16 + last % 16;
    format!("10.211.{}.{}/28", own / 16 % 256, own % 16 * 16)
}

async fn a_network_is_made_once_and_keeps_its_subnet(bench: &Bench) {
    let network = Network { name: format!("{}-net", bench.prefix), subnet: subnet(0), labels: bench.labels() };
    for _ in 0..2 {
        bench.engine.create_network(&network).await.unwrap();
    }
    assert_eq!(bench.engine.networks(&bench.label()).await.unwrap(), std::slice::from_ref(&network));
    let other = Network { subnet: subnet(1), ..network.clone() };
    let error = bench.engine.create_network(&other).await.unwrap_err();
    assert!(matches!(error, EngineError::Conflict { .. }), "{error:?}");
    for _ in 0..2 {
        bench.engine.remove_network(&network.name).await.unwrap();
    }
    assert_eq!(bench.engine.networks(&bench.label()).await.unwrap(), []);
}

async fn an_address_that_is_asked_for_is_not_given_away(bench: &Bench) {
    let network = Network { name: format!("{}-net", bench.prefix), subnet: subnet(3), labels: bench.labels() };
    bench.engine.create_network(&network).await.unwrap();
    let on = |mut request: ContainerRequest, address| {
        request.network = Some(Attachment { network: network.name.clone(), aliases: Vec::new(), address });
        request
    };
    bench.run(on(bench.sleeper("a"), None)).await;
    let base: std::net::Ipv4Addr = network.subnet.split('/').next().unwrap().parse().unwrap();
    let first = std::net::Ipv4Addr::from(u32::from(base) + 2);
    let name = bench.run(on(bench.sleeper("b"), Some(first))).await;
    let container = bench.engine.container(&name).await.unwrap().unwrap();
    assert_eq!(container.addresses[&network.name], std::net::IpAddr::V4(first));
}

async fn a_container_has_its_address_on_its_network(bench: &Bench) {
    let network = Network { name: format!("{}-net", bench.prefix), subnet: subnet(2), labels: bench.labels() };
    bench.engine.create_network(&network).await.unwrap();
    let base: std::net::Ipv4Addr = network.subnet.split('/').next().unwrap().parse().unwrap();
    let fixed = std::net::Ipv4Addr::from(u32::from(base) + 5);
    let mut request = bench.sleeper("a");
    let attachment = |address| Attachment { network: network.name.clone(), aliases: vec!["db".to_owned()], address };
    request.network = Some(attachment(Some(fixed)));
    let name = bench.run(request).await;
    let container = bench.engine.container(&name).await.unwrap().unwrap();
    assert_eq!(container.addresses[&network.name], std::net::IpAddr::V4(fixed));
    let mut twin = bench.sleeper("b");
    twin.network = Some(attachment(Some(fixed)));
    bench.engine.create(twin).await.unwrap();
    let error = bench.engine.start(&bench.name("b")).await.unwrap_err();
    assert!(matches!(error, EngineError::Conflict { .. }), "{error:?}");
    bench.engine.remove(&name).await.unwrap();
    bench.engine.remove(&bench.name("b")).await.unwrap();
    let mut lost = bench.sleeper("c");
    lost.network = Some(Attachment { network: format!("{}-none", bench.prefix), aliases: Vec::new(), address: None });
    let made = bench.engine.create(lost).await;
    let error = match made {
        Ok(()) => bench.engine.start(&bench.name("c")).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(&error, EngineError::NotFound { what } if what.contains("-none")), "{error:?}");
}

async fn events_tell_of_a_death(bench: &Bench) {
    let mut events = bench.engine.events().await.unwrap();
    let name = bench.run(bench.request("a", "exit 5", Behaviour::exits(0, 5))).await;
    loop {
        let event = events.next().await.unwrap().unwrap();
        if event.container == name.as_str() && event.action == "die" {
            assert_eq!(event.labels, bench.labels());
            return;
        }
    }
}

async fn an_image_tells_its_ports_and_volumes(bench: &Bench) {
    let image = bench.engine.image(&bench.image).await.unwrap().unwrap();
    assert_eq!(image.ports, [8080]);
    assert_eq!(image.volumes, ["/data"]);
    assert_eq!(image.command, ["sleep", "600"]);
    assert_eq!(image.labels, bench.labels());
    assert_eq!(image.tags, std::slice::from_ref(&bench.image));
}

async fn tags_are_given_and_taken(bench: &Bench) {
    let second = format!("{}/app:2", bench.prefix);
    let id = bench.engine.image(&bench.image).await.unwrap().unwrap().id;
    bench.engine.tag(id.as_str(), &second).await.unwrap();
    assert_eq!(bench.engine.image(&second).await.unwrap().unwrap().id, id);
    let listed = bench.engine.images(&bench.prefix).await.unwrap();
    assert_eq!(
        listed.iter().map(|image| image.tags.clone()).collect::<Vec<_>>(),
        [[bench.image.clone(), second.clone()]]
    );
    // A star stands for any one part.
    for (folder, expected) in [("*", true), ("*/*", false)] {
        let found = bench.engine.images(folder).await.unwrap();
        assert_eq!(found.iter().any(|image| image.id == id), expected, "{folder}");
    }
    for _ in 0..2 {
        bench.engine.remove_image(&second).await.unwrap();
    }
    assert_eq!(bench.engine.image(&second).await.unwrap(), None);
    assert_eq!(bench.engine.image(id.as_str()).await.unwrap().unwrap().id, id);
}

async fn all_names_of_an_image_may_go_at_once(bench: &Bench) {
    // On the real engine two of them meet in most rounds.
    for round in 0..5 {
        let id = bench.build(&format!("FROM debian:bookworm-slim\nLABEL own={}-{round}\n", bench.prefix)).await;
        let names: Vec<String> = (1..=8).map(|number| format!("{}/app:{number}", bench.prefix)).collect();
        for name in &names {
            bench.engine.tag(id.as_str(), name).await.unwrap();
        }
        let removed = futures_util::future::join_all(names.iter().map(|name| bench.engine.remove_image(name))).await;
        assert!(removed.iter().all(Result::is_ok), "{removed:?}");
        assert_eq!(bench.engine.image(id.as_str()).await.unwrap(), None);
    }
}

async fn a_pushed_image_comes_back_the_same(bench: &Bench) {
    let engine = &bench.engine;
    let registry = OwnRegistry::start();
    // The engine's own loopback leads there, wherever the engine is.
    let forward = match &bench.lab {
        Some((_, line)) => Some(line.forward(0, registry.address()).await.unwrap()),
        None => None,
    };
    let port = forward.as_ref().map_or(registry.address().port(), |(port, _)| *port);
    let reference = format!("127.0.0.1:{port}/{}/app:1", bench.prefix);
    let error = engine.push(&reference, &|_| {}).await.unwrap_err();
    assert!(matches!(&error, EngineError::NotFound { what } if what.contains(&reference)), "{error:?}");
    let id = engine.image(&bench.image).await.unwrap().unwrap().id;
    engine.tag(id.as_str(), &reference).await.unwrap();
    engine.push(&reference, &|_| {}).await.unwrap();
    for name in [&bench.image, &reference] {
        engine.remove_image(name).await.unwrap();
    }
    assert_eq!(engine.image(id.as_str()).await.unwrap(), None);
    engine.pull(&reference, &|_| {}).await.unwrap();
    assert_eq!(engine.image(&reference).await.unwrap().unwrap().id, id);
    engine.tag(id.as_str(), &bench.image).await.unwrap();
    engine.remove_image(&reference).await.unwrap();
    let nowhere = format!("127.0.0.1:9/{}/app:1", bench.prefix);
    let error = engine.pull(&nowhere, &|_| {}).await.unwrap_err();
    assert!(!matches!(error, EngineError::Unreachable { .. }), "{error:?}");
}

async fn a_saved_image_comes_back_the_same(bench: &Bench) {
    let engine = &bench.engine;
    let id = engine.image(&bench.image).await.unwrap().unwrap().id;
    let none: quarry::names::ImageId = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    let missing = match engine.save(&[id.clone(), none.clone()]).await {
        Ok(pieces) => pieces.map(|piece| piece.map(drop)).try_collect::<Vec<_>>().await.map(drop),
        Err(error) => Err(error),
    };
    assert!(matches!(&missing, Err(EngineError::NotFound { what }) if what.contains(none.as_str())), "{missing:?}");
    let pieces: Vec<_> = engine.save(std::slice::from_ref(&id)).await.unwrap().try_collect().await.unwrap();
    engine.remove_image(&bench.image).await.unwrap();
    assert_eq!(engine.image(id.as_str()).await.unwrap(), None);
    for _ in 0..2 {
        engine.load(Box::new(std::io::Cursor::new(pieces.concat()))).await.unwrap();
    }
    let image = engine.image(id.as_str()).await.unwrap().unwrap();
    assert_eq!((image.ports, image.tags), (vec![8080], Vec::<String>::new()));
    engine.tag(id.as_str(), &bench.image).await.unwrap();
    let broken = engine.load(Box::new(std::io::Cursor::new(b"nonsense".to_vec()))).await;
    assert!(matches!(broken, Err(EngineError::Refused { .. })), "{broken:?}");
}

async fn an_image_and_its_engine_tell_their_architecture(bench: &Bench) {
    let own = bench.engine.architecture().await.unwrap();
    assert!(!own.is_empty());
    assert_eq!(bench.engine.image(&bench.image).await.unwrap().unwrap().architecture, own);
}

async fn a_signal_reaches_the_process(bench: &Bench) {
    let name = bench.run(bench.sleeper("a")).await;
    bench.engine.signal(&name, "SIGKILL").await.unwrap();
    assert_eq!(bench.engine.wait(&name).await.unwrap(), 137);
    bench.engine.signal(&name, "SIGKILL").await.unwrap();
}

async fn the_bridge_has_an_address(bench: &Bench) {
    assert!(!bench.engine.bridge_address().await.unwrap().is_loopback());
}

async fn a_port_is_published_once(bench: &Bench) {
    let address = bench.engine.bridge_address().await.unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for short in ["a", "b"] {
        let mut request = bench.sleeper(short);
        request.ports = vec![Published { address, port: free, container: Port::tcp(8080) }];
        bench.engine.create(request).await.unwrap();
    }
    bench.engine.start(&bench.name("a")).await.unwrap();
    let error = bench.engine.start(&bench.name("b")).await.unwrap_err();
    assert!(matches!(&error, EngineError::Conflict { message } if message.contains(&free.to_string())), "{error:?}");
    bench.engine.stop(&bench.name("a"), Millis(0)).await.unwrap();
    bench.engine.start(&bench.name("b")).await.unwrap();
}

#[tokio::test]
async fn a_container_has_few_privileges_its_limits_and_an_init() {
    let bench = Bench::real().await;
    let mut request = bench.sleeper("a");
    request.cpus = Some(MilliCpus(500));
    request.env.set_known("GREETING", "two\nlines = one value");
    let name = bench.run(request).await;
    let said = std::sync::Mutex::new(Vec::new());
    let script = "grep -E 'CapBnd|NoNewPrivs' /proc/1/status; cat /proc/1/comm; echo \"$GREETING\"; \
        cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; \
        cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null; true";
    let words = ["sh", "-c", script].map(str::to_owned);
    bench.engine.exec(&name, &words, &|line| said.lock().unwrap().push(line.replace('\t', " "))).await.unwrap();
    let said = said.into_inner().unwrap();
    // Docker's own set without mknod (27), net_raw (13), audit_write (29) and setfcap (31).
    assert_eq!(said[1], "NoNewPrivs: 1");
    assert_eq!(said[0], "CapBnd: 00000000000405fb");
    assert!(said[2].contains("init"), "{said:?}");
    assert_eq!(said[3..5], ["two", "lines = one value"]);
    assert!(said.contains(&(64 * 1024 * 1024).to_string()) && said.contains(&"64".to_owned()), "{said:?}");
}

#[tokio::test]
async fn a_folder_of_the_server_is_seen_inside_and_a_missing_one_is_an_error() {
    let bench = Bench::real().await;
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("with:colon");
    std::fs::create_dir(&odd).unwrap();
    std::fs::write(odd.join("file"), "seen").unwrap();
    let mut request = bench.request("a", "cat /kept/file; echo back > /kept/answer", Behaviour::default());
    request.binds = vec![(odd.clone(), "/kept".to_owned())];
    let name = bench.run(request.clone()).await;
    assert_eq!(in_time(bench.engine.wait(&name)).await.unwrap(), 0);
    assert_eq!(std::fs::read_to_string(odd.join("answer")).unwrap(), "back\n");
    request.name = bench.name("b");
    request.binds[0].0 = folder.path().join("missing");
    let error = bench.engine.create(request).await.unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}

#[tokio::test]
async fn an_entrypoint_is_replaced_cleared_or_kept() {
    let bench = Bench::real().await;
    let own = bench.label();
    bench
        .build(&format!("FROM debian:bookworm-slim\nLABEL {own}\nENTRYPOINT [\"echo\", \"entry\"]\nCMD [\"cmd\"]\n"))
        .await;
    type Words = &'static [&'static str];
    let cases: [(&str, Option<Words>, Words, &str); 4] = [
        ("a", None, &[], "entry cmd"),
        ("b", None, &["mine"], "entry mine"),
        ("c", Some(&["echo", "new"]), &[], "new"),
        ("d", Some(&[]), &["echo", "bare"], "bare"),
    ];
    for (short, entrypoint, command, expected) in cases {
        let words = |words: Words| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut request = bench.sleeper(short);
        request.entrypoint = entrypoint.map(words);
        request.command = words(command);
        let name = bench.run(request).await;
        let all = LogRequest { tail: None, follow: true, timestamps: false };
        let (out, _) = in_time(texts(bench.engine.logs(&name, all).await.unwrap())).await;
        assert_eq!(out, format!("{expected}\n"), "{short}");
    }
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_said_to_be() {
    let docker = Docker::connect(Path::new("/nonexistent/docker.sock"));
    let error = docker.version().await.unwrap_err();
    assert!(error.to_string().contains("/nonexistent/docker.sock"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_stalls_is_found_out_within_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    // It takes connections and never says a word.
    let _stalled = tokio::net::UnixListener::bind(&socket).unwrap();
    let docker = Docker::connect(&socket);
    let name: ContainerName = "nobody".parse().unwrap();
    let began = tokio::time::Instant::now();
    for error in [
        docker.version().await.unwrap_err(),
        docker.start(&name).await.unwrap_err(),
        docker.containers("a").await.unwrap_err(),
        docker.events().await.err().unwrap(),
        docker.attach(&name).await.err().unwrap(),
    ] {
        assert!(matches!(error, EngineError::Unreachable { .. }), "{error:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_terminal_has_the_size_it_is_given() {
    let bench = Bench::real().await;
    let mut request = bench.request("a", "stty size; read answer; echo got $answer", Behaviour::default());
    (request.tty, request.stdin) = (true, true);
    // The shell asks once the size is there: docker sets it only on a running container.
    request.command[2] =
        "until stty size | grep -q '^33 101'; do sleep 0.05; done; stty size; read a; echo \"<$a>\"".to_owned();
    let name = request.name.clone();
    bench.engine.create(request).await.unwrap();
    let attached = bench.engine.attach(&name).await.unwrap();
    bench.engine.start(&name).await.unwrap();
    bench.engine.resize(&name, 101, 33).await.unwrap();
    let mut input = attached.input;
    input.write_all(b"hello\n").await.unwrap();
    let (out, err) = in_time(texts(attached.output)).await;
    assert!(out.contains("33 101") && out.contains("<hello>"), "{out:?}");
    assert_eq!(err, "");
}

#[tokio::test]
async fn output_and_errors_of_an_attached_process_come_apart() {
    let bench = Bench::real().await;
    for (short, log) in [("a", Log::Kept), ("b", Log::None), ("c", Log::Handed)] {
        let request = bench.request(short, "printf out; printf err >&2; exit 4", Behaviour::default());
        let request = ContainerRequest { stdin: true, log, ..request };
        let name = request.name.clone();
        bench.engine.create(request).await.unwrap();
        let attached = bench.engine.attach(&name).await.unwrap();
        bench.engine.start(&name).await.unwrap();
        assert_eq!(in_time(texts(attached.output)).await, ("out".to_owned(), "err".to_owned()));
        assert_eq!(in_time(bench.engine.wait(&name)).await.unwrap(), 4);
    }
}

#[tokio::test]
async fn streams_past_the_engine_end_with_their_container_though_somebody_holds_them() {
    let bench = Bench::real().await;
    let request = bench.request("a", "echo out; exec sleep 600", Behaviour::default());
    let request = ContainerRequest { stdin: true, log: Log::Handed, ..request };
    let name = request.name.clone();
    bench.engine.create(request).await.unwrap();
    let mut attached = bench.engine.attach(&name).await.unwrap();
    bench.engine.start(&name).await.unwrap();
    let first = in_time(attached.output.next()).await.unwrap().unwrap();
    assert_eq!(first, Output::Stdout(b"out\n".to_vec()));
    let (_, told) = passed(&bench, Asked::get(format!("/containers/{name}/json"))).await;
    let place = format!("/proc/{}/fd/1", told["State"]["Pid"]);
    let mut held = std::fs::File::options().write(true).open(place).unwrap();
    std::io::Write::write_all(&mut held, b"last").unwrap();
    bench.engine.stop(&name, Millis(0)).await.unwrap();
    assert_eq!(in_time(texts(attached.output)).await.0, "last");
    drop(held);
}

#[tokio::test]
async fn who_was_to_get_its_streams_past_the_engine_does_not_start_without() {
    let bench = Bench::real().await;
    let request = bench.request("a", "echo nobody hears this", Behaviour::default());
    let request = ContainerRequest { stdin: true, log: Log::Handed, ..request };
    let name = request.name.clone();
    bench.engine.create(request).await.unwrap();
    let (_, told) = passed(&bench, Asked::get(format!("/containers/{name}/json"))).await;
    let why = "dockerd has to know Quarry's runtime: end it, for bin/test to start it, or run `quarry install`";
    assert_eq!(told["HostConfig"]["Runtime"], handover::RUNTIME, "{why}");
    drop(bench.engine.attach(&name).await.unwrap());
    let error = bench.engine.start(&name).await.unwrap_err().to_string();
    assert!(error.contains("nobody hands its streams over any more"), "{error}");
    // It is as good as new.
    let attached = bench.engine.attach(&name).await.unwrap();
    bench.engine.start(&name).await.unwrap();
    assert_eq!(in_time(texts(attached.output)).await.0, "nobody hears this\n");
}
