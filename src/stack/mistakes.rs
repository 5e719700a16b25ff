//! What is wrong with a repository's description, all of it at once.

use std::fmt;

use crate::names::StackName;
use crate::names::printable::printable_line;

use super::tree::Spot;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// The file it is in, when it is in one.
    pub file: Option<String>,
    /// Line, from 1.
    pub line: Option<usize>,
    /// Column, from 1.
    pub column: Option<usize>,
    /// What is wrong: a lowercase phrase.
    pub message: String,
    /// The word that was probably meant.
    pub suggestion: Option<String>,
}

impl Mistake {
    /// A mistake of the repository as a whole.
    pub fn of_repository(message: impl Into<String>) -> Self {
        Self { file: None, line: None, column: None, message: clean(&message.into()), suggestion: None }
    }

    /// The same with the name of the stack in the commands it advises.
    pub fn of_stack(self, stack: &StackName) -> Self {
        Self { message: self.message.replace("STACK", stack.as_str()), ..self }
    }

    /// A mistake of a file.
    pub fn of_file(file: &str, message: impl Into<String>) -> Self {
        Self { file: Some(file.to_owned()), ..Self::of_repository(message) }
    }

    /// A mistake at a place in a file, both numbers from 1.
    pub fn at(file: &str, line: usize, column: usize, message: impl Into<String>) -> Self {
        Self { line: Some(line), column: Some(column), ..Self::of_file(file, message) }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
            if let Some(line) = self.line {
                write!(f, "{line}:")?;
            }
            if let Some(column) = self.column {
                write!(f, "{column}:")?;
            }
            f.write_str(" ")?;
        }
        f.write_str(&self.message)?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, "; did you mean `{suggestion}`?")?;
        }
        Ok(())
    }
}

/// Every mistake, in the order of the file; never empty. `Display` prints one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl Mistakes {
    /// Puts mistakes in order: by file, line and column.
    pub fn sorted(mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort();
        mistakes.dedup();
        Self(mistakes)
    }
}

impl From<Mistake> for Mistakes {
    fn from(mistake: Mistake) -> Self {
        Self(vec![mistake])
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// The mistakes of one file as they are found.
pub(super) struct Notes<'f> {
    file: &'f str,
    found: Vec<Mistake>,
}

impl<'f> Notes<'f> {
    pub(super) fn of(file: &'f str, found: Vec<Mistake>) -> Self {
        Self { file, found }
    }

    pub(super) fn add(&mut self, spot: Spot, message: impl Into<String>) {
        self.suggest(spot, message, None);
    }

    pub(super) fn suggest(&mut self, spot: Spot, message: impl Into<String>, suggestion: Option<String>) {
        let suggestion = suggestion.map(|word| clean(&word));
        self.found.push(Mistake { suggestion, ..Mistake::at(self.file, spot.line, spot.column, message) });
    }

    pub(super) fn of_file(&mut self, message: impl Into<String>) {
        self.found.push(Mistake::of_file(self.file, message));
    }

    /// `value`, when nothing was wrong.
    ///
    /// # Errors
    /// Every mistake that was found.
    pub(super) fn or<T>(self, value: T) -> Result<T, Mistakes> {
        if self.found.is_empty() { Ok(value) } else { Err(Mistakes::sorted(self.found)) }
    }
}

/// Text from outside within a message: quoted and shortened.
pub(super) fn shown(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    let dots = if text.chars().nth(60).is_some() { "…" } else { "" };
    format!("`{short}{dots}`")
}

/// One line a terminal can show: what comes from a repository must not move the cursor or fill the screen.
pub(super) fn clean(text: &str) -> String {
    printable_line(&text.chars().take(500).collect::<String>())
}

/// The known word nearest to `given`: at most a third of its letters differ.
pub(super) fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let given: Vec<char> = given.chars().take(40).flat_map(char::to_lowercase).collect();
    let allowed = given.len().div_ceil(3).min(3);
    known
        .into_iter()
        .map(|word| (distance(&given, word), word))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, word)| word.to_owned())
}

/// Letters to insert, remove, replace or swap with their neighbour (optimal string alignment).
fn distance(given: &[char], word: &str) -> usize {
    let word: Vec<char> = word.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=word.len()).collect();
    for (i, a) in given.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in word.iter().enumerate() {
            let mut best = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == word[j - 1] && given[i - 1] == *b {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[word.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_suggested_and_nothing_when_none_is_near() {
        let known = ["domains", "expose", "env", "volumes", "run", "scale"];
        for (given, expected) in [
            ("domain", Some("domains")),
            ("exopse", Some("expose")),
            ("Env", Some("env")),
            ("volume", Some("volumes")),
            ("xyzzy", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, known).as_deref(), expected, "{given}");
        }
    }

    #[test]
    fn mistakes_are_printed_in_the_order_of_the_file() {
        let mut late = Mistake::at("quarry.yml", 12, 1, "late");
        late.suggestion = Some("later".into());
        let all = Mistakes::sorted(vec![late, Mistake::at("quarry.yml", 7, 3, "early")]);
        assert_eq!(all.to_string(), "quarry.yml:7:3: early\nquarry.yml:12:1: late; did you mean `later`?");
    }
}
