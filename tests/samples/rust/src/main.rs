//! A web application in nothing but Rust's own library.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

fn main() {
    let port = std::env::var("PORT").expect("PORT is set");
    let listener = TcpListener::bind(format!("0.0.0.0:{port}")).expect("the port is free");
    println!("listening on {port}");
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        std::thread::spawn(move || {
            let mut lines = BufReader::new(&stream).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let release = std::env::var("QUARRY_RELEASE").unwrap_or_default();
            let text = format!("Hello from Rust, release {release}\n");
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len());
        });
    }
}
