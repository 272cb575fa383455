//! What an administrator sees of a lockspace, as text.

use super::Engine;
use super::lock::Queue;
use super::resource::ResourceKey;
use std::fmt::Write;

impl Engine {
    /// Every resource with its locks, one line each, after the manner of the kernel's debugfs files.
    pub fn dump(&self) -> String {
        let mut text = format!(
            "lockspace node {} running {} status {:#x} seq {} generation {} step {:?}\n",
            self.config.node,
            self.running,
            self.recovery.status,
            self.recovery.seq,
            self.recovery.generation,
            self.recovery.step
        );
        for key in self.resources.keys() {
            self.dump_resource(key, &mut text);
        }
        text
    }

    fn dump_resource(&self, key: ResourceKey, text: &mut String) {
        let record = &self.resources[key];
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "R \"{}\" master {:?} dir {} first {:x} locks {} lvbseq {} stale {}",
            record.name.escape_ascii(),
            record.master,
            record.dir,
            record.first.0,
            record.locks,
            record.lvbseq,
            record.lvb_stale
        );
        let queued = [Queue::Granted, Queue::Converting, Queue::Waiting, Queue::Parked]
            .into_iter()
            .flat_map(|q| self.queue(key, q));
        let loose = self
            .locks
            .keys()
            .filter(|lock| self.locks[*lock].resource == key && self.locks[*lock].queue == Queue::None);
        for lock in queued.chain(loose) {
            let lock = &self.locks[lock];
            let _ = writeln!(
                text,
                "  L {:x} rem {:x} holder {} {:?} {:?} -> {:?} high {:?} wait {:?}/{} at {} resend {} ovl {}/{} notices {}",
                lock.id.0,
                lock.remid.0,
                lock.holder,
                lock.queue,
                lock.granted,
                lock.requested,
                lock.highbast,
                lock.wait,
                lock.wait_count,
                lock.wait_node,
                lock.resend,
                lock.overlap_cancel,
                lock.overlap_unlock,
                lock.wants_notices
            );
        }
    }
}
