//! Inputs from inputs.

/// Chance, the same for the same seed (xorshift64*).
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit
    }

    pub fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

/// The longest input in bytes.
const LONGEST: usize = 8192;

/// Characters and words that mean something to some terminal, shell, path, file or configuration.
const WORDS: [&str; 40] = [
    "\0",
    "\n",
    "\r\n",
    "\t",
    " ",
    "'",
    "\"",
    "\\",
    "`",
    "$",
    "$(id)",
    "${X}",
    ";",
    "|",
    "&",
    "{",
    "}",
    "[",
    "]",
    "#",
    ":",
    "=",
    "*",
    "../",
    "/",
    "~",
    "-",
    "--",
    "%s",
    "\x1b[2J",
    "\x1b]0;x\x07",
    "\u{9b}2J",
    "\u{202e}",
    "\u{2028}",
    "é",
    "\u{feff}",
    "0",
    "-1",
    "4294967296",
    "99999999999999999999",
];

/// `from` changed a little, or much.
pub fn mutated(from: &[u8], other: &[u8], words: &[&str], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = from.to_vec();
    for _ in 0..1 << chance.below(5) {
        change(&mut bytes, other, words, chance);
    }
    bytes.truncate(LONGEST);
    bytes
}

fn change(bytes: &mut Vec<u8>, other: &[u8], words: &[&str], chance: &mut Chance) {
    let word = |chance: &mut Chance| {
        let own = !words.is_empty() && chance.below(3) > 0;
        if own { chance.one(words) } else { chance.one(&WORDS) }
    };
    if bytes.is_empty() {
        bytes.extend(word(chance).bytes());
        return;
    }
    let at = chance.below(bytes.len());
    let most = 1 << chance.below(7);
    let length = (1 + chance.below(most)).min(bytes.len() - at);
    match chance.below(10) {
        0 => bytes[at] ^= 1 << chance.below(8),
        1 => bytes[at] = chance.next() as u8,
        2 => bytes[at] = bytes[at].wrapping_add(chance.below(9) as u8).wrapping_sub(4),
        3 => drop(bytes.drain(at..at + length)),
        4 => {
            let piece = bytes[at..at + length].to_vec();
            let to = chance.below(bytes.len() + 1);
            bytes.splice(to..to, piece);
        }
        5 | 6 => {
            let word = word(chance);
            bytes.splice(at..at, word.bytes());
        }
        7 => {
            let word = word(chance);
            bytes.splice(at..at + length, word.bytes());
        }
        8 if !other.is_empty() => {
            let from = chance.below(other.len());
            let length = (1 + chance.below(64)).min(other.len() - from);
            bytes.splice(at..at, other[from..from + length].iter().copied());
        }
        _ => {
            let line = bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| at + end);
            bytes.truncate(line);
            bytes.extend(other.iter().skip_while(|byte| **byte != b'\n'));
        }
    }
}
