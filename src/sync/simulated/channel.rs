//! Channels.

/// As `std::sync::mpsc`, as far as we use it.
pub mod mpsc {
    use super::super::{Condvar, Instant, Mutex};
    use std::collections::VecDeque;
    use std::sync::Arc;
    pub use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};
    use std::time::Duration;

    struct Shared<T> {
        queue: Mutex<Queue<T>>,
        changed: Condvar,
    }

    struct Queue<T> {
        waiting: VecDeque<T>,
        senders: usize,
        receives: bool,
        most: usize,
    }

    /// Puts in.
    pub struct Sender<T>(Arc<Shared<T>>);
    /// Puts in, if there is room.
    pub struct SyncSender<T>(Sender<T>);
    /// Takes out.
    pub struct Receiver<T>(Arc<Shared<T>>);

    /// A channel without limit.
    pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
        limited(usize::MAX)
    }
    /// One that holds so many.
    pub fn sync_channel<T>(most: usize) -> (SyncSender<T>, Receiver<T>) {
        let (sender, receiver) = limited(most);
        (SyncSender(sender), receiver)
    }
    fn limited<T>(most: usize) -> (Sender<T>, Receiver<T>) {
        let queue = Queue { waiting: VecDeque::new(), senders: 1, receives: true, most };
        let shared = Arc::new(Shared { queue: Mutex::new(queue), changed: Condvar::new() });
        (Sender(Arc::clone(&shared)), Receiver(shared))
    }

    impl<T> Sender<T> {
        /// Puts it in.
        pub fn send(&self, value: T) -> Result<(), SendError<T>> {
            let mut queue = self.0.queue.lock();
            if !queue.receives {
                return Err(SendError(value));
            }
            queue.waiting.push_back(value);
            drop(queue);
            self.0.changed.notify_one();
            Ok(())
        }
    }
    impl<T> SyncSender<T> {
        /// Puts it in, if there is room.
        pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
            let queue = self.0.0.queue.lock();
            if queue.waiting.len() >= queue.most {
                return Err(TrySendError::Full(value));
            }
            drop(queue);
            self.0.send(value).map_err(|SendError(value)| TrySendError::Disconnected(value))
        }
    }
    impl<T> Clone for Sender<T> {
        fn clone(&self) -> Self {
            self.0.queue.lock().senders += 1;
            Self(Arc::clone(&self.0))
        }
    }
    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            self.0.queue.lock().senders -= 1;
            self.0.changed.notify_all();
        }
    }
    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            let mut queue = self.0.queue.lock();
            queue.receives = false;
            let left = std::mem::take(&mut queue.waiting);
            drop(queue);
            drop(left);
        }
    }
    impl<T> Receiver<T> {
        /// The next, when it is there.
        pub fn recv(&self) -> Result<T, RecvError> {
            let mut queue = self.0.queue.lock();
            loop {
                match queue.waiting.pop_front() {
                    Some(value) => return Ok(value),
                    None if queue.senders == 0 => return Err(RecvError),
                    None => self.0.changed.wait(&mut queue),
                }
            }
        }
        /// The next, if it is there.
        pub fn try_recv(&self) -> Result<T, TryRecvError> {
            let mut queue = self.0.queue.lock();
            let none = if queue.senders == 0 { TryRecvError::Disconnected } else { TryRecvError::Empty };
            queue.waiting.pop_front().ok_or(none)
        }
        /// The next, if it comes in time.
        pub fn recv_timeout(&self, time: Duration) -> Result<T, RecvTimeoutError> {
            let until = Instant::now() + time;
            let mut queue = self.0.queue.lock();
            loop {
                match queue.waiting.pop_front() {
                    Some(value) => return Ok(value),
                    None if queue.senders == 0 => return Err(RecvTimeoutError::Disconnected),
                    None if Instant::now() >= until => return Err(RecvTimeoutError::Timeout),
                    None => {
                        self.0.changed.wait_until(&mut queue, until);
                    }
                }
            }
        }
    }
}
