//! Repositories of every language are pushed, and answer.

use std::time::Duration;

use crate::harness::program::Done;
use crate::harness::{Hq, Repository};

/// Debian's packages for a language take their time.
const LONGEST: Duration = Duration::from_secs(200);

fn push(hq: &Hq, repository: &Repository) -> Done {
    hq.push_beside(repository, "shop").wait_within(LONGEST)
}

/// Pushes the sample twice: the second push finds its dependencies where they were.
fn live(sample: &str, said: &str, greeting: &str) -> (Hq, Repository) {
    let hq = Hq::start();
    let repository = Repository::sample(sample);
    push(&hq, &repository).succeeded().said(&[said]);
    assert_eq!(hq.page("shop.localhost", "/"), format!("{greeting}, release 1\n"));
    repository.write("note.txt", "nothing that matters\n");
    repository.commit("a note");
    let again = push(&hq, &repository).succeeded();
    assert!(again.stderr.contains("(cached)") && !again.stderr.contains("Setting up"), "{again}");
    assert_eq!(hq.page("shop.localhost", "/"), format!("{greeting}, release 2\n"));
    (hq, repository)
}

#[test]
fn ruby_is_live_by_its_gemfile_and_procfile() {
    live("ruby", "-----> Detected ruby (Gemfile)", "Hello from Ruby");
}

#[test]
fn go_is_live_by_detection() {
    live("go", "-----> Detected go (go.mod)", "Hello from Go");
}

/// The largest of them, in `bin/test --long`.
mod long {
    use super::live;

    #[test]
    fn java_is_live_from_plain_sources() {
        live("java", "-----> Detected java (src/Main.java)", "Hello from Java");
    }

    #[test]
    fn rust_is_live_by_detection() {
        live("rust", "-----> Detected rust (Cargo.toml)", "Hello from Rust");
    }
}

#[test]
fn php_is_live_with_its_files_and_its_front_page() {
    let hq = Hq::start();
    let repository = Repository::sample("php");
    push(&hq, &repository).succeeded().said(&["-----> Detected php (composer.json)"]);
    assert_eq!(hq.page("shop.localhost", "/"), "Hello from PHP, release 1 at /\n");
    // What is no file is the front page's.
    assert_eq!(hq.page("shop.localhost", "/a/b?c=d"), "Hello from PHP, release 1 at /a/b?c=d\n");
    assert_eq!(hq.page("shop.localhost", "/plain.txt"), "a plain file\n");
    assert_eq!(hq.get("shop.localhost", "/.env").status, 404);
}

#[test]
fn a_buildpack_of_ones_own_is_asked_first() {
    let template = "ARG QUARRY_BASE=debian:bookworm-slim\nFROM ${QUARRY_BASE}\nWORKDIR /app\nCOPY . /app/\n\
                    {%- if command %}\nCMD {{ command }}\n{%- endif %}\n";
    let about = "detect = [\"app.pl\"]\ncommand = \"perl app.pl\"\n";
    let hq = Hq::start_with(&[("buildpacks/perl/Dockerfile.j2", template), ("buildpacks/perl/pack.toml", about)]);
    let app = include_str!("../../samples/dockerfile/app.pl");
    let repository = Repository::with(&[("app.pl", app), ("package.json", "{}")]);
    hq.push(&repository, "blog").succeeded().said(&["-----> Detected perl (app.pl)"]);
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n");
    repository.write("quarry.yml", "web:\n  buildpack: pearl\n");
    repository.commit("a mistake");
    hq.push(&repository, "blog")
        .failed()
        .said(&["rust, java, php, node, static, perl, not `pearl`; did you mean `perl`?"]);
}

const DETECT: &str = "#!/bin/sh\ntest -f \"$1/app.pl\" && echo Perl\n";

/// Lays down a file, a profile and, for the next one, a variable; compiles nothing.
const COMPILE: &str = "#!/bin/sh\nset -e\necho \"-----> Compiling for $STACK\"\nmkdir -p \"$1/.profile.d\" \"$2\"\n\
                       echo 'export FROM_PROFILE=yes' > \"$1/.profile.d/perl.sh\"\n\
                       cat \"$3/COLOUR\" > \"$1/greeting\"\n\
                       echo 'export FIRST=done' > \"$(dirname \"$0\")/../export\"\n";

const RELEASE: &str = "#!/bin/sh\ncat <<END\n---\nconfig_vars:\n  LEVEL: \"high; echo\"\n\
                       default_process_types:\n  web: perl app.pl\n  clock: sleep 600\nEND\n";

#[test]
fn buildpacks_of_herokus_api_run_in_their_order() {
    let second = "#!/bin/sh\necho \"second after $FIRST\"\n";
    let hq = Hq::start_with(&[
        ("build/env/COLOUR", "green\n"),
        ("buildpacks/first/bin/detect", DETECT),
        ("buildpacks/first/bin/compile", COMPILE),
        ("buildpacks/first/bin/release", RELEASE),
        ("buildpacks/second/bin/detect", "#!/bin/sh\necho second\n"),
        ("buildpacks/second/bin/compile", second),
    ]);
    let app = include_str!("../../samples/dockerfile/app.pl");
    let repository = Repository::with(&[("app.pl", app), (".buildpacks", "first\nsecond\n")]);
    let done = hq.push(&repository, "blog").succeeded();
    done.said(&[
        "-----> Buildpacks first, second",
        "Perl (buildpack first)",
        "Compiling for heroku-22",
        "second after done",
    ]);
    assert_eq!(hq.page("blog.localhost", "/"), "green from release 1\n");
    assert_eq!(hq.page("blog.localhost", "/env/FROM_PROFILE"), "yes");
    assert_eq!(hq.page("blog.localhost", "/env/LEVEL"), "high; echo");
    // One that does not recognise the repository refuses the push.
    repository.git(&["mv", "app.pl", "other.pl"]).succeeded();
    repository.commit("renamed");
    hq.push(&repository, "blog").failed().said(&["the buildpack first does not recognise the repository"]);
    assert_eq!(hq.page("blog.localhost", "/"), "green from release 1\n");
}
