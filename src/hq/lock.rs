//! One operation per stack at a time; the others wait in line and know for whom.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::launch::act::Say;
use crate::names::StackName;

/// The lines before all stacks.
#[derive(Default)]
pub struct Queue {
    lines: Mutex<BTreeMap<StackName, Arc<Line>>>,
}

#[derive(Default)]
struct Line {
    turn: Arc<tokio::sync::Mutex<()>>,
    holder: Mutex<String>,
    checkout: Arc<tokio::sync::Mutex<()>>,
    table: Arc<tokio::sync::Mutex<()>>,
}

/// The turn of one operation; dropping it lets the next one in.
pub struct Turn {
    _turn: OwnedMutexGuard<()>,
}

impl Queue {
    /// Waits for the stack's turn, saying for whom. `who` is what those behind are told.
    pub async fn turn(&self, stack: &StackName, who: String, say: Say<'_>) -> Turn {
        let line = self.line(stack);
        let turn = match line.turn.clone().try_lock_owned() {
            Ok(turn) => turn,
            Err(_) => {
                let holder = line.holder.lock().unwrap_or_else(PoisonError::into_inner).clone();
                say(&format!("-----> Waiting for {holder}"));
                line.turn.clone().lock_owned().await
            }
        };
        *line.holder.lock().unwrap_or_else(PoisonError::into_inner) = who;
        Turn { _turn: turn }
    }

    /// The turn at once, or none when somebody has it.
    pub fn try_turn(&self, stack: &StackName, who: &str) -> Option<Turn> {
        let line = self.line(stack);
        let turn = line.turn.clone().try_lock_owned().ok()?;
        *line.holder.lock().unwrap_or_else(PoisonError::into_inner) = who.to_owned();
        Some(Turn { _turn: turn })
    }

    /// The stack's checkout. A turn that was given up leaves its thread behind for a moment: the next one waits here
    /// until that has let go of the files.
    pub async fn checkout(&self, stack: &StackName) -> OwnedMutexGuard<()> {
        self.line(stack).checkout.clone().lock_owned().await
    }

    /// The stack's table, from the plan that makes a new one of it to the end of its operation. Whoever has a turn may
    /// build for long before that, and a stack can be closed to its visitors meanwhile.
    pub async fn table(&self, stack: &StackName) -> OwnedMutexGuard<()> {
        self.line(stack).table.clone().lock_owned().await
    }

    fn line(&self, stack: &StackName) -> Arc<Line> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).entry(stack.clone()).or_default().clone()
    }
}
