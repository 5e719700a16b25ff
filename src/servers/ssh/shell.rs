//! Commands as text: a server's sshd hands them to a shell.

/// Joins words so that a shell gives them back.
pub fn quote<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    let mut text = String::new();
    for word in words {
        if !text.is_empty() {
            text.push(' ');
        }
        if !word.is_empty() && word.chars().all(plain) {
            text.push_str(word);
        } else {
            text.push('\'');
            text.push_str(&word.replace('\'', r"'\''"));
            text.push('\'');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_shell_gives_the_words_back(words in proptest::collection::vec("[^\0]{0,12}", 1..6)) {
            let text = format!("printf '%s\\0' {}", quote(words.iter().map(String::as_str)));
            let output = Command::new("sh").args(["-c", &text]).output().unwrap().stdout;
            let expected: String = words.iter().map(|word| format!("{word}\0")).collect();
            prop_assert_eq!(String::from_utf8(output).unwrap(), expected);
        }
    }
}
