//! An embassy whose program is replaced: whoever is in stays, and whoever comes meanwhile waits.

use std::net::Shutdown;

use quarry::embassy::Legacy;

use super::*;

impl Stand {
    /// Has a successor come, as far as its first table.
    fn leave(self) -> (Legacy, Table) {
        let left = self.embassy.leave();
        drop(self.embassy);
        let socket = left.send().unwrap();
        (Legacy::receive(socket).unwrap(), self.table)
    }

    fn go_on(left: Legacy, table: Table) -> Self {
        let address = left.address;
        let embassy = Embassy::go_on(left, Settings::default()).unwrap();
        embassy.set(&table).unwrap();
        Self { embassy, address, table }
    }
}

#[test]
fn nobody_notices_that_the_program_is_another_one() {
    let (app, clients) = handing("app");
    let stand = Stand::new(vec![exposed(&[&app])]);
    let served = || clients.recv_timeout(PATIENCE).unwrap();
    let (mut quiet, mut quiet_served) = pair(&stand, &clients);
    // One has said all it has to say, the other side of another reads nothing.
    let (mut ended, mut ended_served) = (stand.connect(), served());
    ended.write_all(b"that is all").unwrap();
    ended.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut ended_served), "that is all");
    let (mut full, mut full_served) = (stand.connect(), served());
    full.set_nonblocking(true).unwrap();
    let text = vec![7; 64 << 10];
    let mut sent = 0;
    let mut send = || match full.write(&text) {
        Ok(count) => sent += count,
        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
    };
    // The endpoint's socket takes no more, and the embassy has some of it.
    let mut passed = |stand: &Stand| {
        let before = stand.counts_of(&app).unwrap().received;
        send();
        (stand.counts_of(&app).unwrap().received == before).then_some(())
    };
    let mut calm = 0;
    until("the embassy to hold something back", || {
        calm = passed(&stand).map_or(0, |()| calm + 1);
        (calm == 100).then_some(())
    });
    let at = stand.at(PORT);

    let (left, table) = stand.leave();
    assert_eq!((left.ports.len(), left.connections.len()), (1, 3));
    let kept = |left: &Legacy| -> usize {
        let reached = left.connections.iter().filter_map(|one| one.reached.as_ref());
        reached.flat_map(|one| &one.ways).map(|way| way.rest.len()).sum()
    };
    assert!(kept(&left) > 0, "something was held back");
    quiet.write_all(b"are you there").unwrap();
    let mut meanwhile = connect(at);
    meanwhile.write_all(b"hello").unwrap();
    let stand = Stand::go_on(left, table);

    let mut heard = [0; 13];
    quiet_served.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"are you there");
    quiet_served.write_all(b"still").unwrap();
    quiet.read_exact(&mut heard[..5]).unwrap();
    assert_eq!(&heard[..5], b"still");
    ended_served.write_all(b"the answer").unwrap();
    drop(ended_served);
    assert_eq!(rest(&mut ended), "the answer");
    full.shutdown(Shutdown::Write).unwrap();
    let mut all = Vec::new();
    full_served.read_to_end(&mut all).unwrap();
    assert!(all.len() == sent && all.iter().all(|byte| *byte == 7), "{} of {sent}", all.len());
    let mut newcomer = served();
    newcomer.read_exact(&mut heard[..5]).unwrap();
    assert_eq!(&heard[..5], b"hello");
    drop((quiet, full, meanwhile, quiet_served, full_served, newcomer));
    stand.until_open(0);
}

#[test]
fn who_has_an_endpoint_that_left_has_its_time_and_ports_that_are_gone_close() {
    let (app, clients) = handing("app");
    let other = echoing("other");
    let stand = Stand::new(vec![Exposed { drain: Millis(300), ..exposed(&[&app]) }]);
    let (client, served) = pair(&stand, &clients);

    let (left, _) = stand.leave();
    let mut table = Table { ports: vec![exposed(&[&other])] };
    let stand = Stand::go_on(left, table.clone());
    let mut new = stand.connect();
    assert_eq!(who(&mut new), 'o');
    for mut side in [client, served] {
        assert_eq!(rest(&mut side), "", "it ends in time");
    }
    echoes(&mut new, "another one stays");

    // A port that the successor does not have closes, and the next one may have it again.
    let (left, _) = stand.leave();
    table.ports.clear();
    let mut stand = Stand::go_on(left, table);
    assert_eq!(TcpStream::connect(stand.at(PORT)).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    stand.set(vec![exposed(&[&other])]);
    assert_eq!(who(&mut stand.connect()), 'o');
}

#[test]
fn a_thousand_connections_go_on() {
    let app = echoing("app");
    let stand = Stand::new(vec![exposed(&[&app])]);
    let served = |_| {
        let mut client = stand.connect();
        assert_eq!(who(&mut client), 'a');
        client
    };
    let mut clients: Vec<TcpStream> = (0..1000).map(served).collect();
    let (left, table) = stand.leave();
    let stand = Stand::go_on(left, table);
    stand.until_open(1000);
    clients.iter_mut().for_each(|client| echoes(client, "on"));
    drop(clients);
    stand.until_open(0);
}

/// Whether the kernel asks the peers of the embassy's connections at the first port whether they are still there: the
/// timer of each is of the second kind.
fn are_watched(stand: &Stand) -> Vec<bool> {
    let IpAddr::V4(address) = stand.address else { unreachable!("tests have IPv4 addresses") };
    let local = format!("{:08X}:{PORT:04X}", u32::from_ne_bytes(address.octets()));
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let sockets = sockets.lines().skip(1).map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    // Established ones, not the listener.
    let own = sockets.filter(|words| words[1] == local && words[3] == "01");
    own.map(|words| words[5].starts_with("02:")).collect()
}

#[test]
fn who_came_just_before_is_watched_all_the_same() {
    let (app, clients) = handing("app");
    let stand = Stand::new(vec![exposed(&[&app])]);
    let _open = pair(&stand, &clients);
    let (left, table) = stand.leave();
    let stand = Stand::go_on(left, table);
    assert_eq!(are_watched(&stand), [false]);
    until("a watch of the peer", || (are_watched(&stand) == [true]).then_some(()));
}

#[test]
fn what_is_no_legacy_is_refused() {
    use std::os::unix::net::UnixStream;

    let (ours, theirs) = UnixStream::pair().unwrap();
    assert!(Legacy::receive(&theirs).unwrap_err().to_string().contains("nothing was left"));
    drop(ours);
    assert!(Legacy::receive(&theirs).is_err());
    assert!(Legacy::receive(std::fs::File::open("/dev/null").unwrap()).is_err());
}
