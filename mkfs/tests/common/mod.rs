//! Running the stock tool, running ours, and looking for differences.

use gfs2r::device::{BlockDevice, MemoryDevice};
use gfs2r::format::header::{FORMAT_RINDEX, MAGIC};
use gfs2r::format::{Dinode, LogHeader, MetaHeader, MetaType, OnDisk, RindexEntry, get_pointer};
use gfs2r::ids::BlockSize;
use gfs2r_mkfs::geometry::Alignment;
use gfs2r_mkfs::{Options, Plan, Silent, format_device};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

pub(crate) const UUID: &str = "11111111-2222-3333-4444-555555555555";

pub(crate) fn stock_is_there() -> bool {
    let there = ["mkfs.gfs2", "fsck.gfs2"].iter().all(|tool| Command::new(tool).arg("-V").output().is_ok());
    if !there {
        eprintln!("SKIPPED: mkfs.gfs2 or fsck.gfs2 is not installed; nothing was compared");
    }
    there
}

/// splitmix64.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % n
    }
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// A device size and options, as one command line for both tools.
#[derive(Clone, Debug, Default)]
pub(crate) struct Case {
    pub(crate) bytes: u64,
    pub(crate) bs: Option<u32>,
    pub(crate) journals: Option<u32>,
    pub(crate) journal_mib: Option<u32>,
    pub(crate) rgrp_mib: Option<u32>,
    pub(crate) quota_mib: Option<u32>,
    pub(crate) format: Option<u32>,
    pub(crate) stripe: Option<(u64, u64)>,
    pub(crate) inherit: bool,
    pub(crate) table: Option<String>,
    pub(crate) dlm: bool,
    pub(crate) blocks: Option<u64>,
}

impl Case {
    pub(crate) fn random(rng: &mut Rng) -> Self {
        let bs = rng.pick(&[512, 1024, 2048, 4096]);
        let journals = 1 + rng.below(5) as u32;
        let least = 20 * u64::from(journals) + 12;
        // Not always whole blocks, and more often small than large.
        let bytes = match rng.below(4) {
            0 => (least << 20) + rng.below(64 << 20),
            1 => (300 << 20) + rng.below(300 << 20),
            _ => (least << 20) + rng.below(200 << 20),
        };
        let mut case = Self { bytes, bs: Some(bs), journals: Some(journals), ..Self::default() };
        if rng.below(3) > 0 {
            let most = (bytes / 2 / u64::from(journals)) >> 20;
            case.journal_mib = Some(8 + rng.below((most - 7).min(12)) as u32);
        }
        if rng.below(2) == 0 {
            case.rgrp_mib = Some(32 + rng.below(100) as u32);
        }
        if rng.below(3) == 0 {
            case.quota_mib = Some(1 + rng.below(3) as u32);
        }
        case.format = rng.pick(&[None, Some(1801), Some(1802)]);
        if rng.below(3) == 0 {
            // The stock tool fails ("Cannot allocate memory") when the unit is not a power of two; ours does not mind.
            let unit = u64::from(bs) << rng.below(5);
            case.stripe = Some((unit, unit * (1 + rng.below(8))));
        }
        case.inherit = rng.below(3) == 0;
        if rng.below(2) == 0 {
            case.table = Some(format!("c{}:fs-_{}", rng.below(1 << 40), rng.below(1000)));
            case.dlm = rng.below(2) == 0;
        }
        if rng.below(4) == 0 {
            let all = bytes / u64::from(bs);
            case.blocks = Some(all - rng.below(all / 16));
        }
        case
    }
    pub(crate) fn parse(text: &str) -> Self {
        let mut words = text.split_whitespace();
        let mut next = || words.next();
        let size = next().expect("size in MiB");
        let mut case = Self { bytes: size.parse::<u64>().expect("MiB") << 20, ..Self::default() };
        while let Some(option) = next() {
            let value = next().expect("a value");
            let n = || Some(value.parse().expect("a number"));
            match option {
                "-b" => case.bs = n(),
                "-j" => case.journals = n(),
                "-J" => case.journal_mib = n(),
                "-r" => case.rgrp_mib = n(),
                "-c" => case.quota_mib = n(),
                other => panic!("unknown option {other}"),
            }
        }
        case
    }
    pub(crate) fn args(&self) -> Vec<String> {
        let mut args: Vec<String> = ["-O", "-U", UUID].map(String::from).to_vec();
        let mut number = |option: &str, value: Option<u32>| args.extend(value.map(|v| format!("{option}{v}")));
        number("-b", self.bs);
        number("-j", self.journals);
        number("-J", self.journal_mib);
        number("-r", self.rgrp_mib);
        number("-c", self.quota_mib);
        let mut extended: Vec<String> = self.format.map(|f| format!("format={f}")).into_iter().collect();
        if let Some((unit, width)) = self.stripe {
            extended.push(format!("sunit={unit},swidth={width}"));
        }
        if self.inherit {
            extended.push("root_inherit_jdata".into());
        }
        if !extended.is_empty() {
            args.extend(["-o".into(), extended.join(",")]);
        }
        args.extend(["-p".into(), if self.dlm { "lock_dlm" } else { "lock_nolock" }.into()]);
        if let Some(table) = &self.table {
            args.extend(["-t".into(), table.clone()]);
        }
        args
    }
    pub(crate) fn command(&self) -> String {
        let blocks = self.blocks.map_or(String::new(), |n| n.to_string());
        format!("truncate -s {} DEV; mkfs.gfs2 {} DEV {blocks}", self.bytes, self.args().join(" "))
    }
    fn options(&self) -> Options {
        let bs = BlockSize::new(self.bs.unwrap_or(4096)).expect("a legal block size");
        let in_blocks = |bytes: u64| bytes / bs.bytes() as u64;
        Options {
            block_size: bs,
            blocks: self.blocks,
            journals: self.journals.unwrap_or(1),
            journal_mib: self.journal_mib,
            quota_change_mib: self.quota_mib.unwrap_or(1),
            rgrp_mib: self.rgrp_mib.unwrap_or(256),
            alignment: self.stripe.map_or(Alignment::default(), |(unit, width)| Alignment {
                base: in_blocks(width),
                offset: in_blocks(unit),
            }),
            format: self.format.unwrap_or(1802),
            root_inherit_jdata: self.inherit,
            lock_proto: if self.dlm { "lock_dlm" } else { "lock_nolock" }.into(),
            lock_table: self.table.clone().unwrap_or_default(),
            uuid: *uuid_bytes(),
            ..Options::default()
        }
    }
}

fn uuid_bytes() -> &'static [u8; 16] {
    &[0x11, 0x11, 0x11, 0x11, 0x22, 0x22, 0x33, 0x33, 0x44, 0x44, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55]
}

/// A directory for images: in memory where there is one, since nothing here needs a disk.
pub(crate) fn scratch() -> tempfile::TempDir {
    let shm = std::path::Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.expect("a temporary directory")
}

/// Runs both tools and lists what differs.
pub(crate) fn compare(case: &Case) -> Vec<String> {
    let dir = scratch();
    let path = dir.path().join("image");
    std::fs::File::create(&path).and_then(|f| f.set_len(case.bytes)).expect("an image");
    let mut command = Command::new("mkfs.gfs2");
    command.args(case.args()).arg(&path).args(case.blocks.map(|n| n.to_string()));
    let out = command.output().expect("runs");
    let mut options = case.options();
    let ours = MemoryDevice::new(case.bytes);
    let plan = match (Plan::new(case.bytes, &options), out.status.success()) {
        (Ok(plan), true) => plan,
        (Err(_), false) => return Vec::new(),
        (Ok(_), false) => {
            return vec![format!("only the stock tool refuses: {}", String::from_utf8_lossy(&out.stderr))];
        }
        (Err(e), true) => return vec![format!("only ours refuses: {e}")],
    };
    let stock = MemoryDevice::load(&path).expect("the stock image");
    options.journal_starts = starts(&stock, &plan);
    let mut report = format_device(&ours, &options, &mut Silent).expect("planned, so it can be written");
    report.device = path.display().to_string();
    let mut differences = blocks_that_differ(&stock, &ours, options.block_size);
    if rindex_of(&stock, options.block_size).0 != rindex_of(&ours, options.block_size).0 {
        differences.push("the rindex files differ".into());
    }
    let said = String::from_utf8_lossy(&out.stdout);
    let said = &said[said.find("Device:").unwrap_or(0)..];
    if said != report.to_string() {
        differences.push(format!("reports differ:\n{said}{report}"));
    }
    ours.save(&path).expect("saved");
    let fsck = Command::new("fsck.gfs2").arg("-n").arg(&path).output().expect("runs");
    if !fsck.status.success() {
        differences.push(format!("fsck.gfs2 -n: {}: {}", fsck.status, String::from_utf8_lossy(&fsck.stdout)));
    }
    differences
}

/// Where the stock tool's journals start their sequences.
fn starts(stock: &MemoryDevice, plan: &Plan) -> Vec<u64> {
    let (bs, blocks) = (plan.layout.bs, plan.layout.journal_blocks());
    let mut block = vec![0; bs.bytes()];
    let mut first_of = |rg: &gfs2r::format::rgrp::RgrpExtent| {
        let total = gfs2r_mkfs::geometry::space_for_file(bs, plan.layout.journal_mib << 20);
        stock.read(bs.offset(rg.data0.saturating_add(total - blocks)), &mut block).expect("a journal's first block");
        LogHeader::view(&block).sequence.get()
    };
    plan.layout.rgrps[..plan.layout.journals].iter().map(&mut first_of).collect()
}

fn blocks_that_differ(stock: &MemoryDevice, ours: &MemoryDevice, bs: BlockSize) -> Vec<String> {
    let rindex: BTreeSet<u64> = rindex_blocks(ours, bs);
    let mut places: BTreeMap<u64, u64> = BTreeMap::new();
    for (offset, len) in stock.allocated_ranges().into_iter().chain(ours.allocated_ranges()) {
        let end = places.entry(offset).or_default();
        *end = (*end).max(offset + len);
    }
    let mut found = Vec::new();
    let mut done = 0;
    for (start, end) in places {
        let mut at = done.max(start);
        while at < end {
            let len = (1 << 20).min(end - at) as usize;
            let (mut a, mut b) = (vec![0; len], vec![0; len]);
            stock.read(at, &mut a).expect("inside");
            ours.read(at, &mut b).expect("inside");
            if a != b {
                for (i, (a, b)) in a.chunks_mut(bs.bytes()).zip(b.chunks_mut(bs.bytes())).enumerate() {
                    let number = bs.block_of(at) + i as u64;
                    mask(a, rindex.contains(&number));
                    mask(b, rindex.contains(&number));
                    if a != b && found.len() < 12 {
                        found.push(describe(number, a, b));
                    }
                }
            }
            at += len as u64;
        }
        done = done.max(end);
    }
    found
}

/// Zeroes what cannot be equal.
fn mask(block: &mut [u8], rindex: bool) {
    let header = *MetaHeader::view(block);
    let is_dinode = header.magic.get() == MAGIC && header.kind.get() == MetaType::Dinode as u32;
    if is_dinode {
        block[72..96].fill(0);
    }
    let data = if is_dinode && Dinode::view(block).payload_format.get() == FORMAT_RINDEX {
        if Dinode::view(block).height.get() > 0 { block.len() } else { 232 }
    } else if rindex {
        0
    } else {
        return;
    };
    // Entries may be cut by block borders, so `compare` looks at their meaning in the assembled file.
    block[data..].fill(0);
}

fn rindex_blocks(disk: &MemoryDevice, bs: BlockSize) -> BTreeSet<u64> {
    rindex_of(disk, bs).1
}

/// The rindex file's contents, entries reduced to the fields readers use, and its data blocks.
pub(crate) fn rindex_of(disk: &MemoryDevice, bs: BlockSize) -> (Vec<[u64; 5]>, BTreeSet<u64>) {
    let read = |number: u64| {
        let mut block = vec![0; bs.bytes()];
        disk.read(number << bs.shift(), &mut block).expect("inside");
        block
    };
    // The only dinode with this payload format.
    let mut dinode = None;
    'search: for (start, len) in disk.allocated_ranges() {
        for number in bs.block_of(start)..bs.block_of(start + len) {
            let block = read(number);
            let header = MetaHeader::view(&block);
            if header.magic.get() == MAGIC
                && header.kind.get() == MetaType::Dinode as u32
                && Dinode::view(&block).payload_format.get() == FORMAT_RINDEX
            {
                dinode = Some(block);
                break 'search;
            }
        }
    }
    let dinode = dinode.expect("a rindex");
    let header = *Dinode::view(&dinode);
    let mut bytes = Vec::new();
    let mut blocks = BTreeSet::new();
    if header.height.get() == 0 {
        bytes.extend_from_slice(&dinode[232..]);
    } else {
        let mut level: Vec<u64> =
            (0..bs.dinode_pointers()).filter_map(|i| Some(get_pointer(&dinode, 232, i)?.get())).collect();
        for _ in 1..header.height.get() {
            let blocks: Vec<Vec<u8>> = level.iter().map(|&n| read(n)).collect();
            level = blocks
                .iter()
                .flat_map(|b| (0..bs.indirect_pointers()).filter_map(|i| Some(get_pointer(b, 24, i)?.get())))
                .collect();
        }
        for number in level {
            bytes.extend(read(number));
            blocks.insert(number);
        }
    }
    let entries = bytes[..header.size.get() as usize].chunks_exact(96).map(|entry| {
        let e = RindexEntry::view(entry);
        [e.addr.get(), e.length.get().into(), e.data0.get(), e.data.get().into(), e.bitbytes.get().into()]
    });
    (entries.collect(), blocks)
}

fn describe(number: u64, stock: &[u8], ours: &[u8]) -> String {
    let at = stock.iter().zip(ours).position(|(a, b)| a != b).unwrap_or(0);
    let from = at & !15;
    let hex = |bytes: &[u8]| {
        bytes[from..(from + 48).min(bytes.len())]
            .chunks(4)
            .map(|w| format!("{:02x}{:02x}{:02x}{:02x}", w[0], w[1], w[2], w[3]))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let kind = |bytes: &[u8]| if MetaHeader::has_magic(bytes) { MetaHeader::view(bytes).kind.get() } else { 0 };
    format!(
        "block {number} (stock type {}, ours {}) at {from:#x}:\n    stock {}\n    ours  {}",
        kind(stock),
        kind(ours),
        hex(stock),
        hex(ours)
    )
}

/// Runs both programs on an image of their own of so many bytes. DEV in `args` stands for the image, LINK for a symbolic
/// link to it, and `<text` is typed as the answer (default: y). Returns exit status, standard output and standard error,
/// without what must differ.
pub(crate) fn both(bytes: u64, args: &[&str]) -> [(Option<i32>, Vec<String>, Vec<String>); 2] {
    ["mkfs.gfs2", env!("CARGO_BIN_EXE_mkfs-gfs2r")].map(|program| {
        let dir = scratch();
        let (image, link) = (dir.path().join("image"), dir.path().join("link"));
        std::fs::File::create(&image).and_then(|f| f.set_len(bytes)).expect("an image");
        std::os::unix::fs::symlink(&image, &link).expect("a link");
        let mut answer = "y\n";
        let mut command = Command::new(program);
        command.args(["-p", "lock_nolock"]);
        for arg in args {
            match *arg {
                "DEV" => command.arg(&image),
                "LINK" => command.arg(&link),
                text => match text.strip_prefix('<') {
                    Some(text) => {
                        answer = text;
                        &mut command
                    }
                    None => command.arg(text),
                },
            };
        }
        let typed = dir.path().join("typed");
        std::fs::write(&typed, answer).expect("an answer");
        let out = command.stdin(std::fs::File::open(&typed).expect("just written")).output().expect("runs");
        let lines = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).replace(&dir.path().display().to_string(), "");
            // Line ends that the stock tool forgets do not count, and neither do random UUIDs, times and our name.
            let text = text.replace("mkfs.gfs2r:", "mkfs.gfs2:").replace("device.Device size", "device.\nDevice size");
            let mut text = text.replace("mkfs.gfs2: /", "/");
            for word in ["Creating quota file:", "Jindex:", "Writing superblock", "Done"] {
                text = text.replace(word, &format!("\n{word}"));
            }
            let words = |line: &str| {
                let kept = line.split_whitespace().scan("", |before, word| {
                    let random = *before == "UUID:" || before.ends_with("time:");
                    *before = word;
                    Some(if random { "*" } else { word })
                });
                kept.collect::<Vec<_>>().join(" ")
            };
            // Under -D the stock tool says these two somewhere in the middle.
            let misplaced = |line: &String| args.contains(&"-D") && ["Done", "Creating quota file:"].contains(&&**line);
            text.lines().map(words).filter(|line| !line.is_empty() && !misplaced(line)).collect::<Vec<_>>()
        };
        (out.status.code(), lines(&out.stdout), lines(&out.stderr))
    })
}
