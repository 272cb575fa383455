//! Sealed datagrams: `number of the key (8) | counter (8) | HMAC-SHA-256 (32) | content`, the seal over the other three.

use crate::ids::NodeId;
use ring::hmac;
use rustls::Connection;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

const NUMBER: usize = 8;
const COUNTER: usize = 8;
const MAC: usize = 32;
/// A sender changes its key with its connection; datagrams under the last few may still be on their way.
const KEYS_MAX: usize = 4;
const LABEL: &[u8] = b"EXPORTER-gfs2r-heartbeat";

#[derive(Debug)]
struct Key {
    number: [u8; NUMBER],
    key: hmac::Key,
    /// Of the last datagram sealed or opened.
    counter: u64,
}

#[derive(Debug, Default)]
struct Keys {
    /// Ours, of the last connection that we made.
    ours: BTreeMap<NodeId, Key>,
    /// Theirs, of the last connections that they made; the newest last.
    theirs: BTreeMap<NodeId, VecDeque<Key>>,
}

/// The keys towards all nodes.
#[derive(Debug, Default)]
pub struct Seals {
    keys: Mutex<Keys>,
}

impl Seals {
    fn keys(&self) -> MutexGuard<'_, Keys> {
        // Maps that stay consistent at every step.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// We have made a connection to this node: its key seals what we send from now on.
    pub(crate) fn dialled(&self, node: NodeId, connection: &Connection) -> io::Result<()> {
        let key = derive(connection)?;
        self.keys().ours.insert(node, key);
        Ok(())
    }

    /// This node has made a connection to us: its key opens what it sends from now on.
    pub(crate) fn answered(&self, node: NodeId, connection: &Connection) -> io::Result<()> {
        let key = derive(connection)?;
        let mut keys = self.keys();
        let theirs = keys.theirs.entry(node).or_default();
        theirs.push_back(key);
        if theirs.len() > KEYS_MAX {
            theirs.pop_front();
        }
        Ok(())
    }

    /// Seals a datagram for a node; nothing before there has been a connection to it.
    pub(crate) fn seal(&self, node: NodeId, content: &[u8]) -> Option<Vec<u8>> {
        let mut keys = self.keys();
        let key = keys.ours.get_mut(&node)?;
        key.counter += 1;
        let counter = key.counter.to_be_bytes();
        let mac = tag(&key.key, &key.number, &counter, content);
        Some([&key.number[..], &counter, mac.as_ref(), content].concat())
    }

    /// What a node has sealed, if it is unbroken and newer than everything before it under the same key.
    pub(crate) fn open(&self, node: NodeId, datagram: &[u8]) -> Option<Vec<u8>> {
        let (number, rest) = datagram.split_first_chunk::<NUMBER>()?;
        let (counter, rest) = rest.split_first_chunk::<COUNTER>()?;
        let (mac, content) = rest.split_first_chunk::<MAC>()?;
        let mut keys = self.keys();
        let key = keys.theirs.get_mut(&node)?.iter_mut().find(|key| key.number == *number)?;
        let signed = [&number[..], &counter[..], content].concat();
        hmac::verify(&key.key, &signed, mac).ok()?;
        let counter = u64::from_be_bytes(*counter);
        if counter <= key.counter {
            return None;
        }
        key.counter = counter;
        Some(content.to_vec())
    }
}

fn tag(key: &hmac::Key, number: &[u8], counter: &[u8], content: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    [number, counter, content].iter().for_each(|part| context.update(part));
    context.sign()
}

/// The same at both ends of a connection, and known to nobody else.
fn derive(connection: &Connection) -> io::Result<Key> {
    let secret: [u8; NUMBER + 32] =
        connection.export_keying_material([0; NUMBER + 32], LABEL, None).map_err(io::Error::other)?;
    let (number, key) = secret.split_at(NUMBER);
    let mut copy = [0; NUMBER];
    copy.copy_from_slice(number);
    Ok(Key { number: copy, key: hmac::Key::new(hmac::HMAC_SHA256, key), counter: 0 })
}
