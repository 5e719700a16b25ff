//! Who gets a connection, and who may have one.

use std::net::TcpListener;

use super::*;

#[test]
fn connections_go_in_turn_and_a_failure_to_connect_is_not_seen() {
    let (a, b, (dead, _held)) = (echoing("a"), echoing("b"), nobody("dead"));
    let stand = Stand::new(vec![exposed(&[&a, &dead, &b])]);
    let met: String = (0..20).map(|_| who(&mut stand.connect())).collect();
    let count = |letter| met.matches(letter).count();
    assert!(count('a') >= 8 && count('b') >= 8, "{met}");
    let failed = stand.counts_of(&dead).unwrap();
    // It rests after each: 20 connections take no time in which it could be tried so often.
    assert!((1..=5).contains(&failed.failed) && failed.total == 0, "{failed:?}");
    stand.until_open(0);
}

#[test]
fn an_endpoint_that_does_not_answer_is_left_for_another_when_its_time_is_over() {
    // Its backlog is full: the kernel drops who comes after that.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&mute, 0).unwrap();
    let _first = connect(mute.local_addr().unwrap());
    let (mute, a) = (endpoint("mute", mute.local_addr().unwrap()), echoing("a"));
    let stand = Stand::new(vec![Exposed { connect: Millis(200), ..exposed(&[&mute, &a]) }]);
    let met: String = (0..4).map(|_| who(&mut stand.connect())).collect();
    assert_eq!(met, "aaaa");
    assert_eq!(stand.counts_of(&mute).unwrap().failed, 1, "it rests for long");
}

#[test]
fn clients_are_reset_when_nobody_accepts_them() {
    let ((one, _held), (other, _too)) = (nobody("one"), nobody("other"));
    let stand = Stand::new(vec![exposed(&[&one, &other])]);
    let mut client = stand.connect();
    assert_reset(&mut client);
    until("the count", || (stand.counts().unserved == 1).then_some(()));
    let failed: Vec<u64> = stand.counts().endpoints.iter().map(|counts| counts.failed).collect();
    assert_eq!(failed, [1, 1]);
}

#[test]
fn the_unhealthy_are_passed_over_until_all_are() {
    let (a, b) = (echoing("a"), echoing("b"));
    let sick = |endpoint: &Endpoint| Endpoint { health: Health::Unhealthy, ..endpoint.clone() };
    let mut stand = Stand::new(vec![exposed(&[&sick(&a), &b])]);
    let met: String = (0..10).map(|_| who(&mut stand.connect())).collect();
    assert_eq!(met, "b".repeat(10));
    stand.set(vec![exposed(&[&sick(&a), &sick(&b)])]);
    let met: String = (0..10).map(|_| who(&mut stand.connect())).collect();
    assert_eq!(met.matches('a').count(), 5, "{met}");
    stand.set(vec![exposed(&[&a, &sick(&b)])]);
    let met: String = (0..10).map(|_| who(&mut stand.connect())).collect();
    assert_eq!(met, "a".repeat(10));
}

#[test]
fn the_one_with_the_fewest_connections_is_next() {
    let (a, b, c) = (echoing("a"), echoing("b"), echoing("c"));
    let stand = Stand::new(vec![Exposed { balance: Balance::LeastConnections, ..exposed(&[&a, &b, &c]) }]);
    let mut open: Vec<(char, TcpStream)> = Vec::new();
    let fill = |open: &mut Vec<(char, TcpStream)>, count: usize| {
        while open.len() < count {
            let mut client = stand.connect();
            open.push((who(&mut client), client));
        }
        let of = |letter| open.iter().filter(|(who, _)| *who == letter).count();
        assert_eq!(['a', 'b', 'c'].map(of), [count / 3; 3]);
    };
    fill(&mut open, 30);
    // One loses all of its own, and gets all that come next.
    open.retain(|(who, _)| *who != 'b');
    stand.until_open(20);
    fill(&mut open, 30);
    fill(&mut open, 60);
}

#[test]
fn only_listed_nets_may_connect_and_the_others_are_counted() {
    let a = echoing("a");
    let from = |nets: &[&str]| Sources::Only(nets.iter().map(|net| net.parse().unwrap()).collect());
    let only = |nets: &[&str]| vec![Exposed { from: from(nets), ..exposed(&[&a]) }];
    let mut stand = Stand::new(only(&["192.0.2.0/24"]));
    assert_reset(&mut stand.connect());
    stand.set(only(&[]));
    assert_reset(&mut stand.connect());
    until("the count", || (stand.counts().refused == 2).then_some(()));
    stand.set(only(&["192.0.2.0/24", "127.0.0.0/24"]));
    let mut client = stand.connect();
    assert_eq!(who(&mut client), 'a');
    // Who is in stays, as the table before has let it.
    stand.set(only(&[]));
    echoes(&mut client, "still");
    assert_eq!(stand.counts_of(&a).unwrap().total, 1, "the others have reached nobody");
}
