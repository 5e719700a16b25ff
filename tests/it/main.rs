//! Integration tests, one binary.

mod stack_golden;
