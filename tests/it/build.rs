//! Repositories become images on the real engine.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use quarry::build::BuildSettings;
use quarry::build::act::{BuildError, BuildJob, Built, images};
use quarry::build::plan::{ImagePlan, Recipe, plan};
use quarry::docker::bollard::Docker;
use quarry::docker::fake::Fake;
use quarry::docker::{ContainerRequest, Engine, LogRequest, Output, Restart};
use quarry::env::Env;
use quarry::names::{ContainerName, NodeName, StackName};
use quarry::stack::{Kind, Node, Source, Stack};
use quarry::units::{Megabytes, Millis};

use futures_util::StreamExt;

/// A checkout and the stack it is built for; its images go when it is dropped.
struct Bench {
    stack: StackName,
    dir: tempfile::TempDir,
    settings: BuildSettings,
    said: Mutex<Vec<String>>,
}

impl Bench {
    fn new(short: &str, files: &[(&str, &str)]) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let bench = Bench {
            stack: format!("qtest-{short}-{}", std::process::id()).parse().unwrap(),
            dir,
            settings: BuildSettings { timeout: Some(Millis::seconds(120)), ..Default::default() },
            said: Mutex::new(Vec::new()),
        };
        for (path, text) in files {
            bench.write(path, text);
        }
        bench
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn job<'a>(&'a self, plans: &'a BTreeMap<NodeName, ImagePlan>) -> BuildJob<'a> {
        BuildJob {
            stack: &self.stack,
            suffix: "1",
            dir: self.dir.path(),
            mtime: 1_700_000_000,
            plans,
            settings: &self.settings,
        }
    }

    async fn build_on(
        &self,
        engine: &dyn Engine,
        plans: &BTreeMap<NodeName, ImagePlan>,
    ) -> Result<BTreeMap<NodeName, Built>, BuildError> {
        images(engine, &self.job(plans), &|line| self.said.lock().unwrap().push(line.to_owned())).await
    }

    /// Builds the Dockerfile at the root as the node `web`.
    async fn build(&self) -> Result<Built, BuildError> {
        let plans = one(ImagePlan::Build(Recipe::Path("Dockerfile".to_owned())));
        Ok(self.build_on(&Docker::local(), &plans).await?.remove(&web()).unwrap())
    }

    fn said(&self) -> Vec<String> {
        std::mem::take(&mut *self.said.lock().unwrap())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let (label, folder) = (format!("quarry.stack={}", self.stack), format!("quarry/{}", self.stack));
        let cleaning = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let engine = Docker::local();
                for container in engine.containers(&label).await.unwrap_or_default() {
                    let _ = engine.remove(&container.name).await;
                }
                for image in engine.images(&folder).await.unwrap_or_default() {
                    for tag in &image.tags {
                        let _ = engine.remove_image(tag).await;
                    }
                    let _ = engine.remove_image(image.id.as_str()).await;
                }
            });
        });
        let _ = cleaning.join();
    }
}

fn web() -> NodeName {
    "web".parse().unwrap()
}

fn one(plan: ImagePlan) -> BTreeMap<NodeName, ImagePlan> {
    BTreeMap::from([(web(), plan)])
}

/// What a command prints in a container of an image.
async fn printed(bench: &Bench, built: &Built, command: &[&str]) -> String {
    let engine = Docker::local();
    let name: ContainerName = format!("{}.printed", bench.stack).parse().unwrap();
    let request = ContainerRequest {
        name: name.clone(),
        image: built.image.to_string(),
        entrypoint: None,
        command: command.iter().map(ToString::to_string).collect(),
        cwd: None,
        env: Env::new(),
        labels: BTreeMap::from([("quarry.stack".to_owned(), bench.stack.to_string())]),
        ports: Vec::new(),
        binds: Vec::new(),
        network: None,
        hosts: Default::default(),
        memory: Some(Megabytes(64)),
        cpus: None,
        pids: None,
        restart: Restart::No,
        stop_timeout: Millis::seconds(1),
        tty: false,
        log: Default::default(),
        stdin: false,
    };
    engine.create(request).await.unwrap();
    engine.start(&name).await.unwrap();
    engine.wait(&name).await.unwrap();
    let all = LogRequest { tail: None, follow: true, timestamps: false };
    let mut text = String::new();
    let mut log = engine.logs(&name, all).await.unwrap();
    while let Some(chunk) = log.next().await {
        match chunk.unwrap() {
            Output::Stdout(bytes) | Output::Stderr(bytes) => text.push_str(&String::from_utf8_lossy(&bytes)),
        }
    }
    engine.remove(&name).await.unwrap();
    text
}

#[tokio::test]
async fn a_dockerfile_becomes_an_image_with_its_ports_and_volumes() {
    let bench = Bench::new(
        "plain",
        &[
            (
                "Dockerfile",
                "FROM debian:bookworm-slim\nCOPY . /app\nEXPOSE 8080\nVOLUME /data\nRUN echo built it\nCMD [\"ls\", \"-a\", \"/app\"]\n",
            ),
            (".dockerignore", "*.secret\n"),
            (".git/HEAD", "x"),
            ("a.secret", "x"),
            ("kept", "x"),
        ],
    );
    let built = bench.build().await.unwrap();
    assert_eq!((built.ports.as_slice(), built.starts), (&[8080][..], true));
    assert_eq!(built.volumes, ["/data"]);
    assert_eq!(printed(&bench, &built, &[]).await, ".\n..\n.dockerignore\nDockerfile\nkept\n");
    let said = bench.said();
    assert_eq!(said[0], "-----> Building web by Dockerfile");
    assert!(said.contains(&"       built it".to_owned()), "{said:?}");
    assert!(said.iter().all(|line| !line.contains(" ---> ") && !line.starts_with("Successfully")), "{said:?}");
    let again = bench.build().await.unwrap();
    assert_eq!(again, built);
    let said = bench.said();
    assert!(said.iter().any(|line| line.ends_with("RUN echo built it (cached)")), "{said:?}");
}

#[tokio::test]
async fn the_dockerfiles_own_ignore_file_comes_first() {
    let bench = Bench::new(
        "ignore",
        &[
            ("Dockerfile", "FROM debian:bookworm-slim\nCOPY . /app\nCMD [\"ls\", \"/app\"]\n"),
            (".dockerignore", "kept\n"),
            ("Dockerfile.dockerignore", "*\n!kept\n"),
            ("kept", "x"),
            ("lost", "x"),
        ],
    );
    let built = bench.build().await.unwrap();
    assert_eq!(printed(&bench, &built, &[]).await, "Dockerfile\nDockerfile.dockerignore\nkept\n");
}

#[tokio::test]
async fn a_failing_step_is_named_with_the_builders_words() {
    let bench = Bench::new("fails", &[("Dockerfile", "FROM debian:bookworm-slim\nRUN echo no room >&2; exit 9\n")]);
    let error = bench.build().await.unwrap_err().to_string();
    for words in ["node `web`", "Dockerfile", "RUN echo no room >&2; exit 9", "code: 9"] {
        assert!(error.contains(words), "{words}: {error}");
    }
    assert!(bench.said().iter().any(|line| line.contains("no room")));
    bench.write("Dockerfile", "FROM debian:bookworm-slim\nNONSENSE x\n");
    let error = bench.build().await.unwrap_err().to_string();
    assert!(error.contains("NONSENSE"), "{error}");
    bench.write("Dockerfile", "FROM debian:bookworm-slim\nRUN --mount=type=tmpfs,target=/x exit 7\n");
    let error = bench.build().await.unwrap_err().to_string();
    assert!(error.contains("RUN --mount=type=tmpfs,target=/x exit 7") && error.contains('7'), "{error}");
}

#[tokio::test]
async fn mounts_are_built_by_buildkit() {
    // BuildKit keeps its cache when the image goes: only a text that is new is built.
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    let run = format!("RUN --mount=type=cache,target=/c echo from buildkit {now} | tee /c/x /y");
    let dockerfile = format!("FROM debian:bookworm-slim\n{run}\nCMD [\"cat\", \"/y\"]\n");
    let bench = Bench::new("mount", &[("Dockerfile", &dockerfile)]);
    let built = bench.build().await.unwrap();
    assert_eq!(printed(&bench, &built, &[]).await, format!("from buildkit {now}\n"));
    let said = bench.said();
    assert!(said.contains(&format!("       from buildkit {now}")), "{said:?}");
    bench.build().await.unwrap();
    let said = bench.said();
    assert!(said.iter().any(|line| line.contains("RUN --mount") && line.ends_with("(cached)")), "{said:?}");
}

#[tokio::test]
async fn heredocs_build_on_every_engine() {
    let dockerfile = "FROM debian:bookworm-slim\n\
        RUN <<EOF\nset -e\nname=\"a 'quoted' name\"\necho \"$name\" > /a\nEOF\n\
        RUN cat <<'EOF' >> /a\n$kept \\as it is\nEOF\n\
        RUN --mount=type=cache,target=/c <<EOF\n#!/bin/bash\necho ${BASH_VERSION:+bash} >> /a\nEOF\n\
        COPY <<EOF /b\nfrom a copy\nEOF\n\
        CMD [\"cat\", \"/a\", \"/b\"]\n";
    let bench = Bench::new("heredoc", &[("Dockerfile", dockerfile)]);
    let built = bench.build().await.unwrap();
    let expected = "a 'quoted' name\n$kept \\as it is\nbash\nfrom a copy\n";
    assert_eq!(printed(&bench, &built, &[]).await, expected);
}

#[tokio::test]
async fn a_syntax_image_that_is_not_here_is_left_out_and_said() {
    let bench = Bench::new(
        "syntax",
        &[(
            "Dockerfile",
            "# syntax=docker/dockerfile:1\nFROM debian:bookworm-slim\nRUN --mount=type=tmpfs,target=/t true\n",
        )],
    );
    bench.build().await.unwrap();
    let said = bench.said();
    assert!(
        said.iter().any(|line| line.contains("# syntax=docker/dockerfile:1") && line.contains("left out")),
        "{said:?}"
    );
}

#[tokio::test]
async fn build_arguments_and_certificates_reach_the_build() {
    let mut bench = Bench::new(
        "args",
        &[(
            "Dockerfile",
            "FROM debian:bookworm-slim\nARG INDEX\nCOPY .quarry/ca.crt /ca\nRUN echo \"$INDEX $HTTP_PROXY\" > /a\nCMD [\"cat\", \"/a\", \"/ca\"]\n",
        )],
    );
    bench.settings.env = quarry::env::from_arguments(["INDEX=mine", "HTTP_PROXY=http://proxy:1"]).unwrap();
    bench.settings.ca = Some("the certificates\n".to_owned());
    let built = bench.build().await.unwrap();
    assert_eq!(printed(&bench, &built, &[]).await, "mine http://proxy:1\nthe certificates\n");
}

#[tokio::test]
async fn a_pack_copies_the_repository_and_not_quarrys_own_files() {
    let bench = Bench::new("pack", &[("x", "y"), (".dockerignore", "lost\n"), ("lost", "")]);
    let rendered = quarry::buildpacks::Rendered {
        dockerfile: "FROM debian:bookworm-slim\nCOPY . /app\nCMD [\"find\", \"/app\", \"-type\", \"f\"]\n".to_owned(),
        command: Some("find".to_owned()),
        port: Some(4000),
        health: Some("/up".to_owned()),
        said: Vec::new(),
        files: BTreeMap::new(),
    };
    let plans = one(ImagePlan::Build(Recipe::Pack { name: "static".to_owned(), rendered }));
    let built = bench.build_on(&Docker::local(), &plans).await.unwrap().remove(&web()).unwrap();
    assert_eq!((built.ports.as_slice(), built.health.as_deref()), (&[4000][..], Some("/up")));
    assert_eq!(printed(&bench, &built, &[]).await, "/app/x\n");
}

#[tokio::test]
async fn a_build_that_takes_too_long_is_ended_on_the_engine_too() {
    let mut bench = Bench::new("slow", &[("Dockerfile", "FROM debian:bookworm-slim\nRUN echo begun && sleep 987\n")]);
    bench.settings.timeout = Some(Millis::seconds(3));
    let error = bench.build().await.unwrap_err();
    assert!(matches!(&error, BuildError::TooSlow { step: Some(step), .. } if step.contains("sleep 987")), "{error:?}");
    // The step's process must not go on behind our back.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while sleeping("987") {
        assert!(tokio::time::Instant::now() < deadline, "`sleep 987` still runs");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether a process `sleep <seconds>` runs anywhere on this machine.
fn sleeping(seconds: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let wanted = format!("sleep\0{seconds}\0");
    processes
        .into_iter()
        .any(|process| std::fs::read(process.path().join("cmdline")).is_ok_and(|line| line == wanted.as_bytes()))
}

#[tokio::test]
async fn a_context_that_cannot_be_sent_is_said_by_name() {
    let bench = Bench::new("pipe", &[("Dockerfile", "FROM debian:bookworm-slim\n")]);
    assert!(std::process::Command::new("mkfifo").arg(bench.dir.path().join("queue")).status().unwrap().success());
    let error = chain(&bench.build().await.unwrap_err());
    assert!(error.contains("`queue`") && error.contains("named pipe"), "{error}");
    let rules = Bench::new("rules", &[("Dockerfile", "FROM debian:bookworm-slim\n"), (".dockerignore", "a\n[b\n")]);
    let error = chain(&rules.build().await.unwrap_err());
    assert!(error.contains("line 2 of .dockerignore"), "{error}");
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(|error| format!("{error}\n")).collect()
}

#[tokio::test]
async fn a_ready_image_that_is_nowhere_is_said_with_what_to_do() {
    let bench = Bench::new("ready", &[]);
    let plans = one(ImagePlan::Ready("quarrytest-nowhere:1".to_owned()));
    let error = bench.build_on(&Docker::local(), &plans).await.unwrap_err();
    assert!(matches!(error, BuildError::NoImage { .. }), "{error:?}");
    let here = one(ImagePlan::Ready("debian:bookworm-slim".to_owned()));
    assert!(bench.build_on(&Docker::local(), &here).await.is_ok());
}

#[tokio::test]
async fn nodes_of_one_recipe_get_one_image() {
    let bench = Bench::new("shared", &[("Dockerfile", "FROM scratch\nCMD [\"x\"]\n")]);
    let engine = Fake::new();
    engine.add_image("redis:7");
    let node = |source| Node::new(Kind::Worker, source);
    let path = || node(Source::Dockerfile("Dockerfile".to_owned()));
    let stack = Stack {
        nodes: BTreeMap::from([
            ("a".parse().unwrap(), path()),
            ("b".parse().unwrap(), path()),
            ("c".parse().unwrap(), node(Source::Node("a".parse().unwrap()))),
            ("d".parse().unwrap(), node(Source::Image("redis:7".to_owned()))),
        ]),
    };
    let repository = quarry::stack::files::read(bench.dir.path()).unwrap();
    let plans = plan(&stack, &repository, &bench.settings).unwrap();
    let built = bench.build_on(&engine, &plans).await.unwrap();
    let image = |name: &str| built[&name.parse::<NodeName>().unwrap()].image.clone();
    assert!(image("a") == image("b") && image("b") == image("c") && image("c") != image("d"));
    assert_eq!(engine.calls(), [format!("build quarry/{}/a:1", bench.stack)]);
}

#[tokio::test]
async fn an_image_that_was_collected_before_it_had_a_name_is_built_again() {
    let bench = Bench::new("collected", &[("Dockerfile", "FROM scratch\nCMD [\"x\"]\n")]);
    let engine = Fake::new();
    let plans = one(ImagePlan::Build(Recipe::Path("Dockerfile".to_owned())));
    engine.lose_builds(3);
    let error = bench.build_on(&engine, &plans).await.unwrap_err();
    assert!(chain(&error).contains("docker knows no image `sha256:"), "{}", chain(&error));
    engine.lose_builds(2);
    assert!(bench.build_on(&engine, &plans).await.is_ok());
    assert_eq!(engine.calls().len(), 6, "{:?}", engine.calls());
}
