//! See `lockclient/tests/fuzz/bodies.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| gfs2r_fuzz::dlm::wire(input));
