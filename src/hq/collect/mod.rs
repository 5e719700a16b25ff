//! What could be done without: old releases and what they keep, images and files that nothing explains, runs that have
//! ended, events of long ago, collected within a budget; see [`act`].

pub mod act;

use std::collections::BTreeSet;
use std::fmt;

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::build::reached::UNFINISHED;
use crate::etc::Settings;
use crate::hq::git::packs::Packs;
use crate::launch::record::Release;
use crate::names::{ContainerName, ReleaseNumber, ServerName, StackName};

/// Whatever the disk or the years say, the release that serves can be rolled back so many times, if so many are kept.
pub const ALWAYS: usize = 2;

/// A container that ran once and has ended stays for so long, for whoever wants to know why.
pub const ENDED: SignedDuration = SignedDuration::from_hours(1);

/// More packs than these make a repository slow.
pub const MANY: usize = 20;

/// How often the packs of a repository are put together.
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// Before packs that could not be put together are tried again.
const TRIED: SignedDuration = SignedDuration::from_hours(1);

/// How many releases are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// At most.
    pub most: usize,
    /// In any case.
    pub least: usize,
    /// Those made earlier go.
    pub since: Option<Timestamp>,
}

/// Whether there is room on the disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// There is.
    Enough,
    /// A disk is fuller than the settings want it.
    Scarce,
}

/// What becomes of what is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It is taken away.
    Take,
    /// It is told.
    Tell,
}

impl Budget {
    /// What the settings grant.
    pub fn of(settings: &Settings, room: Room, now: Timestamp) -> Self {
        let most = (settings.releases_kept as usize).max(1);
        let least = most.min(ALWAYS + 1);
        let days = settings.gc.age.map(|days| SignedDuration::from_hours(24 * i64::from(days)));
        let since = days.map(|days| now.checked_sub(days).unwrap_or(Timestamp::MIN));
        match room {
            Room::Enough => Self { most, least, since },
            Room::Scarce => Self { most: least, least, since },
        }
    }
}

/// Something that could be done without.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Surplus {
    /// An old release: its images, tarball, site and record.
    Release {
        /// Whose.
        stack: StackName,
        /// Which.
        release: ReleaseNumber,
    },
    /// An image of a release that never served or is gone.
    Image {
        /// On which server.
        server: ServerName,
        /// Its name.
        image: String,
    },
    /// The files of a site, or a tarball, of a release that is gone.
    Files {
        /// Where, below HQ's root.
        path: String,
    },
    /// The checkout of a stack at rest: the next deploy makes it again.
    Checkout {
        /// Whose.
        stack: StackName,
    },
    /// A container that ran once and has ended.
    Container {
        /// On which server.
        server: ServerName,
        /// Its name.
        container: ContainerName,
    },
    /// The events of a day.
    Events {
        /// Which.
        day: Date,
    },
    /// The packs of a repository, which become one.
    Packs {
        /// Where, below HQ's root.
        path: String,
        /// How many.
        count: usize,
    },
    /// What BuildKit kept of builds.
    Cache {
        /// In bytes.
        bytes: u64,
    },
}

impl fmt::Display for Surplus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Surplus::Release { stack, release } => write!(f, "release {release} of {stack}"),
            Surplus::Image { server, image } => write!(f, "the image {image} on {server}"),
            Surplus::Files { path } => write!(f, "the files {path}"),
            Surplus::Checkout { stack } => write!(f, "the checkout of {stack}"),
            Surplus::Container { server, container } => write!(f, "the container {container} on {server}"),
            Surplus::Events { day } => write!(f, "the events of {day}"),
            Surplus::Packs { path, count } => write!(f, "{count} packs of the repository {path}, which become one"),
            Surplus::Cache { bytes } => write!(f, "{} MB of BuildKit's cache", bytes >> 20),
        }
    }
}

/// The releases to drop; `releases` come oldest first. The one that serves always stays.
pub fn surplus<'a>(releases: &'a [Release], budget: &Budget) -> Vec<&'a Release> {
    let beyond = releases.len().saturating_sub(budget.most.max(1));
    let may_go = releases.len().saturating_sub(budget.least.max(1));
    let old = |release: &Release| budget.since.is_some_and(|since| release.created < since);
    let aged = releases.iter().take(may_go).take_while(|release| old(release)).count();
    releases[..beyond.max(aged)].iter().collect()
}

/// Versions of variables no kept release and no running container needs.
pub fn unused_env(all: &[u64], releases: &[Release], running: &BTreeSet<u64>) -> Vec<u64> {
    let used: BTreeSet<u64> = releases.iter().map(|release| release.env_version).collect();
    all.iter().copied().filter(|version| !used.contains(version) && !running.contains(version)).collect()
}

/// Numbers pinned in a repository that no kept release explains.
pub fn stray_pins(pins: &[ReleaseNumber], releases: &[Release]) -> Vec<ReleaseNumber> {
    let known: BTreeSet<ReleaseNumber> = releases.iter().map(|release| release.number).collect();
    pins.iter().copied().filter(|pin| !known.contains(pin)).collect()
}

/// Whether an image is what a failed build has got to after the release that serves: the next try goes on from there.
pub fn is_begun(image: &str, current: Option<&Release>) -> bool {
    let Some((name, tag)) = image.rsplit_once(':') else { return false };
    let number = tag.split('-').next().and_then(|number| number.parse().ok()).map(ReleaseNumber);
    name.ends_with(UNFINISHED) && number > current.map(|release| release.number)
}

/// Whether the packs of a repository are worth the work of putting them together: every day where there are some, at once
/// where there are many, unless that was just tried.
pub fn are_scattered(packs: &Packs, now: Timestamp) -> bool {
    let older = |time: Timestamp, than: SignedDuration| now.duration_since(time) >= than;
    let daily = packs.tried.or(packs.first).is_some_and(|time| older(time, DAY));
    let at_once = packs.tried.is_none_or(|time| older(time, TRIED));
    packs.count > 1 && daily || packs.count > MANY && at_once
}

/// Files and folders that begin with the number of a release, such as `3` and `3.tar.gz`, of none that is kept.
pub fn stray_files(names: &[String], kept: &BTreeSet<ReleaseNumber>) -> Vec<String> {
    let number = |name: &str| name.split('.').next()?.parse::<u64>().ok().map(ReleaseNumber);
    let stray = |name: &&String| number(name).is_some_and(|number| !kept.contains(&number));
    names.iter().filter(stray).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::record::Cause;

    fn release(number: u64) -> Release {
        Release {
            number: ReleaseNumber(number),
            cause: Cause::Launch,
            commit: None,
            subject: String::new(),
            env_version: number,
            instructions: Vec::new(),
            user: "ada".parse().unwrap(),
            // One a day.
            created: Timestamp::from_second(i64::try_from(number).unwrap() * 86_400).unwrap(),
        }
    }

    #[test]
    fn number_age_and_room_decide_and_the_last_releases_always_stay() {
        let releases: Vec<Release> = (1..=8).map(release).collect();
        let now = Timestamp::from_second(9 * 86_400).unwrap();
        let check = |kept: u32, age: Option<u32>, room, expected: u64| {
            let mut settings = Settings { releases_kept: kept, ..Settings::default() };
            settings.gc.age = age;
            let dropped = surplus(&releases, &Budget::of(&settings, room, now));
            assert_eq!(dropped.last().map_or(0, |last| last.number.0), expected, "{kept} {age:?} {room:?}");
        };
        check(10, None, Room::Enough, 0);
        check(6, None, Room::Enough, 2);
        check(1, None, Room::Enough, 7);
        check(10, Some(5), Room::Enough, 3);
        check(6, Some(30), Room::Enough, 2);
        // Not the last three, however old they are, and however full the disk.
        check(10, Some(1), Room::Enough, 5);
        check(10, None, Room::Scarce, 5);
        check(2, None, Room::Scarce, 6);
        check(1, None, Room::Scarce, 7);
    }

    #[test]
    fn what_a_failed_build_has_got_to_stays_until_the_next_release() {
        let check = |image: &str, expected: bool| assert_eq!(is_begun(image, Some(&release(3))), expected, "{image}");
        check("quarry/blog/web.unfinished:4-0123", true);
        check("quarry/blog/web.unfinished:3-0123", false);
        check("quarry/blog/web:4-0123", false);
        assert!(is_begun("quarry/blog/web.unfinished:1-0123", None));
    }

    #[test]
    fn packs_are_put_together_where_there_are_many_and_every_day() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let ago = |hours: i64| Some(now - SignedDuration::from_hours(hours));
        let check = |count, first, tried, expected: bool| {
            let packs = Packs { count, bytes: 0, first: ago(first), tried };
            assert_eq!(are_scattered(&packs, now), expected, "{packs:?}");
        };
        check(MANY + 1, 0, None, true);
        check(MANY, 0, None, false);
        check(2, 25, None, true);
        check(1, 25, None, false);
        check(MANY + 1, 25, ago(0), false);
        check(MANY + 1, 25, ago(2), true);
        check(2, 100, ago(23), false);
        check(2, 100, ago(25), true);
        assert!(!are_scattered(&Packs::default(), now));
    }

    #[test]
    fn what_no_release_explains_is_found_by_its_number() {
        let names = ["1", "2", "2.tar.gz", "3.tar.gz", "notes"].map(str::to_owned);
        let kept = [ReleaseNumber(2)].into();
        assert_eq!(stray_files(&names, &kept), ["1", "3.tar.gz"]);
    }
}
