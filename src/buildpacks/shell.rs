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
}
