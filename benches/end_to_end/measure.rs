//! Taking samples.

use super::targets::{Kind, Target};
use super::workloads::Suite;
use rustix::fs::{AtFlags, Mode, OFlags};
use std::io;
use std::time::{Duration, Instant};

/// In what a row is counted. More is better, except for times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Operations in a second.
    Ops,
    /// Megabytes (10^6) in a second.
    Mb,
    /// Milliseconds for the whole: less is better.
    Ms,
}

impl Unit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ops => "op/s",
            Self::Mb => "MB/s",
            Self::Ms => "ms",
        }
    }
}

/// One measurement.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) suite: &'static str,
    pub(crate) row: String,
    pub(crate) unit: Unit,
    pub(crate) target: Kind,
    pub(crate) round: u32,
    /// Amount in a second, in the row's unit (one in a second for times).
    pub(crate) rate: f64,
    /// Seconds of processor that the daemon took for one unit of the amount; 0 where there is none.
    pub(crate) cpu: f64,
}

/// All measurements.
#[derive(Default)]
pub(crate) struct Samples {
    pub(crate) all: Vec<Sample>,
    pub(crate) failures: Vec<(&'static str, Kind)>,
    /// What takes very long (fuse2fs in large directories) is measured once.
    slow: Vec<(&'static str, Kind)>,
}

/// From here on it takes very long.
const SLOW: Duration = Duration::from_secs(30);

impl Samples {
    /// Runs a suite on a target.
    pub(crate) fn run(&mut self, suite: &Suite, target: &mut Target, scale: f64, round: u32) -> io::Result<()> {
        let this = (suite.name, target.kind);
        if self.failures.contains(&this) || self.slow.contains(&this) {
            return Ok(());
        }
        if !(suite.fits)(target.kind) || !target.can(suite) {
            return Ok(());
        }
        let start = Instant::now();
        target.settle()?;
        let mut bench = Bench { suite: suite.name, target, scale, round, samples: &mut self.all };
        (suite.run)(&mut bench)?;
        if start.elapsed() > SLOW && this.1 != Kind::Gfs2r {
            self.slow.push(this);
        }
        Ok(())
    }

    /// Remembers that a suite does not work on a target, so that it is not tried again.
    pub(crate) fn failed(&mut self, suite: &Suite, target: Kind) {
        self.failures.push((suite.name, target));
    }
}

/// What a suite works with.
pub(crate) struct Bench<'a> {
    suite: &'static str,
    pub(crate) target: &'a mut Target,
    pub(crate) scale: f64,
    pub(crate) round: u32,
    samples: &'a mut Vec<Sample>,
}

impl Bench<'_> {
    /// `n` by the scale, at least 1.
    pub(crate) fn scaled(&self, n: u64) -> u64 {
        ((n as f64 * self.scale) as u64).max(1)
    }

    /// How long a workload without a fixed end runs.
    pub(crate) fn while_long(&self) -> Duration {
        Duration::from_secs_f64((0.9 * self.scale).max(0.3))
    }

    /// Runs `f`, which does `amount` of something, and takes the sample.
    pub(crate) fn time<T>(
        &mut self,
        row: &str,
        unit: Unit,
        amount: f64,
        f: impl FnOnce(&mut Target) -> io::Result<T>,
    ) -> io::Result<T> {
        self.count(row, unit, |target| Ok((f(target)?, amount)))
    }

    /// Runs `f`, which says how much it did, and takes the sample.
    pub(crate) fn count<T>(
        &mut self,
        row: &str,
        unit: Unit,
        f: impl FnOnce(&mut Target) -> io::Result<(T, f64)>,
    ) -> io::Result<T> {
        let cpu = self.target.daemon_cpu();
        let start = Instant::now();
        let (value, amount) = f(self.target)?;
        let took = start.elapsed().as_secs_f64();
        let cpu = self.target.daemon_cpu() - cpu;
        self.samples.push(Sample {
            suite: self.suite,
            row: row.to_owned(),
            unit,
            target: self.target.kind,
            round: self.round,
            rate: amount / took,
            cpu: cpu.max(0.0) / amount,
        });
        Ok(value)
    }
}

/// Lets the kernel forget names and inodes. Data stays: this machine may have other things to do.
pub(crate) fn drop_names() -> io::Result<()> {
    std::fs::write("/proc/sys/vm/drop_caches", "2")
}

/// Opens a directory.
pub(crate) fn open_dir(path: impl rustix::path::Arg) -> io::Result<rustix::fd::OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Whether a name is there.
pub(crate) fn exists(path: &std::path::Path) -> bool {
    rustix::fs::statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}
