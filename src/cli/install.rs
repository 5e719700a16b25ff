//! `install`

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::failure::{Exit, Failure};
use super::parts::Places;
use crate::hq::install::files::{Work, carry_out, daemon, neighbour};
use crate::hq::install::{InstallError, Neighbour, Wish, plan};

/// Make HQ a service of this machine
///
/// Writes units for HQ, agent and router, has docker keep containers while it is restarted, and starts HQ at the public
/// addresses. Run again it does what is not done.
#[derive(Debug, clap::Args)]
pub struct Install {
    /// Where pushes come in [default: port 2222 of every address]
    #[arg(long, value_name = "ADDRESS:PORT")]
    ssh: Option<SocketAddr>,
    /// Where stacks answer [default: port 80 of every address]
    #[arg(long, value_name = "ADDRESS:PORT")]
    http: Option<SocketAddr>,
    /// The same with certificates, or `off` [default: port 443 of every address]
    #[arg(long, value_name = "ADDRESS:PORT")]
    https: Option<Secure>,
    /// Only tell what would be done
    #[arg(long)]
    dry_run: bool,
    /// Write below this folder and run nothing: for an image of a machine
    #[arg(long, value_name = "FOLDER")]
    prefix: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy)]
struct Secure(Option<SocketAddr>);

impl std::str::FromStr for Secure {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self(None)),
            text => text.parse().map(Some).map(Self).map_err(|_| "it is neither ADDRESS:PORT nor `off`".to_owned()),
        }
    }
}

impl Install {
    /// Runs the command.
    ///
    /// # Errors
    /// What stands in the way; what was done by then stays, and the next run goes on.
    pub fn run(self, places: &Places) -> Result<(), Failure> {
        let prefix = self.prefix.as_deref();
        if prefix.is_none() && !self.dry_run {
            check_machine()?;
        }
        let everywhere = |port| everywhere(port, Path::new("/proc/net/if_inet6"));
        let wish = Wish {
            root: places.root.clone(),
            etc: places.etc.clone(),
            ssh: self.ssh.unwrap_or_else(|| everywhere(2222)),
            http: self.http.unwrap_or_else(|| everywhere(80)),
            https: self.https.map_or_else(|| Some(everywhere(443)), |https| https.0),
        };
        let ports: Vec<u16> = [Some(wish.http), wish.https].into_iter().flatten().map(|at| at.port()).collect();
        let neighbour = if prefix.is_none() { neighbour(&ports) } else { Neighbour::Away };
        let steps = plan(&wish, daemon(prefix)?.as_deref(), &neighbour)?;
        let work = if self.dry_run { Work::Tell } else { Work::Do };
        match carry_out(&steps, prefix, work, |line| eprintln!("-----> {line}"))? {
            0 => eprintln!("everything is as it should be"),
            _ if prefix.is_none() => {
                eprintln!("       an HQ that ran before goes by it after: systemctl restart quarry")
            }
            _ => {}
        }
        Ok(())
    }
}

/// Every address of a machine, of both kinds where it has both.
fn everywhere(port: u16, v6: &Path) -> SocketAddr {
    match v6.exists() {
        true => (std::net::Ipv6Addr::UNSPECIFIED, port).into(),
        false => (std::net::Ipv4Addr::UNSPECIFIED, port).into(),
    }
}

fn check_machine() -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new(Exit::Refused, "only root installs a service: sudo quarry install"));
    }
    if !Path::new("/run/systemd/system").is_dir() {
        let text = "this machine does not run systemd; have whatever starts its services start `quarry serve`";
        return Err(Failure::new(Exit::Refused, text));
    }
    Ok(())
}

impl From<InstallError> for Failure {
    fn from(error: InstallError) -> Self {
        match &error {
            InstallError::Daemon(_) => Self::of(Exit::Mistake, &error),
            InstallError::Neighbour { .. } | InstallError::File { .. } | InstallError::Command { .. } => {
                Self::of(Exit::Refused, &error)
            }
        }
    }
}
