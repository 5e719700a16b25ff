//! A wire between a client and a server that a test can cut.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What the wire does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Carries everything.
    Whole,
    /// Carries requests and loses answers.
    Deaf,
    /// Ends each connection.
    Cut,
}

struct State {
    mode: Mode,
    /// Bytes of answers that were lost.
    lost: usize,
    open: Vec<TcpStream>,
}

/// A listener whose connections all lead to one server.
pub struct Wire {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Wire {
    /// To the server at `to`.
    pub fn to(to: SocketAddr) -> Self {
        let listener = TcpListener::bind((to.ip(), 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { mode: Mode::Whole, lost: 0, open: Vec::new() }));
        let shared = state.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(to) else { continue };
                let mut state = shared.lock().unwrap();
                if state.mode == Mode::Cut {
                    continue;
                }
                state.open.extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                drop(state);
                let (up, down) = ((client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client));
                thread::spawn(move || carry(up.0, up.1, None));
                let answers = shared.clone();
                thread::spawn(move || carry(down.0, down.1, Some(answers)));
            }
        });
        Self { address, state }
    }

    /// Changes what it does; connections that are open end when it is cut.
    pub fn set(&self, mode: Mode) {
        let mut state = self.state.lock().unwrap();
        state.mode = mode;
        if mode == Mode::Cut {
            for stream in state.open.drain(..) {
                // One of the ends may have gone already.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// Bytes of answers that were lost so far.
    pub fn lost(&self) -> usize {
        self.state.lock().unwrap().lost
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, answers: Option<Arc<Mutex<State>>>) {
    let mut bytes = [0; 16384];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if let Some(state) = &answers {
            let mut state = state.lock().unwrap();
            if state.mode == Mode::Deaf {
                state.lost += count;
                continue;
            }
        }
        if to.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
