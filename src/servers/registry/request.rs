//! What a server may ask HQ's registry for.

/// A request's head may have as many bytes.
pub(super) const LONGEST: usize = 16 * 1024;

/// Whether a request with this head, which ends in an empty line, only reads, and only of this repository.
///
/// A body would be a way to hide another request in it, and so would a line that ends in another way than HTTP has it:
/// the registry would end the head there.
pub(super) fn is_allowed(head: &str, repository: &str) -> bool {
    let Some(head) = head.strip_suffix("\r\n\r\n") else { return false };
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let mut words = first.split(' ');
    let (method, path, version) = (words.next(), words.next().unwrap_or_default(), words.next());
    let reads = matches!(method, Some("GET" | "HEAD")) && version == Some("HTTP/1.1") && words.next().is_none();
    reads
        && is_within(path, repository)
        && !head.replace("\r\n", "").contains(['\r', '\n', '\0'])
        && !lines.any(has_body)
}

fn has_body(header: &str) -> bool {
    let name = header.split(':').next().unwrap_or_default().trim().to_ascii_lowercase();
    // A line that begins with a space continues the one before it in old HTTP.
    header.starts_with([' ', '\t']) || ["content-length", "transfer-encoding", "upgrade"].contains(&name.as_str())
}

fn is_within(path: &str, repository: &str) -> bool {
    let (path, _) = path.split_once('?').unwrap_or((path, ""));
    if path == "/v2/" {
        return true;
    }
    let rest = path.strip_prefix("/v2/").and_then(|path| path.strip_prefix(repository));
    let Some((kind, name)) = rest.and_then(|rest| rest.strip_prefix('/')).and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-:".contains(&b);
    ["manifests", "blobs"].contains(&kind) && !name.is_empty() && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(head: &str, expected: bool) {
        assert_eq!(is_allowed(head, "quarry/blog/web"), expected, "{head:?}");
    }

    #[test]
    fn what_a_pull_asks_for_is_let_through() {
        for path in [
            "/v2/",
            "/v2/quarry/blog/web/manifests/sha256:00ff",
            "/v2/quarry/blog/web/manifests/00ff",
            "/v2/quarry/blog/web/blobs/sha256:00ff",
            "/v2/quarry/blog/web/blobs/sha256:00ff?ns=127.0.0.1",
        ] {
            check(&format!("GET {path} HTTP/1.1\r\nHost: a\r\nAccept: b\r\n\r\n"), true);
            check(&format!("HEAD {path} HTTP/1.1\r\n\r\n"), true);
        }
    }

    #[test]
    fn nobody_writes_or_looks_elsewhere() {
        for line in [
            "DELETE /v2/quarry/blog/web/manifests/a HTTP/1.1",
            "POST /v2/quarry/blog/web/blobs/uploads/ HTTP/1.1",
            "GET /v2/quarry/shop/web/manifests/a HTTP/1.1",
            "GET /v2/quarry/blog/web2/manifests/a HTTP/1.1",
            "GET /v2/quarry/blog/web/../../shop/web/manifests/a HTTP/1.1",
            "GET /v2/quarry/blog/web/blobs/../../a HTTP/1.1",
            "GET /v2/quarry/blog/web/blobs/%2e%2e HTTP/1.1",
            "GET /v2/quarry/blog/web/tags/list HTTP/1.1",
            "GET /v2/_catalog HTTP/1.1",
            "GET / HTTP/1.1",
            "GET /v2/ HTTP/1.0",
            "GET  /v2/ HTTP/1.1",
            "",
        ] {
            check(&format!("{line}\r\nHost: a\r\n\r\n"), false);
        }
    }

    #[test]
    fn no_second_request_hides_in_a_first() {
        for headers in [
            "Content-Length: 5\r\n\r\n",
            "transfer-encoding : chunked\r\n\r\n",
            "Upgrade: x\r\n\r\n",
            "A: b\n\nDELETE /v2/ HTTP/1.1\r\n\r\n",
            "A: b\r\n\tContent-Length: 5\r\n\r\n",
            "A: b\r\r\n\r\n",
            "A: b\r\n",
        ] {
            check(&format!("GET /v2/ HTTP/1.1\r\n{headers}"), false);
        }
    }
}
