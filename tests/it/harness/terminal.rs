//! A command in a terminal, as a person runs it.

use std::path::Path;
use std::process::Command;

use super::program::{Done, Running, run};
use super::wait::until;

/// A program under `script`, which gives it a pseudo-terminal.
pub struct Terminal {
    running: Running,
    device: String,
}

impl Terminal {
    /// Runs shell text in a terminal of this size. `dress` adds environment.
    pub fn open(columns: u16, rows: u16, text: &str, dress: impl FnOnce(&mut Command)) -> Self {
        let shell = format!("tty; stty cols {columns} rows {rows}; {text}");
        let mut command = Command::new("script");
        command.args(["-q", "-e", "-c", &shell, "/dev/null"]).env("TERM", "xterm-256color").env("SHELL", "/bin/sh");
        dress(&mut command);
        let running = Running::start(&mut command);
        let device = until("the terminal's name", || {
            let text = running.stdout();
            let (line, _) = text.split_once('\n')?;
            Some(line.trim().to_owned())
        });
        assert!(Path::new(&device).exists(), "{device} is no terminal");
        Self { running, device }
    }

    pub fn write(&mut self, text: &str) {
        self.running.write(text.as_bytes());
    }

    pub fn wait_for(&mut self, text: &str) {
        self.running.wait_for(text);
    }

    pub fn shown(&self) -> String {
        self.running.stdout()
    }

    /// What happens when a person drags the window's corner.
    pub fn resize(&self, columns: u16, rows: u16) {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        run(Command::new("stty").args(["-F", &self.device, "cols", &columns, "rows", &rows])).succeeded();
    }

    pub fn wait(self) -> Done {
        self.running.wait()
    }
}
