//! The administrator's work on a volume: what is done to the filesystem as a whole, not to a file in it.
//!
//! Two kinds of work are here. What changes an open volume (its size, its journals) goes through the volume's own engine - its
//! locks, its transactions - and is therefore the same whether the volume is mounted or not, alone or on a cluster. What looks at
//! the bytes of a volume that nobody has open (the superblock, metadata images, single fields) goes to the device.
//!
//! Invariant: a crash at any write leaves a volume that is clean after journal replay.

#[cfg(feature = "mount")]
pub mod metafile;
pub mod overlay;
pub mod reader;
#[cfg(feature = "mount")]
pub mod restoremeta;
#[cfg(feature = "mount")]
pub mod savemeta;
