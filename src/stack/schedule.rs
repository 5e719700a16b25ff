//! When a task runs, in the words of cron.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Five fields (minute, hour, day of the month, month, day of the week) or a word such as `@daily`, as crontab(5) has
/// them. Fields know `*`, lists, ranges, steps, and the names of months and days.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Schedule(String);

/// Text that is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a schedule: minute, hour, day, month and weekday such as `0 3 * * *`, or `@daily`")]
pub struct BadSchedule(String);

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
        let shown = || text.chars().take(60).flat_map(char::escape_debug).collect();
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
}
