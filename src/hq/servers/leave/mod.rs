//! Taking a server out of the grid; see [`act`].

pub mod act;

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
