//! `gfs2r dump`.

use super::{Outcome, about, print};
use crate::device::{BlockDevice, FileDevice, OpenMode};
use crate::dump::{self, View};
use crate::volume::Layout;
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Show structures of a volume that nobody has mounted.
#[derive(Args, Debug)]
#[command(
    disable_help_subcommand = true,
    after_help = "\
Examples:
  gfs2r dump disk.img
  gfs2r dump disk.img dir /usr/share --json
  gfs2r dump disk.img block 8499"
)]
pub(super) struct Arguments {
    /// Block device or image file.
    image: PathBuf,
    /// What to show; the superblock when absent.
    #[command(subcommand)]
    what: Option<What>,
    /// As JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Debug)]
enum What {
    /// The superblock.
    #[command(after_help = "Examples:\n  gfs2r dump disk.img superblock")]
    Superblock,
    /// A dinode by its block address.
    #[command(after_help = "Examples:\n  gfs2r dump disk.img dinode 8499")]
    Dinode {
        /// Block address.
        addr: u64,
    },
    /// Any block by its address.
    #[command(after_help = "Examples:\n  gfs2r dump disk.img block 8499 --json")]
    Block {
        /// Block address.
        addr: u64,
    },
    /// A resource group by its number; all without one.
    #[command(after_help = "Examples:\n  gfs2r dump disk.img rgrp 0")]
    Rgrp {
        /// Number, from 0.
        number: Option<u32>,
    },
    /// The log of a journal.
    #[command(after_help = "Examples:\n  gfs2r dump disk.img journal 0")]
    Journal {
        /// Journal id, from 0.
        number: u32,
    },
    /// The entries of a directory.
    #[command(after_help = "Examples:\n  gfs2r dump disk.img dir /usr/share")]
    Dir {
        /// Path from the root.
        path: String,
    },
}

impl What {
    fn view(&self) -> View {
        match self {
            Self::Superblock => View::Superblock,
            Self::Dinode { addr } | Self::Block { addr } => View::Block(*addr),
            Self::Rgrp { number } => View::Rgrp(*number),
            Self::Journal { number } => View::Journal(*number),
            Self::Dir { path } => View::Dir(path.clone()),
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let view = arguments.what.as_ref().map_or(View::Superblock, What::view);
    let text = show(&arguments.image, &view, arguments.json).map_err(|e| e.to_string());
    print(&about(&arguments.image, text)?)
}

fn show(image: &Path, view: &View, json: bool) -> Result<String, Box<dyn std::error::Error>> {
    let dev: Arc<dyn BlockDevice> = Arc::new(FileDevice::open(image, OpenMode::ReadOnly)?);
    let layout = Layout::read(Arc::clone(&dev))?;
    let value = dump::dump(&*dev, &layout, view)?;
    Ok(if json { format!("{value:#}\n") } else { dump::text(&value) })
}
