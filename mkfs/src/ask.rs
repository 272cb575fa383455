//! From the command line to options: the checks of the stock tool, in its order and words.

use crate::cli::{Cli, Extended, mebibytes, size};
use gfs2r::admin::tune::parse_uuid;
use gfs2r::device::Topology;
use gfs2r::ids::BlockSize;
use gfs2r_mkfs::Options;
use gfs2r_mkfs::geometry::Alignment;

/// What can be checked without looking at the device.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) device: String,
    pub(crate) size: Option<String>,
    pub(crate) options: Options,
    pub(crate) extended: Extended,
}

/// Digits may start a size; anything else is taken for a second device.
pub(crate) fn operands(cli: &Cli) -> Result<(String, Option<String>), String> {
    match &cli.operands[..] {
        [] => Err("No device specified. Use -h for help".into()),
        [device] => Ok((device.clone(), None)),
        [device, size] if size.starts_with(|c: char| c.is_ascii_digit()) => Ok((device.clone(), Some(size.clone()))),
        _ => Err("More than one device specified (try -h for help)".into()),
    }
}

impl Wish {
    /// Checks everything that does not depend on the device.
    pub(crate) fn new(cli: &Cli, extended: Extended) -> Result<Self, String> {
        let (device, size) = operands(cli)?;
        let protocol = cli.protocol.as_deref().unwrap_or("lock_dlm");
        if !["lock_dlm", "lock_nolock", "lock_gulm"].contains(&protocol) {
            return Err(format!("Invalid lock protocol: {protocol}"));
        }
        match &cli.table {
            Some(table) => check_table(table)?,
            None if protocol != "lock_nolock" => return Err("No lock table specified.".into()),
            None => {}
        }
        let in_range = |text: &Option<String>, range: std::ops::RangeInclusive<u32>, error: &str| match text {
            None => Ok(None),
            Some(text) => Some(mebibytes(text)).filter(|mib| range.contains(mib)).map(Some).ok_or(error.to_owned()),
        };
        let rgrp_mib = in_range(&cli.rgrp_size, 32..=2048, "Bad resource group size")?;
        let journals = cli.journals.as_deref().map_or(Ok(1), journals)?;
        let journal_mib = in_range(&cli.journal_size, 8..=1024, "Bad journal size")?;
        let quota_change_mib = in_range(&cli.quota_change, 1..=64, "Bad quota change size")?;
        if extended.sunit.is_some() != extended.swidth.is_some() {
            return Err("Stripe unit and stripe width must be specified together".into());
        }
        let default = Options::default();
        let options = Options {
            journals,
            journal_mib,
            quota_change_mib: quota_change_mib.unwrap_or(default.quota_change_mib),
            rgrp_mib: rgrp_mib.unwrap_or(default.rgrp_mib),
            format: extended.format.unwrap_or(default.format),
            root_inherit_jdata: extended.root_inherit_jdata,
            lock_proto: protocol.into(),
            lock_table: cli.table.clone().unwrap_or_default(),
            ..default
        };
        Ok(Self { device, size, options, extended })
    }
    /// Stripes, once the block size is known (ondisk.md 2.1).
    pub(crate) fn alignment(&self, topology: Option<&Topology>) -> Result<Option<Alignment>, String> {
        let bs = self.options.block_size.bytes() as u64;
        if let (Some(unit), Some(width)) = (self.extended.sunit, self.extended.swidth)
            && (unit, width) != (0, 0)
        {
            if unit == 0 || unit % bs != 0 {
                return Err(format!("Stripe unit ({unit}) must be a multiple of block size ({bs})"));
            }
            if width % unit != 0 {
                return Err(format!("Stripe width ({width}) must be a multiple of stripe unit ({unit})"));
            }
            let alignment = Alignment { base: width / bs, offset: unit / bs };
            return Ok((!self.extended.no_align && width > 0).then_some(alignment));
        }
        let topology = topology.filter(|_| !self.extended.no_align);
        Ok(topology.and_then(|t| Alignment::of_device(t, self.options.block_size)))
    }
}

fn journals(text: &str) -> Result<u32, String> {
    if let Some(digits) = text.strip_prefix('-').filter(|rest| rest.bytes().all(|b| b.is_ascii_digit())) {
        return Err(format!("Number of journals cannot be negative: -{digits}"));
    }
    match size(text, 1) {
        None | Some(0) => Err("No journals specified".into()),
        // Whatever the device, so many will not fit, and that will be said.
        Some(n) => Ok(u32::try_from(n).unwrap_or(u32::MAX)),
    }
}

fn check_table(table: &str) -> Result<(), String> {
    if table.is_empty() {
        return Err("Lock table is empty.".into());
    }
    let wrong = |what: &str| Err(format!("Invalid lock table: {what}"));
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_:".contains(c);
    if let Some(c) = table.chars().find(|&c| !legal(c)) {
        return wrong(&format!("invalid character '{c}'"));
    }
    let Some((cluster, name)) = table.split_once(':') else { return wrong("missing colon") };
    match (cluster.len(), name.len()) {
        (0, _) => wrong("cluster name is missing"),
        (33.., _) => wrong("cluster name is too long"),
        _ if name.contains(':') => wrong("contains more than one colon"),
        (_, 0) => wrong("file system name is missing"),
        (_, 31..) => wrong("file system name is too long"),
        _ => Ok(()),
    }
}

/// The block size: as asked for, or by the device's topology (ondisk.md 2.8). The warning, if any, is to be shown and makes
/// confirmation wise.
pub(crate) fn block_size(asked: Option<&str>, t: Option<&Topology>) -> Result<(BlockSize, Option<String>), String> {
    let page = rustix::param::page_size() as u64;
    let illegal = || format!("Block size must be a power of two between 512 and {page}");
    let legal = |n: u64| u32::try_from(n).ok().filter(|&n| u64::from(n) <= page).and_then(BlockSize::new);
    let fits = |n: &u64| (4096..=page).contains(n);
    let physical = t.map_or(512, |t| if t.alignment_offset == 0 { t.physical } else { t.logical });
    let wanted = match asked {
        Some(text) => size(text, 1).ok_or_else(illegal)?,
        None => t.and_then(|t| [t.optimal_io, physical].into_iter().find(fits)).unwrap_or(4096),
    };
    let logical = t.map_or(512, |t| t.logical);
    let bs = match legal(wanted) {
        Some(bs) => bs,
        // What the device prefers need not be a power of two; the default is.
        None if asked.is_none() => legal(4096).ok_or_else(illegal)?,
        None => return Err(illegal()),
    };
    let wanted = bs.bytes() as u64;
    if wanted < logical {
        return Err(format!("Error: Block size {wanted} is less than minimum logical block size ({logical})."));
    }
    let warning = (wanted < physical).then(|| {
        format!(
            "Warning: Block size {wanted} is inefficient because it is less than the physical block size ({physical})."
        )
    });
    Ok((bs, warning))
}

/// A UUID in its usual form with hyphens.
pub(crate) fn uuid(text: &str) -> Result<[u8; 16], String> {
    parse_uuid(text).ok_or_else(|| "Failed to parse UUID option.".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_tables() {
        for good in ["a:b", "c-1:fs_2", &format!("{}:{}", "c".repeat(32), "n".repeat(30))] {
            assert_eq!(check_table(good), Ok(()));
        }
        for (bad, what) in [
            ("a*", "invalid character '*'"),
            ("aé:b", "invalid character 'é'"),
            ("a", "missing colon"),
            (":", "cluster name is missing"),
            ("a:", "file system name is missing"),
            ("a:b:c", "contains more than one colon"),
            (&format!("{}:b", "c".repeat(33)), "cluster name is too long"),
            (&format!("a:{}", "n".repeat(31)), "file system name is too long"),
        ] {
            assert_eq!(check_table(bad), Err(format!("Invalid lock table: {what}")));
        }
    }

    #[test]
    fn the_block_size_follows_the_device() {
        let t = |minimum_io, optimal_io, physical| Topology {
            alignment_offset: 0,
            logical: 512,
            minimum_io,
            optimal_io,
            physical,
        };
        let bytes = |asked: Option<&str>, t: Option<Topology>| {
            block_size(asked, t.as_ref()).map(|(bs, warning)| (bs.bytes(), warning.is_some()))
        };
        assert_eq!(bytes(None, None), Ok((4096, false)));
        assert_eq!(bytes(None, Some(t(65536, 262_144, 512))), Ok((4096, false)));
        assert_eq!(bytes(Some("1k"), Some(t(512, 0, 4096))), Ok((1024, true)));
        assert!(
            bytes(Some("8192"), None).is_err() && bytes(Some("1000"), None).is_err() && bytes(Some("x"), None).is_err()
        );
        let large = Topology { logical: 4096, ..t(4096, 0, 4096) };
        assert!(bytes(Some("512"), Some(large)).is_err());
    }
}
