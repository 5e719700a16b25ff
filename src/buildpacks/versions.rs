//! Version ranges as package.json writes them, as far as a major version goes.

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
