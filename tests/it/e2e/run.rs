//! One-off commands: pipes that change no byte, terminals that behave like terminals.

use rustix::process::Signal;

use super::with_app;
use crate::harness::program::{run, run_with};
use crate::harness::{Running, Terminal, until};

#[test]
fn run_hands_bytes_and_the_exit_code_through() {
    let (hq, _repository) = with_app(&[]);
    // Every byte, in both directions, more than any buffer on the way holds.
    let bytes: Vec<u8> = (0..1_500_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for done in [
        hq.quarry_with(&["run", "blog", "cat"], &bytes),
        hq.by_ssh_with(&["run", "blog", "cat"], &bytes),
        hq.by_option_with(&["run", "blog", "cat"], &bytes),
    ] {
        assert_eq!(done.code, 0, "{}", done.stderr);
        assert!(done.stdout == bytes, "{} bytes came back of {}", done.stdout.len(), bytes.len());
    }
    let done = hq.by_ssh(&["run", "blog", "'echo out; echo aside >&2; exit 42'"]).ended(42);
    assert_eq!((done.text().as_str(), done.stderr.as_str()), ("out\n", "aside\n"));
    hq.quarry(&["run", "blog/web", "sh", "-c", "exit 3"]).ended(3);
    hq.quarry(&["run", "blog", "no-such-program"]).failed().said(&["no-such-program"]);
    hq.quarry(&["run", "blog/wbe", "true"]).ended(1).said(&["`blog` has no node `wbe`; it has: web"]);
    assert_eq!(hq.quarry(&["run", "blog", "perl", "-e", "print $ENV{QUARRY_STACK}"]).succeeded().text(), "blog");
    // Options after the command are the command's own.
    assert_eq!(hq.quarry(&["run", "blog", "echo", "--json", "-n"]).succeeded().text(), "--json -n\n");
    hq.wait_for_containers(&["role=once"], 0);
}

#[test]
fn run_has_a_terminal_with_its_size_and_keys() {
    let (hq, _repository) = with_app(&[]);
    let ssh = format!("ssh -tt -F {} hq run blog sh", hq.file("ssh_config").display());
    let local = format!(
        "QUARRY_ROOT={} QUARRY_ETC={} {} run blog sh",
        hq.root().display(),
        hq.file("etc").display(),
        env!("CARGO_BIN_EXE_quarry")
    );
    for command in [ssh, local] {
        let mut terminal = Terminal::open(133, 41, &command, |_| ());
        terminal.write("tty && stty size; echo rea''dy\r");
        terminal.wait_for("/dev/pts/0");
        terminal.wait_for("41 133");
        terminal.wait_for("ready");
        terminal.resize(90, 20);
        // The new size arrives by itself, some time.
        terminal.write("until stty size | grep -q '20 90'; do sleep 0.1; done; echo resi''zed\r");
        terminal.wait_for("resized");
        // Ctrl-C ends what runs inside, not the session.
        terminal.write("sleep 600\r");
        until("the sleep", || hq.processes_of("run").contains("sleep 600").then_some(()));
        terminal.write("\x03");
        terminal.write("echo after''wards $?\r");
        terminal.wait_for("afterwards 130");
        terminal.write("exit 9\r");
        terminal.wait().ended(9);
        hq.wait_for_containers(&["role=once"], 0);
    }
}

#[test]
fn the_end_of_the_input_is_not_the_end_of_a_terminals_output() {
    let (hq, _repository) = with_app(&[]);
    let ssh = |text: &str| {
        let mut command = std::process::Command::new("ssh");
        command.arg("-tt").arg("-F").arg(hq.file("ssh_config")).args(["hq", "run", "blog", text]);
        command
    };
    let done = run(&mut ssh("'tty; sleep 1; echo E''ND'")).succeeded();
    assert!(done.text().contains("/dev/pts/0") && done.text().contains("END"), "{done}");
    // The key for the end has been typed: what reads comes to an end, an open line included.
    let done = run_with(&mut ssh("cat"), b"no newline").succeeded();
    assert!(done.text().contains("no newline"), "{done}");
    hq.wait_for_containers(&["role=once"], 0);
}

#[test]
fn signals_reach_the_command_and_hanging_up_ends_it() {
    let (hq, _repository) = with_app(&[]);
    let script = "trap 'echo caught; exit 5' INT TERM; echo waiting; while true; do sleep 0.1; done";
    let mut running = hq.quarry_beside(&["run", "blog", "sh", "-c", script]);
    running.wait_for("waiting");
    running.signal_alone(Signal::INT);
    let done = running.wait().ended(5);
    assert!(done.text().contains("caught"), "{done}");
    // Someone whose connection is gone leaves nothing behind.
    let quoted = format!("'{}'", script.replace('\'', "'\\''"));
    let mut running = Running::start(&mut hq.ssh_command(&["run", "blog", "sh", "-c", &quoted]));
    running.wait_for("waiting");
    running.signal(Signal::KILL);
    hq.wait_for_containers(&["role=once"], 0);
}

#[test]
fn many_commands_begin_at_the_same_time() {
    let (hq, _repository) = with_app(&[]);
    let running: Vec<_> =
        (0..6).map(|number| hq.quarry_beside(&["run", "blog", "echo", &number.to_string()])).collect();
    for (number, run) in running.into_iter().enumerate() {
        assert_eq!(run.wait().succeeded().text(), format!("{number}\n"));
    }
    hq.wait_for_containers(&["stack=blog"], 1);
}
