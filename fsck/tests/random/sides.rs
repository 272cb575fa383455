//! The same damaged image, repaired by the stock tool and by ours.

use crate::bases::Base;
use crate::{Damaged, in_file, verdict, witness};
use gfs2r::device::MemoryDevice;
use gfs2r_fsck::{Yes, repair};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// How a repair ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// Neither checker finds anything afterwards.
    Clean,
    /// It ended, and something is still found by its own check.
    Unclean,
    /// It ended and its own check is content; ours finds something the kernel or another tool would stumble over.
    Overlooked,
    /// It refused.
    Refused,
    /// A signal ended it.
    Crashed,
    /// It did not end within a minute.
    Hung,
}

/// What became of one image on both sides.
pub(crate) struct Row {
    ours: End,
    stock: End,
    /// Files that no fault touched, and that were lost.
    ours_lost: usize,
    stock_lost: usize,
    /// Files, touched or not, that are whole after the stock repair and not after ours.
    pub(crate) only_stock_kept: Vec<String>,
    /// The other way round.
    only_ours_kept: usize,
}

impl Row {
    /// What deserves a line of its own.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.ours != End::Clean {
            notes.push(format!("ours: {:?}, stock: {:?}", self.ours, self.stock));
        }
        if matches!(self.stock, End::Crashed | End::Hung) {
            notes.push(format!("stock: {:?}", self.stock));
        }
        if self.ours_lost > 0 {
            notes.push(format!("ours lost {} untouched files", self.ours_lost));
        }
        notes
    }
}

/// Status of the stock tool; `Err` for a signal (SIGKILL: it hung).
fn stock(option: &str, path: &Path) -> Result<i32, End> {
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "60", "fsck.gfs2", option]).arg(path);
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().expect("runs");
    match (status.code(), status.signal()) {
        (Some(137), _) | (_, Some(9)) => Err(End::Hung),
        (Some(code), _) if code > 128 => Err(End::Crashed),
        (Some(code), _) => Ok(code),
        (None, _) => Err(End::Crashed),
    }
}

fn lost(device: &MemoryDevice, base: &Base, damaged: &Damaged) -> (usize, BTreeSet<String>) {
    let names = |hit: &BTreeSet<u64>| -> BTreeSet<String> {
        let losses = witness::losses(device, damaged.untouched(base), hit);
        losses.into_iter().map(|(path, _)| path.display().to_string()).collect()
    };
    (names(&damaged.hit).len(), names(&BTreeSet::new()))
}

/// Lets both repair.
pub(crate) fn compare(base: &Base, damaged: &Damaged) -> Row {
    let mine = damaged.plant.device.snapshot();
    let done = repair(&mine, &mut Yes);
    let both = |device: &MemoryDevice, path: &Path| match (stock("-n", path), verdict(device)) {
        (Ok(0), None) => End::Clean,
        (Ok(0), Some(_)) => End::Overlooked,
        _ => End::Unclean,
    };
    let ours = match done {
        Ok(_) => both(&mine, in_file(&mine).path()),
        Err(_) => End::Refused,
    };
    let (ours_lost, mine_gone) = lost(&mine, base, damaged);
    let file = in_file(&damaged.plant.device);
    let ended = stock("-y", file.path());
    let theirs = MemoryDevice::load(file.path()).expect("loaded");
    let stock = match ended {
        Err(end) => end,
        Ok(16) => End::Refused,
        Ok(_) => both(&theirs, file.path()),
    };
    let (stock_lost, their_gone) = lost(&theirs, base, damaged);
    Row {
        ours,
        stock,
        ours_lost,
        stock_lost,
        only_stock_kept: mine_gone.difference(&their_gone).cloned().collect(),
        only_ours_kept: their_gone.difference(&mine_gone).count(),
    }
}

#[derive(Default)]
struct Line {
    images: u32,
    ours: BTreeMap<End, u32>,
    stock: BTreeMap<End, u32>,
    lost: [usize; 2],
    only: [usize; 2],
}

/// Sums by kind of fault.
#[derive(Default)]
pub(crate) struct Table(BTreeMap<&'static str, Line>);

impl Table {
    pub(crate) fn add(&mut self, kind: &'static str, row: &Row) {
        for name in [kind, "total"] {
            let line = self.0.entry(name).or_default();
            line.images += 1;
            *line.ours.entry(row.ours).or_default() += 1;
            *line.stock.entry(row.stock).or_default() += 1;
            line.lost[0] += row.ours_lost;
            line.lost[1] += row.stock_lost;
            line.only[0] += row.only_ours_kept;
            line.only[1] += row.only_stock_kept.len();
        }
    }
    /// Files that only the stock tool kept.
    pub(crate) fn worse(&self) -> usize {
        self.0.get("total").map_or(0, |line| line.only[1])
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends = [End::Clean, End::Unclean, End::Overlooked, End::Refused, End::Crashed, End::Hung];
        writeln!(
            f,
            "| fault | images | ours: clean / unclean / refused | stock: clean / unclean / overlooked / refused / crashed / hung | untouched files lost: ours, stock | kept by ours only, by stock only |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        for (kind, line) in &self.0 {
            let of = |all: &BTreeMap<End, u32>, end| all.get(&end).copied().unwrap_or(0);
            let bad = of(&line.ours, End::Unclean) + of(&line.ours, End::Overlooked);
            let stock = ends.map(|end| of(&line.stock, end).to_string()).join(" / ");
            let (clean, refused) = (of(&line.ours, End::Clean), of(&line.ours, End::Refused));
            let ([a, b], [c, d]) = (line.lost, line.only);
            writeln!(f, "| {kind} | {} | {clean} / {bad} / {refused} | {stock} | {a}, {b} | {c}, {d} |", line.images)?;
        }
        Ok(())
    }
}
