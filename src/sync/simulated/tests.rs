//! The scheduler finds what it is for, and repeats it.

use super::{Condvar, Instant, Mutex, Settings, mpsc, run, thread};
use std::sync::Arc;
use std::time::Duration;

fn settings(seed: u64) -> Settings {
    Settings { seed, one_in: 3, steps: 100_000, lines: 0 }
}

#[test]
fn a_seed_repeats_a_run() {
    let body = || {
        let (sum, bell) = (Arc::new(Mutex::new(0)), Arc::new(Condvar::new()));
        let (sender, receiver) = mpsc::channel();
        let threads: Vec<_> = (0..4)
            .map(|n| {
                let (sum, bell, sender) = (Arc::clone(&sum), Arc::clone(&bell), sender.clone());
                thread::spawn(move || {
                    for _ in 0..20 {
                        *sum.lock() += n;
                        bell.notify_all();
                        thread::sleep(Duration::from_micros(n));
                        let mut guard = sum.lock();
                        bell.wait_for(&mut guard, Duration::from_millis(1));
                    }
                    sender.send(n).expect("it is there");
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().expect("no panic"));
        drop(sender);
        assert_eq!((0..4).map_while(|_| receiver.recv().ok()).sum::<u64>(), 6);
        assert_eq!(*sum.lock(), 120);
        assert!(Instant::now().elapsed() < Duration::from_secs(1));
    };
    let reports: Vec<_> = [1, 1, 2].map(|seed| run(settings(seed), body).expect("it runs")).into();
    assert_eq!(reports[0], reports[1]);
    assert_ne!(reports[0].trace, reports[2].trace);
}

#[test]
fn a_deadlock_is_found() {
    let found = (0..50).any(|seed| {
        let ended = run(settings(seed), || {
            let (a, b) = (Arc::new(Mutex::new(())), Arc::new(Mutex::new(())));
            let (x, y) = (Arc::clone(&a), Arc::clone(&b));
            let other = thread::spawn(move || {
                let _y = y.lock();
                let _x = x.lock();
            });
            let (_a, _b) = (a.lock(), b.lock());
            drop((_a, _b));
            other.join().expect("no panic");
        });
        ended.is_err_and(|e| e.what.contains("deadlock"))
    });
    assert!(found);
}
