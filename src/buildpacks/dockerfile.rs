//! The little of a Dockerfile that is read before it is built.

/// Ports of the `EXPOSE` lines, in order, each once; the image's own configuration is the truth once it is built.
///
/// Only the last stage counts. Names with `$`, UDP ports and ranges are left out.
pub fn dockerfile_ports(text: &str) -> Vec<u16> {
    let mut ports = Vec::new();
    for line in logical_lines(text) {
        let mut words = line.split_whitespace();
        match words.next().map(str::to_ascii_uppercase).as_deref() {
            Some("FROM") => ports.clear(),
            Some("EXPOSE") => {
                for port in words.filter_map(tcp_port) {
                    if !ports.contains(&port) {
                        ports.push(port);
                    }
                }
            }
            Some(_) | None => {}
        }
    }
    ports
}

fn tcp_port(word: &str) -> Option<u16> {
    let number = match word.split_once('/') {
        Some((number, protocol)) if protocol.eq_ignore_ascii_case("tcp") => number,
        Some(_) => return None,
        None => word,
    };
    number.parse().ok().filter(|port| *port > 0)
}

/// Lines with their continuations, comments taken out.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open = String::new();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with('#') {
            continue;
        }
        match line.strip_suffix('\\') {
            Some(start) => {
                open.push_str(start);
                open.push(' ');
            }
            None => {
                open.push_str(line);
                lines.push(std::mem::take(&mut open));
            }
        }
    }
    lines.push(open);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposed_ports_of_the_last_stage_are_found() {
        for (text, expected) in [
            ("FROM a\nEXPOSE 8080", vec![8080]),
            ("FROM a\nexpose 80/tcp 53/udp 443", vec![80, 443]),
            ("FROM a\nEXPOSE 1\nFROM b\nEXPOSE \\\n  # why\n  2 \\\n  2", vec![2]),
            ("FROM a\nEXPOSE $PORT 7000-7005 0 99999", vec![]),
            ("FROM a\n# EXPOSE 1\nRUN echo EXPOSE 2", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(dockerfile_ports(text), expected, "{text}");
        }
    }
}
