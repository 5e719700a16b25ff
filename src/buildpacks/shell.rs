//! Command lines as people write them, for a shell to read.

/// The argument vector that runs shell text.
///
/// One simple command is `exec`ed: the shell hands its place to the program, so that signals arrive.
pub fn shell_words(text: &str) -> Vec<String> {
    vec!["/bin/sh".into(), "-c".into(), with_exec(text)]
}

/// Puts `exec` before shell text without shell operators: the shell then hands its place to the program.
fn with_exec(text: &str) -> String {
    let simple = !text.contains(['&', ';', '|', '\n', '(', ')', '<', '>', '`', '#']);
    let first = text.split_whitespace().next().unwrap_or("");
    let builtin = ["exec", "cd", "if", "for", "while", "case", "{", "!", ".", "source", "set", "export", "exit"];
    if simple && !first.is_empty() && !first.contains('=') && !builtin.contains(&first) {
        format!("exec {text}")
    } else {
        text.to_owned()
    }
}

/// The words of a command line that needs no shell; `None` where it does: operators, variables, patterns, open quotes.
pub fn plain_words(text: &str) -> Option<Vec<String>> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => words.extend(word.take()),
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        end if end == c => break,
                        '\\' | '$' | '`' if c == '"' => return None,
                        inner => word.push(inner),
                    }
                }
            }
            '\\' | '$' | '`' | '&' | ';' | '|' | '(' | ')' | '<' | '>' | '*' | '?' | '[' | '#' | '~' | '!' | '{'
            | '}' | '\n' | '\r' => return None,
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    // `A=b program` sets a variable.
    words.first().is_some_and(|first| !first.contains('=')).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_text_hands_its_place_to_a_single_program() {
        let check = |text: &str, expected: &str| {
            assert_eq!(shell_words(text)[2], expected);
        };
        check("gunicorn app:app -b 0.0.0.0:$PORT", "exec gunicorn app:app -b 0.0.0.0:$PORT");
        check("a && b", "a && b");
        check("FOO=1 run", "FOO=1 run");
        check("cd x", "cd x");
    }
    #[test]
    fn only_a_line_that_needs_no_shell_is_cut_into_words() {
        let check = |text: &str, expected: Option<&[&str]>| {
            let words = plain_words(text);
            assert_eq!(
                words.as_deref(),
                expected.map(|words| words.iter().map(|w| w.to_string()).collect::<Vec<_>>()).as_deref(),
                "{text}"
            );
        };
        check("server  --name 'a b' x\"y z\"", Some(&["server", "--name", "a b", "xy z"]));
        check("run ''", Some(&["run", ""]));
        for text in ["a && b", "a $HOME", "A=b c", "a 'b", "a *", "a \"$b\"", "a\nb", "", "~/x"] {
            check(text, None);
        }
    }
}
