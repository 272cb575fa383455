//! `-o`: GFS2's options, the generic ones of mount(8), and those that concern only programs (interface.md).

use crate::fuse::{Atime, Transport};
use crate::ids::Jid;
use crate::quota::QuotaMode;
use crate::volume::OpenOptions;
use rustix::mount::MountFlags;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

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
    /// `nofail`: a device that is not there is no error.
    pub no_fail: bool,
    /// `metrics=`: where Prometheus is answered.
    pub metrics: Option<SocketAddr>,
    /// What only `lock_dlm` uses.
    pub cluster: ClusterOptions,
}

/// How a cluster mount finds its cluster, and what it leaves to this node alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterOptions {
    /// `cluster=`: the file that names the nodes.
    pub file: Option<PathBuf>,
    /// `node=`: which of them this one is; the host's name when absent.
    pub node: Option<String>,
    /// `localflocks`: flock and fcntl locks hold on this node only.
    pub local_flocks: bool,
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
            no_fail: false,
            metrics: None,
            cluster: ClusterOptions::default(),
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
    /// A remount cannot change it.
    Fixed(String),
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(o) => write!(f, "unknown mount option '{o}' (see mount.gfs2r --help)"),
            Self::Fixed(o) => write!(f, "mount option '{o}' cannot be changed by a remount (unmount and mount again)"),
            Self::Value(o, allowed) => write!(f, "invalid mount option '{o}' ({allowed})"),
        }
    }
}

/// Generic options that are a flag of mount(2), set or cleared.
const FLAGS: [(&str, MountFlags, bool); 20] = [
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
    ("iversion", MountFlags::empty(), true),
    ("noiversion", MountFlags::empty(), true),
    ("nosymfollow", MountFlags::NOSYMFOLLOW, true),
    ("symfollow", MountFlags::NOSYMFOLLOW, false),
];

/// Options that concern only programs, that are always so, or that older GFS2 had: taken and without effect.
const TOLERATED: [&str; 23] = [
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "_netdev",
    "_rnetdev",
    "loop",
    "localcaching",
    "ignore_local_fs",
    "debug",
    "nodebug",
    "upgrade",
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
        if TOLERATED.contains(&name) || name.starts_with("x-") || name.starts_with("X-") || name.starts_with("comment")
        {
            return Ok(());
        }
        match name {
            "ro" => self.open.read_only = true,
            "rw" => self.open.read_only = false,
            "noatime" => self.take_atime(Atime::Never),
            "relatime" | "atime" | "norelatime" | "nostrictatime" => self.take_atime(Atime::Relative),
            "strictatime" => self.take_atime(Atime::Strict),
            "remount" => self.remount = true,
            "fg" => self.foreground = true,
            "nofail" => self.no_fail = true,
            "localflocks" => self.cluster.local_flocks = true,
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
            "metrics" => {
                self.metrics = Some(metrics(value).ok_or_else(|| bad("a port of this host alone, or ADDRESS:PORT"))?)
            }
            "membership" => match value {
                "fixed" => {}
                "corosync" => return Err(bad("fixed: corosync is not supported yet")),
                _ => return Err(bad("fixed")),
            },
            "cluster" if !value.is_empty() => self.cluster.file = Some(value.into()),
            "node" if !value.is_empty() => self.cluster.node = Some(value.into()),
            "cluster" => return Err(bad("a file")),
            "node" => return Err(bad("a node's name in the cluster file")),
            "commit" => self.open.commit_secs = seconds(1)?,
            "statfs_quantum" => self.statfs_quantum = seconds(0)?,
            "quota_quantum" => self.quota_quantum = seconds(1)?,
            "statfs_percent" => match value.parse() {
                Ok(n) if n <= 100 => self.statfs_percent = n,
                _ => return Err(bad("0 to 100")),
            },
            "cache" => self.open.cache_bytes = bytes(value).ok_or_else(|| bad("a size, such as 256M"))?,
            "uhelper" | "helper" | "comment" | "context" | "fscontext" | "defcontext" | "rootcontext" => {}
            // mount(8) repeats on remounting what /proc/mounts shows, and there FUSE shows its own options.
            "user_id" | "group_id" | "rootmode" | "max_read" | "blksize" | "fd" => {}
            // Of mount(8) itself: the loop device it made, and who mounted.
            "loop" | "offset" | "sizelimit" | "user" | "fsname" | "subtype" => {}
            n if n.starts_with("x-") || n.starts_with("X-") => {}
            _ => return Err(OptionError::Unknown(option.into())),
        }
        Ok(())
    }

    /// Said to the kernel too, so that /proc/mounts shows it.
    fn take_atime(&mut self, atime: Atime) {
        self.atime = atime;
        self.flags.set(MountFlags::NOATIME, atime == Atime::Never);
        self.flags.set(MountFlags::RELATIME, atime == Atime::Relative);
        self.flags.set(MountFlags::STRICTATIME, atime == Atime::Strict);
    }

    /// The options after a remount with `text`, which names what is to change. Errors: those of [`parse`](Self::parse);
    /// `Fixed` for what only a new mount can change.
    pub fn remounted(&self, text: &str) -> Result<Self, OptionError> {
        let fixed = |o: &Self| {
            let open = OpenOptions { read_only: false, ..o.open.clone() };
            (open, o.lockproto.clone(), o.locktable.clone(), o.cluster.clone(), o.metrics)
        };
        let mut now = self.clone();
        for option in text.split(',').filter(|o| !o.is_empty()) {
            now.take(option)?;
            if fixed(&now) != fixed(self) {
                return Err(OptionError::Fixed(option.into()));
            }
        }
        Ok(now)
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

/// A port on the loopback interface, or an address and a port.
fn metrics(text: &str) -> Option<SocketAddr> {
    let here = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    text.parse().ok().map(here).or_else(|| text.parse().ok()).filter(|address| address.port() != 0)
}

/// A size with an optional suffix k, M, G, T.
pub fn bytes(text: &str) -> Option<usize> {
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
        assert!(o.flags.contains(MountFlags::NOSUID | MountFlags::NOATIME));
        assert_eq!(MountOptions::parse("bogus", false).unwrap_err(), OptionError::Unknown("bogus".into()));
        assert!(MountOptions::parse("bogus", true).is_ok());
        assert!(matches!(MountOptions::parse("data=jumbled", true), Err(OptionError::Value(..))));
        let shown = "rw,relatime,user_id=0,group_id=0,default_permissions,allow_other,max_read=1048576,blksize=4096";
        assert!(MountOptions::parse(shown, false).is_ok(), "what /proc/mounts shows");
        assert!(MountOptions::parse("barrier", false).expect("known").open.barrier);
    }

    #[test]
    fn every_value_is_checked() {
        let parse = |o| MountOptions::parse(o, false);
        for bad in [
            "data=",
            "quota=maybe",
            "errors=continue",
            "errors",
            "commit=0",
            "commit=x",
            "quota_quantum=0",
            "statfs_percent=101",
            "hostdata=jid=",
            "cache=12Q",
            "cache=99999999999999999999T",
            "lockproto=lock_gulm",
            "membership=corosync",
            "cluster=",
            "metrics=0",
            "metrics=here",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let metrics = |o| parse(o).expect("known").metrics.map(|address| address.to_string());
        assert_eq!(metrics("metrics=9477").as_deref(), Some("127.0.0.1:9477"));
        assert_eq!(metrics("metrics=[::]:9477").as_deref(), Some("[::]:9477"));
        assert_eq!(parse("errors=panic").expect("known").on_error, OnError::Panic);
        assert_eq!(parse("errors=panic,errors=withdraw").expect("known").on_error, OnError::Withdraw);
        assert!(parse("spectator").expect("known").open.read_only);
        assert!(parse("norecovery").expect("known").open.read_only);
        // What mount(8) and fstab add.
        let fstab = "_netdev,nofail,noauto,user=me,loop=/dev/loop0,x-systemd.automount,X-mount.mkdir,uhelper=udisks2";
        assert!(parse(fstab).expect("all known").no_fail);
        assert_eq!(parse("noatime,strictatime").expect("known").flags, MountFlags::STRICTATIME);
    }

    #[test]
    fn a_remount_changes_what_it_can() {
        let now = MountOptions::parse("noatime,quota=on,commit=5", false).expect("known");
        let then = now.remounted("remount,ro,relatime,errors=panic,commit=5,quota=on").expect("possible");
        assert_eq!((then.open.read_only, then.atime, then.on_error), (true, Atime::Relative, OnError::Panic));
        assert_eq!(now.remounted("commit=6").unwrap_err(), OptionError::Fixed("commit=6".into()));
        assert!(now.remounted("spectator").is_err() && now.remounted("locktable=a:b").is_err());
    }
}
