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

/// Installs docker from the distribution where it is missing, and starts it.
pub const INSTALL_DOCKER: &str = r#"
export DEBIAN_FRONTEND=noninteractive
# An installation that was cut short.
if command -v dpkg > /dev/null && [ -n "$(dpkg --audit)" ]; then
    dpkg --configure -a || exit 1
fi
if ! command -v dockerd > /dev/null; then
    tries=0
    # Another one may be at it, such as the one that was cut short.
    until apt-get update -q; do
        [ $((tries += 1)) -lt 10 ] || exit 1
        sleep 2
    done
    apt-get -o DPkg::Lock::Timeout=300 install -q -y --no-install-recommends docker.io || exit 1
fi
if command -v systemctl > /dev/null && [ -d /run/systemd/system ]; then
    systemctl enable --now docker
else
    # Where nothing starts daemons, or its script asks for more than it may have, docker runs by itself.
    service docker start || { setsid dockerd > /var/log/dockerd.log 2>&1 < /dev/null & }
fi
"#;
