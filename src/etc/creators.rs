//! `create-stacks`: who may make new ones.

use std::str::FromStr;

/// Who may make stacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creators {
    /// Whoever has a key.
    Everyone,
    /// Operators alone.
    Operators,
}

impl FromStr for Creators {
    type Err = String;
    fn from_str(value: &str) -> Result<Self, String> {
        match value {
            "everyone" => Ok(Creators::Everyone),
            "operators" => Ok(Creators::Operators),
            _ => Err(format!("`{value}` is neither `everyone` nor `operators`")),
        }
    }
}
