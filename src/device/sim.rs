//! The crash simulator.
/// A disk that can crash.
#[derive(Debug)]
pub struct SimDevice;
/// What is left after a crash.
#[derive(Debug)]
pub struct CrashImage;
