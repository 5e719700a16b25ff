//! Tasks at their times: which are due, which run, and what became of them. [`act`] runs them.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::runs::Runs;
use crate::stack::{Schedule, TaskOverlap, ZoneName};

pub mod act;
pub mod failure;
pub mod files;

/// What is kept of a task besides its settings: `stacks/<stack>/tasks/<node>.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diary {
    /// Nothing runs at its times.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspended: bool,
    /// Up to here its times have been seen to.
    pub seen: Option<Timestamp>,
    /// Which times those were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<Timing>,
    /// Its last runs by number; those without an end are under way.
    #[serde(default)]
    pub runs: Runs,
}

/// When a task runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// Its times.
    pub schedule: Schedule,
    /// Where clocks show them; in UTC without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<ZoneName>,
}

/// A time that HQ was not there for counts for so long: a restart loses none, a long absence does not bring a crowd.
const LATE: jiff::SignedDuration = jiff::SignedDuration::from_mins(10);

/// Clocks are set back by less than this.
const BACK: jiff::SignedDuration = jiff::SignedDuration::from_hours(2);

/// What is to be done with a task now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agenda {
    /// What happens with the time that has come.
    pub due: Option<Due>,
    /// Up to here all is seen to then.
    pub seen: Timestamp,
    /// When to look again.
    pub next: Option<Timestamp>,
}

/// A time has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// It runs.
    Run,
    /// It runs in the place of these.
    Replace(Vec<u64>),
    /// It is left out: the one before still runs.
    Skip,
}

/// What is to be done with a task at `now`. Times that came while it was suspended, while it had others, or long ago, are
/// gone.
pub fn agenda((timing, overlap): (&Timing, TaskOverlap), zone: &TimeZone, diary: &Diary, now: Timestamp) -> Agenda {
    let oldest = now.checked_sub(LATE).unwrap_or(now);
    // What was seen to shortly after now was seen to: the clock was set back. What lies far ahead was a wrong clock's.
    let ahead = now.checked_add(BACK).unwrap_or(now);
    let seen = diary.seen.filter(|seen| *seen <= ahead).unwrap_or(now);
    let is_new = diary.timing.as_ref().is_some_and(|known| known != timing);
    let from = seen.max(if is_new { now } else { oldest });
    let first = timing.schedule.next(&from.to_zoned(zone.clone()));
    let come = first.as_ref().is_some_and(|time| time.timestamp() <= now);
    let next = match come {
        true => timing.schedule.next(&now.to_zoned(zone.clone())),
        false => first,
    };
    let running: Vec<u64> = diary.runs.running().collect();
    let due = match (running.is_empty(), overlap) {
        _ if !come || diary.suspended => None,
        (true, _) | (false, TaskOverlap::Allow) => Some(Due::Run),
        (false, TaskOverlap::Skip) => Some(Due::Skip),
        (false, TaskOverlap::Replace) => Some(Due::Replace(running)),
    };
    Agenda { due, seen: now.max(seen), next: next.map(|time| time.timestamp()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hq::runs::{Outcome, Run};

    fn at(text: &str) -> Timestamp {
        format!("2026-11-22T{text}Z").parse().unwrap()
    }

    fn run(outcome: Outcome) -> Run {
        let (server, container) = ("hq".parse().unwrap(), "blog.nightly.1.1".parse().unwrap());
        Run { began: at("00:00:00"), ended: None, by: None, attached: false, server, container, outcome }
    }

    fn diary(seen: &str, running: usize) -> Diary {
        let mut diary = Diary { seen: Some(at(seen)), ..Diary::default() };
        for _ in 0..running {
            diary.runs.begin(run(Outcome::Running));
        }
        diary
    }

    #[test]
    fn a_task_runs_at_its_time_and_once() {
        let hourly = timing("0 * * * *");
        let check = |diary: &Diary, overlap, now: &str, due: Option<Due>, next: &str| {
            let agenda = agenda((&hourly, overlap), &TimeZone::UTC, diary, at(now));
            assert_eq!((agenda.due, agenda.next), (due, Some(at(next))), "{diary:?} at {now}");
        };
        check(&Diary::default(), TaskOverlap::Skip, "12:00:00", None, "13:00:00");
        check(&diary("11:59:59", 0), TaskOverlap::Skip, "12:00:00", Some(Due::Run), "13:00:00");
        check(&diary("12:00:00", 0), TaskOverlap::Skip, "12:00:01", None, "13:00:00");
        check(&diary("11:59:59", 1), TaskOverlap::Skip, "12:00:00", Some(Due::Skip), "13:00:00");
        check(&diary("11:59:59", 1), TaskOverlap::Allow, "12:00:00", Some(Due::Run), "13:00:00");
        check(&diary("11:59:59", 2), TaskOverlap::Replace, "12:00:00", Some(Due::Replace(vec![1, 2])), "13:00:00");
        // HQ was away for a moment, and for the night.
        check(&diary("11:58:00", 0), TaskOverlap::Skip, "12:05:00", Some(Due::Run), "13:00:00");
        check(&diary("02:58:00", 0), TaskOverlap::Skip, "12:30:00", None, "13:00:00");
        // A clock that was set back brings nothing twice.
        check(&diary("12:00:30", 0), TaskOverlap::Skip, "11:59:00", None, "13:00:00");
        check(&diary("23:00:30", 0), TaskOverlap::Skip, "11:59:00", None, "12:00:00");
        let suspended = Diary { suspended: true, ..diary("11:59:59", 0) };
        check(&suspended, TaskOverlap::Skip, "12:00:00", None, "13:00:00");
    }

    fn timing(schedule: &str) -> Timing {
        Timing { schedule: schedule.parse().unwrap(), timezone: None }
    }

    #[test]
    fn times_that_a_task_did_not_have_yet_are_none() {
        let check = |known: Option<Timing>, due: Option<Due>| {
            let diary = Diary { timing: known, ..diary("11:59:59", 0) };
            let noon = timing("0 12 * * *");
            let agenda = agenda((&noon, TaskOverlap::Skip), &TimeZone::UTC, &diary, at("12:07:00"));
            assert_eq!((agenda.due, agenda.seen), (due, at("12:07:00")), "{diary:?}");
        };
        check(Some(timing("0 12 * * *")), Some(Due::Run));
        check(Some(timing("0 3 * * *")), None);
        let elsewhere = Timing { timezone: Some("Europe/Berlin".parse().unwrap()), ..timing("0 12 * * *") };
        check(Some(elsewhere), None);
        // Kept by an HQ that did not know.
        check(None, Some(Due::Run));
    }
}
