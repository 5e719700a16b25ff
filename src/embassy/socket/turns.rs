//! The turns of a thread on a processor: the kernel is asked how long they were waited for, and told how to give them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use preempt_rt::sched::{self, Pid, PreemptRtError, Scheduler, SchedulerParams};

use super::super::patience::{Count, Manner, Patience};
use super::super::state::{Moment, NEVER};

/// Where the kernel counts the turns of the thread that opens it.
const STATISTICS: &str = "/proc/thread-self/schedstat";
/// How often they are looked at, in milliseconds.
const LOOK: Moment = 4;

/// The turns of a thread.
#[derive(Debug)]
pub struct Turns {
    statistics: Option<File>,
    patience: Patience,
    /// How the kernel gives them.
    scheduler: Scheduler,
    /// When it is time to look.
    next: Moment,
}

/// Why a thread takes its turns as it takes them.
#[derive(Debug, thiserror::Error)]
enum Unchanged {
    #[error("cannot read {STATISTICS}")]
    Statistics(#[from] io::Error),
    #[error("{STATISTICS} has no count: {0:?}")]
    Count(String),
    #[error("cannot change how a thread is scheduled")]
    Scheduler(#[from] PreemptRtError),
    #[error("somebody has chosen {0:?} for it")]
    Chosen(Scheduler),
}

impl Default for Turns {
    /// Those of a thread that is like others, as far as anybody has looked.
    fn default() -> Self {
        Self { statistics: None, patience: Patience::default(), scheduler: Scheduler::SCHED_NORMAL, next: 0 }
    }
}

impl Turns {
    /// Has the thread that calls, always the same, take its turns in the manner that is right by now. It may call at any
    /// time: what costs something happens once in some milliseconds.
    pub fn look(&mut self, now: Moment) {
        if now < self.next {
            return;
        }
        self.next = self.adopt(now).unwrap_or_else(|error| {
            tracing::debug!(?error, "a thread of the embassy looks at its turns no more");
            if self.scheduler != Scheduler::SCHED_NORMAL && !matches!(error, Unchanged::Chosen(_)) {
                // Where this fails too, it stays as it is.
                let _ = schedule(Scheduler::SCHED_NORMAL);
            }
            NEVER
        });
    }

    /// When to look again.
    fn adopt(&mut self, now: Moment) -> Result<Moment, Unchanged> {
        let statistics = match &mut self.statistics {
            Some(file) => file,
            none => none.insert(File::open(STATISTICS)?),
        };
        let manner = self.patience.judge(now, count(statistics)?);
        let (scheduler, next) = match manner {
            Manner::Waits { .. } => (Scheduler::SCHED_BATCH, now + LOOK),
            Manner::Pushes { until } => (Scheduler::SCHED_NORMAL, until),
        };
        if scheduler != self.scheduler {
            let found = sched::get_scheduler(Pid::current_thread())?;
            if found != self.scheduler {
                return Err(Unchanged::Chosen(found));
            }
            schedule(scheduler)?;
            self.scheduler = scheduler;
        }
        Ok(next)
    }
}

fn count(statistics: &File) -> Result<Count, Unchanged> {
    let mut text = [0; 64];
    let length = statistics.read_at(&mut text, 0)?;
    let text = String::from_utf8_lossy(&text[..length]);
    Count::parse(&text).ok_or_else(|| Unchanged::Count(text.into_owned()))
}

/// Has the kernel give the thread that calls its turns in this way.
fn schedule(scheduler: Scheduler) -> Result<(), PreemptRtError> {
    sched::set_scheduler(Pid::current_thread(), scheduler, SchedulerParams { priority: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ordinary_scheduling_changes_and_what_was_chosen_stays() {
        // A thread of its own is scheduled.
        let looked = |chosen| {
            let look = move || {
                schedule(chosen).unwrap();
                let mut turns = Turns::default();
                turns.look(1);
                (sched::get_scheduler(Pid::current_thread()).unwrap(), turns.next)
            };
            std::thread::spawn(look).join().unwrap()
        };
        assert_eq!(looked(Scheduler::SCHED_NORMAL), (Scheduler::SCHED_BATCH, 1 + LOOK));
        for chosen in [Scheduler::SCHED_BATCH, Scheduler::SCHED_IDLE] {
            assert_eq!(looked(chosen), (chosen, NEVER));
        }
    }
}
