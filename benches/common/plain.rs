//! An nginx with nothing but an `upstream`, to stand beside quarry's router.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use super::place::{Place, free_port};
use super::program::{self, until};

/// Starts one before `peer`, with as many workers as the configuration `ours` has. `tls` is what comes after the port:
/// nothing, or ` ssl; ssl_certificate …`. It gives the port.
pub fn start(place: &Place, ours: &str, peer: SocketAddr, tls: &str) -> u16 {
    let port = free_port();
    let folder = place.path(&format!("plain-{port}"));
    fs::create_dir(&folder).unwrap();
    let workers = ours.lines().find(|line| line.starts_with("worker_processes")).unwrap();
    let text = PLAIN.replace("{{workers}}", workers).replace("{{peer}}", &peer.to_string());
    let text = text.replace("{{port}}", &port.to_string()).replace("{{tls}}", tls);
    run(&folder.join("nginx.conf"), &text, port);
    port
}

/// An app of which nobody can say that it is slow; where it answers.
pub fn start_app(place: &Place) -> SocketAddr {
    let port = free_port();
    let folder = place.path("app");
    fs::create_dir(&folder).unwrap();
    run(&folder.join("nginx.conf"), &APP.replace("{{port}}", &port.to_string()), port);
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn run(path: &std::path::Path, text: &str, port: u16) {
    fs::write(path, text).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-p").arg(path.parent().unwrap()).arg("-c").arg(path).args(["-g", "daemon off;"]);
    let mut child = program::start(command.stderr(Stdio::null()));
    std::thread::spawn(move || child.wait());
    until("a plain nginx", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
}

const APP: &str = "worker_processes 1;
user www-data;
pid nginx.pid;
error_log error.log warn;
events { worker_connections 8192; }
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    scgi_temp_path scgi;
    uwsgi_temp_path uwsgi;
    keepalive_requests 1000000;
    server { listen 127.0.0.1:{{port}} backlog=4096; location / { return 200 hello; } }
}
";

/// The same headers, buffers, log and number of workers as quarry's router has, and nothing else of it.
const PLAIN: &str = r#"{{workers}}
user www-data;
pid nginx.pid;
error_log error.log warn;
events { worker_connections 8192; }
http {
    log_format plain escape=json
        '{"time":"$time_iso8601","id":"$request_id","client":"$remote_addr","method":"$request_method","host":"$host",'
        '"path":"$request_uri","status":$status,"bytes":$bytes_sent,"seconds":$request_time,'
        '"upstream":"$upstream_addr","upstream_seconds":"$upstream_response_time","agent":"$http_user_agent"}';
    access_log access.log plain buffer=64k flush=1s;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    scgi_temp_path scgi;
    uwsgi_temp_path uwsgi;
    tcp_nopush on;
    keepalive_requests 100000;
    map $http_upgrade $connection_upgrade { default upgrade; "" ""; }
    proxy_http_version 1.1;
    proxy_buffering off;
    proxy_set_header Host $http_host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_upgrade;
    proxy_set_header X-Real-IP $remote_addr;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-Host $http_host;
    proxy_set_header X-Forwarded-Port $server_port;
    proxy_set_header X-Request-Id $request_id;
    proxy_set_header X-Request-Start $msec;
    upstream app {
        server {{peer}};
        keepalive 64;
        keepalive_requests 100000;
    }
    server {
        listen 127.0.0.1:{{port}} backlog=4096{{tls}};
        location / { proxy_pass http://app; }
    }
}
"#;
