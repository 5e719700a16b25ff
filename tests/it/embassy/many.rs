//! Many connections, many ports, and no files left.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Where a process of these tests goes, and how often.
const TO: &str = "QUARRY_TEST_EMBASSY";

/// Files this process may have.
fn files() -> usize {
    getrlimit(Resource::Nofile).current.map_or(1 << 20, |most| most as usize)
}

/// This program in another role, which says a line when it is ready and ends when its input does.
fn role(name: &str, to: &str) -> (Child, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("embassy::many::{name}"), "--ignored", "--nocapture"])
        .env(TO, to)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let said = lines.find_map(|line| line.split_once("ready ").map(|(_, said)| said.to_owned()));
    let said = said.unwrap_or_else(|| panic!("{name} has ended: {:?}", child.wait()));
    std::thread::spawn(move || lines.for_each(drop));
    (child, said)
}

/// Ends a role, which must be content.
fn end(mut child: Child) {
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

/// Says that it is ready, and waits for the end of its input.
fn ready(what: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "ready {what}").unwrap();
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// Not a test: the endpoint of ten thousand connections.
#[test]
#[ignore = "run by ten_thousand_connections_are_open_at_once"]
fn echoes_for_many() {
    if std::env::var_os(TO).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    ready(&address.to_string());
}

/// Not a test: ten thousand clients.
#[test]
#[ignore = "run by ten_thousand_connections_are_open_at_once"]
fn many_clients() {
    let Ok(to) = std::env::var(TO) else { return };
    let (to, count) = to.split_once(' ').unwrap();
    let (to, count): (SocketAddr, u32) = (to.parse().unwrap(), count.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut clients = Vec::new();
        for number in 0..count {
            let mut client = tokio::net::TcpStream::connect(to).await.unwrap();
            asks(&mut client, number).await;
            clients.push(client);
        }
        ready("");
        for (number, client) in (0..count).rev().zip(&mut clients) {
            asks(client, number).await;
        }
    });
}

async fn asks(client: &mut tokio::net::TcpStream, number: u32) {
    client.write_u32(number).await.unwrap();
    let heard = tokio::time::timeout(PATIENCE, client.read_u32()).await.unwrap().unwrap();
    assert_eq!(heard, number);
}

#[test]
fn ten_thousand_connections_are_open_at_once() {
    // Each has two files here. Where a process may not have so many, so many fewer.
    let count = 10_000.min((files() - 400) / 2);
    let (server, address) = role("echoes_for_many", "");
    let app = endpoint("app", address.parse().unwrap());
    let settings = Settings { files: Some(2 * count), ..Settings::default() };
    let stand = Stand::with(settings, vec![exposed(&[&app])]);
    let (clients, _) = role("many_clients", &format!("{} {count}", stand.at(PORT)));
    assert_eq!(stand.counts_of(&app).unwrap().open, count);
    end(clients);
    stand.until_open(0);
    let counts = stand.counts_of(&app).unwrap();
    assert_eq!((counts.total, counts.received), (count as u64, 8 * count as u64));
    end(server);
}

#[test]
fn a_thousand_ports_come_and_go_quickly() {
    let a = echoing("a");
    let ports = (0..1000).map(|number| Exposed { port: Port::tcp(5000 + number), ..exposed(&[&a]) }).collect();
    let mut stand = Stand::new(vec![]);
    let began = Instant::now();
    stand.set(ports);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "it took {took:?}");
    assert_eq!(who(&mut connect(stand.at(5999))), 'a');
    // One endpoint more for one of them.
    let mut ports = stand.table.ports.clone();
    ports[7].endpoints.push(echoing("b"));
    let began = Instant::now();
    stand.set(ports);
    let took = began.elapsed();
    assert!(took < Duration::from_millis(500), "it took {took:?}");
    stand.set(vec![]);
    for port in [5000, 5007, 5999] {
        assert_eq!(TcpStream::connect(stand.at(port)).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}

/// Seconds that this process has been on a processor, from a file that is open already.
fn on_processor(stat: &File) -> f64 {
    let mut buffer = [0; 1024];
    let count = stat.read_at(&mut buffer, 0).unwrap();
    let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
    let words: Vec<&str> = text.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: f64 = words[11..13].iter().map(|word| word.parse::<f64>().unwrap()).sum();
    ticks / 100.0
}

fn is_served(client: &TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let is = matches!(client.peek(&mut [0]), Ok(1));
    client.set_nonblocking(false).unwrap();
    is
}

/// Of these clients so many are served until one of them leaves; nobody runs in circles meanwhile.
fn the_others_wait(stat: &File, mut clients: Vec<TcpStream>, served: std::ops::RangeInclusive<usize>) {
    clients.iter_mut().for_each(|client| client.write_all(b"hello").unwrap());
    let count = |clients: &[TcpStream]| clients.iter().filter(|client| is_served(client)).count();
    until("the first clients", || (count(&clients) >= *served.start()).then_some(()));
    let (began, before) = (Instant::now(), on_processor(stat));
    // Longer than many of the embassy's pauses.
    while began.elapsed() < Duration::from_secs(1) {
        assert!(served.contains(&count(&clients)), "{} are served", count(&clients));
        std::thread::sleep(Duration::from_millis(50));
    }
    let busy = on_processor(stat) - before;
    assert!(busy < 0.3, "it was busy for {busy} of a second");
    while !clients.is_empty() {
        let place = until("the next client", || clients.iter().position(is_served));
        let mut heard = [0; 5];
        clients.swap_remove(place).read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello");
    }
}

#[test]
fn who_comes_when_there_are_enough_connections_waits_until_one_ends() {
    let (server, address) = role("echoes_for_many", "");
    let app = endpoint("app", address.parse().unwrap());
    let settings = Settings { files: Some(8), ..Settings::default() };
    let stand = Stand::with(settings, vec![exposed(&[&app])]);
    let clients = (0..10).map(|_| stand.connect()).collect();
    // Two threads may both see the last place.
    the_others_wait(&File::open("/proc/self/stat").unwrap(), clients, 4..=5);
    stand.until_open(0);
    assert_eq!(stand.counts_of(&app).unwrap().total, 10);
    end(server);
}

/// Not a test: the limit is that of a process, and other tests may share one.
#[test]
#[ignore = "run by a_process_that_has_no_files_left_serves_again_when_it_has"]
fn short_of_files() {
    let Ok(to) = std::env::var(TO) else { return };
    let app = endpoint("app", to.parse().unwrap());
    // Each thread has a file or two of its own.
    let settings = Settings { threads: 2, files: Some(1 << 20), ..Settings::default() };
    let stand = Stand::with(settings, vec![exposed(&[&app])]);
    let stat = File::open("/proc/self/stat").unwrap();
    let kind = (rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM);
    let clients: Vec<_> = (0..10).map(|_| rustix::net::socket(kind.0, kind.1, None).unwrap()).collect();
    let last = clients.iter().map(AsRawFd::as_raw_fd).max().unwrap();
    let former = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(last as u64 + 9), ..former }).unwrap();
    let connected = clients.into_iter().map(|client| {
        rustix::net::connect(&client, &stand.at(PORT)).unwrap();
        TcpStream::from(client)
    });
    the_others_wait(&stat, connected.collect(), 2..=4);
    let counts = stand.counts_of(&app).unwrap();
    assert_eq!((counts.total, counts.failed), (10, 0), "and nobody is blamed for it");
    ready("");
}

#[test]
fn a_process_that_has_no_files_left_serves_again_when_it_has() {
    let (server, address) = role("echoes_for_many", "");
    let (short, _) = role("short_of_files", &address);
    end(short);
    end(server);
}
