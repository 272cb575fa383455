//! The pure part against a naive map and against the specification's bytes.

use super::block::{self, Defect, Rules, START, Shape, Value, find_fit, in_place, records};
use crate::format::ea::EaType;
use crate::ids::{BlockAddr, BlockSize};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn rules(bytes: u32) -> Rules {
    Rules::new(BlockSize::new(bytes).expect("legal"), 1802)
}

fn empty(bytes: usize) -> Vec<u8> {
    let mut block = vec![0; bytes];
    block::clear(&mut block);
    block
}

fn set(block: &mut [u8], rules: Rules, name: &[u8], value: &[u8]) -> bool {
    let shape = Shape::of(rules, name.len(), value.len()).expect("fits a block");
    let Some(fit) = find_fit(block, rules, shape.size).expect("sound") else { return false };
    block::write(block, fit, EaType::User, name, Value::Inline(value));
    true
}

fn all(block: &[u8], rules: Rules) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let live = records(block, rules).map(|r| r.expect("sound")).filter(|r| r.used());
    live.map(|r| (r.name(block).to_vec(), r.inline_value(block).to_vec())).collect()
}

#[test]
fn the_specifications_bytes() {
    let mut block = empty(4096);
    assert!(set(&mut block, rules(4096), b"only", b"xxxxx"));
    let wanted = [&[0, 0, 0x0f, 0xe8, 0, 0, 0, 5, 4, 1, 1, 0, 0, 0, 0, 0][..], b"onlyxxxxx"].concat();
    assert_eq!(block[START..][..wanted.len()], wanted);
}

#[test]
fn shapes_and_limits() {
    let of = |bytes, name, value| Shape::of(rules(bytes), name, value).map(|s| (s.size, s.ptrs));
    assert_eq!(of(4096, 4, 5), Some((32, 0)));
    assert_eq!(of(4096, 4, 4052), Some((4072, 0)));
    assert_eq!(of(4096, 4, 4053), Some((16 + 8 + 8, 1)));
    assert_eq!(of(4096, 255, 65536), Some((16 + 256 + 17 * 8, 17)));
    assert_eq!(of(4096, 4, 65537), None);
    // At 512 the pointers fill the block: about 28 KiB.
    assert_eq!(of(512, 8, 58 * 488), Some((488, 58)));
    assert_eq!(of(512, 8, 58 * 488 + 1), None);
}

#[test]
fn removing_the_first_keeps_its_name_and_others_merge() {
    let (mut block, r) = (empty(512), rules(512));
    for name in [b"one", b"two", b"six"] {
        assert!(set(&mut block, r, name, b"value"));
    }
    let offsets: Vec<usize> = records(&block, r).map(|x| x.expect("sound").offset).collect();
    block::remove(&mut block, r, offsets[2]).expect("sound");
    block::remove(&mut block, r, offsets[0]).expect("sound");
    let left: Vec<_> = records(&block, r).map(|x| x.expect("sound")).collect();
    assert_eq!(
        left.iter().map(|x| (x.kind, x.len)).collect::<Vec<_>>(),
        [(EaType::Unused, 24), (EaType::User, 488 - 24)]
    );
    assert_eq!(left[0].name(&block), b"one");
    assert_eq!(block::remove(&mut block, r, 30), Err(Defect("record vanished")));
}

#[test]
fn every_rule_of_a_record_is_checked() {
    let (mut good, r) = (empty(512), rules(512));
    assert!(set(&mut good, r, b"one", b"value") && set(&mut good, r, b"two", b"value"));
    let defect = |offset: usize, value: &[u8]| {
        let mut block = good.clone();
        block[offset..offset + value.len()].copy_from_slice(value);
        records(&block, r).find_map(Result::err)
    };
    assert_eq!(defect(START, &[0; 4]), Some(Defect("record of impossible length")));
    assert_eq!(defect(START, &[0, 0, 2, 0]), Some(Defect("record of impossible length")));
    assert_eq!(defect(START + 4, &[0, 0, 0, 200]), Some(Defect("value passes the record")));
    assert_eq!(defect(START + 4, &[0, 2, 0, 0]), Some(Defect("value of impossible length")));
    assert_eq!(defect(START + 8, &[0]), Some(Defect("record without a name")));
    assert_eq!(defect(START + 9, &[5]), Some(Defect("record of unknown type")));
    assert_eq!(defect(START + 10, &[1]), Some(Defect("last record not at the block's end")));
    assert_eq!(defect(START + 24 + 10, &[0]), Some(Defect("last record not at the block's end")));
    assert_eq!(defect(START + 11, &[1]), Some(Defect("pointers pass the record")));
    assert_eq!(defect(START + 24 + 11, &[2]), Some(Defect("number of pointers does not match the value")));
    assert_eq!(defect(START + 9, &[4]), None);
    let old = Rules::new(BlockSize::new(512).expect("legal"), 1801);
    good[START + 9] = 4;
    assert_eq!(records(&good, old).find_map(Result::err), Some(Defect("record of unknown type")));
}

#[test]
fn a_replaced_value_keeps_its_blocks_until_they_are_freed() {
    let (mut block, r) = (empty(512), rules(512));
    let blocks: Vec<BlockAddr> = (1..=3).map(|n| BlockAddr::new(n).expect("not 0")).collect();
    let fit = find_fit(&block, r, 488).expect("sound").expect("empty");
    block::write(&mut block, fit, EaType::User, b"big", Value::External { len: 1400, blocks: &blocks });
    let record = records(&block, r).next().expect("one").expect("sound");
    assert!(record.pointers(&block).eq([1, 2, 3]));
    block::retire(&mut block, record.offset);
    let fit = find_fit(&block, r, 100).expect("sound").expect("unused");
    assert!(fit.owns_blocks);
    let record = records(&block, r).next().expect("one").expect("sound");
    assert!(!record.used() && record.pointers(&block).eq([1, 2, 3]));
    block::disown(&mut block, record);
    assert!(!find_fit(&block, r, 100).expect("sound").expect("unused").owns_blocks);
}

proptest! {
    #[test]
    fn a_block_is_a_small_map(bs in prop::sample::select(vec![512u32, 1024, 4096]), ops in prop::collection::vec((0u8..3, 0u8..12, 0usize..300), 1..200)) {
        let (mut block, r) = (empty(bs as usize), rules(bs));
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for (op, n, len) in ops {
            let (name, value) = (format!("name{n}").into_bytes(), vec![n; len]);
            let old = records(&block, r).map(|x| x.expect("sound")).find(|x| x.used() && x.name(&block) == name);
            match (op, old) {
                (0, Some(old)) => {
                    block::remove(&mut block, r, old.offset).expect("sound");
                    model.remove(&name);
                }
                (1, Some(old)) if old.len >= Shape::of(r, name.len(), len).expect("small").size => {
                    block::write(&mut block, in_place(old), EaType::User, &name, Value::Inline(&value));
                    model.insert(name, value);
                }
                (_, None) => if set(&mut block, r, &name, &value) { model.insert(name, value); },
                _ => {}
            }
            prop_assert_eq!(&all(&block, r), &model);
        }
    }

    #[test]
    fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 512), lens in prop::collection::vec(2u8..12, 60), need in 1usize..480) {
        let mut at = START;
        for len in lens {
            if at + 16 > bytes.len() { break; }
            let end = at + 8 * usize::from(len) >= bytes.len() - 16;
            let rec_len = if end { bytes.len() - at } else { 8 * usize::from(len) };
            let data_len = bytes[at + 7];
            bytes[at..at + 8].copy_from_slice(&[0, 0, (rec_len >> 8) as u8, rec_len as u8, 0, 0, 0, data_len]);
            (bytes[at + 9], bytes[at + 10]) = (bytes[at + 9] % 5, u8::from(end));
            at += rec_len;
        }
        let r = rules(512);
        for record in records(&bytes, r) {
            let Ok(record) = record else { break };
            if record.used() {
                prop_assert!(record.name(&bytes).len() + record.pointers(&bytes).count() > 0);
                if record.ptrs == 0 { prop_assert_eq!(record.inline_value(&bytes).len(), record.data_len); }
            }
        }
        if let Ok(Some(fit)) = find_fit(&bytes, r, need) {
            block::write(&mut bytes, fit, EaType::User, b"n", Value::Inline(&vec![7; need.saturating_sub(17)]));
        }
        let _ = block::remove(&mut bytes, r, START); // Any answer is right; panicking is not.
    }
}
