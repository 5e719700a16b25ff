//! The `quarry` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Git's hook is on every pusher's time: it starts before anything else is set up.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|word| word == "hook")
        && arguments.next().is_some_and(|word| word == "proc-receive")
    {
        return quarry::hq::relay::run();
    }
    ExitCode::SUCCESS
}
