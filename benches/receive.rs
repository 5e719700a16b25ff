//! Pushes to quarry beside OpenSSH's sshd with git-receive-pack: large packs, a tiny push, a hundred at once.
//!
//! Both sides run on loopback with OpenSSH's client and its default algorithms. The reference has its best settings:
//! `receive.unpackLimit=1`, and sshd's MaxStartups raised. Quarry is the whole `serve`; the branch is one that does not
//! deploy. Names of parts may be given (`files10 files1 tiny hundred`), and `QUARRY_ROUNDS`.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::fs;
use std::io::Read;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Instant;

use self::common::engine::Engine;
use self::common::hq::Hq;
use self::common::place::Place;
use self::common::program::{self, done, milliseconds, timed};
use self::common::repository::Repository;
use self::common::sshd::Sshd;
use self::common::table::{Pairs, Target, heading, row};
use self::common::{Parts, end, ours_first, rounds};

mod common;

/// A branch that quarry stores without a deploy.
const BRANCH: &str = "refs/heads/stored";

/// Clients at once.
const CROWD: usize = 100;

fn main() -> ExitCode {
    end::run(|| {
        let parts = Parts::wanted();
        let bench = Bench::start();
        if parts.want("files10") {
            bench.large(50, 10);
        }
        if parts.want("files1") {
            bench.large(500, 1);
        }
        if parts.want("tiny") {
            bench.tiny();
        }
        if parts.want("hundred") {
            bench.hundred();
        }
    })
}

/// Where a push goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Quarry,
    Sshd,
}

struct Bench {
    place: Place,
    hq: Hq,
    sshd: Sshd,
}

impl Bench {
    fn start() -> Self {
        let place = Place::new();
        let (sshd, hq) = (Sshd::start(&place), Hq::start(&place, &Engine::new()));
        Self { place, hq, sshd }
    }

    /// Makes sure that there is such a stack, and gives its address. Quarry makes its own with the first push.
    fn url(&self, side: Side, stack: &str) -> String {
        match side {
            Side::Quarry => self.hq.url(stack),
            Side::Sshd => {
                let url = self.sshd.url(stack);
                let mut config = Command::new("git");
                config.arg("--git-dir").arg(self.sshd.path(stack)).args(["config", "receive.unpackLimit", "1"]);
                done(Repository::dress(&mut config));
                url
            }
        }
    }

    fn push(&self, repository: &Repository, url: &str, commit: &str) -> Command {
        let mut command = repository.git(&["push", "-q", url, &format!("{commit}:{BRANCH}")]);
        command.env("GIT_SSH_COMMAND", self.place.ssh_words().join(" "));
        command
    }

    /// Measures both sides in turn.
    fn pair(round: usize, mut measure: impl FnMut(Side) -> f64) -> (f64, f64) {
        if ours_first(round) {
            let ours = measure(Side::Quarry);
            (ours, measure(Side::Sshd))
        } else {
            let reference = measure(Side::Sshd);
            (measure(Side::Quarry), reference)
        }
    }

    /// 500 MB of files that do not compress, packed at the client before, into a stack of its own each time.
    fn large(&self, files: usize, megabytes: usize) {
        let repository = self.much(files, megabytes);
        let mut pairs = Pairs::default();
        for round in 0..rounds(5) {
            let (ours, reference) = Self::pair(round, |side| {
                let stack = format!("files{megabytes}-{round}");
                let took = timed(&mut self.push(&repository, &self.url(side, &stack), "HEAD"));
                let folder = match side {
                    Side::Quarry => self.place.path("root/stacks").join(&stack),
                    Side::Sshd => self.sshd.path(&stack),
                };
                fs::remove_dir_all(folder).unwrap();
                (files * megabytes * 1_000) as f64 / took
            });
            pairs.add(ours, reference);
        }
        heading("MB a second");
        row(&format!("{files} files of {megabytes} MB"), &pairs, Target::RatioAtLeast(1.0));
    }

    fn much(&self, files: usize, megabytes: usize) -> Repository {
        let mut random = fs::File::open("/dev/urandom").unwrap();
        let repository = Repository::with(&self.place, &format!("files{megabytes}"), &[]);
        let mut bytes = vec![0; megabytes * 1_000_000];
        for number in 0..files {
            random.read_exact(&mut bytes).unwrap();
            repository.write(&number.to_string(), &bytes);
        }
        repository.commit();
        done(&mut repository.git(&["repack", "-a", "-d", "-q"]));
        repository
    }

    /// Commits of one small file each, to be pushed one after another.
    fn commits(repository: &Repository, count: usize) -> Vec<String> {
        let commit = |number: usize| {
            repository.write("file", format!("{number}\n").as_bytes());
            repository.commit();
            done(&mut repository.git(&["rev-parse", "HEAD"])).trim().to_owned()
        };
        (0..count).map(commit).collect()
    }

    /// One small commit onto a branch that is there.
    fn tiny(&self) {
        let repository = Repository::with(&self.place, "tiny", &[("file", b"first\n")]);
        let commits = Self::commits(&repository, rounds(21));
        let urls = [Side::Quarry, Side::Sshd].map(|side| self.url(side, "tiny"));
        for url in &urls {
            done(&mut self.push(&repository, url, &commits[0]));
        }
        let mut pairs = Pairs::default();
        for (round, commit) in commits[1..].iter().enumerate() {
            let (ours, reference) =
                Self::pair(round, |side| timed(&mut self.push(&repository, &urls[side as usize], commit)));
            pairs.add(ours, reference);
        }
        let last = commits.last().unwrap();
        for url in &urls {
            let mut listing = repository.git(&["ls-remote", url, BRANCH]);
            listing.env("GIT_SSH_COMMAND", self.place.ssh_words().join(" "));
            assert!(done(&mut listing).starts_with(last), "the last push did not arrive at {url}");
        }
        heading("milliseconds");
        row("a tiny push", &pairs, Target::RatioAtMost(0.8));
    }

    /// A hundred clients at once, each with a stack of its own.
    fn hundred(&self) {
        let repository = Repository::with(&self.place, "hundred", &[("file", b"first\n")]);
        let commits = Self::commits(&repository, rounds(3) + 1);
        let mut pairs = Pairs::default();
        for (round, commit) in commits.iter().enumerate() {
            let (ours, reference) = Self::pair(round, |side| {
                let urls: Vec<String> = (0..CROWD).map(|number| self.url(side, &format!("s{number}"))).collect();
                let began = Instant::now();
                let start = |url: &String| {
                    program::start(self.push(&repository, url, commit).stdin(Stdio::null()).stderr(Stdio::null()))
                };
                let pushes: Vec<Child> = urls.iter().map(start).collect();
                let good = pushes.into_iter().filter_map(|mut push| push.wait().ok()).filter(|end| end.success());
                assert_eq!(good.count(), CROWD, "pushes that arrived");
                milliseconds(began)
            });
            // The first round makes the stacks.
            if round > 0 {
                pairs.add(ours, reference);
            }
        }
        heading("milliseconds");
        row("100 tiny pushes at once", &pairs, Target::RatioAtMost(0.8));
    }
}
