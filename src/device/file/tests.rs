use super::*;
use std::io::Write;

fn image(bytes: u64) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.as_file().set_len(bytes).expect("its size");
    file
}

fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| seed.wrapping_add((i / 512) as u8).wrapping_mul(31).wrapping_add(i as u8)).collect()
}

/// Both ways of I/O must behave alike: whatever the temporary directory offers, and the buffered one.
fn both(path: &Path, mode: OpenMode) -> Vec<FileDevice> {
    let first = FileDevice::open(path, mode).expect("opens");
    let mut second = FileDevice::open(path, mode).expect("opens");
    second.file = open_file(path, mode, false, false).expect("opens");
    (second.direct, second.memory_alignment) = (false, 1);
    vec![first, second]
}

#[test]
fn what_is_written_is_read_with_any_memory() {
    let image = image(1 << 20);
    for device in both(image.path(), OpenMode::ReadWrite) {
        let data = pattern(3, 8192 + 1);
        device.write(4096, &data[1..]).expect("unaligned memory is copied");
        device.write_durable(65536, &AlignedBuf::copy_of(&data[..4096])).expect("durable");
        device.write_durable(131072, &data[1..513]).expect("durable from unaligned memory");
        device.flush().expect("flush");
        let mut back = vec![0; 8193];
        device.read(4096, &mut back[1..]).expect("read");
        assert_eq!(back[1..], data[1..]);
        let mut odd = [0; 10];
        device.read(65536 + 507, &mut odd).expect("a read across sectors, at any offset");
        assert_eq!(odd, data[507..517]);
        device.read(131072, &mut back[1..513]).expect("read");
        assert_eq!(back[1..513], data[1..513]);
    }
}

#[test]
fn batches_arrive_whole() {
    let image = image(16 << 20);
    for device in both(image.path(), OpenMode::ReadWrite) {
        // 700 blocks in a scattered order: runs, single blocks, aligned and unaligned memory.
        let blocks: Vec<(u64, AlignedBuf)> =
            (0..700u64).map(|i| ((i * 263 % 1009) * 4096, AlignedBuf::copy_of(&pattern(i as u8, 4096)))).collect();
        let odd = pattern(9, 4097);
        let mut ranges: Vec<(u64, &[u8])> = blocks.iter().map(|(o, b)| (*o, &**b)).collect();
        ranges.push((8 << 20, &odd[1..]));
        ranges.push(((8 << 20) + 4096, &odd[1..]));
        device.write_many(&ranges).expect("written");
        let mut back: Vec<(u64, Vec<u8>)> = ranges.iter().map(|(o, b)| (*o, vec![0; b.len()])).collect();
        let mut wanted: Vec<(u64, &mut [u8])> = back.iter_mut().map(|(o, b)| (*o, &mut b[..])).collect();
        device.read_many(&mut wanted).expect("read");
        let mut aligned: Vec<(u64, AlignedBuf)> = blocks.iter().map(|(o, _)| (*o, AlignedBuf::zeroed(4096))).collect();
        let mut wanted: Vec<(u64, &mut [u8])> = aligned.iter_mut().map(|(o, b)| (*o, &mut b[..])).collect();
        device.read_many(&mut wanted).expect("read");
        for (((o, want), (_, got)), again) in ranges.iter().zip(&back).zip(aligned.iter().map(Some).chain([None, None]))
        {
            assert_eq!(*want, &got[..], "at {o}");
            assert!(again.is_none_or(|(_, b)| **b == **want), "at {o}");
        }
    }
}

#[test]
fn nothing_grows_and_nothing_outside_is_touched() {
    let image = image(8192);
    for device in both(image.path(), OpenMode::ReadWrite) {
        let block = AlignedBuf::zeroed(4096);
        for offset in [8192, 4096 + 512, u64::MAX - 511, u64::MAX - 4095] {
            assert_eq!(device.write(offset, &block).expect_err("outside").kind(), io::ErrorKind::InvalidInput);
            assert_eq!(
                device.write_many(&[(0, &block), (offset, &block)]).expect_err("outside").kind(),
                io::ErrorKind::InvalidInput
            );
            let mut back = AlignedBuf::zeroed(4096);
            assert_eq!(device.read(offset, &mut back).expect_err("outside").kind(), io::ErrorKind::UnexpectedEof);
        }
        assert_eq!(device.write(100, &block).expect_err("not aligned").kind(), io::ErrorKind::InvalidInput);
        assert_eq!(device.refresh_size().expect("size"), 8192);
    }
}

#[test]
fn a_grown_image_is_noticed() {
    let image = image(4096);
    let device = FileDevice::open(image.path(), OpenMode::ReadWrite).expect("opens");
    image.as_file().set_len(8192).expect("grows");
    device.write(4096, &AlignedBuf::zeroed(4096)).expect("the new end is found");
    assert_eq!(device.size(), 8192);
}

#[test]
fn read_only_refuses_and_odd_tails_read() {
    let mut image = tempfile::NamedTempFile::new().expect("a temporary file");
    image.write_all(&pattern(1, 1000)).expect("fill");
    for device in both(image.path(), OpenMode::ReadOnly) {
        assert!(device.read_only());
        assert_eq!(device.write(0, &[0; 512]).expect_err("refused").kind(), io::ErrorKind::ReadOnlyFilesystem);
        assert!(device.discard(0, 512).is_err());
        let mut tail = [0; 400];
        device.read(600, &mut tail).expect("the tail");
        assert_eq!(tail[..], pattern(1, 1000)[600..]);
    }
}

#[test]
fn a_discard_reads_as_zero_on_files() {
    let image = image(1 << 20);
    let device = FileDevice::open(image.path(), OpenMode::ReadWrite).expect("opens");
    device.write(0, &AlignedBuf::copy_of(&pattern(5, 65536))).expect("written");
    match device.discard(0, 65536) {
        Err(e) => assert_eq!(e.kind(), io::ErrorKind::Unsupported),
        Ok(()) => {
            let mut back = AlignedBuf::zeroed(65536);
            device.read(0, &mut back).expect("read");
            assert!(back.iter().all(|&b| b == 0));
        }
    }
}

#[test]
fn locks_keep_others_out() {
    let image = image(4096);
    let open = || FileDevice::open(image.path(), OpenMode::ReadWrite).expect("opens");
    let (a, b) = (open(), open());
    a.lock_shared().expect("first");
    b.lock_shared().expect("second");
    assert_eq!(b.lock_exclusive().expect_err("shared by a").kind(), io::ErrorKind::ResourceBusy);
    drop(a);
    b.lock_exclusive().expect("alone now");
    assert_eq!(open().lock_shared().expect_err("held by b").kind(), io::ErrorKind::ResourceBusy);
}

#[test]
fn directories_and_terminals_are_no_devices() {
    for path in ["/", "/dev/null"] {
        let error = FileDevice::open(Path::new(path), OpenMode::ReadOnly).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
