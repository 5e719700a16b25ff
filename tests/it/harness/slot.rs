//! What no two HQs of one machine may share: ports, addresses, names. Each running HQ holds one slot.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// A numbered place, locked for as long as this lives; its file names the folder of who has it.
pub struct Slot {
    number: u16,
    file: File,
}

const SLOTS: u16 = 64;

impl Slot {
    /// Takes a free slot. `sweep` removes what a killed test left in its folder.
    pub fn take(sweep: impl Fn(&Path)) -> Self {
        let folder = std::env::temp_dir().join("quarry-it");
        fs::create_dir_all(&folder).unwrap();
        for number in 0..SLOTS {
            let path = folder.join(number.to_string());
            let file = File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap();
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                continue;
            }
            let mut slot = Self { number, file };
            if let Some(left) = slot.content() {
                sweep(&left);
            }
            if TcpListener::bind(slot.http()).is_ok() {
                return slot;
            }
        }
        panic!("no slot is free in {}", folder.display());
    }

    fn content(&mut self) -> Option<PathBuf> {
        let mut text = String::new();
        self.file.rewind().unwrap();
        self.file.read_to_string(&mut text).unwrap();
        (!text.is_empty()).then(|| text.into())
    }

    /// Writes down whose folder is to be swept.
    pub fn write(&mut self, folder: &Path) {
        self.clear();
        self.file.write_all(folder.as_os_str().as_encoded_bytes()).unwrap();
    }

    /// Nothing is left to sweep.
    pub fn clear(&mut self) {
        self.file.set_len(0).unwrap();
        self.file.rewind().unwrap();
    }

    /// Where the router listens.
    pub fn http(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 8200 + self.number))
    }

    /// Where it listens for HTTPS.
    pub fn https(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 8300 + self.number))
    }

    /// Where the HTTP api answers.
    pub fn api(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 8400 + self.number))
    }

    /// Ports of containers.
    pub fn ports(&self) -> String {
        let first = 22_000 + self.number * 100;
        format!("{first}-{}", first + 99)
    }

    /// Where the embassies of this HQ's servers listen.
    pub fn embassy(&self) -> String {
        format!("169.254.{}.91", 100 + self.number)
    }

    /// Addresses of containers: 64 networks.
    pub fn subnets(&self) -> String {
        format!("10.{}.{}.0/20", 212 + self.number / 16, self.number % 16 * 16)
    }
}
