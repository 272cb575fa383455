//! What the user sees while it happens: lines in the stock tool's words, a bar on a terminal.

use gfs2r::format::{Dinode, DirentType};
use gfs2r_mkfs::{Observer, Phase, Plan};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};

/// Shows progress on standard output.
pub(crate) struct Show<'a> {
    quiet: bool,
    debug: Option<&'a Plan>,
    bar: ProgressBar,
}

impl<'a> Show<'a> {
    /// `debug` asks for the details of the plan as they are written.
    pub(crate) fn new(quiet: bool, debug: Option<&'a Plan>) -> Self {
        Self { quiet, debug, bar: ProgressBar::hidden() }
    }
}

/// Prints what belongs on standard output. A reader that has gone away is no reason to leave a filesystem half made.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn title(phase: Phase) -> &'static str {
    match phase {
        Phase::Discard => "Discarding device contents (may take a while on large devices): ",
        Phase::Journals => "Adding journals: ",
        Phase::ResourceGroups => "Building resource groups: ",
        Phase::SystemFiles => "Creating quota file: ",
        Phase::Superblock => "Writing superblock and syncing: ",
    }
}

impl Observer for Show<'_> {
    fn begin(&mut self, phase: Phase, total: u64) {
        if !self.quiet {
            print(title(phase));
        }
        if let Some(plan) = self.debug {
            print(&debug_of(plan, phase));
        }
        if self.quiet || self.debug.is_some() || total == 0 || !std::io::stdout().is_terminal() {
            return;
        }
        self.bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stdout());
        let style = ProgressStyle::with_template("{msg}{wide_bar} {percent:>3}% {eta}");
        self.bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        self.bar.set_message(title(phase));
    }
    fn advance(&mut self, done: u64) {
        self.bar.inc(done);
    }
    fn end(&mut self, phase: Phase) {
        if !self.bar.is_hidden() {
            self.bar.finish_and_clear();
            // The bar has taken the line with it.
            print(title(phase));
        }
        self.bar = ProgressBar::hidden();
        if !self.quiet {
            print("Done\n");
        }
    }
}

fn debug_of(plan: &Plan, phase: Phase) -> String {
    let mut text = String::new();
    let journals = plan.layout.journals;
    let groups = plan.layout.rgrps.iter().enumerate().filter(|(i, _)| match phase {
        Phase::Journals => *i < journals,
        Phase::ResourceGroups => *i >= journals,
        _ => false,
    });
    for (i, rg) in groups {
        if phase == Phase::Journals {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "Placing resource group for journal{i}");
        }
        let _ = writeln!(
            text,
            "  ri_addr: {}  ri_length: {}  ri_data0: {}  ri_data: {}  ri_bitbytes: {}",
            rg.addr, rg.length, rg.data0, rg.data, rg.bitbytes
        );
    }
    if phase == Phase::SystemFiles {
        for created in plan.created() {
            let _ = writeln!(text, "\n{}:\n{}", created.title, dinode(&created.dinode));
        }
        let (next, totals) = plan.numbers();
        let _ = writeln!(text, "\nNext Inum: {next}\n\nStatfs:");
        let _ = writeln!(text, "  sc_total: {}  sc_free: {}  sc_dinodes: {}", totals[0], totals[1], totals[2]);
    }
    text
}

fn dinode(d: &Dinode) -> String {
    let kind = DirentType::from_mode(d.mode.get()).map_or(0, |kind| kind as u32);
    debug_assert!(kind != 0, "a system file is a directory or a regular file");
    format!(
        "  mh_magic: {:#010x}  mh_type: {}  mh_format: {}  no_formal_ino: {}  no_addr: {}  di_mode: 0{:o}  di_uid: {}  \
         di_gid: {}  di_nlink: {}  di_size: {}  di_blocks: {}  di_atime: {}  di_mtime: {}  di_ctime: {}  di_major: {}  \
         di_minor: {}  di_goal_meta: {}  di_goal_data: {}  di_flags: {:#010x}  di_payload_format: {}  di_height: {}  \
         di_depth: {}  di_entries: {}  di_eattr: {}",
        d.header.magic,
        d.header.kind,
        d.header.format,
        d.num.formal,
        d.num.addr,
        d.mode,
        d.uid,
        d.gid,
        d.nlink,
        d.size,
        d.blocks,
        d.atime,
        d.mtime,
        d.ctime,
        d.major,
        d.minor,
        d.goal_meta,
        d.goal_data,
        d.flags,
        d.payload_format,
        d.height,
        d.depth,
        d.entries,
        d.eattr
    )
}
