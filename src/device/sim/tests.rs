use super::*;

const KIB: usize = 1024;

fn disk() -> SimDevice {
    SimDevice::new(MemoryDevice::new(1 << 20))
}
fn byte(disk: &MemoryDevice, offset: u64) -> u8 {
    let mut b = [0];
    disk.read(offset, &mut b).expect("inside");
    b[0]
}
fn seeds() -> std::ops::Range<u64> {
    0..64
}

#[test]
fn flushed_writes_survive_and_the_others_depend() {
    let d = disk();
    d.write(0, &[1; KIB]).expect("write");
    d.flush().expect("flush");
    d.write(0, &[2; KIB]).expect("write");
    d.write(4096, &[3; KIB]).expect("write");
    let lost = d.crash(0, CrashMode::AllLost);
    assert_eq!((byte(&lost, 0), byte(&lost, 4096)), (1, 0));
    let kept = d.crash(0, CrashMode::AllKept);
    assert_eq!((byte(&kept, 0), byte(&kept, 4096)), (2, 3));
    let first = d.crash(0, CrashMode::Prefix(1));
    assert_eq!((byte(&first, 0), byte(&first, 4096)), (2, 0));
    let outcomes: std::collections::BTreeSet<_> = seeds()
        .map(|seed| d.crash(seed, CrashMode::Random))
        .map(|image| (byte(&image, 0), byte(&image, 512), byte(&image, 4096)))
        .collect();
    // Whole writes: both sectors of the first together; later before earlier (1, 1, 3) among them.
    assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), [(1, 1, 0), (1, 1, 3), (2, 2, 0), (2, 2, 3)]);
}

#[test]
fn torn_writes_tear_at_sectors() {
    let d = disk();
    d.write(0, &[1; KIB]).expect("write");
    let outcomes: std::collections::BTreeSet<_> = seeds()
        .map(|seed| d.crash(seed, CrashMode::Torn))
        .map(|image| [0, 511, 512, 1023].map(|at| byte(&image, at)))
        .collect();
    assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), [[0, 0, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1]]);
}

#[test]
fn the_same_seed_gives_the_same_crash() {
    let d = disk();
    (0..32u64).for_each(|i| d.write(i * 512, &[i as u8 + 1; 512]).expect("write"));
    for mode in [CrashMode::Random, CrashMode::Torn] {
        let image = |seed| {
            let mut all = vec![0; 32 * 512];
            d.crash(seed, mode).read(0, &mut all).expect("read");
            all
        };
        assert_eq!(image(7), image(7));
        assert_ne!(image(7), image(8));
    }
}

#[test]
fn a_durable_write_makes_only_itself_durable() {
    let d = disk();
    d.write(0, &[1; 4096]).expect("write");
    d.write_durable(512, &[2; 512]).expect("durable");
    for seed in seeds() {
        let image = d.crash(seed, CrashMode::Torn);
        assert_eq!(byte(&image, 512), 2, "seed {seed}: an older cached write came over it");
    }
    let lost = d.crash(0, CrashMode::AllLost);
    assert_eq!((byte(&lost, 0), byte(&lost, 512), byte(&lost, 1024)), (0, 2, 0));
    let kept = d.crash(0, CrashMode::AllKept);
    assert_eq!((byte(&kept, 0), byte(&kept, 512), byte(&kept, 1024)), (1, 2, 1));
    assert_eq!(d.counters(), Counters { writes: 2, durable_writes: 1, bytes_written: 4608, ..Counters::default() });
}

#[test]
fn the_crash_point_stops_everything_and_its_own_write_is_in_flight() {
    let d = disk();
    d.write(0, &[1; 512]).expect("op 0");
    d.flush().expect("op 1");
    assert_eq!(d.ops(), 2);
    d.set_crash_point(3);
    d.write(512, &[2; 512]).expect("op 2");
    assert!(d.write_durable(1024, &[3; 512]).is_err() && d.crashed());
    assert!(d.flush().is_err() && d.read(0, &mut [0; 512]).is_err() && d.write(0, &[9; 512]).is_err());
    let kept = d.crash(0, CrashMode::AllKept);
    assert_eq!([0, 512, 1024].map(|at| byte(&kept, at)), [1, 2, 3]);
    let lost = d.crash(0, CrashMode::AllLost);
    assert_eq!([0, 512, 1024].map(|at| byte(&lost, at)), [1, 0, 0]);
}

#[test]
fn a_flush_in_flight_confirms_nothing() {
    let d = disk();
    d.write(0, &[1; 512]).expect("op 0");
    d.set_crash_point(1);
    assert!(d.flush().is_err());
    assert_eq!(byte(&d.crash(0, CrashMode::AllLost), 0), 0);
}

#[test]
fn a_batch_is_in_flight_as_a_whole() {
    let d = disk();
    d.set_crash_point(1);
    let (a, b, c) = ([1; 512], [2; 512], [3; 512]);
    assert!(d.write_many(&[(0, &a), (512, &b), (1024, &c)]).is_err());
    let kept = d.crash(0, CrashMode::AllKept);
    assert_eq!([0, 512, 1024].map(|at| byte(&kept, at)), [1, 2, 3]);
    assert!(d.write_many(&[(2048, &a), (2560, &b)]).is_err());
    let kept = d.crash(0, CrashMode::AllKept);
    assert_eq!([2048, 2560].map(|at| byte(&kept, at)), [0, 0], "issued after the crash");
}

#[test]
fn errors_are_injected_by_index_and_offset() {
    let d = disk();
    d.fail_writes(Some(Box::new(|index, offset| index == 1 || offset == 4096)));
    d.write(0, &[1; 512]).expect("op 0");
    assert!(d.write(0, &[2; 512]).is_err());
    assert!(d.write(4096, &[2; 512]).is_err());
    d.fail_reads(Some(Box::new(|_, offset| offset == 512)));
    assert!(d.read(512, &mut [0; 512]).is_err());
    let mut back = [0; 512];
    d.read(0, &mut back).expect("read");
    assert_eq!(back, [1; 512]);
    d.fail_writes(None);
    d.fail_reads(None);
    d.write(4096, &[2; 512]).expect("no fault left");
    assert_eq!(d.counters().writes, 2, "failed writes are not counted");
}

#[test]
fn discarded_ranges_read_as_anything() {
    let d = disk();
    d.write(0, &[1; 8192]).expect("write");
    d.flush().expect("flush");
    d.discard(0, 4096).expect("discard");
    let kept = d.crash(0, CrashMode::AllKept);
    assert_eq!((byte(&kept, 0), byte(&kept, 4096)), (0xa5, 1));
    assert_eq!(byte(&d.crash(0, CrashMode::AllLost), 0), 1);
}

#[test]
fn what_failed_is_in_doubt() {
    let d = disk();
    d.write(0, &[1; KIB]).expect("write");
    d.fail_writes(Some(Box::new(|index, _| index <= 2)));
    assert!(d.flush().is_err() && d.write(4096, &[2; KIB]).is_err());
    assert_eq!(byte(&d.contents(), 4096), 0, "a failed write is not seen");
    d.write(8192, &[3; KIB]).expect("write");
    d.flush().expect("flush");
    let bytes = |mode| [0, 4096, 8192].map(|at| byte(&d.crash(0, mode), at));
    assert_eq!(bytes(CrashMode::AllLost), [0, 0, 3], "a later flush does not bring back what an earlier one lost");
    assert_eq!(bytes(CrashMode::AllKept), [1, 2, 3]);
    d.write(0, &[4; KIB]).expect("written again");
    d.flush().expect("flush");
    assert_eq!(bytes(CrashMode::AllKept), [4, 2, 3]);
    assert_eq!(bytes(CrashMode::AllLost), [4, 0, 3]);
}
