//! How far a build that failed has come: what it leaves gets a name, so that it is known whose it is.

/// What the name of a node's image ends in that a failed build has got to.
pub const UNFINISHED: &str = ".unfinished";

/// How far the classic builder has come, which leaves an image without a name for each step.
#[derive(Debug, Default)]
pub struct Reached {
    /// What it began with, which is somebody else's.
    base: Option<String>,
    /// Its last one, which holds those before.
    pub own: Option<String>,
}

impl Reached {
    /// Takes a line of the builder's.
    pub fn hear(&mut self, line: &str) {
        let Some(image) = line.strip_prefix(" ---> ").map(str::trim) else { return };
        if image.len() < 12 || !image.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return;
        }
        match &self.base {
            None => self.base = Some(image.to_owned()),
            Some(base) if base == image => {}
            Some(_) => self.own = Some(image.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_image_of_its_own_is_what_a_build_has_got_to() {
        let check = |lines: &[&str], expected: Option<&str>| {
            let mut reached = Reached::default();
            lines.iter().for_each(|line| reached.hear(line));
            assert_eq!(reached.own.as_deref(), expected, "{lines:?}");
        };
        let (base, own) = (" ---> aaaaaaaaaaaa", " ---> bbbbbbbbbbbb");
        check(&["Step 1/2 : FROM x", base, "Step 2/2 : RUN false", " ---> Running in cccccccccccc"], None);
        check(&[base, own, " ---> Using cache", " ---> dddddddddddd", "hello"], Some("dddddddddddd"));
        check(&[base, own, base], Some("bbbbbbbbbbbb"));
    }
}
