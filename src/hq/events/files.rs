//! The files of events below `events/` of HQ's root: `2026-11-22.jsonl`, a line each, only ever added to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::Event;

const ENDING: &str = ".jsonl";

/// The folder of events.
#[derive(Debug)]
pub struct Files {
    folder: PathBuf,
    /// One line at a time.
    writing: Mutex<()>,
}

impl Files {
    /// The files below a folder, which need not be there yet.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, writing: Mutex::default() }
    }

    /// Adds an event for good.
    ///
    /// # Errors
    /// What the disk says.
    pub fn add(&self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let day = event.at.to_zoned(TimeZone::UTC).date();
        let path = self.folder.join(format!("{day}{ENDING}"));
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        if is_torn(&mut file)? {
            line.insert(0, b'\n');
        }
        file.write_all(&line)?;
        file.sync_data()
    }

    /// The events that are wanted, in the order they were written, from the last `count` of them on and perhaps some
    /// before. A damaged line is left out.
    ///
    /// # Errors
    /// What the disk says.
    pub fn last(&self, count: usize, wanted: &dyn Fn(&Event) -> bool) -> io::Result<Vec<Event>> {
        let mut days: Vec<Vec<Event>> = Vec::new();
        let mut found = 0;
        for path in self.days()?.into_iter().rev() {
            let text = fs::read(path)?;
            let lines = text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
            let day: Vec<Event> = lines.filter(wanted).collect();
            // What has ended was written twice.
            found += day.len() / 2;
            days.push(day);
            if found >= count {
                break;
            }
        }
        Ok(days.into_iter().rev().flatten().collect())
    }

    /// The days before this one of which there are events, the oldest first.
    ///
    /// # Errors
    /// What the disk says.
    pub fn days_before(&self, day: Date) -> io::Result<Vec<Date>> {
        let day_of = |path: &PathBuf| path.file_name()?.to_str()?.strip_suffix(ENDING)?.parse::<Date>().ok();
        Ok(self.days()?.iter().filter_map(day_of).filter(|found| *found < day).collect())
    }

    /// Forgets the events of a day.
    ///
    /// # Errors
    /// What the disk says.
    pub fn forget(&self, day: Date) -> io::Result<()> {
        fs::remove_file(self.folder.join(format!("{day}{ENDING}")))
    }

    /// The files, the oldest first.
    fn days(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut days = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.to_str().is_some_and(|path| path.ends_with(ENDING)) {
                days.push(path);
            }
        }
        days.sort();
        Ok(days)
    }
}

/// Whether the last line has no end: HQ died while it was written.
fn is_torn(file: &mut File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::hq::door::{Caller, Origin};

    fn event(id: u64, second: i64) -> Event {
        let caller = Caller { user: "ada".parse().unwrap(), from: Origin::Socket };
        Event::begin(id, Timestamp::from_second(second).unwrap(), &caller, "scale blog web=2")
    }

    fn ids(events: &[Event]) -> Vec<u64> {
        events.iter().map(|event| event.id).collect()
    }

    #[test]
    fn events_are_found_again_over_the_days() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path().join("events"));
        assert_eq!(files.last(10, &|_| true).unwrap(), []);
        for (id, second) in [(1, 0), (1, 1), (2, 86_400), (2, 86_401), (3, 86_402)] {
            files.add(&event(id, second)).unwrap();
        }
        assert_eq!(ids(&files.last(1, &|_| true).unwrap()), [2, 2, 3]);
        assert_eq!(ids(&files.last(10, &|_| true).unwrap()), [1, 1, 2, 2, 3]);
        assert_eq!(ids(&files.last(10, &|event| event.id == 1).unwrap()), [1, 1]);
        let second = Date::constant(1970, 1, 2);
        let old = files.days_before(second).unwrap();
        assert_eq!(old, [Date::constant(1970, 1, 1)]);
        files.forget(old[0]).unwrap();
        assert_eq!(ids(&files.last(10, &|_| true).unwrap()), [2, 2, 3]);
        assert_eq!(files.days_before(second).unwrap(), []);
    }

    #[test]
    fn a_line_that_was_cut_off_takes_no_other_along() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path().to_owned());
        files.add(&event(1, 0)).unwrap();
        let path = dir.path().join("1970-01-01.jsonl");
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"id\":2,\"us").unwrap();
        files.add(&event(3, 2)).unwrap();
        assert_eq!(ids(&files.last(10, &|_| true).unwrap()), [1, 3]);
    }
}
