//! One connection through the embassy is like one without it.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use super::*;

#[test]
fn who_speaks_first_is_heard_and_each_side_may_end_while_the_other_goes_on() {
    let (app, clients) = handing("app");
    let stand = Stand::new(vec![exposed(&[&app])]);

    let mut client = stand.connect();
    let mut served = clients.recv_timeout(PATIENCE).unwrap();
    served.write_all(b"welcome").unwrap();
    let mut first = [0; 7];
    client.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"welcome");

    client.write_all(b"that is all").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut served), "that is all");
    served.write_all(b"and the answer").unwrap();
    drop(served);
    assert_eq!(rest(&mut client), "and the answer");

    let mut client = stand.connect();
    let mut served = clients.recv_timeout(PATIENCE).unwrap();
    served.write_all(b"good night").unwrap();
    served.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut client), "good night");
    client.write_all(b"but still").unwrap();
    drop(client);
    assert_eq!(rest(&mut served), "but still");
    stand.until_open(0);
    let counts = stand.counts_of(&app).unwrap();
    assert_eq!((counts.total, counts.failed), (2, 0));
    assert_eq!((counts.received, counts.sent), (11 + 9, 7 + 14 + 10));
}

#[test]
fn a_reset_is_a_reset_on_the_other_side() {
    let (app, clients) = handing("app");
    let stand = Stand::new(vec![exposed(&[&app])]);
    let client = stand.connect();
    let mut served = clients.recv_timeout(PATIENCE).unwrap();
    reset(client);
    assert_reset(&mut served);

    let mut client = stand.connect();
    reset(clients.recv_timeout(PATIENCE).unwrap());
    assert_reset(&mut client);
    stand.until_open(0);
}

/// Text that shows where it was cut or mixed up.
fn text(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place / 251 + place) as u8).collect()
}

/// This process' memory in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[test]
fn a_peer_that_does_not_read_costs_little_memory_and_loses_nothing() {
    const LENGTH: usize = 64 << 20;
    let (app, clients) = handing("app");
    let stand = Stand::new(vec![exposed(&[&app])]);
    let mut client = stand.connect();
    let mut served = clients.recv_timeout(PATIENCE).unwrap();
    let text = text(LENGTH);
    let before = resident();

    client.set_nonblocking(true).unwrap();
    let (mut sent, mut moved) = (0, Instant::now());
    // Nothing has moved for so long: nothing will.
    while moved.elapsed() < Duration::from_millis(500) {
        match client.write(&text[sent..]) {
            Ok(count) => (sent, moved) = (sent + count, Instant::now()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
    // What the kernel holds in four buffers at most, and the little that the embassy does.
    assert!(sent < 32 << 20, "{sent} bytes were taken from the client while nobody read them");
    let more = resident().saturating_sub(before);
    assert!(more < 8 << 20, "{more} bytes more are resident");

    client.set_nonblocking(false).unwrap();
    let expected = text.clone();
    let sender = std::thread::spawn(move || {
        client.write_all(&text[sent..]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        client
    });
    let mut heard = Vec::with_capacity(LENGTH);
    served.read_to_end(&mut heard).unwrap();
    assert!(heard == expected, "{} bytes arrived, other ones than were sent", heard.len());
    drop((served, sender.join().unwrap()));
    stand.until_open(0);
}

#[test]
fn bulk_arrives_whole_in_both_directions_at_once() {
    const LENGTH: usize = 32 << 20;
    let app = serve("app", |mut stream| {
        let mut writer = stream.try_clone().unwrap();
        let other = std::thread::spawn(move || {
            writer.write_all(&text(LENGTH)).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        other.join().unwrap();
        assert!(heard == text(LENGTH));
    });
    let stand = Stand::new(vec![exposed(&[&app])]);
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let mut client = stand.connect();
            std::thread::spawn(move || {
                let mut writer = client.try_clone().unwrap();
                let other = std::thread::spawn(move || {
                    writer.write_all(&text(LENGTH)).unwrap();
                    writer.shutdown(Shutdown::Write).unwrap();
                });
                let mut heard = Vec::new();
                client.read_to_end(&mut heard).unwrap();
                other.join().unwrap();
                assert!(heard == text(LENGTH));
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    stand.until_open(0);
    let counts = stand.counts_of(&app).unwrap();
    assert_eq!((counts.received, counts.sent), (4 * LENGTH as u64, 4 * LENGTH as u64));
}
