//! The servers' names in a hosts file.
//!
//! What quarry writes stands in one block, and each of its lines carries a mark of its own. So a block that lost its end
//! or its beginning is mended without guessing: marked lines are quarry's, all others are somebody's and stay.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::names::ServerName;

/// Addresses and the servers that have them.
pub type Entries = BTreeMap<IpAddr, BTreeSet<ServerName>>;

const BEGIN: &str = "# quarry: begin (kept by quarry)";
const END: &str = "# quarry: end";
const MARK: &str = " # quarry";

/// The text with a block of these entries in the place of the one before, else at the end; without entries, without a
/// block. Every other line stays byte for byte, but that a last line without a line feed gets one before a block.
pub fn with_block(old: &[u8], entries: &Entries) -> Vec<u8> {
    let block = block(entries);
    let mut new = Vec::with_capacity(old.len() + block.len());
    let mut place = None;
    for line in old.split_inclusive(|byte| *byte == b'\n') {
        if is_ours(line) {
            place.get_or_insert(new.len());
        } else {
            new.extend_from_slice(line);
        }
    }
    if block.is_empty() {
        return new;
    }
    let place = place.unwrap_or(new.len());
    let begins_a_line = place == 0 || new[place - 1] == b'\n';
    let joint: &[u8] = if begins_a_line { b"" } else { b"\n" };
    new.splice(place..place, joint.iter().copied().chain(block.into_bytes()));
    new
}

fn block(entries: &Entries) -> String {
    if entries.is_empty() {
        return String::new();
    }
    let line = |(address, names): (&IpAddr, &BTreeSet<ServerName>)| {
        let names: Vec<&str> = names.iter().map(ServerName::as_str).collect();
        format!("{address}\t{}{MARK}\n", names.join(" "))
    };
    let lines: String = entries.iter().filter(|(_, names)| !names.is_empty()).map(line).collect();
    format!("{BEGIN}\n{lines}{END}\n")
}

fn is_ours(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    line == BEGIN.as_bytes() || line == END.as_bytes() || line.ends_with(MARK.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn entries(pairs: &[(&str, &[&str])]) -> Entries {
        let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        pairs.iter().map(|(address, of)| (address.parse().unwrap(), names(of))).collect()
    }

    fn check(old: &str, pairs: &[(&str, &[&str])], expected: &str) {
        let new = with_block(old.as_bytes(), &entries(pairs));
        assert_eq!(String::from_utf8(new).unwrap(), expected, "from {old:?}");
    }

    const ONE: &[(&str, &[&str])] = &[("10.0.0.1", &["a"]), ("2001:db8::1", &["b", "c"])];
    const BLOCK: &str =
        "# quarry: begin (kept by quarry)\n10.0.0.1\ta # quarry\n2001:db8::1\tb c # quarry\n# quarry: end\n";

    #[test]
    fn a_block_comes_behind_what_is_there_and_later_stays_in_its_place() {
        check("", ONE, BLOCK);
        check("127.0.0.1 localhost\n", ONE, &format!("127.0.0.1 localhost\n{BLOCK}"));
        check("127.0.0.1 localhost", ONE, &format!("127.0.0.1 localhost\n{BLOCK}"));
        check(
            &format!("x\n{BLOCK}y\n"),
            &[("10.0.0.9", &["z"])],
            "x\n# quarry: begin (kept by quarry)\n10.0.0.9\tz # quarry\n# quarry: end\ny\n",
        );
    }

    #[test]
    fn without_servers_there_is_no_block() {
        check(&format!("x\n{BLOCK}y"), &[], "x\ny");
        check("x", &[], "x");
    }

    #[test]
    fn a_broken_block_is_mended_and_the_lines_around_it_stay() {
        let begin = BLOCK.lines().next().unwrap();
        check(
            &format!("x\n{begin}\n10.0.0.1\ta # quarry\n10.0.0.5 mine\ny"),
            ONE,
            &format!("x\n{BLOCK}10.0.0.5 mine\ny"),
        );
        check("x\n10.0.0.1\ta # quarry\n# quarry: end\ny\n", ONE, &format!("x\n{BLOCK}y\n"));
        check(&format!("{BLOCK}x\n{BLOCK}"), ONE, &format!("{BLOCK}x\n"));
        check(&format!("{begin}\n10.0.0.5 mine\n# quarry: end\n"), ONE, &format!("{BLOCK}10.0.0.5 mine\n"));
    }

    fn lines() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            Just(format!("{BEGIN}\n").into_bytes()),
            Just(format!("{END}\r\n").into_bytes()),
            Just(b"10.0.0.7\told # quarry\n".to_vec()),
            Just(b"127.0.0.1 localhost\n".to_vec()),
            vec(any::<u8>(), 0..20),
        ];
        vec(line, 0..12).prop_map(|lines| lines.concat())
    }

    /// The lines that are not quarry's, the last with a line feed.
    fn rest(text: &[u8]) -> Vec<u8> {
        let lines = text.split_inclusive(|byte| *byte == b'\n').filter(|line| !is_ours(line));
        lines.flat_map(|line| [line.strip_suffix(b"\n").unwrap_or(line), b"\n"]).flatten().copied().collect()
    }

    proptest! {
        #[test]
        fn whatever_is_there_stays_and_a_second_time_changes_nothing(old in lines(), some: bool) {
            let entries = if some { entries(ONE) } else { Entries::new() };
            let new = with_block(&old, &entries);
            prop_assert_eq!(with_block(&new, &entries), new.clone());
            prop_assert_eq!(rest(&new), rest(&old));
            let begins = new.split(|byte| *byte == b'\n').filter(|line| line.trim_ascii() == BEGIN.as_bytes());
            prop_assert_eq!(begins.count(), usize::from(some));
        }
    }
}
