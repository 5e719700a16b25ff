//! Directives of nginx's that an owner adds for a node. They come from outside and end up in the configuration of
//! everybody's router: so they are read here word by word, only those are known that concern nothing but requests of the
//! node, and what nginx gets is written anew from what was read.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::printable::excerpt;
use crate::units::hex::mark;

mod words;

/// Checked directives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Snippet(Vec<Directive>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Directive {
    name: &'static str,
    words: Vec<String>,
}

/// What is wrong with a snippet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}, on line {line} of the snippet")]
pub struct BadSnippet {
    /// Line, from 1.
    pub line: usize,
    /// A lowercase phrase.
    pub message: String,
}

/// What concerns nothing but the requests of the node it stands at. No blocks, no files, no addresses, no code.
const KNOWN: [&str; 39] = [
    "add_header",
    "charset",
    "charset_types",
    "chunked_transfer_encoding",
    "client_body_timeout",
    "default_type",
    "etag",
    "expires",
    "gunzip",
    "gzip",
    "gzip_comp_level",
    "gzip_http_version",
    "gzip_min_length",
    "gzip_proxied",
    "gzip_types",
    "gzip_vary",
    "if_modified_since",
    "keepalive_timeout",
    "limit_rate",
    "limit_rate_after",
    "max_ranges",
    "override_charset",
    "proxy_buffering",
    "proxy_buffers",
    "proxy_buffer_size",
    "proxy_busy_buffers_size",
    "proxy_cookie_domain",
    "proxy_cookie_flags",
    "proxy_cookie_path",
    "proxy_hide_header",
    "proxy_read_timeout",
    "proxy_send_timeout",
    "return",
    "rewrite",
    "send_timeout",
    "sub_filter",
    "sub_filter_last_modified",
    "sub_filter_once",
    "sub_filter_types",
];

/// Ends of a rewrite that do not look for another location.
const ENDS: [&str; 3] = ["break", "redirect", "permanent"];

/// The longest text, and the most directives.
const LONGEST: usize = 8 * 1024;
const MOST: usize = 64;

impl Snippet {
    /// Sixteen hexadecimal digits that no other snippet has.
    pub fn digest(&self) -> String {
        mark(self.to_string(), 8)
    }

    /// Whether it sets this directive.
    pub fn sets(&self, name: &str) -> bool {
        self.0.iter().any(|directive| directive.name == name)
    }

    /// The lines for a location that passes requests on, or for one that shows files.
    pub fn lines(&self, of_files: bool) -> Vec<String> {
        let fits = |directive: &&Directive| !of_files || !directive.name.starts_with("proxy_");
        let written = |directive: &Directive| {
            let words = words::written(directive.name, &directive.words);
            Directive { name: directive.name, words }.to_string()
        };
        self.0.iter().filter(fits).map(written).collect()
    }
}

impl fmt::Display for Directive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        for word in &self.words {
            // Within quotes only these two mean something; everything else stands for itself.
            write!(f, " \"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))?;
        }
        f.write_str(";")
    }
}

impl fmt::Display for Snippet {
    /// One directive a line, as nginx gets it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for directive in &self.0 {
            writeln!(f, "{directive}")?;
        }
        Ok(())
    }
}

impl FromStr for Snippet {
    type Err = BadSnippet;
    fn from_str(text: &str) -> Result<Self, BadSnippet> {
        if text.len() > LONGEST {
            return Err(BadSnippet { line: 1, message: format!("it is longer than {LONGEST} bytes") });
        }
        let mut directives = Vec::new();
        for (line, words) in statements(text)? {
            let bad = |message: String| BadSnippet { line, message };
            let directive = directive(words).map_err(bad)?;
            directives.push(directive);
            if directives.len() > MOST {
                return Err(bad(format!("there are more than {MOST} directives")));
            }
        }
        Ok(Self(directives))
    }
}

fn directive(mut words: Vec<String>) -> Result<Directive, String> {
    let first = words.remove(0);
    let shown = excerpt(&first, 40);
    let name = KNOWN.iter().copied().find(|name| *name == first);
    let name = name.ok_or_else(|| {
        format!(
            "the directive `{shown}` is not one of those that a stack may use, such as add_header, expires and rewrite"
        )
    })?;
    let header = words.first().map(|word| word.to_ascii_lowercase()).unwrap_or_default();
    let is_own = ["quarry", "strict-transport-security", "transfer-encoding", "content-length", "connection"]
        .iter()
        .any(|own| header.starts_with(own));
    match name {
        "add_header" if is_own => Err(format!("the header `{header}` is the router's own")),
        "rewrite" if !words.last().is_some_and(|end| ENDS.contains(&end.as_str())) => {
            Err(format!("a rewrite ends with one of {}", ENDS.join(", ")))
        }
        _ => words::check(name, &words).map(|()| Directive { name, words }),
    }
}

/// Words up to each semicolon, with the line of the first.
fn statements(text: &str) -> Result<Vec<(usize, Vec<String>)>, BadSnippet> {
    let mut statements = Vec::new();
    let mut reader = Reader { rest: text.chars().peekable(), line: 1 };
    let mut words: Vec<String> = Vec::new();
    let mut begun = 1;
    while let Some(token) = reader.token()? {
        match token {
            Token::Word(word) => {
                if words.is_empty() {
                    begun = reader.line;
                }
                words.push(word);
            }
            Token::End if words.is_empty() => return Err(reader.bad("a `;` stands alone")),
            Token::End => statements.push((begun, std::mem::take(&mut words))),
        }
    }
    match words.first() {
        Some(_) => Err(BadSnippet { line: begun, message: "the directive does not end with `;`".to_owned() }),
        None => Ok(statements),
    }
}

enum Token {
    Word(String),
    End,
}

struct Reader<'t> {
    rest: std::iter::Peekable<std::str::Chars<'t>>,
    line: usize,
}

impl Reader<'_> {
    fn bad(&self, message: &str) -> BadSnippet {
        BadSnippet { line: self.line, message: message.to_owned() }
    }

    fn next(&mut self) -> Result<Option<char>, BadSnippet> {
        let next = self.rest.next();
        match next {
            Some('\n') => self.line += 1,
            Some(c) if c.is_control() && c != '\t' && c != '\r' => {
                return Err(self.bad("there is a control character"));
            }
            Some(_) | None => {}
        }
        Ok(next)
    }

    fn token(&mut self) -> Result<Option<Token>, BadSnippet> {
        while let Some(c) = self.rest.peek().copied() {
            match c {
                '#' => while self.next()?.is_some_and(|c| c != '\n') {},
                c if c.is_whitespace() => drop(self.next()?),
                ';' => {
                    self.next()?;
                    return Ok(Some(Token::End));
                }
                '{' | '}' => return Err(self.bad("blocks are not for stacks")),
                '"' | '\'' => {
                    self.next()?;
                    return self.quoted(c).map(Some);
                }
                _ => return self.bare().map(Some),
            }
        }
        Ok(None)
    }

    fn quoted(&mut self, quote: char) -> Result<Token, BadSnippet> {
        let mut word = String::new();
        loop {
            match self.next()? {
                None | Some('\n') => return Err(self.bad("a quote does not end on its line")),
                Some('\r') => return Err(self.bad("there is a control character")),
                Some('\\') => self.escaped(&mut word)?,
                Some(c) if c == quote => return Ok(Token::Word(word)),
                Some(c) => word.push(c),
            }
        }
    }

    fn bare(&mut self) -> Result<Token, BadSnippet> {
        let mut word = String::new();
        while let Some(c) = self.rest.peek().copied().filter(|c| *c != ';' && !c.is_whitespace()) {
            self.next()?;
            match c {
                // `${name}` is the one place for braces.
                '{' if word.ends_with('$') => self.name(&mut word)?,
                '{' | '}' => return Err(self.bad("blocks are not for stacks; quote a word with a brace")),
                '\\' => self.escaped(&mut word)?,
                c => word.push(c),
            }
        }
        Ok(Token::Word(word))
    }

    /// The rest of `${name}`, whose brace has been read.
    fn name(&mut self, word: &mut String) -> Result<(), BadSnippet> {
        word.push('{');
        loop {
            match self.next()? {
                Some(c) if c.is_ascii_alphanumeric() || c == '_' => word.push(c),
                Some('}') => {
                    word.push('}');
                    return Ok(());
                }
                Some(_) | None => return Err(self.bad("`${` is not followed by a name and `}`")),
            }
        }
    }

    /// As nginx reads what follows a backslash.
    fn escaped(&mut self, word: &mut String) -> Result<(), BadSnippet> {
        match self.next()? {
            None | Some('\n' | '\r') => return Err(self.bad("a backslash stands alone")),
            Some(c @ ('"' | '\'' | '\\')) => word.push(c),
            Some(c @ ('t' | 'r' | 'n')) => return Err(self.bad(&format!("`\\{c}` has no place here"))),
            Some(c) => {
                word.push('\\');
                word.push(c);
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Snippet {
    type Error = BadSnippet;
    fn try_from(text: String) -> Result<Self, BadSnippet> {
        text.parse()
    }
}

impl From<Snippet> for String {
    fn from(snippet: Snippet) -> Self {
        snippet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(text.parse::<Snippet>().map(|snippet| snippet.to_string()), Ok(expected.to_owned()), "{text}");
    }

    fn check_refused(text: &str, why: &str) {
        let told = text.parse::<Snippet>().unwrap_err().to_string();
        assert!(told.contains(why), "{text}: {told}");
    }

    #[test]
    fn directives_are_written_anew_from_their_words() {
        check("expires 1h;", "expires \"1h\";\n");
        check("# a\nadd_header X-A 'a \"b\"' always; # b", "add_header \"X-A\" \"a \\\"b\\\"\" \"always\";\n");
        check(r"rewrite ^/(.*)\.html$ /$1 permanent;", "rewrite \"^/(.*)\\\\.html$\" \"/$1\" \"permanent\";\n");
        check("add_header X-B ${host}-a;", "add_header \"X-B\" \"${host}-a\";\n");
        check("", "");
        check("gzip on;\r\nexpires 1h;\r\n", "gzip \"on\";\nexpires \"1h\";\n");
    }

    #[test]
    fn what_reaches_beyond_the_node_is_refused() {
        for text in [
            "proxy_pass http://127.0.0.1;",
            "alias /etc/;",
            "root /;",
            "include /etc/passwd;",
            "access_log /tmp/x;",
            "error_log /tmp/x;",
            "load_module x;",
            "set $quarry_root /etc;",
            "lua_package_path x;",
            "internal;",
            "try_files /etc/passwd =404;",
            "\"proxy_pass\" x;",
            "auth_request /x;",
            "proxy_set_header Host other;",
            "ssl_certificate x;",
        ] {
            check_refused(text, "is not one of those");
        }
        check_refused("expires 1h; }", "blocks are not for stacks");
        check_refused("expires {;", "blocks are not for stacks");
        check_refused("content_by_lua_block { os.execute('id') }", "blocks are not for stacks");
        check_refused("location / { return 200; }", "blocks are not for stacks");
        check_refused("expires 1h", "does not end with `;`");
        check_refused("expires '1h", "does not end on its line");
        check_refused("rewrite ^ /x last;", "ends with one of");
        check_refused("rewrite ^ /x;", "ends with one of");
        check_refused("add_header Quarry-Router 1;", "router's own");
        check_refused("gzip on;\n\n;", "on line 3");
        check_refused("add_header X a\u{1}b;", "control character");
        check_refused("add_header X 'a\rSet-Cookie: b';", "control character");
        check_refused("add_header X a\\\rb;", "backslash stands alone");
        check_refused("add_header X $quarry_pass;", "router's own");
        check_refused("rewrite '^/(?<quarry_root>/[a-z/]+)$' / break;", "has no name");
        check_refused("proxy_buffers 100000 1m;", "may take 1m");
        check_refused(&"gzip on;".repeat(65), "more than 64");
    }

    proptest! {
        #[test]
        fn whatever_is_taken_is_directives_in_quotes_and_reads_back(text in "(expires|gzip|add_header|rewrite|[a-z_]{1,12}|[\\PC]{0,8}|[ \"'\\\\;{}#$]{0,4}){0,8}") {
            if let Ok(snippet) = text.parse::<Snippet>() {
                let written = snippet.to_string();
                for line in written.lines() {
                    let name = line.split([' ', ';']).next().unwrap();
                    prop_assert!(KNOWN.contains(&name), "{}", line);
                    // Outside of quotes nothing is left but the name, blanks and the semicolon at the end.
                    let (mut quoted, mut escaped, mut outside) = (false, false, String::new());
                    for c in line.chars() {
                        match c {
                            _ if escaped => escaped = false,
                            '\\' if quoted => escaped = true,
                            '"' => quoted = !quoted,
                            c if !quoted => outside.push(c),
                            _ => {}
                        }
                    }
                    prop_assert!(!quoted);
                    prop_assert_eq!(outside.trim_end_matches(';').trim_end(), name);
                }
                prop_assert_eq!(written.parse::<Snippet>(), Ok(snippet));
            }
        }
    }
}
