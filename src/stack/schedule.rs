//! When a task runs, in the words of cron.

use std::fmt;
use std::str::FromStr;

use jiff::Zoned;
use jiff::civil::Date;
use jiff::tz::{AmbiguousOffset, AmbiguousZoned};
use serde::{Deserialize, Serialize};

use crate::names::printable::excerpt;

/// Five fields (minute, hour, day of the month, month, day of the week) or a word such as `@daily`, as crontab(5) has
/// them. Fields know `*`, lists, ranges, steps, and the names of months and days.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Schedule(String);

/// Text that is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a schedule: minute, hour, day, month and weekday such as `0 3 * * *`, or `@daily`")]
pub struct BadSchedule(String);

/// The name of a time zone, such as `Europe/Berlin`. Whether there is such a one, the machine knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ZoneName(String);

/// Text that names no time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of a time zone, such as `Europe/Berlin` or `UTC`")]
pub struct BadZone(String);

impl ZoneName {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ZoneName {
    type Err = BadZone;
    fn from_str(text: &str) -> Result<Self, BadZone> {
        let good = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphabetic())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "_-+".contains(c))
        };
        match text.len() <= 60 && text.split('/').all(good) {
            true => Ok(Self(text.to_owned())),
            false => Err(BadZone(excerpt(text, 60))),
        }
    }
}

impl TryFrom<String> for ZoneName {
    type Error = BadZone;
    fn try_from(text: String) -> Result<Self, BadZone> {
        text.parse()
    }
}

impl From<ZoneName> for String {
    fn from(zone: ZoneName) -> String {
        zone.0
    }
}

/// Words for a whole schedule.
const WORDS: [&str; 7] = ["@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"];

/// The least and the greatest number of each field; 7 is Sunday, too.
const FIELDS: [(u32, u32); 5] = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)];

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Schedule {
    /// As it is written, one blank between the fields.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Schedule {
    /// The first time after `after` that it names, in that one's time zone. A time of the day that a change of clocks skips
    /// comes as much later as they were put forward; one that comes twice counts once, the first time, unless minute or
    /// hour begin with `*`: those go by time that passes, as crontab(5) has it. `None` when no day of the next years fits,
    /// such as February 30th.
    pub fn next(&self, after: &Zoned) -> Option<Zoned> {
        let fields = self.fields();
        let mut day = after.date();
        for _ in 0..DAYS_AHEAD {
            if fields.has_day(day) {
                // After a gap, and the first of two.
                let mut first = fields.times(day, after).filter_map(|time| time.compatible().ok());
                let first = first.find(|time| time > after);
                let again = if fields.is_frequent { fields.second(day, after) } else { None };
                if let Some(time) = first.into_iter().chain(again).min() {
                    return Some(time);
                }
            }
            day = day.tomorrow().ok()?;
        }
        None
    }

    fn fields(&self) -> Fields {
        let text = match self.0.as_str() {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            fields => fields,
        };
        let mut fields = Fields { sets: [0; 5], any_day: false, any_weekday: false, is_frequent: false };
        for (place, field) in text.split(' ').enumerate().take(5) {
            fields.sets[place] = set(place, field);
        }
        // 7 is Sunday, too.
        fields.sets[4] |= fields.sets[4] >> 7 & 1;
        let starred = |place: usize| text.split(' ').nth(place).is_some_and(|field| field.starts_with('*'));
        (fields.any_day, fields.any_weekday) = (starred(2), starred(4));
        fields.is_frequent = starred(0) || starred(1);
        fields
    }
}

/// Days that are looked at: a leap day on a given weekday comes within 40 years.
const DAYS_AHEAD: u32 = 366 * 41;

/// The numbers of each field, as bits.
struct Fields {
    sets: [u64; 5],
    any_day: bool,
    any_weekday: bool,
    /// Every so often, and not at times of the day.
    is_frequent: bool,
}

impl Fields {
    fn has(&self, place: usize, number: i8) -> bool {
        self.sets[place] >> number & 1 == 1
    }

    /// With both days named, either will do, as crontab(5) has it.
    fn has_day(&self, day: Date) -> bool {
        let (of_month, of_week) = (self.has(2, day.day()), self.has(4, day.weekday().to_sunday_zero_offset()));
        let fits = if self.any_day || self.any_weekday { of_month && of_week } else { of_month || of_week };
        fits && self.has(3, day.month())
    }

    /// The times of a day, as its clocks show them.
    fn times(&self, day: Date, zone: &Zoned) -> impl Iterator<Item = AmbiguousZoned> {
        let times = self.hours().flat_map(|hour| self.minutes().map(move |minute| (hour, minute)));
        times.map(move |(hour, minute)| zone.time_zone().to_ambiguous_zoned(day.at(hour, minute, 0, 0)))
    }

    /// The first time after `after` that comes for the second time, on a day on which clocks are put back.
    fn second(&self, day: Date, after: &Zoned) -> Option<Zoned> {
        let midnight = |day: Date| after.time_zone().to_ambiguous_zoned(day.at(0, 0, 0, 0)).compatible().ok();
        if midnight(day)?.offset() == midnight(day.tomorrow().ok()?)?.offset() {
            return None;
        }
        let twice = self.times(day, after).filter(|time| matches!(time.offset(), AmbiguousOffset::Fold { .. }));
        twice.filter_map(|time| time.later().ok()).find(|time| time > after)
    }

    fn minutes(&self) -> impl Iterator<Item = i8> {
        let set = self.sets[0];
        (0..60).filter(move |minute| set >> minute & 1 == 1)
    }

    fn hours(&self) -> impl Iterator<Item = i8> {
        let set = self.sets[1];
        (0..24).filter(move |hour| set >> hour & 1 == 1)
    }
}

/// The numbers that a field names, as bits.
fn set(place: usize, field: &str) -> u64 {
    let (least, most) = FIELDS[place];
    let mut set = 0;
    for item in field.split(',') {
        let (range, step) = item.split_once('/').map_or((item, None), |(range, step)| (range, Some(step)));
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => (number(place, from), number(place, to)),
            None if range == "*" => (Some(least), Some(most)),
            // `5/10` is from 5 on.
            None => (number(place, range), if step.is_some() { Some(most) } else { number(place, range) }),
        };
        let (from, to) = (from.unwrap_or(least), to.unwrap_or(most));
        let step = step.and_then(|step| step.parse().ok()).unwrap_or(1);
        for number in (from..=to).step_by(step) {
            set |= 1 << number;
        }
    }
    set
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Schedule {
    type Err = BadSchedule;
    fn from_str(text: &str) -> Result<Self, BadSchedule> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let good = match fields[..] {
            [word] => WORDS.contains(&word),
            [_, _, _, _, _] => fields.iter().enumerate().all(|(place, field)| is_field(place, field)),
            _ => false,
        };
        let shown = || excerpt(text, 60);
        if good { Ok(Self(fields.join(" "))) } else { Err(BadSchedule(shown())) }
    }
}

impl TryFrom<String> for Schedule {
    type Error = BadSchedule;
    fn try_from(text: String) -> Result<Self, BadSchedule> {
        text.parse()
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> String {
        schedule.0
    }
}

fn is_field(place: usize, field: &str) -> bool {
    field.split(',').all(|item| {
        let (range, step) = item.split_once('/').map_or((item, None), |(range, step)| (range, Some(step)));
        step.is_none_or(|step| step.parse::<u32>().is_ok_and(|step| step > 0)) && is_range(place, range)
    })
}

fn is_range(place: usize, range: &str) -> bool {
    match range.split_once('-') {
        Some((from, to)) => matches!((number(place, from), number(place, to)), (Some(from), Some(to)) if from <= to),
        None => range == "*" || number(place, range).is_some(),
    }
}

fn number(place: usize, word: &str) -> Option<u32> {
    let lower = word.to_ascii_lowercase();
    let named = |names: &[&str], first: u32| Some(names.iter().position(|name| *name == lower)? as u32 + first);
    let name = match place {
        3 => named(&MONTHS, 1),
        4 => named(&DAYS, 0),
        _ => None,
    };
    let (least, most) = FIELDS[place];
    let digits = || word.chars().all(|c| c.is_ascii_digit()).then(|| word.parse().ok()).flatten();
    name.or_else(digits).filter(|number| (least..=most).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_what_crontab_takes() {
        for text in
            ["* * * * *", "*/5 0-6,22 1,15 jan-Mar 1-5/2", "0 3 * * SUN", "@daily", "59 23 31 12 7", " 0  1 * * * "]
        {
            assert!(text.parse::<Schedule>().is_ok(), "{text}");
        }
        for text in [
            "",
            "* * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "a * * * *",
            "*/0 * * * *",
            "5-1 * * * *",
            "@reboot",
            "* * * * * *",
            "+1 * * * *",
        ] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_next_time_is_the_first_that_fits() {
        let check = |schedule: &str, after: &str, expected: &str| {
            let after: Zoned = after.parse().unwrap();
            let next = schedule.parse::<Schedule>().unwrap().next(&after).unwrap();
            assert_eq!(next.strftime("%Y-%m-%d %H:%M").to_string(), expected, "{schedule} after {after}");
        };
        let noon = "2026-11-22T12:00:30+00:00[UTC]";
        check("* * * * *", noon, "2026-11-22 12:01");
        check("0 12 * * *", noon, "2026-11-23 12:00");
        check("*/15 9-17 * * mon-fri", noon, "2026-11-23 09:00");
        check("5/20 * * * *", noon, "2026-11-22 12:05");
        check("0 0 1,15 * *", noon, "2026-12-01 00:00");
        check("0 0 29 2 *", noon, "2028-02-29 00:00");
        check("0 0 * * 7", noon, "2026-11-29 00:00");
        check("@yearly", noon, "2027-01-01 00:00");
        // Either day will do when both are named, both must fit when one is `*/…`.
        check("0 0 1 * tue", noon, "2026-11-24 00:00");
        check("0 0 */2 * tue", noon, "2026-12-01 00:00");
    }

    #[test]
    fn a_day_that_never_comes_is_no_time() {
        let noon: Zoned = "2026-11-22T12:00:00+00:00[UTC]".parse().unwrap();
        assert_eq!("0 0 30 2 *".parse::<Schedule>().unwrap().next(&noon), None);
    }

    /// So many times of a schedule after one.
    fn times(schedule: &str, after: &str, count: usize) -> Vec<String> {
        let schedule: Schedule = schedule.parse().unwrap();
        let first: Zoned = after.parse().unwrap();
        let times = std::iter::successors(Some(first), |time| schedule.next(time)).skip(1).take(count);
        times.map(|time| time.strftime("%m-%d %H:%M %:z").to_string()).collect()
    }

    #[test]
    fn clocks_that_are_changed_neither_skip_nor_double_a_time() {
        // Forward at 2:00 on March 29th, back at 3:00 on October 25th.
        let spring = times("30 2 * * *", "2026-03-28T12:00:00+01:00[Europe/Berlin]", 2);
        assert_eq!(spring, ["03-29 03:30 +02:00", "03-30 02:30 +02:00"]);
        let autumn = times("30 2 * * *", "2026-10-24T12:00:00+02:00[Europe/Berlin]", 2);
        assert_eq!(autumn, ["10-25 02:30 +02:00", "10-26 02:30 +01:00"]);
        let several = times("0,30 1-3 * * *", "2026-10-25T01:00:00+02:00[Europe/Berlin]", 5);
        assert_eq!(
            several,
            [
                "10-25 01:30 +02:00",
                "10-25 02:00 +02:00",
                "10-25 02:30 +02:00",
                "10-25 03:00 +01:00",
                "10-25 03:30 +01:00"
            ]
        );
    }

    #[test]
    fn what_runs_every_so_often_goes_on_while_clocks_are_changed() {
        let autumn = "2026-10-25T02:50:00+02:00[Europe/Berlin]";
        let expected = ["10-25 02:55 +02:00", "10-25 02:00 +01:00", "10-25 02:05 +01:00"];
        assert_eq!(times("*/5 * * * *", autumn, 3), expected);
        let expected = ["10-25 02:30 +01:00", "10-25 03:30 +01:00", "10-25 04:30 +01:00"];
        assert_eq!(times("30 * * * *", autumn, 3), expected);
        assert_eq!(times("@hourly", autumn, 2), ["10-25 02:00 +01:00", "10-25 03:00 +01:00"]);
        assert_eq!(
            times("*/20 2 * * *", autumn, 4)[..3],
            ["10-25 02:00 +01:00", "10-25 02:20 +01:00", "10-25 02:40 +01:00"]
        );
        let spring = "2026-03-29T01:50:00+01:00[Europe/Berlin]";
        assert_eq!(times("*/5 * * * *", spring, 2), ["03-29 01:55 +01:00", "03-29 03:00 +02:00"]);
        // Lord Howe puts its clocks back by half an hour, and Greenland into the day before.
        let howe = "2026-04-05T01:45:00+11:00[Australia/Lord_Howe]";
        assert_eq!(times("*/15 * * * *", howe, 2), ["04-05 01:30 +10:30", "04-05 01:45 +10:30"]);
        let nuuk = "2026-10-24T23:45:00-01:00[America/Nuuk]";
        assert_eq!(times("*/15 * * * *", nuuk, 2), ["10-24 23:00 -02:00", "10-24 23:15 -02:00"]);
    }
}
