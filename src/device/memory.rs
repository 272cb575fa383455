//! A disk in memory.
/// A disk in memory.
#[derive(Debug)]
pub struct MemoryDevice;
