//! What a server's processors understand and an image was built for.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A processor architecture by the name images have for it: `amd64`, `arm64`. The kernel's names for the same
/// (`x86_64`, `aarch64`) are understood, so that what `uname` says of a server can be held against an image.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Architecture(String);

impl From<&str> for Architecture {
    fn from(name: &str) -> Self {
        let name = name.trim().to_ascii_lowercase();
        let known = match name.as_str() {
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            "i386" | "i486" | "i586" | "i686" | "x86" => "386",
            "armv6l" | "armv7l" | "armhf" => "arm",
            other => other,
        };
        Self(known.to_owned())
    }
}

impl From<String> for Architecture {
    fn from(name: String) -> Self {
        Self::from(name.as_str())
    }
}

impl From<Architecture> for String {
    fn from(architecture: Architecture) -> Self {
        architecture.0
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_names_and_the_images_names_are_the_same() {
        for (kernel, image) in [("x86_64", "amd64"), ("aarch64", "arm64"), ("armv7l", "arm"), ("riscv64", "riscv64")] {
            assert_eq!(Architecture::from(kernel), Architecture::from(image));
            assert_eq!(Architecture::from(kernel).to_string(), image);
        }
        assert_ne!(Architecture::from("amd64"), Architecture::from("arm64"));
    }
}
