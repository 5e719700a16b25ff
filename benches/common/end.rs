//! The end of a benchmark: whatever it made goes, also after a panic and on Ctrl-C.

use std::cell::Cell;
use std::panic::{UnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::signal::unix::{SignalKind, signal};

type Work = Box<dyn FnOnce() + Send>;

static WORK: Mutex<Vec<Work>> = Mutex::new(Vec::new());
static ENDING: AtomicBool = AtomicBool::new(false);

thread_local! {
    static ENDS: Cell<bool> = const { Cell::new(false) };
}

/// Has this done at the end, however it comes; what was asked for last is done first.
pub fn later(work: impl FnOnce() + Send + 'static) {
    WORK.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(work));
}

/// Runs a benchmark and clears away behind it.
pub fn run(benchmark: impl FnOnce() + UnwindSafe) -> ExitCode {
    std::thread::spawn(end_on_signal);
    let ended = catch_unwind(benchmark);
    clear_away();
    if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Nothing new begins once the end has: whoever comes by here then waits for it.
pub fn checkpoint() {
    while ENDING.load(Ordering::SeqCst) && !ENDS.get() {
        std::thread::park();
    }
}

fn end_on_signal() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut int = signal(SignalKind::interrupt()).unwrap();
        let mut term = signal(SignalKind::terminate()).unwrap();
        tokio::select! { _ = int.recv() => {} _ = term.recv() => {} }
    });
    clear_away();
    std::process::exit(130);
}

fn clear_away() {
    ENDING.store(true, Ordering::SeqCst);
    ENDS.set(true);
    // Held to the last: of two that end, the second waits for the first.
    let mut work = WORK.lock().unwrap_or_else(PoisonError::into_inner);
    while let Some(one) = work.pop() {
        // One that fails must not keep the others from being done.
        let _ = catch_unwind(std::panic::AssertUnwindSafe(one));
    }
}
