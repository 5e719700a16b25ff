//! How the embassy's threads are scheduled beside others.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::*;

/// How the kernel schedules each of the embassy's threads: 0 is the ordinary way, 3 that of those who wait.
fn policies() -> Vec<u32> {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let stats = threads.filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("stat")).ok());
    let mine = stats.filter(|stat| stat.contains("(embassy-"));
    mine.map(|stat| stat.rsplit_once(") ").unwrap().1.split(' ').nth(38).unwrap().parse().unwrap()).collect()
}

/// Keeps the processors busy until it is dropped.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn new() -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        for _ in 0..2 * std::thread::available_parallelism().unwrap().get() {
            let is_over = is_over.clone();
            std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(is_over)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_thread_waits_for_its_turns_as_long_as_these_come_soon() {
    let app = echoing("app");
    let stand = Stand::with(Settings { threads: 1, ..Settings::default() }, vec![exposed(&[&app])]);
    let mut client = stand.connect();
    assert_eq!(who(&mut client), 'a');
    let mut until_it_has = |policy: u32| {
        until(&format!("the thread to have policy {policy}"), || {
            echoes(&mut client, "still here");
            (policies() == [policy]).then_some(())
        });
    };
    until_it_has(3);
    let busy = Busy::new();
    until_it_has(0);
    drop(busy);
    until_it_has(3);
}
