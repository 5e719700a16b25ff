//! Which parts of quarry an input has gone through, counted by what the compiler has put into it when `bin/fuzz` built
//! this. Without that nothing is ever new, and inputs are changed blindly.

// The compiler's instrumentation hands over raw memory and calls by a fixed name; nothing else here is unsafe.
#![allow(unsafe_code)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

/// The counters of the program's parts, as many as there are codegen units.
static COUNTERS: Mutex<Vec<&'static [AtomicU8]>> = Mutex::new(Vec::new());

/// Called by each part of the program before `main`, with where its counters begin and end.
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(start: *const AtomicU8, end: *const AtomicU8) {
    // SAFETY: the compiler's counters are one array of bytes that lives as long as the program; bytes may be atomic.
    let counters = unsafe { std::slice::from_raw_parts(start, end.offset_from_unsigned(start)) };
    if let Ok(mut all) = COUNTERS.lock()
        && !all.iter().any(|known| known.as_ptr() == start)
    {
        all.push(counters);
    }
}

/// What has been seen so far.
pub struct Coverage {
    counters: Vec<&'static [AtomicU8]>,
    /// For each counter, the sizes it has had, one bit each.
    seen: Vec<u8>,
    /// Counters that were ever above zero.
    pub edges: usize,
}

impl Coverage {
    pub fn new() -> Self {
        let counters = COUNTERS.lock().unwrap().clone();
        let length = counters.iter().map(|part| part.len()).sum();
        Self { counters, seen: vec![0; length], edges: 0 }
    }

    /// Whether the compiler counts at all.
    pub fn is_counted(&self) -> bool {
        !self.seen.is_empty()
    }

    /// Begins anew.
    pub fn clear(&self) {
        for counter in self.counters.iter().copied().flatten() {
            counter.store(0, Ordering::Relaxed);
        }
    }

    /// Whether the input that just ran went where none before it had been, or went there oftener.
    pub fn is_new(&mut self) -> bool {
        let mut new = false;
        for (counter, seen) in self.counters.iter().copied().flatten().zip(&mut self.seen) {
            let size = size(counter.load(Ordering::Relaxed));
            if size & !*seen != 0 {
                self.edges += usize::from(*seen == 0);
                *seen |= size;
                new = true;
            }
        }
        new
    }
}

/// Once, twice, three times, and then by growing steps: a bit for each.
fn size(count: u8) -> u8 {
    match count {
        0 => 0,
        1 => 1,
        2 => 2,
        3 => 4,
        4..=7 => 8,
        8..=15 => 16,
        16..=31 => 32,
        32..=127 => 64,
        128.. => 128,
    }
}
