//! Version ranges as package.json writes them, as far as a major version goes.

use crate::names::printable::excerpt;

/// Whether a range admits some release of a major version. What is not understood admits everything: the answer only
/// decides on a warning.
///
/// The grammar is npm's: alternatives by `||`, comparators by blanks, `1 - 2`, `^ ~ > >= < <= =`, `x` and `*`.
pub(super) fn admits(range: &str, major: u64) -> bool {
    range.split("||").any(|alternative| {
        if let Some((from, to)) = alternative.split_once(" - ") {
            return comparator(">=", from.trim(), major) && comparator("<=", to.trim(), major);
        }
        let mut operator = "";
        for word in alternative.split_whitespace() {
            let digits = word.trim_start_matches(['^', '~', '>', '<', '=']);
            operator = if digits.len() < word.len() { &word[..word.len() - digits.len()] } else { operator };
            if digits.is_empty() {
                continue;
            }
            if !comparator(operator, digits, major) {
                return false;
            }
            operator = "";
        }
        true
    })
}

fn comparator(operator: &str, version: &str, major: u64) -> bool {
    let mut parts = version.trim_start_matches('v').split('.');
    let Some(Ok(number)) = parts.next().map(str::parse::<u64>) else { return true };
    let bare = parts.all(|part| part.chars().all(|c| matches!(c, '0' | 'x' | 'X' | '*')));
    match operator {
        ">=" => major >= number,
        ">" => major > number || (major == number && !bare),
        "<" => major < number || (major == number && !bare),
        "<=" => major <= number,
        _ => major == number,
    }
}

/// The line for a version that is asked for and not there.
pub(super) fn asked_for(file: &str, language: &str, version: &str, has: &str) -> String {
    let shown = excerpt(version, 40);
    format!("Warning: {file} asks for {language} {shown}; the buildpack has {has} and uses that")
}

/// Whether `version` (`3.1`, `3.1.4`, `~> 3.1.0`, `3`) is of the minor version `has`. What is no number is let pass.
pub(super) fn is_within(version: &str, has: &str) -> bool {
    let (operator, number) = version.split_at(version.find(|c: char| c.is_ascii_digit()).unwrap_or(version.len()));
    let asked: Vec<&str> = number.split('.').take(2).collect();
    match operator.trim() {
        "" | "~>" | "=" => has.split('.').zip(&asked).all(|(has, asked)| !is_number(asked) || has == *asked),
        _ => true,
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_digit())
}

/// Whether `version` is not later than `has`, as far as both go. What is no number is let pass.
pub(super) fn is_at_most(version: &str, has: &str) -> bool {
    let numbers = |text: &str| -> Vec<u64> { text.split('.').map_while(|part| part.parse().ok()).collect() };
    let (asked, has) = (numbers(version), numbers(has));
    let common = asked.len().min(has.len());
    asked[..common] <= has[..common]
}

/// Whether a range of composer's admits some release of this minor version. What is not understood admits everything.
///
/// Alternatives by `|`, bounds by commas and blanks, `^ ~ > >= < <= = !=`, `*`.
pub(super) fn admits_minor(range: &str, has: (u64, u64)) -> bool {
    range.split('|').filter(|alternative| !alternative.trim().is_empty()).any(|alternative| {
        let joined = [">=", "<=", ">", "<", "^", "~"]
            .iter()
            .fold(alternative.to_owned(), |text, operator| text.replace(&format!("{operator} "), operator));
        joined.split([',', ' ']).filter(|bound| !bound.is_empty()).all(|bound| admits_bound(bound, has))
    })
}

fn admits_bound(bound: &str, has: (u64, u64)) -> bool {
    let digits = bound.trim_start_matches(['^', '~', '>', '<', '=', '!']);
    let operator = &bound[..bound.len() - digits.len()];
    let parts: Vec<&str> = digits.trim_start_matches('v').split('.').collect();
    let Some(Ok(major)) = parts.first().map(|part| part.parse::<u64>()) else { return true };
    let minor = parts.get(1).and_then(|part| part.parse::<u64>().ok());
    let asked = (major, minor.unwrap_or(0));
    match operator {
        "^" => has.0 == major && has >= asked,
        "~" if parts.len() > 2 => has == asked,
        "~" => has.0 == major && has >= asked,
        ">=" | ">" => has >= asked,
        "<" => has < asked,
        "<=" => has <= asked,
        "" | "=" => has.0 == major && minor.is_none_or(|minor| has.1 == minor),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_admit_the_major_versions_npm_would_take() {
        for range in [
            "18",
            "18.x",
            ">=16",
            "^18.2.0",
            "~18",
            ">=14 <21",
            "16 || 18 || 20",
            "*",
            "",
            "v18.1.0",
            "14 - 20",
            ">= 18",
            "<19",
            "lts/*",
            "<18.5.0",
        ] {
            assert!(admits(range, 18), "{range}");
        }
        for range in ["20", "20.x", ">=20", "^16", ">18", "<18", "16 || 20", "19 - 21", "<18.0.0", ">= 20"] {
            assert!(!admits(range, 18), "{range}");
        }
    }
}
