//! The whole, as its users meet it: real `git push`, `ssh` and HTTP against `quarry serve` with real docker and nginx.

mod killed;
mod push;
