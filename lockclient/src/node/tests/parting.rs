//! Nodes that leave at the same moment, or one after the other.

use super::*;

/// Some leave their lockspace first, some do not; some locks are left.
async fn part(node: Node, locks: Locks, wait: u64, release: bool) -> bool {
    tokio::time::sleep(Duration::from_micros(wait)).await;
    if release {
        node.release(locks.space()).await;
    }
    node.shutdown().await
}

/// Found by a newcomer: who had given up waiting for a majority could never enter.
#[tokio::test(flavor = "multi_thread")]
async fn entering_may_be_given_up_and_tried_again() {
    let place = Place::new(3);
    let first = place.node(1, true).await;
    let wait = tokio::time::timeout(Duration::from_millis(300), Locks::join(&first, "later", |_| {}));
    assert!(wait.await.is_err(), "there is no majority");
    let second = place.node(2, true).await;
    let join = |node| tokio::time::timeout(Duration::from_secs(30), Locks::join(node, "later", |_| {}));
    let (a, b) = tokio::join!(join(&first), join(&second));
    let (a, b) = (a.expect("in time").expect("join"), b.expect("in time").expect("join"));
    assert!(a.lock(b"r", Mode::Pr).await.is_ok() && b.lock(b"r", Mode::Pr).await.is_ok());
    drop(first);
    assert!(a.space().has_ended() && !a.space().is_trusted(), "at once");
    assert!(second.shutdown().await || !b.space().is_trusted());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_has_parted_with_everyone() {
    let rounds = std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let seed =
        std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| u64::from(std::process::id()));
    println!("SEED={seed}");
    let mut random = crate::sim::Rng::new(seed);
    let place = Place::new(3);
    for round in 0..rounds {
        let mut nodes = Vec::new();
        for id in 1..=3 {
            nodes.push(place.node(id, true).await);
        }
        let join = |node| tokio::time::timeout(Duration::from_secs(30), Locks::join(node, "part", |_| {}));
        let (a, b, c) = tokio::join!(join(&nodes[0]), join(&nodes[1]), join(&nodes[2]));
        let spaces: Vec<Locks> = [a, b, c].map(|joined| joined.expect("in time").expect("join")).into();
        for n in 0..random.below(30) {
            let locks = &spaces[random.below(3)];
            let lock = locks.lock(&[n as u8], Mode::Pr).await.expect("lock");
            if random.below(2) == 0 {
                locks.unlock(lock).await.expect("unlock");
            }
        }
        let parting: Vec<_> = nodes
            .into_iter()
            .zip(spaces)
            .map(|(node, locks)| {
                let wait = [0, random.below(3000), random.below(60_000)][random.below(3)] as u64;
                tokio::spawn(part(node, locks, wait, random.below(3) > 0))
            })
            .collect();
        for (n, parted) in parting.into_iter().enumerate() {
            assert!(parted.await.expect("no panic"), "round {round}: node {} and its peers", n + 1);
        }
    }
}

/// What a client holds may hold its lockspace: once it has been told that it is over, the lockspace lets go of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_lockspace_that_was_left_is_freed() {
    let place = Place::new(1);
    let node = place.node(1, true).await;
    let locks = Locks::join(&node, "freed", |_| {}).await.expect("join");
    let lock = locks.lock(b"r", Mode::Ex).await.expect("lock");
    locks.unlock(lock).await.expect("unlock");
    let shared = Arc::downgrade(&locks.space().shared);
    node.release(locks.space()).await;
    drop(locks);
    for _ in 0..500 {
        if shared.strong_count() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} still hold it", shared.strong_count());
}
