//! A server's rules on a real kernel: who reaches what is found out by connecting.

mod containers;
mod files;
mod lab;
mod peers;
mod trial;
