//! Feeds what reads other people's texts with changed ones until the time is over; see `bin/fuzz`.
//!
//! Each target runs in a process of its own, which notes every input before it reads it: what ends that process, or
//! takes it too long, is a finding as much as a broken promise. Inputs that reach code no other has reached are kept
//! below `target/fuzz/TARGET/` and changed further, there and in later runs; findings lie beside them.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use self::coverage::Coverage;
use self::mutate::{Chance, mutated};
use self::targets::{TARGETS, Target};

mod coverage;
mod doors;
mod mutate;
mod properties;
mod seeds;
mod targets;

/// Minutes without a word on the command line.
const MINUTES: f64 = 10.0;

/// No text of these lengths takes longer to read, not even on a busy machine.
const SLOW: Duration = Duration::from_secs(10);

/// The memory a target's process may have, in bytes: a text that takes more of it is a finding.
const MEMORY: u64 = 2 << 30;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["--target", name, seconds] => one(target(name), Duration::from_secs_f64(seconds.parse().unwrap())),
        ["--input", name, file] => (target(name).run)(&fs::read(file).unwrap()),
        ["--list"] => TARGETS.iter().for_each(|target| println!("{}", target.name)),
        _ => return all(&words),
    }
    ExitCode::SUCCESS
}

fn target(name: &str) -> &'static Target {
    let known: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    let found = TARGETS.iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("there is no target `{name}`; there are {}", known.join(" ")))
}

fn folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzz").join(target.name)
}

/// Runs the named targets, or all, one after the other.
fn all(words: &[&str]) -> ExitCode {
    let mut minutes = MINUTES;
    let mut wanted = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--minutes" => minutes = words.next().and_then(|text| text.parse().ok()).expect("--minutes takes a number"),
            name => wanted.push(target(name)),
        }
    }
    if wanted.is_empty() {
        wanted.extend(&TARGETS);
    }
    let mut is_well = true;
    for target in wanted {
        fs::create_dir_all(folder(target)).unwrap();
        let mut command = Command::new("prlimit");
        command.arg(format!("--as={MEMORY}")).arg(std::env::current_exe().unwrap());
        let ended = command.args(["--target", target.name, &(minutes * 60.0).to_string()]).status().unwrap();
        if !ended.success() {
            is_well = false;
            let kept = keep_noted(target);
            println!("{}: ended by {ended} at the input {}", target.name, kept.display());
        }
    }
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The input that a process noted last, in a file of its own.
fn keep_noted(target: &Target) -> PathBuf {
    let mut noted = Vec::new();
    File::open(folder(target).join("now")).unwrap().read_to_end(&mut noted).unwrap();
    let length = noted.get(..8).map_or(0, |length| u64::from_le_bytes(length.try_into().unwrap()) as usize);
    write(target, "finding", noted.get(8..8 + length).unwrap_or_default())
}

fn write(target: &Target, kind: &str, input: &[u8]) -> PathBuf {
    let digest: String = Sha256::digest(input).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let path = folder(target).join(format!("{kind}-{digest}"));
    fs::write(&path, input).unwrap();
    path
}

/// Inputs of earlier runs, and those every run begins with.
fn beginning(target: &Target) -> Vec<Vec<u8>> {
    let mut inputs = (target.seeds)();
    inputs.push(Vec::new());
    for entry in fs::read_dir(folder(target)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("kept-") || name.starts_with("finding-") {
            inputs.push(fs::read(path).unwrap());
        }
    }
    inputs
}

/// One target until the time is over; a broken promise ends the process.
fn one(target: &'static Target, time: Duration) {
    let mut coverage = Coverage::new();
    let note = File::create(folder(target).join("now")).unwrap();
    let began = Instant::now();
    let beats = watched(target);
    let mut runs = 0_u64;
    let mut run = |input: &[u8], coverage: &mut Coverage| {
        note.write_all_at(&[&(input.len() as u64).to_le_bytes()[..], input].concat(), 0).unwrap();
        coverage.clear();
        let ended = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
        runs = beats.fetch_add(1, Ordering::Relaxed) + 1;
        if ended.is_err() {
            std::process::exit(1);
        }
        coverage.is_new()
    };
    let mut corpus = beginning(target);
    for input in &corpus {
        run(input, &mut coverage);
    }
    let mut chance = Chance::new(seed());
    while began.elapsed() < time {
        // What came last has had the least attention.
        let recent = corpus.len().saturating_sub(1 + chance.below(corpus.len().min(16)));
        let from = if chance.below(2) == 0 { recent } else { chance.below(corpus.len()) };
        let other = chance.below(corpus.len());
        let input = mutated(&corpus[from], &corpus[other], target.words, &mut chance);
        if run(&input, &mut coverage) {
            write(target, "kept", &input);
            corpus.push(input);
        }
    }
    let counted = if coverage.is_counted() { format!("{} edges", coverage.edges) } else { "not counted".to_owned() };
    println!(
        "{:<12} {:>5.1} min  {runs:>10} inputs  {counted:>12}  {:>6} kept  no finding",
        target.name,
        began.elapsed().as_secs_f64() / 60.0,
        corpus.len()
    );
}

fn seed() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64)
}

/// Ends the process when one input takes too long. What it counts are inputs read to their end.
fn watched(target: &'static Target) -> Arc<AtomicU64> {
    let beats = Arc::new(AtomicU64::new(0));
    let seen = beats.clone();
    std::thread::spawn(move || {
        let mut last = (u64::MAX, Instant::now());
        loop {
            std::thread::sleep(Duration::from_millis(200));
            let now = seen.load(Ordering::Relaxed);
            if now != last.0 {
                last = (now, Instant::now());
            } else if last.1.elapsed() > SLOW {
                println!("{}: an input took more than {} s", target.name, SLOW.as_secs());
                std::process::exit(1);
            }
        }
    });
    beats
}
