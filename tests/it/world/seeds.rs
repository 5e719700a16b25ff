//! Many seeds, and what is left of one that fails.

use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::acts::{Land, Turn, turns};
use super::dice::Dice;
use super::story::{Failure, Story};

/// How many seeds are tried unless `QUARRY_SEEDS` says otherwise.
const SEEDS: u64 = 200;

/// How long a story that fails is told again and again to find out what of it matters.
const SHRINKING: Duration = Duration::from_secs(60);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number and not {text}")))
}

/// What a seed comes to.
fn story_of(seed: u64) -> (Land, Vec<Turn>) {
    let dice = Dice::new(!seed);
    let land = Land { servers: 1 + dice.below(5) as usize, cloud: dice.one_in(3) };
    (land, turns(&dice, land))
}

#[test]
fn whatever_happens_the_promises_hold() {
    if let Some(seed) = number("QUARRY_SEED") {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
        let (land, turns) = story_of(seed);
        if let Err(failure) = (Story { seed, land, turns: &turns }).tell() {
            let (turns, failure) = shrink(seed, land, turns, failure);
            panic!("{}", report(seed, land, &turns, &failure));
        }
        return;
    }
    let (seeds, threads) = match number("QUARRY_SEEDS") {
        Some(seeds) => (seeds, std::thread::available_parallelism().unwrap().get()),
        None => (SEEDS, 1),
    };
    let (next, stop, failed) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= seeds {
                        return;
                    }
                    let (land, turns) = story_of(seed);
                    if let Err(failure) = (Story { seed, land, turns: &turns }).tell() {
                        stop.store(true, Ordering::SeqCst);
                        failed.lock().unwrap().get_or_insert((seed, land, turns, failure));
                    }
                }
            });
        }
    });
    if let Some((seed, land, turns, failure)) = failed.into_inner().unwrap() {
        let (turns, failure) = shrink(seed, land, turns, failure);
        panic!("{}", report(seed, land, &turns, &failure));
    }
}

/// Leaves acts out, and pauses, as long as some promise is still broken.
fn shrink(seed: u64, land: Land, mut turns: Vec<Turn>, mut failure: Failure) -> (Vec<Turn>, Failure) {
    let began = Instant::now();
    let fails = |turns: &[Turn]| {
        if began.elapsed() > SHRINKING { None } else { (Story { seed, land, turns }).tell().err() }
    };
    let mut length = turns.len().div_ceil(2);
    loop {
        let mut at = 0;
        let mut less = false;
        while at < turns.len() {
            let mut fewer = turns.clone();
            fewer.drain(at..turns.len().min(at + length));
            match fails(&fewer) {
                Some(other) => {
                    (turns, failure, less) = (fewer, other, true);
                }
                None => at += length,
            }
        }
        if length == 1 && !less {
            break;
        }
        length = length.div_ceil(2).max(1);
    }
    for at in 0..turns.len() {
        let mut shorter = turns.clone();
        shorter[at].1 = 0;
        if shorter != turns
            && let Some(other) = fails(&shorter)
        {
            (turns, failure) = (shorter, other);
        }
    }
    (turns, failure)
}

/// A failure as the code of a named test.
fn report(seed: u64, land: Land, turns: &[Turn], failure: &Failure) -> String {
    let mut text = format!("seed {seed} breaks a promise: {}\n\n", failure.why);
    let _ = writeln!(text, "#[test]\nfn what_was_promised() {{\n    check({seed}, {}, &[", land.code());
    for (act, pause) in turns {
        let _ = writeln!(text, "        ({act:?}, {pause}),");
    }
    text.push_str("    ]);\n}\n\n");
    text.push_str(&failure.told);
    text
}
