//! Adding a server; see [`act`].

pub mod act;

/// Lets HQ's key, which comes on standard input, in from now on. Nothing changes when it is known already.
pub const LET_IN: &str = r#"
umask 077
mkdir -p ~/.ssh && touch ~/.ssh/authorized_keys || exit 1
read -r key
grep -qxF "$key" ~/.ssh/authorized_keys && exit 0
# A last line without an end must not swallow the key.
[ -z "$(tail -c 1 ~/.ssh/authorized_keys)" ] || echo >> ~/.ssh/authorized_keys
printf '%s\n' "$key" >> ~/.ssh/authorized_keys
"#;

/// Takes HQ's key away again.
pub const LET_GO: &str = r#"
read -r key
[ -f ~/.ssh/authorized_keys ] || exit 0
umask 077
grep -vxF "$key" ~/.ssh/authorized_keys > ~/.ssh/authorized_keys.quarry
# In place, so that owner and mode stay.
cat ~/.ssh/authorized_keys.quarry > ~/.ssh/authorized_keys && rm ~/.ssh/authorized_keys.quarry
"#;

/// Installs docker from the distribution where it is missing, and starts it.
pub const INSTALL_DOCKER: &str = r#"
if ! command -v dockerd > /dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q && apt-get install -q -y --no-install-recommends docker.io || exit 1
fi
if command -v systemctl > /dev/null && [ -d /run/systemd/system ]; then
    systemctl enable --now docker
else
    service docker start
fi
"#;
