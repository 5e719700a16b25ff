//! Integration tests, one binary.

mod router;
