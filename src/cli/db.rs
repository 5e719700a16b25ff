//! `db copy`

use super::failure::{Exit, Failure};
use super::parts::{HomeError, Places};
use crate::db::copy::act::copy;
use crate::db::copy::{CopyError, Target};

/// Move the state between files and etcd
#[derive(Debug, clap::Args)]
pub struct Db {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Copy every value from one home of the state to the other, while no HQ serves
    Copy(Copy),
}

#[derive(Debug, clap::Args)]
struct Copy {
    /// The home that is read
    #[arg(long, value_name = "HOME")]
    from: Kind,
    /// The home that is written
    #[arg(long, value_name = "HOME")]
    to: Kind,
    /// Remove what the target holds first
    #[arg(long)]
    replace: bool,
}

/// Where state can live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// The root folder
    Files,
    /// The cluster that etcd/endpoints of the settings names
    Etcd,
}

impl Db {
    /// Runs the command.
    ///
    /// # Errors
    /// When a home is in use, the target holds values, or a home fails.
    pub async fn run(self, places: &Places) -> Result<(), Failure> {
        match self.verb {
            Verb::Copy(copy) => copy.run(places).await,
        }
    }
}

impl Copy {
    async fn run(self, places: &Places) -> Result<(), Failure> {
        if self.from == self.to {
            return Err(Failure::new(
                Exit::Usage,
                "--from and --to are the same home; one is `files`, the other `etcd`",
            ));
        }
        if !places.is_here() {
            return Err(Failure::new(Exit::Mistake, format!("there is no folder {}", places.root.display())));
        }
        let settings = places.settings()?;
        // Both need the root folder for themselves: the files take it, the cluster joins in.
        let files = places.files().map_err(in_use)?;
        let etcd = places.cluster(&settings).await.map_err(in_use)?;
        let done = {
            let home = |kind| match kind {
                Kind::Files => &*files.db,
                Kind::Etcd => &*etcd.db,
            };
            let target = if self.replace { Target::Replaced } else { Target::Empty };
            copy(home(self.from), home(self.to), target).await
        };
        etcd.close().await;
        let copied = done.map_err(failed)?;
        if matches!(self.to, Kind::Files) {
            places.mark_here();
        }
        let left = match copied.left {
            0 => String::new(),
            left => format!("; {left} that live only as long as their lease stayed behind"),
        };
        eprintln!("copied {} keys ({} bytes) and read them back{left}", copied.keys, copied.bytes);
        eprintln!("{}", advice(self.to, places));
        Ok(())
    }
}

fn in_use(error: HomeError) -> Failure {
    match error {
        HomeError::State(crate::db::DbError::InUse { place, holder }) => Failure::new(
            Exit::Refused,
            format!("an HQ (pid {holder}) works with {place}; stop it before its state is copied"),
        ),
        error => error.into(),
    }
}

fn failed(error: CopyError) -> Failure {
    let exit = match &error {
        CopyError::NotEmpty(_) | CopyError::Part => Exit::Mistake,
        CopyError::Moved(_) | CopyError::Differs(_) | CopyError::Home { .. } => Exit::Refused,
    };
    Failure::of(exit, &error)
}

/// What makes the next `serve` use the copy.
fn advice(to: Kind, places: &Places) -> String {
    let etcd = places.etc.join("etcd");
    match to {
        Kind::Etcd => "the next `quarry serve` uses it".to_owned(),
        Kind::Files => format!("the next `quarry serve` uses it once {} is gone", etcd.display()),
    }
}
