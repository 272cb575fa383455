//! The administrator's work on a volume: what is done to the filesystem as a whole, not to a file in it.
//!
//! Two kinds of work are here. What changes an open volume - its size (`grow`), its journals (`jadd`) - goes through the volume's
//! own engine, its locks and its transactions, and is therefore the same whether the volume is mounted or not, alone or on a
//! cluster; `offline` opens one that is not mounted. What looks at the bytes of a volume that nobody has open (the superblock:
//! `tune`) goes to the device.
//!
//! `geometry` says where things go, and `fresh` how new structures look; mkfs makes whole filesystems of the same.
//!
//! Invariant: a crash at any write leaves a volume that is clean after journal replay.

pub mod fresh;
pub mod geometry;
pub mod grow;
pub mod jadd;
#[cfg(feature = "mount")]
pub mod metafile;
pub mod offline;
pub mod overlay;
pub mod reader;
#[cfg(feature = "mount")]
pub mod restoremeta;
#[cfg(feature = "mount")]
pub mod savemeta;
mod system;
pub mod tune;
