//! What was made, in numbers.

use crate::Options;
use crate::geometry::Layout;
use serde::Serialize;
use std::fmt;

/// What was made, or would be.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Path of the device; empty until the caller fills it in.
    pub device: String,
    /// Bytes in a block.
    pub block_size: u64,
    /// Bytes of the device.
    pub device_size: u64,
    /// Blocks of the device.
    pub device_blocks: u64,
    /// Bytes of the filesystem.
    pub filesystem_size: u64,
    /// Blocks of the filesystem.
    pub filesystem_blocks: u64,
    /// Number of journals.
    pub journals: u64,
    /// Bytes in a journal.
    pub journal_size: u64,
    /// Number of resource groups.
    pub resource_groups: u64,
    /// Lock protocol.
    pub lock_protocol: String,
    /// Lock table.
    pub lock_table: String,
    /// UUID as text.
    pub uuid: String,
    /// Format of the filesystem.
    pub format: u32,
}

impl Report {
    pub(crate) fn new(layout: &Layout, device_blocks: u64, options: &Options) -> Self {
        let bytes = |blocks: u64| blocks << layout.bs.shift();
        Self {
            device: String::new(),
            block_size: layout.bs.bytes() as u64,
            device_size: bytes(device_blocks),
            device_blocks,
            filesystem_size: bytes(layout.filesystem_blocks()),
            filesystem_blocks: layout.filesystem_blocks(),
            journals: layout.journals as u64,
            journal_size: layout.journal_mib << 20,
            resource_groups: layout.rgrps.len() as u64,
            lock_protocol: options.lock_proto.clone(),
            lock_table: options.lock_table.clone(),
            uuid: uuid::Uuid::from_bytes(options.uuid).to_string(),
            format: options.format,
        }
    }
}

/// Bytes in GiB, for people.
pub(crate) fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

impl fmt::Display for Report {
    /// The stock tool's report: same fields, same words, same columns.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |bytes, blocks| format!("{:.2} GB ({blocks} blocks)", gib(bytes));
        let lines = [
            ("Device:", self.device.clone()),
            ("Block size:", self.block_size.to_string()),
            ("Device size:", size(self.device_size, self.device_blocks)),
            ("Filesystem size:", size(self.filesystem_size, self.filesystem_blocks)),
            ("Journals:", self.journals.to_string()),
            ("Journal size:", format!("{}MB", self.journal_size >> 20)),
            ("Resource groups:", self.resource_groups.to_string()),
            ("Locking protocol:", format!("\"{}\"", self.lock_protocol)),
            ("Lock table:", format!("\"{}\"", self.lock_table)),
            ("UUID:", self.uuid.clone()),
        ];
        lines.iter().try_for_each(|(label, value)| writeln!(f, "{label:<27}{value}"))
    }
}
