//! `gc/…`: what HQ keeps of what it could do without.

use crate::units::Megabytes;

/// The budget of what is kept; how many releases is a setting of its own, `releases-kept`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gc {
    /// Older releases go, in days, though the last ones stay; by age none goes without.
    pub age: Option<u32>,
    /// How full a disk may be in percent before only what is needed stays.
    pub disk: u8,
    /// Days for which events are kept.
    pub events: u32,
    /// What BuildKit's cache may take of HQ's machine.
    pub cache: Megabytes,
}

impl Default for Gc {
    fn default() -> Self {
        Self { age: None, disk: 85, events: 90, cache: Megabytes(10 * 1024) }
    }
}

/// Names of the settings in `gc/`.
pub const KNOWN: [&str; 4] = ["age", "build-cache", "disk", "events"];

impl Gc {
    /// Takes the content of one file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        let value = text.trim();
        match name {
            "age" => self.age = Some(days(value)?),
            "build-cache" => self.cache = super::parse(value)?,
            "disk" => self.disk = percent(value)?,
            "events" => self.events = days(value)?,
            _ => return Err(format!("there is no setting `gc/{name}`; there are {}", KNOWN.join(", "))),
        }
        Ok(())
    }
}

fn days(value: &str) -> Result<u32, String> {
    let number = value.strip_suffix('d').unwrap_or(value).trim_end().parse().ok();
    let wrong = || format!("`{value}` is not a number of days from 1 to 36500, such as `90d`");
    number.filter(|days| (1..=36_500).contains(days)).ok_or_else(wrong)
}

fn percent(value: &str) -> Result<u8, String> {
    let number = value.strip_suffix('%').unwrap_or(value).trim_end().parse().ok();
    let wrong = || format!("`{value}` is not a share of the disk from 1% to 99%");
    number.filter(|percent| (1..=99).contains(percent)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_days_shares_and_sizes() {
        let mut gc = Gc::default();
        for (name, text) in [("age", "30d\n"), ("disk", "70%"), ("events", "7"), ("build-cache", "2gb")] {
            gc.set(name, text).unwrap();
        }
        assert_eq!(gc, Gc { age: Some(30), disk: 70, events: 7, cache: Megabytes(2048) });
        for (name, text) in [("age", "0"), ("disk", "100"), ("disk", "all"), ("events", "1y"), ("size", "1")] {
            assert!(gc.set(name, text).is_err(), "{name} {text}");
        }
    }
}
