//! What containers of the engine in memory do from their start to their end.

use std::time::Duration;

use tokio::io::{AsyncReadExt, DuplexStream};

use super::Fake;
use crate::docker::{EngineError, Output, State};
use crate::names::ContainerName;

/// How long a fallen container lies until its policy starts it again, as docker does it the first time.
const RESTART_DELAY: Duration = Duration::from_millis(100);

impl Fake {
    pub(super) fn launch(&self, name: &ContainerName) -> Result<(), EngineError> {
        let Some(run) = self.world().start(name)? else { return Ok(()) };
        let behaviour = self.behaviour(name);
        let mut input = None;
        if let Some(held) = self.world().containers.get_mut(name) {
            for line in &behaviour.prints {
                held.log.push(line.clone());
                if let Some(attached) = &held.attached {
                    let _ = attached.send(Output::Stdout(format!("{line}\n").into_bytes()));
                }
            }
            input = held.input.take();
        }
        self.changed();
        if let (true, Some(input)) = (behaviour.echo, input) {
            tokio::spawn(self.clone().echo(name.clone(), run, input));
        }
        if let Some((after, code)) = behaviour.ends {
            let (fake, name) = (self.clone(), name.clone());
            tokio::spawn(async move {
                tokio::time::sleep(after.duration()).await;
                fake.ended(&name, run, code);
            });
        }
        Ok(())
    }

    async fn echo(self, name: ContainerName, run: u64, mut input: DuplexStream) {
        let mut chunk = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = input.read(&mut chunk).await {
            let world = self.world();
            let attached = world.containers.get(&name).and_then(|held| held.attached.as_ref());
            if attached.is_none_or(|attached| attached.send(Output::Stdout(chunk[..read].to_vec())).is_err()) {
                break;
            }
        }
        self.ended(&name, run, 0);
    }

    pub(super) fn ended(&self, name: &ContainerName, run: u64, code: i64) {
        let again = self.world().end(name, run, code);
        self.changed();
        if again {
            let (fake, name) = (self.clone(), name.clone());
            tokio::spawn(async move {
                tokio::time::sleep(RESTART_DELAY).await;
                let due = fake
                    .world()
                    .containers
                    .get(&name)
                    .is_some_and(|held| held.container.state == State::Restarting && held.run == run);
                if due {
                    let _ = fake.launch(&name);
                }
            });
        }
    }
}
