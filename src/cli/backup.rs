//! `backup`

use std::path::PathBuf;

use tokio::sync::mpsc;

use super::context::Context;
use super::failure::{Exit, Failure};
use crate::hq::HqError;
use crate::hq::backup::act::Backed;
use crate::hq::backup::{Images, Volumes, Wishes};

/// Standard output.
const STDOUT: &str = "-";

/// Pieces of the backup that wait for a slow reader.
const WAITING: usize = 8;

/// Everything this HQ needs on another machine, as one file
///
/// State, settings with all keys, repositories, sites and images. Whoever has the file has all of it. HQ serves on
/// meanwhile. `quarry restore FILE` makes an HQ of it.
#[derive(Debug, clap::Args)]
pub struct Backup {
    /// The file to write, or `-` for standard output; without it a name with the date
    file: Option<PathBuf>,
    /// Images of what serves, of all releases that can be rolled back to, or none: HQ builds what serves again then
    #[arg(long, value_name = "WHICH", default_value = "serving")]
    images: Which,
    /// Also the volumes on HQ's machine, as they are at the moment
    #[arg(long)]
    volumes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    Serving,
    All,
    None,
}

impl Backup {
    /// The file on the machine it is typed on.
    pub fn output(&self) -> Option<PathBuf> {
        match &self.file {
            Some(file) if file.as_os_str() == STDOUT => None,
            Some(file) => Some(file.clone()),
            None => Some(format!("quarry-backup-{}.tar.gz", jiff::Zoned::now().strftime("%Y-%m-%d-%H%M")).into()),
        }
    }

    /// To HQ it is always standard output.
    pub fn told(&self, mut words: Vec<String>) -> Vec<String> {
        let named = self.file.as_ref().and_then(|file| file.to_str());
        match words.iter().rposition(|word| Some(word.as_str()) == named) {
            Some(place) => words[place] = STDOUT.to_owned(),
            None => words.push(STDOUT.to_owned()),
        }
        words
    }

    /// Runs the command.
    ///
    /// # Errors
    /// When something cannot be read, or nobody takes it.
    pub async fn run(self, cx: &Context) -> Result<(), Failure> {
        if self.file.is_none_or(|file| file.as_os_str() != STDOUT) {
            let text = "from elsewhere a backup goes to standard output: backup - > FILE";
            return Err(Failure::new(Exit::Usage, text));
        }
        if cx.out.is_terminal() {
            return Err(Failure::new(Exit::Usage, "a backup is nothing for a terminal: backup - > FILE"));
        }
        let house = cx.hq.house().ok_or(HqError::Asleep)?;
        let (hq, etc) = (cx.hq.clone(), house.etc.clone());
        let images = match self.images {
            Which::Serving => Images::Serving,
            Which::All => Images::All,
            Which::None => Images::None,
        };
        let volumes = if self.volumes { Volumes::Along } else { Volumes::Stay };
        let (queue, mut pieces) = mpsc::channel(WAITING);
        let work = cx.beside(|say| async move {
            let _packs = hq.packs.read().await;
            hq.backup(&etc, Wishes { images, volumes }, queue, &|line| say.line(line)).await
        });
        let passing = async {
            while let Some(piece) = pieces.recv().await {
                cx.out.data(piece).await?;
            }
            // Who is gone hears no more, and what is sent to nobody ends.
            drop(pieces);
            Ok::<(), Failure>(())
        };
        let (done, passed) = tokio::join!(work, passing);
        passed?;
        tell(cx, &done??).await
    }
}

async fn tell(cx: &Context, backed: &Backed) -> Result<(), Failure> {
    let (files, images) = (backed.end.files, backed.end.images.div_ceil(1 << 20));
    cx.out.note(&format!("       {} values, {files} files, {images} MB of images", backed.end.values)).await?;
    if !backed.missing.is_empty() {
        let text = "images that are not on HQ's machine are not in it; what needs them is built again";
        cx.out.note(&format!("       {} {text}", backed.missing.len())).await?;
    }
    if !backed.volumes.is_empty() {
        let stacks: Vec<String> = backed.volumes.iter().map(ToString::to_string).collect();
        cx.out.note(&format!("       not in it: volumes of {} (--volumes)", stacks.join(", "))).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        backup: Backup,
    }

    #[test]
    fn hq_never_hears_of_the_file() {
        let check = |line: &str, told: &str, output: Option<&str>| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let backup = Line::parse_from(&words).backup;
            assert_eq!(backup.told(words).join(" "), told);
            match output {
                Some(output) => assert_eq!(backup.output(), Some(output.into())),
                None => assert!(line.ends_with('-') == backup.output().is_none()),
            }
        };
        check("backup x.tar.gz --volumes", "backup - --volumes", Some("x.tar.gz"));
        check("backup --images all /a/b", "backup --images all -", Some("/a/b"));
        check("backup -", "backup -", None);
        check("backup", "backup -", None);
    }
}
