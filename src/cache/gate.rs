//! The disk behind a cache: whatever is written passes its [`Health`].

use super::Health;
use crate::device::BlockDevice;
use std::io;
use std::sync::Arc;

/// A device that refuses every change after a withdraw, and lets none go while the node is not trusted.
pub(super) struct Gate {
    dev: Arc<dyn BlockDevice>,
    health: Arc<Health>,
}

impl Gate {
    pub(super) fn new(dev: Arc<dyn BlockDevice>, health: Arc<Health>) -> Arc<Self> {
        Arc::new(Self { dev, health })
    }

    fn change(&self, f: impl FnOnce(&dyn BlockDevice) -> io::Result<()>) -> io::Result<()> {
        let _writing = self.health.writing().map_err(io::Error::other)?;
        f(&*self.dev)
    }
}

impl BlockDevice for Gate {
    fn size(&self) -> u64 {
        self.dev.size()
    }
    fn refresh_size(&self) -> io::Result<u64> {
        self.dev.refresh_size()
    }
    fn alignment(&self) -> usize {
        self.dev.alignment()
    }
    fn read_only(&self) -> bool {
        self.dev.read_only()
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.dev.read(offset, buf)
    }
    fn read_many(&self, ranges: &mut [(u64, &mut [u8])]) -> io::Result<()> {
        self.dev.read_many(ranges)
    }
    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.change(|dev| dev.write(offset, buf))
    }
    fn write_durable(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.change(|dev| dev.write_durable(offset, buf))
    }
    fn write_many(&self, ranges: &[(u64, &[u8])]) -> io::Result<()> {
        self.change(|dev| dev.write_many(ranges))
    }
    fn flush(&self) -> io::Result<()> {
        self.change(|dev| dev.flush())
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change(|dev| dev.discard(offset, len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::MemoryDevice;
    use crate::sync::{Condvar, Mutex};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    /// A disk on a path that hangs until it is let go.
    #[derive(Default)]
    struct Hanging(Mutex<(bool, u32)>, Condvar);

    impl BlockDevice for Hanging {
        fn size(&self) -> u64 {
            1 << 20
        }
        fn read(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
            Ok(())
        }
        fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
            let mut state = self.0.lock();
            state.1 += 1;
            self.1.notify_all();
            while !state.0 {
                self.1.wait(&mut state);
            }
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
        fn discard(&self, _: u64, _: u64) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_write_that_hangs_is_waited_for_and_none_follows() {
        let (health, disk) = (Arc::new(Health::default()), Arc::new(Hanging::default()));
        let gate = Gate::new(Arc::clone(&disk) as _, Arc::clone(&health));
        std::thread::scope(|scope| {
            let hangs = scope.spawn(|| gate.write(0, &[0; 512]));
            let mut state = disk.0.lock();
            while state.1 == 0 {
                disk.1.wait(&mut state);
            }
            drop(state);
            health.fail_because("on purpose");
            assert!(!health.await_writers(Duration::from_millis(50)), "one is under way");
            assert!(gate.write(0, &[0; 512]).is_err() && gate.flush().is_err() && gate.discard(0, 512).is_err());
            disk.0.lock().0 = true;
            disk.1.notify_all();
            assert!(health.await_writers(Duration::from_secs(30)));
            assert!(hangs.join().expect("no panic").is_ok());
        });
        assert_eq!(disk.0.lock().1, 1);
    }

    #[test]
    fn who_may_be_counted_out_writes_nothing() {
        for lost in [false, true] {
            let (health, trusted) = (Arc::new(Health::default()), Arc::new(AtomicBool::new(false)));
            let disk = Arc::new(MemoryDevice::new(1 << 20));
            let gate = Gate::new(Arc::clone(&disk) as _, Arc::clone(&health));
            let asked = Arc::clone(&trusted);
            health.ask_before_writing(Box::new(move || asked.load(Ordering::SeqCst)));
            let mut found = [0; 512];
            std::thread::scope(|scope| {
                let write = scope.spawn(|| gate.write(0, &[1; 512]));
                std::thread::sleep(Duration::from_millis(50));
                disk.read(0, &mut found).expect("read");
                assert!(!write.is_finished() && found == [0; 512], "written while not trusted");
                if lost {
                    health.fail_because("the cluster has gone on");
                }
                trusted.store(true, Ordering::SeqCst);
                assert_eq!(write.join().expect("no panic").is_ok(), !lost);
            });
            disk.read(0, &mut found).expect("read");
            assert_eq!(found, [u8::from(!lost); 512]);
        }
    }
}
