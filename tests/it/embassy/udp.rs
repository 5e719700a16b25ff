//! Datagrams.

use std::net::UdpSocket;

use super::*;

/// Answers each datagram with its name, where it came from, and what it was.
fn answering(name: &'static str) -> Endpoint {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let endpoint = endpoint(name, socket.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            let said = String::from_utf8_lossy(&buffer[..count]);
            socket.send_to(format!("{name} {} {said}", from.port()).as_bytes(), from).unwrap();
        }
    });
    endpoint
}

fn exposed_udp(endpoints: &[&Endpoint]) -> Exposed {
    Exposed { port: Port::udp(PORT), ..exposed(endpoints) }
}

/// A client that hears the embassy alone.
struct Client(UdpSocket);

impl Client {
    fn of(stand: &Stand) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(stand.at(PORT)).unwrap();
        Self(socket)
    }

    /// Who has answered, and over which flow.
    fn ask(&self, what: &str) -> (String, String) {
        self.0.send(what.as_bytes()).unwrap();
        let mut buffer = [0; 2048];
        let count = self.0.recv(&mut buffer).unwrap();
        let said = String::from_utf8_lossy(&buffer[..count]).into_owned();
        let mut words = said.splitn(3, ' ').map(str::to_owned);
        let (name, flow) = (words.next().unwrap(), words.next().unwrap());
        assert_eq!(words.next().as_deref(), Some(what));
        (name, flow)
    }
}

#[test]
fn each_client_has_a_flow_of_its_own_and_is_answered_by_the_address_it_has_asked() {
    let (a, b) = (answering("a"), answering("b"));
    let stand = Stand::new(vec![exposed_udp(&[&a, &b])]);
    let clients = [Client::of(&stand), Client::of(&stand)];
    let first = clients.each_ref().map(|client| client.ask("hello"));
    assert_ne!(first[0].0, first[1].0, "in turn");
    for (client, first) in clients.iter().zip(&first) {
        assert_eq!(client.ask("again"), *first, "a flow stays where it is");
    }
    stand.until_open(2);
    let counts = stand.counts_of(&a).unwrap();
    assert_eq!((counts.total, counts.received), (1, 10));
}

#[test]
fn a_flow_that_is_idle_ends_and_the_next_datagram_begins_another() {
    let a = answering("a");
    let stand = Stand::with(Settings { idle: Millis(200), ..Settings::default() }, vec![exposed_udp(&[&a])]);
    let client = Client::of(&stand);
    let (_, flow) = client.ask("hello");
    stand.until_open(0);
    assert_ne!(client.ask("hello again").1, flow);
    assert_eq!(stand.counts_of(&a).unwrap().total, 2);
}

#[test]
fn the_flow_that_was_idle_longest_makes_room() {
    let a = answering("a");
    let settings = Settings { threads: 1, files: Some(16), ..Settings::default() };
    let stand = Stand::with(settings, vec![exposed_udp(&[&a])]);
    let clients: Vec<Client> = (0..5).map(|_| Client::of(&stand)).collect();
    let flows: Vec<String> = clients.iter().map(|client| client.ask("hello").1).collect();
    stand.until_open(4);
    assert_eq!(clients[4].ask("again").1, flows[4]);
    assert_eq!(clients[1].ask("again").1, flows[1]);
    assert_ne!(clients[0].ask("again").1, flows[0]);
    stand.until_open(4);
}

#[test]
fn an_endpoint_that_is_gone_is_left_for_another() {
    let dead = {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        endpoint("dead", socket.local_addr().unwrap())
    };
    let a = answering("a");
    let mut stand = Stand::new(vec![exposed_udp(&[&dead])]);
    let client = Client::of(&stand);
    client.0.send(b"anybody").unwrap();
    until("the failure", || (stand.counts_of(&dead).unwrap().failed > 0).then_some(()));
    stand.set(vec![exposed_udp(&[&dead, &a])]);
    for _ in 0..5 {
        assert_eq!(client.ask("hello").0, "a");
    }
}

#[test]
fn datagrams_from_elsewhere_are_dropped_and_endpoints_taken_out_are_left() {
    let (a, b) = (answering("a"), answering("b"));
    let only = Sources::Only(["192.0.2.0/24".parse().unwrap()].into());
    let mut stand = Stand::new(vec![Exposed { from: only, ..exposed_udp(&[&a]) }]);
    let client = Client::of(&stand);
    client.0.send(b"hello").unwrap();
    until("the count", || (stand.counts().refused == 1).then_some(()));

    let now = |endpoint| vec![Exposed { drain: Millis(0), ..exposed_udp(&[endpoint]) }];
    stand.set(now(&a));
    assert_eq!(client.ask("hello").0, "a");
    stand.set(now(&b));
    until("the end of the flow", || stand.counts_of(&a).is_none_or(|counts| counts.open == 0).then_some(()));
    assert_eq!(client.ask("hello").0, "b");
    stand.set(vec![]);
    client.0.send(b"hello").unwrap();
    assert_eq!(client.0.recv(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}
