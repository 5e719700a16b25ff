//! What a new table does to those who are connected, and to those who come.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use quarry::embassy::EmbassyError;

use super::*;

#[test]
fn connections_stay_with_an_endpoint_that_is_taken_out_for_as_long_as_it_drains() {
    const DRAIN: Duration = Duration::from_millis(1500);
    let ((a, served), b) = (handing("a"), echoing("b"));
    let drained = |endpoints: &[&Endpoint]| vec![Exposed { drain: Millis(1500), ..exposed(endpoints) }];
    let mut stand = Stand::new(drained(&[&a]));
    let (mut client, mut served) = pair(&stand, &served);

    let began = Instant::now();
    stand.set(drained(&[&b]));
    let met: String = (0..10).map(|_| who(&mut stand.connect())).collect();
    assert_eq!(met, "b".repeat(10), "nobody new reaches what was taken out");
    client.write_all(b"are you there").unwrap();
    let mut heard = [0; 13];
    served.read_exact(&mut heard).unwrap();
    served.write_all(b"yes").unwrap();
    assert_eq!(rest(&mut client), "yes", "its end is an orderly one");
    let stayed = began.elapsed();
    assert!(stayed >= DRAIN - Duration::from_millis(1), "it has ended after {stayed:?}; moments are milliseconds");
    assert_eq!(rest(&mut served), "", "on both sides");
    drop((client, served));
    until("the end of it", || stand.counts_of(&a).is_none().then_some(()));
}

#[test]
fn what_comes_back_before_its_time_is_over_keeps_its_connections() {
    let (a, b) = (echoing("a"), echoing("b"));
    let drained = |endpoints: &[&Endpoint], drain| vec![Exposed { drain, ..exposed(endpoints) }];
    let mut stand = Stand::new(drained(&[&a], Millis(300)));
    let mut client = stand.connect();
    assert_eq!(who(&mut client), 'a');
    stand.set(drained(&[&b], Millis(300)));
    stand.set(drained(&[&a, &b], Millis(300)));
    // Another one that does drain shows that the time is over.
    let mut other = (0..2).map(|_| stand.connect()).find_map(|mut client| (who(&mut client) == 'b').then_some(client));
    let other = other.as_mut().expect("one of two is the other's");
    stand.set(drained(&[&a], Millis(300)));
    assert_eq!(rest(other), "");
    echoes(&mut client, "still here");
    stand.set(drained(&[], Millis(0)));
    assert_eq!(rest(&mut client), "", "no time at all");
}

#[test]
fn a_port_that_goes_is_closed_at_once_and_its_connections_drain() {
    let a = echoing("a");
    let mut stand = Stand::new(vec![exposed(&[&a])]);
    let mut client = stand.connect();
    assert_eq!(who(&mut client), 'a');
    stand.set(vec![]);
    let refused = TcpStream::connect(stand.at(PORT)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    echoes(&mut client, "still here");
    assert_eq!(stand.counts_of(&a).unwrap().open, 1, "and it is still counted");
    stand.set(vec![exposed(&[&a])]);
    assert_eq!(who(&mut stand.connect()), 'a');
    echoes(&mut client, "still here");
}

#[test]
fn another_container_at_the_same_address_is_another_endpoint() {
    let a = echoing("a");
    let mut stand = Stand::new(vec![Exposed { drain: Millis(0), ..exposed(&[&a]) }]);
    let mut client = stand.connect();
    assert_eq!(who(&mut client), 'a');
    let next = endpoint("next", a.address);
    stand.set(vec![Exposed { drain: Millis(0), ..exposed(&[&next]) }]);
    assert_eq!(rest(&mut client), "");
    assert_eq!(who(&mut stand.connect()), 'a');
    assert_eq!(stand.counts_of(&next).unwrap().total, 1);
}

#[test]
fn no_connection_is_lost_while_tables_change() {
    let apps: Vec<Endpoint> = ["a", "b", "c"].map(echoing).to_vec();
    let mut stand = Stand::new(vec![exposed(&[&apps[0]])]);
    let at = stand.at(PORT);
    let clients: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let mut kept = connect(at);
                who(&mut kept);
                for _ in 0..250 {
                    let mut client = connect(at);
                    who(&mut client);
                    echoes(&mut client, "a connection of its own");
                    echoes(&mut kept, "one that is kept");
                }
            })
        })
        .collect();
    let mut turn = 0;
    while !clients.iter().all(std::thread::JoinHandle::is_finished) {
        turn += 1;
        stand.set(vec![exposed(&[&apps[turn % 3], &apps[(turn + 1) % 3]])]);
    }
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert!(turn > 10);
}

#[test]
fn a_table_with_mistakes_changes_nothing_and_a_port_that_is_taken_is_named() {
    let a = echoing("a");
    let stand = Stand::new(vec![exposed(&[&a])]);
    let twice = Table { ports: vec![exposed(&[]), exposed(&[])] };
    let error = stand.embassy.set(&twice).unwrap_err();
    assert!(matches!(error, EmbassyError::Table(_)), "{error}");
    assert_eq!(who(&mut stand.connect()), 'a');

    let other = |number| Exposed { port: Port::tcp(number), ..exposed(&[&a]) };
    let taken = TcpListener::bind(stand.at(4001)).unwrap();
    let table = Table { ports: vec![other(PORT), other(4001), other(4002)] };
    let told = stand.embassy.set(&table).unwrap_err().to_string();
    let expected = format!("cannot listen at {} on port 4001: another program has it; `ss -tlnp", stand.address);
    assert!(told.starts_with(&expected), "{told}");
    for port in [PORT, 4002] {
        assert_eq!(who(&mut connect(stand.at(port))), 'a', "the others are there");
    }
    drop(taken);
    stand.embassy.set(&table).unwrap();
    assert_eq!(who(&mut connect(stand.at(4001))), 'a', "and this one is tried again");
}

#[test]
fn an_address_of_another_machine_is_refused_with_the_remedy() {
    let told = Embassy::start("192.0.2.1".parse().unwrap()).unwrap_err().to_string();
    assert!(told.ends_with("`ip address add 192.0.2.1/32 dev lo` gives it"), "{told}");
    assert!(Embassy::start("0.0.0.0".parse().unwrap()).is_err());
}

#[test]
fn an_embassy_that_stops_lets_go_of_everything() {
    let (a, served) = handing("a");
    let stand = Stand::new(vec![exposed(&[&a])]);
    let (mut client, at) = (stand.connect(), stand.at(PORT));
    let mut served = served.recv_timeout(PATIENCE).unwrap();
    stand.embassy.stop();
    assert_eq!((rest(&mut client), rest(&mut served)), (String::new(), String::new()));
    let _again = TcpListener::bind(at).unwrap();
}
