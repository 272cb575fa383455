//! What must hold between the nodes when nothing is under way (dlm.md 6.5: I1, I7, I9, I12, I20, I21).

use super::{Verdict, World};
use crate::engine::Engine;
use crate::engine::lock::{LockKey, Queue};
use crate::engine::resource::Master;
use crate::flags::LockFlags;
use crate::ids::NodeId;
use crate::mode::{Mode, compatible};
use std::collections::BTreeMap;

impl World {
    /// Checks a quiet cluster.
    pub fn check_quiet(&self) -> Verdict {
        let mut masters: BTreeMap<&[u8], NodeId> = BTreeMap::new();
        for (id, node) in &self.nodes {
            for key in node.engine.resources.keys() {
                let record = &node.engine.resources[key];
                if record.master == Master::Me
                    && let Some(other) = masters.insert(&record.name, *id)
                {
                    return Err(format!("I1: {id} and {other} both master {}", record.name.escape_ascii()));
                }
            }
        }
        for (id, node) in &self.nodes {
            let engine = &node.engine;
            for key in engine.resources.keys() {
                let record = &engine.resources[key];
                if record.locks > 0 {
                    let master = masters.get(&*record.name).copied();
                    self.check_directory(*id, &record.name, record.dir, master)?;
                }
                if record.master == Master::Me {
                    self.check_notices(*id, engine, key)?;
                }
            }
            engine.locks.keys().try_for_each(|key| self.check_partner(*id, engine, key))?;
        }
        self.check_clients()
    }

    fn check_directory(&self, id: NodeId, name: &[u8], dir: NodeId, master: Option<NodeId>) -> Verdict {
        let shown = name.escape_ascii();
        let Some(master) = master else { return Err(format!("I12: nobody masters {shown}, used on {id}")) };
        let Some(node) = self.nodes.get(&dir) else { return Err(format!("I12: {dir} directs {shown} and is gone")) };
        let key = node.engine.resources.find(name, crate::ids::name_hash(name));
        let recorded = match key.map(|key| node.engine.resources[key].master) {
            Some(Master::Me) => Some(dir),
            Some(Master::Node(node)) => Some(node),
            Some(Master::Unknown) | None => None,
        };
        if recorded != Some(master) {
            return Err(format!("I12: {dir} records {recorded:?} as the master of {shown}, it is {master}"));
        }
        Ok(())
    }

    /// I9: both records of a remote lock name one another and agree.
    fn check_partner(&self, id: NodeId, engine: &Engine, key: LockKey) -> Verdict {
        let lock = &engine.locks[key];
        let partner = match (lock.is_master_copy(), engine.resources[lock.resource].master) {
            (true, _) => lock.holder,
            (false, Master::Node(master)) => master,
            (false, _) => return Ok(()),
        };
        let other = self.nodes.get(&partner).and_then(|node| {
            let key = node.engine.locks.find(lock.remid)?;
            Some(&node.engine.locks[key])
        });
        let agrees = other.is_some_and(|other| {
            other.remid == lock.id
                && other.queue == lock.queue
                && (other.granted == lock.granted || lock.unresolved || other.unresolved)
        });
        if !agrees {
            return Err(format!(
                "I9: lock {:x} of {id} and its partner {:x} of {partner}: {lock:?} {other:?}",
                lock.id.0, lock.remid.0
            ));
        }
        Ok(())
    }

    /// I7: whoever stands in the way of a waiting lock has been told so.
    fn check_notices(&self, id: NodeId, engine: &Engine, resource: u32) -> Verdict {
        for queue in [Queue::Converting, Queue::Waiting] {
            for waiting in engine.queue(resource, queue) {
                let lock = &engine.locks[waiting];
                for holder in engine.queue(resource, Queue::Granted) {
                    let blocker = &engine.locks[holder];
                    if !compatible(blocker.granted, lock.requested)
                        && !self.was_told(id, engine, holder, lock.requested)
                    {
                        return Err(format!("I7: on {id} {blocker:?} was not told that {lock:?} waits"));
                    }
                }
            }
        }
        Ok(())
    }

    fn was_told(&self, id: NodeId, engine: &Engine, holder: LockKey, requested: Option<Mode>) -> bool {
        let lock = &engine.locks[holder];
        if !lock.wants_notices {
            return true;
        }
        let (node, lock_id) = if lock.is_master_copy() { (lock.holder, lock.remid) } else { (id, lock.id) };
        let shadow = self.shadows.values().find(|s| s.node == node && s.id == Some(lock_id) && !s.dead);
        shadow.is_some_and(|s| {
            s.op.is_some()
                || s.unlock
                || s.notice.is_some_and(|told| !compatible(Some(told), s.held))
                || requested.is_none()
        })
    }

    /// What a client waits for is waited for somewhere.
    fn check_clients(&self) -> Verdict {
        for (token, shadow) in self.shadows.iter().filter(|(_, s)| !s.dead) {
            let engine = &self.nodes[&shadow.node].engine;
            let key = shadow.id.and_then(|id| engine.locks.find(id));
            let Some(key) = key else {
                return Err(format!("I8: client {token} has a lock that does not exist: {shadow:?}"));
            };
            let lock = &engine.locks[key];
            let waits = matches!(lock.queue, Queue::Waiting | Queue::Converting);
            if waits != shadow.op.is_some() || shadow.unlock {
                return Err(format!("I20: client {token} {shadow:?} and {lock:?}"));
            }
        }
        Ok(())
    }

    /// Everyone gives up everything; nothing must be left, neither operations nor records.
    pub fn wind_down(&mut self) -> Verdict {
        self.stalled.clear();
        for _ in 0..50 {
            self.settle()?;
            self.check_quiet()?;
            let idle: Vec<u64> = self.shadows.iter().filter(|(_, s)| s.is_idle()).map(|(token, _)| *token).collect();
            if idle.is_empty() && self.shadows.values().all(|s| s.dead) {
                return self.check_forgotten();
            }
            for token in idle {
                self.unlock(token, LockFlags::empty())?;
            }
        }
        Err(format!("I20: locks are left that nothing blocks\n{}", self.dump()))
    }

    /// I21: idle records vanish everywhere in the end.
    fn check_forgotten(&mut self) -> Verdict {
        for _ in 0..1000 {
            if self.nodes.values().all(|node| node.engine.sizes() == (0, 0)) {
                return Ok(());
            }
            self.advance()?;
            self.settle()?;
        }
        Err(format!("I21: records are left\n{}", self.dump()))
    }
}
