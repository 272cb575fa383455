//! Small writes of a program that does not think of blocks: to a file that nobody else uses.

use super::Suite;
use super::bulk::{open, place};
use crate::measure::{Bench, Unit};
use crate::targets::Kind;
use rustix::fs::OFlags;
use std::io;
use std::time::Instant;

pub(super) const SMALL: Suite = Suite {
    name: "small writes, one file",
    rows: &["4 KiB, one after the other", "4 KiB at random, over what is there", "append 100 bytes"],
    fits: Kind::is_filesystem,
    needs_mount: true,
    run: small,
};

fn small(bench: &mut Bench<'_>) -> io::Result<()> {
    let (long, blocks, buf) = (bench.while_long(), bench.scaled(16_384), [0x77_u8; 4096]);
    let file = open(bench.target, "small", OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC)?;
    bench.count("4 KiB, one after the other", Unit::Ops, |_| {
        for n in 0..blocks {
            rustix::io::pwrite(&file, &buf, n * 4096)?;
        }
        Ok(((), blocks as f64))
    })?;
    bench.target.settle()?;
    bench.count("4 KiB at random, over what is there", Unit::Ops, |_| {
        let (end, mut state, mut count) = (Instant::now() + long, 88_172_645_463_325_252_u64, 0_u64);
        while Instant::now() < end {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            rustix::io::pwrite(&file, &buf, state % blocks * 4096)?;
            count += 1;
        }
        Ok(((), count as f64))
    })?;
    drop(file);
    bench.target.settle()?;
    let file = open(bench.target, "appended", OFlags::CREATE | OFlags::WRONLY | OFlags::APPEND)?;
    bench.count("append 100 bytes", Unit::Ops, |_| {
        let (end, mut count) = (Instant::now() + long, 0_u64);
        while Instant::now() < end {
            rustix::io::write(&file, &buf[..100])?;
            count += 1;
        }
        Ok(((), count as f64))
    })?;
    drop(file);
    ["small", "appended"].iter().try_for_each(|name| std::fs::remove_file(place(bench.target, name)))
}
