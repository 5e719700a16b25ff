//! What the words of a snippet's directives may ask for: nothing of the router's own, and of everybody's memory and time
//! only a little.

/// Most memory of one answer that waits for a slow visitor, in bytes.
const MOST_BUFFERED: u64 = 1024 * 1024;

/// How many steps a pattern may take at one text; most take less than a hundred.
const STEPS: u32 = 50_000;

/// Variables that tell of the machine.
const HIDDEN: [&str; 5] = ["document_root", "realpath_root", "request_filename", "upstream_addr", "hostname"];

/// Checks the words behind a directive's name.
///
/// # Errors
/// A phrase about the first that asks for too much.
pub(super) fn check(name: &str, words: &[String]) -> Result<(), String> {
    for word in words {
        // Nginx sets the variable that has the name of a group, its own ones included.
        if names_a_group(word) {
            return Err("a group of a pattern has no name here; use $1, $2 and so on".to_owned());
        }
        if let Some(variable) = variables(word).find(|name| name.starts_with("quarry_") || HIDDEN.contains(&&**name)) {
            return Err(format!("the variable `${variable}` is the router's own"));
        }
    }
    let asked = match name {
        "proxy_buffers" => size(words.first()).zip(size(words.get(1))).map(|(count, each)| count.saturating_mul(each)),
        "proxy_buffer_size" | "proxy_busy_buffers_size" => size(words.first()),
        _ => Some(0),
    };
    match asked {
        Some(bytes) if bytes <= MOST_BUFFERED => Ok(()),
        _ => Err(format!("`{name}` may take 1m in all")),
    }
}

/// The words as nginx gets them: no pattern keeps a worker busy for long.
pub(super) fn written(name: &str, words: &[String]) -> Vec<String> {
    let mut words = words.to_vec();
    let limit = format!("(*LIMIT_MATCH={STEPS})");
    if let Some(first) = words.first_mut() {
        if name == "rewrite" {
            first.insert_str(0, &limit);
        } else if name.starts_with("proxy_cookie_") && first.starts_with('~') {
            let begins = if first.starts_with("~*") { 2 } else { 1 };
            first.insert_str(begins, &limit);
        }
    }
    words
}

fn names_a_group(word: &str) -> bool {
    word.match_indices("(?").any(|(at, _)| {
        let rest = &word[at + 2..];
        let looks_behind = rest.starts_with("<=") || rest.starts_with("<!");
        rest.starts_with(['<', '\'', 'P']) && !looks_behind
    })
}

/// Names of the variables in a word, in lowercase, as nginx looks them up.
fn variables(word: &str) -> impl Iterator<Item = String> {
    word.match_indices('$').map(|(at, _)| {
        let name = word[at + 1..].trim_start_matches('{');
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
        name[..end].to_ascii_lowercase()
    })
}

/// A number with `k` or `m` behind it, in bytes.
fn size(word: Option<&String>) -> Option<u64> {
    let word = word?.to_ascii_lowercase();
    let (digits, unit) = match word.strip_suffix('k') {
        Some(digits) => (digits, 1024),
        None => word.strip_suffix('m').map_or((word.as_str(), 1), |digits| (digits, 1024 * 1024)),
    };
    digits.parse::<u64>().ok().map(|count| count.saturating_mul(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> Option<String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        check(&words[0], &words[1..]).err()
    }

    #[test]
    fn no_pattern_sets_a_variable_and_no_word_shows_one_of_the_routers() {
        for line in [
            "rewrite ^/p/(?<quarry_upstream>[0-9.:]+)(?<r>/.*)$ $r break",
            "rewrite ^/(?P<x>.)$ / break",
            "rewrite ^/(?'x'.)$ / break",
            "proxy_cookie_path ~^/((?<quarry_root>.)) /",
        ] {
            assert!(told(line).is_some_and(|told| told.contains("has no name")), "{line}");
        }
        for line in ["add_header X $quarry_pass", "return 200 a${QUARRY_root}b", "return 200 $Document_Root/x"] {
            assert!(told(line).is_some_and(|told| told.contains("router's own")), "{line}");
        }
        for line in ["rewrite (?<=a)b(?:c)(?<!d)(?=e) /$1 break", "return 200 ${host}$request_uri$$"] {
            assert_eq!(told(line), None, "{line}");
        }
    }

    #[test]
    fn buffers_and_patterns_have_bounds() {
        for line in ["proxy_buffers 8 64k", "proxy_buffer_size 1M", "proxy_busy_buffers_size 65536"] {
            assert_eq!(told(line), None, "{line}");
        }
        for line in ["proxy_buffers 100000 1m", "proxy_buffers 2", "proxy_buffer_size 2m", "proxy_buffers 9g 1"] {
            assert!(told(line).is_some(), "{line}");
        }
        let written = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            written(&words[0], &words[1..]).join(" ")
        };
        assert_eq!(written("rewrite ^/(a+)+$ / break"), "(*LIMIT_MATCH=50000)^/(a+)+$ / break");
        assert_eq!(written("proxy_cookie_path ~*^/a /"), "~*(*LIMIT_MATCH=50000)^/a /");
        assert_eq!(written("proxy_cookie_path /a /"), "/a /");
    }
}
