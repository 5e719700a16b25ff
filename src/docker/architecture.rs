//! Which processor runs what another one's images hold.

/// Whether a server of architecture `server` runs an image built for `image`, both in docker's words. The 32-bit images
/// that a 64-bit processor runs are those of containerd's platform order. An image that says nothing fits everywhere.
pub fn runs(server: &str, image: &str) -> bool {
    image.is_empty() || image == server || matches!((server, image), ("amd64", "386") | ("arm64", "arm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_runs_its_own_architecture_and_the_smaller_one_of_its_family() {
        for (server, image, expected) in [
            ("amd64", "amd64", true),
            ("amd64", "386", true),
            ("386", "amd64", false),
            ("arm64", "arm", true),
            ("arm", "arm64", false),
            ("amd64", "arm64", false),
            ("arm64", "amd64", false),
            ("amd64", "", true),
        ] {
            assert_eq!(runs(server, image), expected, "{image} on {server}");
        }
    }
}
