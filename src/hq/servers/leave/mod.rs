//! Taking a server out of the grid; see [`act`].

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::names::ServerName;

pub mod act;

/// The servers that are being taken out now. None of them takes containers again.
#[derive(Debug, Default)]
pub struct Leaving(Mutex<BTreeSet<ServerName>>);

impl Leaving {
    /// From now on until the answer is dropped; none when somebody is at it already.
    fn begin(&self, server: &ServerName) -> Option<Departure<'_>> {
        let begun = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(server.clone());
        begun.then(|| Departure { of: self, server: server.clone() })
    }

    /// Whether it is being taken out.
    pub fn contains(&self, server: &ServerName) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(server)
    }
}

/// One server that is being taken out, for as long as this lives.
#[derive(Debug)]
pub struct Departure<'a> {
    of: &'a Leaving,
    server: ServerName,
}

impl Drop for Departure<'_> {
    fn drop(&mut self) {
        self.of.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.server);
    }
}

/// Whether what stands in the way is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// It refuses the command.
    No,
    /// It is given up.
    Yes,
}

/// Takes HQ's key away again. The file changes in one step, or not at all: on a full disk all keys would go else.
pub const LET_GO: &str = r#"
read -r key
[ -f ~/.ssh/authorized_keys ] || exit 0
keys=$(readlink -f ~/.ssh/authorized_keys)
without() {
    # A copy first, so that owner and mode stay.
    cp -p "$keys" "$keys.quarry" || return 1
    grep -vxF "$key" "$keys" > "$keys.quarry"
    # 1 says that no other key is left.
    [ $? -le 1 ] && mv -f "$keys.quarry" "$keys"
}
without && exit
rm -f "$keys.quarry"
echo "HQ's key cannot be taken out of $keys" >&2
exit 1
"#;
