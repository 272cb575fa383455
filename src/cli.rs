//! `gfs2r`: the front command.

use crate::device::{BlockDevice, FileDevice, OpenMode};
use crate::dump::{self, View};
use crate::volume::Layout;
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Tools for GFS2 volumes.
#[derive(Parser, Debug)]
#[command(name = "gfs2r", version = concat!(env!("CARGO_PKG_VERSION"), " (GFS2 formats 1801, 1802)"), after_help = "\
Examples:
  gfs2r dump disk.img
  gfs2r dump disk.img dir /usr/share --json
  gfs2r dump disk.img block 8499")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Show structures of a volume that nobody has mounted.
    Dump {
        /// Block device or image file.
        image: PathBuf,
        /// What to show; the superblock when absent.
        #[command(subcommand)]
        what: Option<What>,
        /// As JSON.
        #[arg(long, global = true)]
        json: bool,
    },
}

#[derive(Subcommand, Debug)]
enum What {
    /// The superblock.
    Superblock,
    /// A dinode by its block address.
    Dinode {
        /// Block address.
        addr: u64,
    },
    /// Any block by its address.
    Block {
        /// Block address.
        addr: u64,
    },
    /// A resource group by its number; all without one.
    Rgrp {
        /// Number, from 0.
        number: Option<u32>,
    },
    /// The log of a journal.
    Journal {
        /// Journal id, from 0.
        number: u32,
    },
    /// The entries of a directory.
    Dir {
        /// Path from the root.
        path: String,
    },
}

impl What {
    fn view(self) -> View {
        match self {
            Self::Superblock => View::Superblock,
            Self::Dinode { addr } | Self::Block { addr } => View::Block(addr),
            Self::Rgrp { number } => View::Rgrp(number),
            Self::Journal { number } => View::Journal(number),
            Self::Dir { path } => View::Dir(path),
        }
    }
}

/// `gfs2r`.
pub fn main() -> ExitCode {
    let Command::Dump { image, what, json } = Args::parse().command;
    match show(&image, what.map_or(View::Superblock, What::view), json) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("gfs2r: dump: {}: {e}", image.display());
            ExitCode::FAILURE
        }
    }
}

fn show(image: &Path, view: View, json: bool) -> Result<String, Box<dyn std::error::Error>> {
    let dev: Arc<dyn BlockDevice> = Arc::new(FileDevice::open(image, OpenMode::ReadOnly)?);
    let layout = Layout::read(Arc::clone(&dev))?;
    let value = dump::dump(&*dev, &layout, &view)?;
    Ok(if json { format!("{value:#}\n") } else { dump::text(&value) })
}
