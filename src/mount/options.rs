//! `-o`: GFS2's options, the generic ones of mount(8), and those that concern only programs (interface.md).

use crate::fuse::{Atime, Transport};
use crate::ids::Jid;
use crate::quota::QuotaMode;
use crate::volume::OpenOptions;
use rustix::mount::MountFlags;
use std::fmt;

/// What is done when the disk contradicts itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// Stop using the disk, answer EIO.
    #[default]
    Withdraw,
    /// End the daemon at once, like a kernel that panics: programs see a dead mount.
    Panic,
}

/// All of `-o`.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// What opening the volume needs.
    pub open: OpenOptions,
    /// Flags for mount(2).
    pub flags: MountFlags,
    /// noatime, relatime, strictatime.
    pub atime: Atime,
    /// `lockproto=`; the superblock's when absent.
    pub lockproto: Option<String>,
    /// `locktable=`; the superblock's when absent.
    pub locktable: Option<String>,
    /// `errors=`.
    pub on_error: OnError,
    /// `statfs_quantum=`: seconds between moves of the local statfs change to the master file; 0 = at once.
    pub statfs_quantum: u32,
    /// `quota_quantum=`: seconds between moves of quota changes to the quota file.
    pub quota_quantum: u32,
    /// `statfs_percent=`: local change, in percent of the free blocks, that is moved at once.
    pub statfs_percent: u32,
    /// `remount`.
    pub remount: bool,
    /// `fg`: stay in the foreground.
    pub foreground: bool,
    /// `transport=`: who reads the kernel's requests.
    pub transport: Transport,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            open: OpenOptions::default(),
            flags: MountFlags::empty(),
            atime: Atime::Relative,
            lockproto: None,
            locktable: None,
            on_error: OnError::Withdraw,
            statfs_quantum: 30,
            quota_quantum: 60,
            statfs_percent: 0,
            remount: false,
            foreground: false,
            transport: Transport::default(),
        }
    }
}

/// An option that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionError {
    /// Nobody knows it.
    Unknown(String),
    /// Its value makes no sense (option, what is allowed).
    Value(String, &'static str),
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(o) => write!(f, "unknown mount option '{o}' (see mount.gfs2r --help)"),
            Self::Value(o, allowed) => write!(f, "invalid mount option '{o}' ({allowed})"),
        }
    }
}

/// Generic options that are a flag of mount(2), set or cleared.
const FLAGS: [(&str, MountFlags, bool); 16] = [
    ("nosuid", MountFlags::NOSUID, true),
    ("suid", MountFlags::NOSUID, false),
    ("nodev", MountFlags::NODEV, true),
    ("dev", MountFlags::NODEV, false),
    ("noexec", MountFlags::NOEXEC, true),
    ("exec", MountFlags::NOEXEC, false),
    ("sync", MountFlags::SYNCHRONOUS, true),
    ("async", MountFlags::SYNCHRONOUS, false),
    ("dirsync", MountFlags::DIRSYNC, true),
    ("nodiratime", MountFlags::NODIRATIME, true),
    ("diratime", MountFlags::NODIRATIME, false),
    ("lazytime", MountFlags::LAZYTIME, true),
    ("nolazytime", MountFlags::LAZYTIME, false),
    ("silent", MountFlags::SILENT, true),
    ("loud", MountFlags::SILENT, false),
    ("mand", MountFlags::empty(), true),
];

/// Options that concern only programs, that are always so, or that older GFS2 had: taken and without effect.
const TOLERATED: [&str; 26] = [
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "nofail",
    "_netdev",
    "_rnetdev",
    "loop",
    "localflocks",
    "localcaching",
    "ignore_local_fs",
    "debug",
    "nodebug",
    "upgrade",
    "meta",
    "rgrplvb",
    "norgrplvb",
    "loccookie",
    "noloccookie",
    "allow_other",
    "default_permissions",
    "nomand",
];

impl MountOptions {
    /// Reads comma-separated options, later ones winning. `sloppy` (-s): unknown ones are passed over.
    pub fn parse(text: &str, sloppy: bool) -> Result<Self, OptionError> {
        let mut all = Self::default();
        for option in text.split(',').filter(|o| !o.is_empty()) {
            match all.take(option) {
                Err(OptionError::Unknown(_)) if sloppy => {}
                other => other?,
            }
        }
        Ok(all)
    }

    fn take(&mut self, option: &str) -> Result<(), OptionError> {
        let (name, value) = option.split_once('=').map_or((option, None), |(n, v)| (n, Some(v)));
        if let Some(value) = value {
            return self.take_value(option, name, value);
        }
        if let Some((_, flag, on)) = FLAGS.iter().find(|(n, _, _)| *n == name) {
            self.flags.set(*flag, *on);
            return Ok(());
        }
        if TOLERATED.contains(&name) || name.starts_with("x-") || name.starts_with("comment") {
            return Ok(());
        }
        match name {
            "ro" => self.open.read_only = true,
            "rw" => self.open.read_only = false,
            "noatime" => self.atime = Atime::Never,
            "relatime" | "atime" | "norelatime" => self.atime = Atime::Relative,
            "strictatime" => self.atime = Atime::Strict,
            "nostrictatime" => self.atime = Atime::Relative,
            "remount" => self.remount = true,
            "fg" => self.foreground = true,
            "spectator" => {
                self.open.spectator = true;
                self.open.read_only = true;
            }
            "norecovery" => {
                self.open.norecovery = true;
                self.open.read_only = true;
            }
            "acl" => self.open.acl = true,
            "noacl" => self.open.acl = false,
            "suiddir" => self.open.suiddir = true,
            "nosuiddir" => self.open.suiddir = false,
            "discard" => self.open.discard = true,
            "nodiscard" => self.open.discard = false,
            "barrier" => self.open.barrier = true,
            "nobarrier" => self.open.barrier = false,
            "quota" => self.open.quota = QuotaMode::On,
            "noquota" => self.open.quota = QuotaMode::Off,
            _ => return Err(OptionError::Unknown(option.into())),
        }
        Ok(())
    }

    fn take_value(&mut self, option: &str, name: &str, value: &str) -> Result<(), OptionError> {
        let bad = |allowed| OptionError::Value(option.into(), allowed);
        let seconds = |at_least: u32| match value.parse::<u32>() {
            Ok(n) if n >= at_least => Ok(n),
            _ => Err(bad("a number of seconds")),
        };
        match name {
            "lockproto" => match value {
                "lock_nolock" | "lock_dlm" => self.lockproto = Some(value.into()),
                _ => return Err(bad("lock_nolock or lock_dlm")),
            },
            "locktable" => self.locktable = Some(value.into()),
            "hostdata" => self.take_hostdata(value).ok_or_else(|| bad("jid=NUMBER"))?,
            "data" => match value {
                "ordered" => self.open.ordered = true,
                "writeback" => self.open.ordered = false,
                _ => return Err(bad("ordered or writeback")),
            },
            "quota" => match value {
                "off" => self.open.quota = QuotaMode::Off,
                "account" => self.open.quota = QuotaMode::Account,
                "on" => self.open.quota = QuotaMode::On,
                _ => return Err(bad("off, account or on")),
            },
            "errors" => match value {
                "withdraw" => self.on_error = OnError::Withdraw,
                "panic" => self.on_error = OnError::Panic,
                _ => return Err(bad("withdraw or panic")),
            },
            "transport" => match value {
                "native" => self.transport = Transport::Native,
                "fuser" => self.transport = Transport::Fuser,
                _ => return Err(bad("native or fuser")),
            },
            "commit" => self.open.commit_secs = seconds(1)?,
            "statfs_quantum" => self.statfs_quantum = seconds(0)?,
            "quota_quantum" => self.quota_quantum = seconds(1)?,
            "statfs_percent" => match value.parse() {
                Ok(n) if n <= 100 => self.statfs_percent = n,
                _ => return Err(bad("0 to 100")),
            },
            "cache" => self.open.cache_bytes = bytes(value).ok_or_else(|| bad("a size, such as 256M"))?,
            "meta" | "uhelper" | "helper" | "comment" | "context" | "fscontext" | "defcontext" | "rootcontext" => {}
            n if n.starts_with("x-") => {}
            _ => return Err(OptionError::Unknown(option.into())),
        }
        Ok(())
    }

    /// `hostdata=jid=N`, also among other words separated by colons.
    fn take_hostdata(&mut self, value: &str) -> Option<()> {
        for word in value.split(':') {
            if let Some(n) = word.strip_prefix("jid=") {
                self.open.jid = Jid(n.parse().ok()?);
            }
        }
        Some(())
    }
}

/// A size with an optional suffix k, M, G, T.
fn bytes(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    digits.parse::<usize>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let o =
            MountOptions::parse("rw,noatime,nosuid,quota=on,hostdata=jid=2,commit=5,_netdev,x-foo=1,cache=64M", false)
                .expect("all known");
        assert_eq!((o.open.quota, o.open.jid, o.open.commit_secs), (QuotaMode::On, Jid(2), 5));
        assert_eq!((o.atime, o.open.cache_bytes), (Atime::Never, 64 << 20));
        assert!(o.flags.contains(MountFlags::NOSUID));
        assert_eq!(MountOptions::parse("bogus", false).unwrap_err(), OptionError::Unknown("bogus".into()));
        assert!(MountOptions::parse("bogus", true).is_ok());
        assert!(matches!(MountOptions::parse("data=jumbled", true), Err(OptionError::Value(..))));
        assert!(MountOptions::parse("barrier", false).expect("known").open.barrier);
    }
}
