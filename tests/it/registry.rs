//! Images on their way to servers: the real registry beside HQ, real docker on both ends, a lab between.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use quarry::docker::Engine;
use quarry::docker::bollard::Docker;
use quarry::docker::fake::Fake;
use quarry::names::ImageId;
use quarry::servers::registry::{Destination, Registry, RegistryError, Supplied, end, remove_stale};
use quarry::servers::ssh::State;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::harness::docker::docker;
use crate::harness::lab::{Lab, Server};
use crate::harness::registry::{kill, processes};
use crate::harness::until;
use crate::harness::wait::PATIENCE;

const MB: usize = 1_000_000;

/// What a layer may cost on the cable beside itself.
const OVERHEAD: u64 = 100_000;

/// HQ's registry with images to send, and servers. All of it goes with the test.
struct Bench {
    root: TempDir,
    registry: Arc<Registry>,
    /// The stack of its images; no other test has it.
    stack: String,
}

impl Bench {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        crate::harness::docker::required();
        let root = tempfile::Builder::new().prefix("quarry-it-images-").tempdir().unwrap();
        let registry = Arc::new(Registry::new(root.path(), Arc::new(Docker::local())));
        let stack = format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self { root, registry, stack }
    }

    fn name(&self, tag: &str) -> String {
        format!("quarry/{}/web:{tag}", self.stack)
    }

    /// An image with one layer for each content. Random content does not shrink on its way.
    fn build(&self, tag: &str, layers: &[&[u8]]) -> ImageId {
        let folder = tempfile::tempdir().unwrap();
        let mut dockerfile = "FROM scratch\n".to_owned();
        for (number, content) in layers.iter().enumerate() {
            std::fs::write(folder.path().join(number.to_string()), content).unwrap();
            dockerfile += &format!("COPY {number} /{number}\n");
        }
        std::fs::write(folder.path().join("Dockerfile"), dockerfile).unwrap();
        let name = self.name(tag);
        docker(&["build", "-q", "-t", &name, folder.path().to_str().unwrap()]).succeeded();
        docker(&["image", "inspect", &name, "--format", "{{.Id}}"]).succeeded().text().trim().parse().unwrap()
    }

    async fn supply(&self, to: &Destination, image: &ImageId) -> Result<Supplied, RegistryError> {
        let supplied = timeout(PATIENCE * 2, self.registry.supply(to, image, &|_| {})).await;
        supplied.expect("it has a deadline of its own")
    }

    /// Begins to supply a server, and returns when so many bytes have arrived there.
    async fn begin(
        &self,
        (server, to): (Server<'_>, &Destination),
        image: &ImageId,
        bytes: usize,
    ) -> tokio::task::JoinHandle<Result<Supplied, RegistryError>> {
        let before = received(server);
        let (registry, to, image) = (self.registry.clone(), to.clone(), image.clone());
        let sending = tokio::spawn(async move { registry.supply(&to, &image, &|_| {}).await });
        let deadline = Instant::now() + PATIENCE;
        while received(server) - before < bytes as u64 {
            assert!(Instant::now() < deadline && !sending.is_finished(), "{:?}", sending.is_finished());
            sleep(Duration::from_millis(100)).await;
        }
        sending
    }

    fn stored(&self) -> u64 {
        size(&self.root.path().join("registry/storage"))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        kill(self.root.path());
        for pattern in [format!("quarry/{}/*", self.stack), format!("*/quarry/{}/*", self.stack)] {
            let pattern = format!("reference={pattern}");
            let list = ["images", "--filter", &pattern, "--format", "{{.Repository}}:{{.Tag}}"];
            let names = docker(&list).text();
            let names: Vec<&str> = names.split_whitespace().collect();
            if !names.is_empty() {
                docker(&[&["rmi", "-f"], &names[..]].concat());
            }
        }
        let folder = self.root.path().to_owned();
        // Whoever is killed holds its folder until it is gone.
        if !std::thread::panicking() {
            until("the registry to end", || processes(&folder).is_empty().then_some(()));
        }
    }
}

fn random(bytes: usize) -> Vec<u8> {
    let mut content = Vec::new();
    File::open("/dev/urandom").unwrap().take(bytes as u64).read_to_end(&mut content).unwrap();
    content
}

fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { size(&entry.path()) } else { entry.metadata().unwrap().len() }).sum()
}

/// Bytes that have come to a server by its cable, SSH's and TCP's own among them.
fn received(server: Server<'_>) -> u64 {
    let counted = server.ssh(&["cat", "/sys/class/net/eth0/statistics/rx_bytes"]).succeeded();
    counted.text().trim().parse().unwrap()
}

async fn destination(server: Server<'_>) -> Destination {
    let line = Arc::new(server.line());
    up(&line).await;
    Destination { engine: Arc::new(Docker::over(line.clone())), line }
}

async fn up(line: &quarry::servers::ssh::Line) {
    let mut state = line.state();
    assert!(timeout(PATIENCE, state.wait_for(|state| *state == State::Up)).await.is_ok());
}

/// Gives HQ's docker an empty image for another processor: building one needs that processor.
fn load_for(architecture: &str, name: &str) {
    let mut layer = tar::Builder::new(Vec::new());
    append(&mut layer, "empty", b"");
    let layer = layer.into_inner().unwrap();
    let hex: String = Sha256::digest(&layer).iter().map(|byte| format!("{byte:02x}")).collect();
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{hex}")] },
    });
    let manifest = serde_json::json!([{ "Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"] }]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut archive = tar::Builder::new(file.as_file());
    append(&mut archive, "config.json", config.to_string().as_bytes());
    append(&mut archive, "manifest.json", manifest.to_string().as_bytes());
    append(&mut archive, "layer.tar", &layer);
    archive.finish().unwrap();
    docker(&["load", "-i", file.path().to_str().unwrap()]).succeeded();
}

fn append(archive: &mut tar::Builder<impl std::io::Write>, path: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, path, content).unwrap();
}

/// The chain of causes, as people see it.
fn told(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[tokio::test]
async fn an_image_reaches_two_servers_at_once_under_its_id_and_names_and_leaves_no_other() {
    let (bench, lab) = (Bench::new(), Lab::up(2));
    let id = bench.build("1", &[&random(5 * MB), b"small"]);
    docker(&["tag", id.as_str(), &bench.name("2")]).succeeded();
    let (one, two) = (destination(lab.server(1)).await, destination(lab.server(2)).await);
    let (first, second) = tokio::join!(bench.supply(&one, &id), bench.supply(&two, &id));
    for (to, supplied) in [(&one, first.unwrap()), (&two, second.unwrap())] {
        assert!(supplied.bytes > 5 * MB as u64, "{supplied:?}");
        let image = to.engine.image(id.as_str()).await.unwrap().unwrap();
        let mut tags = image.tags;
        tags.sort();
        assert_eq!(tags, [bench.name("1"), bench.name("2")]);
        assert_eq!(bench.supply(to, &id).await.unwrap(), Supplied { bytes: 0 });
    }
    // Nor has the transfer left a name here.
    let own = Docker::local().image(id.as_str()).await.unwrap().unwrap();
    assert_eq!(own.tags.len(), 2, "{:?}", own.tags);
}

#[tokio::test]
async fn only_the_changed_layer_travels() {
    let (bench, lab) = (Bench::new(), Lab::up(1));
    let (server, base, changed) = (lab.server(1), random(40 * MB), random(MB));
    let to = destination(server).await;
    let old = bench.build("1", &[&base, &random(MB)]);
    bench.supply(&to, &old).await.unwrap();
    let new = bench.build("2", &[&base, &changed]);
    let before = received(server);
    let supplied = bench.supply(&to, &new).await.unwrap();
    let arrived = received(server) - before;
    eprintln!("{} bytes of the registry, {arrived} on the cable", supplied.bytes);
    assert!(supplied.bytes >= MB as u64 && arrived <= MB as u64 + OVERHEAD, "{arrived}");
    assert!(to.engine.image(new.as_str()).await.unwrap().is_some());
}

#[tokio::test]
async fn a_registry_that_is_killed_while_an_image_travels_is_started_again_and_the_image_arrives() {
    let (bench, lab) = (Bench::new(), Lab::up(1));
    let server = lab.server(1);
    let to = destination(server).await;
    let id = bench.build("1", &[&random(12 * MB)]);
    server.slow("20mbit");
    let sending = bench.begin((server, &to), &id, 3 * MB).await;
    assert_eq!(kill(bench.root.path()), 1);
    timeout(PATIENCE * 2, sending).await.unwrap().unwrap().unwrap();
    assert!(to.engine.image(id.as_str()).await.unwrap().is_some());
    assert_eq!(processes(bench.root.path()).len(), 1);
}

#[tokio::test]
async fn a_server_that_is_cut_off_fails_soon_and_has_the_image_once_it_is_back() {
    let (bench, lab) = (Bench::new(), Lab::up(1));
    let server = lab.server(1);
    let to = destination(server).await;
    let id = bench.build("1", &[&random(4 * MB), &random(8 * MB)]);
    server.slow("20mbit");
    let sending = bench.begin((server, &to), &id, 6 * MB).await;
    let cut = Instant::now();
    server.cut();
    let error = timeout(PATIENCE, sending).await.unwrap().unwrap().unwrap_err();
    assert!(cut.elapsed() < Duration::from_secs(15), "{:?}", cut.elapsed());
    let text = told(&error);
    for words in [&bench.name("1")[..], "did not reach `s1`", "deploy again"] {
        assert!(text.contains(words), "`{words}` is not in: {text}");
    }
    server.heal();
    up(&to.line).await;
    // Its engine may still be at the first attempt, which this one then joins.
    bench.supply(&to, &id).await.unwrap();
    assert!(to.engine.image(id.as_str()).await.unwrap().is_some());
}

#[tokio::test]
async fn an_image_for_another_processor_is_refused_with_what_to_do() {
    let (bench, lab) = (Bench::new(), Lab::up(1));
    let to = destination(lab.server(1)).await;
    let own = to.engine.architecture().await.unwrap();
    let other = if own == "amd64" { "arm64" } else { "amd64" };
    let name = bench.name("1");
    load_for(other, &name);
    let id = Docker::local().image(&name).await.unwrap().unwrap().id;
    let error = bench.supply(&to, &id).await.unwrap_err();
    let expected = format!("{name} is built for {other} and `s1` is {own}: it cannot run there; build it for {own}");
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert_eq!(to.engine.image(id.as_str()).await.unwrap(), None);
    // Nothing was even begun.
    assert!(processes(bench.root.path()).is_empty());
}

// The gate must answer while the test waits for a command on the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_reads_its_image_and_can_do_nothing_else() {
    let (bench, lab) = (Bench::new(), Lab::up(1));
    let server = lab.server(1);
    let to = destination(server).await;
    let id = bench.build("1", &[&random(30 * MB)]);
    server.slow("40mbit");
    let sending = bench.begin((server, &to), &id, MB).await;
    let listening = server.ssh(&["ss", "-Hltnp", "src", "127.0.0.1"]).succeeded().text();
    let sshd = listening.lines().find(|line| line.contains("sshd")).unwrap();
    let port = sshd.split_whitespace().find_map(|word| word.strip_prefix("127.0.0.1:")).unwrap();
    let ask = |words: &[&str], path: &str| {
        let url = format!("http://127.0.0.1:{port}{path}");
        let format = ["curl", "-s", "-o", "/dev/null", "-m", "30", "-w", "%{http_code}"];
        server.ssh(&[&format, words, &[&url]].concat()).text()
    };
    let repository = format!("/v2/quarry/{}/web", bench.stack);
    let manifest = format!("{repository}/manifests/{}", id.as_str().rsplit(':').next().unwrap());
    assert_eq!(ask(&[], &manifest), "200");
    assert_eq!(ask(&["-X", "POST"], &format!("{repository}/blobs/uploads/")), "000");
    assert_eq!(ask(&["-X", "PUT", "-d", "{}"], &manifest), "000");
    assert_eq!(ask(&["-X", "DELETE"], &manifest), "000");
    assert_eq!(ask(&[], "/v2/_catalog"), "000");
    assert_eq!(ask(&[], "/v2/quarry/other/web/tags/list"), "000");
    timeout(PATIENCE, sending).await.unwrap().unwrap().unwrap();
    // Nobody reads what is not on its way.
    assert_eq!(ask(&[], &manifest), "000");
}

#[tokio::test]
async fn what_hq_s_docker_has_dropped_is_collected_here_and_there() {
    let (bench, lab) = (Bench::new(), Lab::up(1));
    let to = destination(lab.server(1)).await;
    let (base, old_layer) = (random(3 * MB), random(5 * MB));
    let old = bench.build("1", &[&base, &old_layer]);
    let new = bench.build("2", &[&base, &random(MB)]);
    for image in [&old, &new] {
        bench.supply(&to, image).await.unwrap();
    }
    bench.registry.sweep().await.unwrap();
    let before = bench.stored();
    assert!(before > 9 * MB as u64, "{before}");
    docker(&["rmi", &bench.name("1")]).succeeded();
    bench.registry.sweep().await.unwrap();
    let after = bench.stored();
    assert!(before - after >= 5 * MB as u64 && after > 4 * MB as u64, "{before} before, {after} after");
    let local = Docker::local();
    remove_stale(&*to.engine, &local, &format!("quarry/{}", bench.stack), |_| true).await.unwrap();
    assert_eq!(to.engine.image(old.as_str()).await.unwrap(), None);
    assert!(to.engine.image(new.as_str()).await.unwrap().is_some());
    // What is left is whole: the next image finds the base there.
    let next = bench.build("3", &[&base, &random(MB)]);
    let supplied = bench.supply(&to, &next).await.unwrap();
    assert!(supplied.bytes < 2 * MB as u64, "{supplied:?}");
    // With the last image of a stack everything goes.
    docker(&["rmi", &bench.name("2"), &bench.name("3")]).succeeded();
    bench.registry.sweep().await.unwrap();
    assert!(bench.stored() < 10_000, "{}", bench.stored());
}

#[tokio::test]
async fn the_next_hq_takes_over_the_registry_of_the_one_before() {
    let (bench, lab) = (Bench::new(), Lab::up(1));
    let to = destination(lab.server(1)).await;
    bench.supply(&to, &bench.build("1", &[&random(MB)])).await.unwrap();
    let first = processes(bench.root.path());
    assert_eq!(first.len(), 1);
    let next = Registry::new(bench.root.path(), Arc::new(Docker::local()));
    next.supply(&to, &bench.build("2", &[&random(MB)]), &|_| {}).await.unwrap();
    assert_eq!(processes(bench.root.path()), first);
    // A stalled one is of no use to anybody.
    rustix::process::kill_process(first[0], rustix::process::Signal::STOP).unwrap();
    next.supply(&to, &bench.build("3", &[&random(MB)]), &|_| {}).await.unwrap();
    let second = processes(bench.root.path());
    assert!(second.len() == 1 && second != first, "{second:?} after {first:?}");
    end(bench.root.path()).await;
    assert!(processes(bench.root.path()).is_empty());
}

#[tokio::test]
async fn without_the_registry_s_program_the_error_says_how_to_install_it() {
    let (bench, lab) = (Bench::new(), Lab::up(1));
    let to = destination(lab.server(1)).await;
    let id = bench.build("1", &[b"small"]);
    let missing = bench.root.path().join("docker-registry");
    let registry = Registry::new(bench.root.path(), Arc::new(Docker::local()));
    let registry = registry.with_program(&missing, bench.root.path());
    let error = registry.supply(&to, &id, &|_| {}).await.unwrap_err();
    assert!(matches!(error, RegistryError::Missing) && error.to_string().contains("apt install docker-registry"));
    // A program that ends at once has said why.
    let registry = Registry::new(bench.root.path(), Arc::new(Docker::local()));
    let registry = registry.with_program(Path::new("/bin/false"), bench.root.path());
    let error = registry.supply(&to, &id, &|_| {}).await.unwrap_err();
    assert!(error.to_string().contains("does not start"), "{error}");
}

#[tokio::test]
async fn an_image_that_hq_does_not_have_and_a_server_that_is_down_are_named() {
    let (bench, lab) = (Bench::new(), Lab::up(1));
    let to = destination(lab.server(1)).await;
    let id = bench.build("1", &[b"small"]);
    let none: ImageId = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    let error = bench.supply(&to, &none).await.unwrap_err();
    assert!(matches!(&error, RegistryError::NoImage { image } if *image == none), "{error:?}");
    lab.server(1).poweroff();
    let began = Instant::now();
    let text = told(&bench.supply(&to, &id).await.unwrap_err());
    assert!(text.contains("`s1`") && began.elapsed() < Duration::from_secs(15), "{text} after {:?}", began.elapsed());
    // With a fake behind the line: only the way is asked for.
    let fake = Destination { engine: Arc::new(Fake::new()), line: to.line.clone() };
    let error = bench.supply(&fake, &id).await.unwrap_err();
    assert!(matches!(error, RegistryError::Way { .. }), "{error:?}");
}
