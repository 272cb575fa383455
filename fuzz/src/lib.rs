//! What the targets do with an input: the same as `tests/fuzz.rs`, which runs without a fuzzer.
#![forbid(unsafe_code)]

#[path = "../../tests/fuzz/base.rs"]
mod base;
#[path = "../../tests/fuzz/bodies.rs"]
pub mod bodies;
#[path = "../../lockclient/tests/fuzz/bodies.rs"]
pub mod dlm;
#[path = "../../tests/fuzz/exercise.rs"]
mod exercise;
#[path = "../../tests/model/harness.rs"]
mod harness;
#[path = "../../tests/model/ops.rs"]
#[allow(dead_code, reason = "the tests use more")]
mod ops;
#[path = "../../tests/model/reference.rs"]
#[allow(dead_code, reason = "the tests use more")]
mod reference;
#[path = "../../tests/fuzz/tape.rs"]
mod tape;
