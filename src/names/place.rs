//! A node of any stack: `shared/mongo`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::printable::excerpt;
use super::{NodeName, StackName};

/// A node and whose it is, written `stack/node`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StackNode {
    /// Whose.
    pub stack: StackName,
    /// Which.
    pub node: NodeName,
}

/// A text that names no node of a stack.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` names no node of a stack, such as shared/mongo")]
pub struct BadStackNode {
    /// What came, shortened and with control characters escaped.
    pub given: String,
}

impl fmt::Display for StackNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stack, self.node)
    }
}

impl FromStr for StackNode {
    type Err = BadStackNode;
    fn from_str(text: &str) -> Result<Self, BadStackNode> {
        let read = || {
            let (stack, node) = text.split_once('/')?;
            Some(Self { stack: stack.parse().ok()?, node: node.parse().ok()? })
        };
        read().ok_or_else(|| BadStackNode { given: excerpt(text, 80) })
    }
}

impl TryFrom<String> for StackNode {
    type Error = BadStackNode;
    fn try_from(text: String) -> Result<Self, BadStackNode> {
        text.parse()
    }
}

impl From<StackNode> for String {
    fn from(node: StackNode) -> Self {
        node.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_of_a_stack_is_read_and_anything_else_is_refused() {
        for good in ["shared/mongo", "a/b"] {
            assert_eq!(good.parse::<StackNode>().unwrap().to_string(), good);
        }
        for bad in ["", "/", "shared", "shared/", "/mongo", "a/b/c", "../b", "A/b", "a/b\n"] {
            assert!(bad.parse::<StackNode>().is_err(), "{bad:?}");
        }
    }
}
