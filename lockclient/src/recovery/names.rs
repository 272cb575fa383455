//! Rebuilding the directory: every node lists the resources it masters to the nodes that direct them (dlm.md 4.5.2).

use crate::engine::Engine;
use crate::engine::resource::Master;
use crate::frame::{Rcom, RcomBody};
use crate::ids::{Name, NodeId, name_hash};
use std::collections::BTreeMap;

/// Room for names in one answer: each takes two bytes more than its length, two are kept for the end.
const BLOCK: usize = 4024 - 2;

/// The order of a list. Asking for what follows a name of one byte means "from the beginning" in the protocol, so
/// that such names come first: all 256 of them fit into one block together with others, and none ends a block.
fn rank(name: &[u8]) -> (bool, &[u8]) {
    (name.len() > 1, name)
}

impl Engine {
    /// Lists the active resources we master, by directory node.
    pub(crate) fn list_names(&mut self) {
        let mut listing: BTreeMap<NodeId, Vec<_>> = BTreeMap::new();
        for key in self.resources.keys() {
            let record = &self.resources[key];
            if record.master == Master::Me && record.dir != self.config.node && !record.name.is_empty() {
                listing.entry(record.dir).or_default().push(key);
            }
        }
        for keys in listing.values_mut() {
            keys.sort_by(|a, b| rank(&self.resources[*a].name).cmp(&rank(&self.resources[*b].name)));
        }
        self.recovery.listing = listing;
    }

    /// Another member asks for the names that it directs, after the last one it has.
    pub(crate) fn answer_names(&mut self, from: NodeId, tag: u64, seq: u64, after: Option<Name>) {
        let keys = self.recovery.listing.get(&from).map_or(&[][..], Vec::as_slice);
        let name_of = |key: &u32| self.resources.get(*key).map_or(&[][..], |record| &record.name);
        let start = match &after {
            Some(last) if last.as_bytes().len() > 1 => {
                keys.partition_point(|key| rank(name_of(key)) <= rank(last.as_bytes()))
            }
            _ => 0,
        };
        let (mut names, mut used) = (Vec::new(), 0);
        let mut end = true;
        for key in &keys[start..] {
            let bytes = name_of(key);
            if used + 2 + bytes.len() > BLOCK {
                end = false;
                break;
            }
            if let Some(name) = Name::new(bytes).filter(|name| !name.as_bytes().is_empty()) {
                used += 2 + bytes.len();
                names.push(name);
            }
        }
        let body = RcomBody::NamesReply { names, end };
        let seq_now = self.recovery.seq;
        self.send_rcom(from, Rcom { result: 0, id: tag, seq: seq_now, seq_reply: seq, body });
    }

    /// A resource that we direct is mastered by `master`.
    pub(crate) fn adopt_name(&mut self, master: NodeId, name: &Name) {
        let hash = name_hash(name.as_bytes());
        let node = self.config.node;
        if self.directory_of(hash) != node {
            return self.ignore("listed name that we do not direct");
        }
        let Some(key) = self.resources.find(name.as_bytes(), hash) else {
            let key = self.resources.insert(name.as_bytes(), hash, node);
            self.resources[key].master = Master::Node(master);
            return;
        };
        self.resources[key].unconfirmed = false;
        match self.resources[key].master {
            Master::Me => self.ignore("listed name that we master ourselves"),
            Master::Node(known) if known == master => {}
            _ => {
                // The master changed in a round that was not completed, or its answer to a lookup is still out.
                let held = self.resources[key].locks > 0;
                let lost = self.resources[key].master_lost;
                self.settle_master(key, Master::Node(master));
                self.resources[key].new_master = held && lost || self.resources[key].new_master;
            }
        }
    }
}
