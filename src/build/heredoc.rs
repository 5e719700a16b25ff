//! Heredocs for engines before 23, whose builders do not know them: the same meaning in older words.
//!
//! `RUN` with a heredoc becomes the exec form of the same shell script, `COPY` with one copies a file that is put into
//! the build context. What cannot be said that way is refused with its line.

use std::collections::BTreeMap;

use super::dockerfile::{Dockerfile, Heredoc, Instruction, raw_words};

/// A Dockerfile in older words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lowered {
    /// Its text; each instruction keeps its line.
    pub text: String,
    /// Files it copies, by their path in the build context.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// A heredoc that has no older words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}, which needs docker engine 23 or newer")]
pub struct TooNew {
    /// From 1.
    pub line: usize,
    /// What it is.
    pub reason: String,
}

/// Puts the heredocs of a Dockerfile into older words.
///
/// # Errors
/// The first that has none: a copied one with variables in it, or a name that is no file name.
pub fn lowered(text: &str, dockerfile: &Dockerfile) -> Result<Lowered, TooNew> {
    let lines: Vec<&str> = text.lines().collect();
    let mut result = Lowered { text: String::new(), files: BTreeMap::new() };
    let mut shell = ["/bin/sh", "-c"].map(str::to_owned).to_vec();
    let mut done = 0;
    for instruction in &dockerfile.instructions {
        match instruction.word.as_str() {
            // Each stage begins with the shell of its base, which is /bin/sh but for rare ones.
            "FROM" => shell = ["/bin/sh", "-c"].map(str::to_owned).to_vec(),
            "SHELL" => shell = serde_json::from_str(&instruction.rest).unwrap_or(shell),
            _ => {}
        }
        if instruction.heredocs.is_empty() {
            continue;
        }
        if instruction.word == "ONBUILD" {
            let reason = format!("`ONBUILD` with `{}`", instruction.heredocs[0].word);
            return Err(TooNew { line: instruction.lines.0 + 1, reason });
        }
        let (begin, end) = instruction.lines;
        result.text.extend(lines[done..begin].iter().flat_map(|line| [line, "\n"]));
        let replaced =
            if instruction.word == "RUN" { run(instruction, &shell) } else { copy(instruction, &mut result.files)? };
        result.text.push_str(&replaced);
        result.text.push('\n');
        // Comments in place of the body, so that the builder's line numbers stay true.
        result.text.push_str(&"#\n".repeat(end - begin - 1));
        done = end;
    }
    result.text.extend(lines[done..].iter().flat_map(|line| [line, "\n"]));
    Ok(result)
}

fn run(instruction: &Instruction, shell: &[String]) -> String {
    let script = match &instruction.heredocs[..] {
        [only] if instruction.rest == only.word => script(only),
        heredocs => {
            // The shell knows heredocs itself.
            let mut script = format!("{}\n", instruction.rest);
            for heredoc in heredocs {
                script.push_str(&format!("{}{}\n", heredoc.body, heredoc.name));
            }
            script
        }
    };
    let words: Vec<&str> = shell.iter().map(String::as_str).chain([script.as_str()]).collect();
    let flags: String = instruction.flags.iter().map(|flag| quoted(flag) + " ").collect();
    format!("RUN {flags}{}", serde_json::Value::from(words))
}

/// A flag as it is written.
fn quoted(flag: &str) -> String {
    let special = |c: char| c.is_whitespace() || "\"'\\".contains(c);
    if !flag.contains(special) {
        return flag.to_owned();
    }
    format!("\"{}\"", flag.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The script a heredoc alone is; with `#!` it is written down and run as a program.
fn script(heredoc: &Heredoc) -> String {
    let body = text(heredoc);
    if !body.starts_with("#!") {
        return body;
    }
    let mut end = "QUARRY_END".to_owned();
    while body.lines().any(|line| line == end) {
        end.push('_');
    }
    format!(
        "f=$(mktemp) && cat >\"$f\" <<'{end}' && chmod 700 \"$f\" && \"$f\"; s=$?; rm -f \"$f\"; exit $s\n{body}{end}\n"
    )
}

/// The body, without the tabs a dash takes away.
fn text(heredoc: &Heredoc) -> String {
    if !heredoc.indented {
        return heredoc.body.clone();
    }
    heredoc.body.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}

fn copy(instruction: &Instruction, files: &mut BTreeMap<String, Vec<u8>>) -> Result<String, TooNew> {
    let too_new = |reason: String| TooNew { line: instruction.lines.0 + 1, reason };
    let mut words: Vec<String> = raw_words(&instruction.rest).into_iter().map(str::to_owned).collect();
    for heredoc in &instruction.heredocs {
        let body = text(heredoc);
        if !heredoc.quoted && body.contains(['$', '\\']) {
            return Err(too_new(format!("`{}` with variables in its text", heredoc.word)));
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if !heredoc.name.bytes().all(plain) || heredoc.name.starts_with('.') {
            return Err(too_new(format!("`{}` under that name", heredoc.word)));
        }
        let path = format!(".quarry/heredoc/{}/{}", files.len(), heredoc.name);
        if let Some(word) = words.iter_mut().find(|word| **word == heredoc.word) {
            word.clone_from(&path);
        }
        files.insert(path, body.into_bytes());
    }
    let flags = instruction.flags.iter().map(|flag| quoted(flag));
    let all: Vec<String> = [instruction.word.clone()].into_iter().chain(flags).chain(words).collect();
    Ok(all.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str, files: &[(&str, &str)]) {
        let lowered = lowered(text, &Dockerfile::parse(text)).unwrap();
        assert_eq!(lowered.text, expected);
        let expected: BTreeMap<_, _> =
            files.iter().map(|(path, text)| (path.to_string(), text.as_bytes().to_vec())).collect();
        assert_eq!(lowered.files, expected);
    }

    #[test]
    fn scripts_become_the_exec_form() {
        check(
            "FROM a\nRUN --mount=type=cache,target=/c <<EOF\necho \"a\"\nb\nEOF\nCMD x\n",
            "FROM a\nRUN --mount=type=cache,target=/c [\"/bin/sh\",\"-c\",\"echo \\\"a\\\"\\nb\\n\"]\n#\n#\n#\nCMD x\n",
            &[],
        );
        check("RUN cat <<E > /x\n$y\nE", "RUN [\"/bin/sh\",\"-c\",\"cat <<E > /x\\n$y\\nE\\n\"]\n#\n#\n", &[]);
        check(
            "SHELL [\"bash\", \"-ec\"]\nRUN <<-E\n\tx\n\tE",
            "SHELL [\"bash\", \"-ec\"]\nRUN [\"bash\",\"-ec\",\"x\\n\"]\n#\n#\n",
            &[],
        );
        check(
            "RUN --mount='id=a \"b' <<E\nx\nE",
            "RUN \"--mount=id=a \\\"b\" [\"/bin/sh\",\"-c\",\"x\\n\"]\n#\n#\n",
            &[],
        );
    }

    #[test]
    fn copied_texts_become_files_of_the_context() {
        check(
            "COPY --chown=1 <<A <<'B' /d/\none\nA\n$two\nB\n",
            "COPY --chown=1 .quarry/heredoc/0/A .quarry/heredoc/1/B /d/\n#\n#\n#\n#\n",
            &[(".quarry/heredoc/0/A", "one\n"), (".quarry/heredoc/1/B", "$two\n")],
        );
    }

    #[test]
    fn what_has_no_older_words_is_refused_with_its_line() {
        for text in ["FROM a\nCOPY <<A /d\n$x\nA", "FROM a\nCOPY <<'../A' /d\nx\n../A", "FROM a\nONBUILD RUN <<A\nx\nA"]
        {
            assert_eq!(lowered(text, &Dockerfile::parse(text)).unwrap_err().line, 2);
        }
    }
}
