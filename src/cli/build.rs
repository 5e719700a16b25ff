//! `build DIR`

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::failure::{Exit, Failure};
use super::parts::Places;
use crate::docker::Engine;
use crate::docker::bollard::Docker;
use crate::env::Env;
use crate::hq::HqError;
use crate::hq::deploy::act::{Building, build_images, node_images};
use crate::hq::deploy::source::act::{Source, read_checkout};
use crate::instruction::compile::{Context, compile};
use crate::instruction::tarball::{FORMAT, Manifest, pack};
use crate::names::{ReleaseNumber, StackName};

/// Build a folder's images with this machine's docker and write its instruction tarball
#[derive(Debug, clap::Args)]
pub struct Build {
    /// The folder; its name is the stack's unless --stack says otherwise
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Where to write it; STACK.tar.gz without, - for standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Build {
    /// Runs the command.
    ///
    /// # Errors
    /// When the folder is not a stack, or an image cannot be built.
    pub async fn run(self, places: &Places, stack: Option<StackName>) -> Result<(), Failure> {
        let wrong = |text: String| Failure::new(Exit::Mistake, text);
        let folder =
            self.folder.canonicalize().map_err(|error| wrong(format!("{}: {error}", self.folder.display())))?;
        let stack = match stack {
            Some(stack) => stack,
            None => {
                let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                name.parse().map_err(|error| wrong(format!("{error}; name one with --stack")))?
            }
        };
        let settings = places.settings()?;
        let engine = Docker::local();
        engine.version().await?;
        let Source { described, repository, folder } =
            read_checkout(&folder, settings.packs.as_deref(), &Env::new()).await?;
        let say = |line: &str| eprintln!("{line}");
        for line in &described.said {
            say(&crate::hq::progress::phase(line));
        }
        let building = Building {
            stack: &stack,
            described: &described.stack,
            env: &described.build_env,
            repository: &repository,
            folder: &folder,
            tag: "built".to_owned(),
            mtime: 0,
        };
        let built = build_images(&engine, &settings, &building, None, &say).await?;
        let images = node_images(&built);
        let context = Context {
            stack: &stack,
            release: ReleaseNumber(1),
            images: &images,
            counts: &BTreeMap::new(),
            hostnames: &settings.hostnames,
            size: settings.size,
            previous: &[],
        };
        let instructions = compile(&described.stack, &context).map_err(HqError::Compile)?;
        let manifest =
            Manifest { format: FORMAT, stack: stack.clone(), release: ReleaseNumber(1), commit: None, env_version: 0 };
        let bytes = pack(&manifest, &instructions);
        self.write(&stack, &bytes)
    }

    fn write(&self, stack: &StackName, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.output.clone().unwrap_or_else(|| PathBuf::from(format!("{stack}.tar.gz")));
        let written = if path.as_os_str() == "-" {
            std::io::Write::write_all(&mut std::io::stdout(), bytes)
        } else {
            std::fs::write(&path, bytes)
        };
        written.map_err(|error| Failure::new(Exit::Refused, format!("cannot write {}: {error}", path.display())))?;
        eprintln!("wrote {}; perform it with: quarry launch {}", path.display(), path.display());
        Ok(())
    }
}
