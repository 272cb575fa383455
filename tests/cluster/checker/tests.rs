//! Small histories: right ones must pass, and each planted mistake must be found.

use super::check;
use crate::history::{Event, History, How, Incarnation, Lock, Object, Op, Outcome};
use crate::worker::{LINE, log_line, sum};

const R: Object = Object::Register(0);

#[derive(Default)]
struct Book(History);

impl Book {
    /// Three nodes that live; `killed` (node, when).
    fn new(killed: &[(usize, u64)]) -> Self {
        let mut incarnations: Vec<Incarnation> =
            (0..3).map(|node| Incarnation { node, ..Incarnation::default() }).collect();
        for (node, at) in killed {
            incarnations[*node].killed = Some(*at);
        }
        Self(History { incarnations, events: Vec::new() })
    }

    fn add(mut self, by: usize, start: u64, end: u64, op: Op, outcome: Outcome) -> Self {
        let event = Event { by, process: by as u32, start, end: Some(end), op, outcome: Some(outcome) };
        self.0.events.push(event);
        self
    }

    fn open(mut self, by: usize, start: u64, op: Op) -> Self {
        self.0.events.push(Event { by, process: by as u32, start, end: None, op, outcome: None });
        self
    }

    fn write(self, by: usize, start: u64, end: u64, value: u64) -> Self {
        self.add(by, start, end, Op::Write { on: R, value }, Outcome::Done)
    }

    fn read(self, by: usize, start: u64, end: u64, value: u64) -> Self {
        self.add(by, start, end, Op::Read { on: R, how: How::Opened }, Outcome::Value(value))
    }

    fn sync(self, by: usize, start: u64, end: u64) -> Self {
        self.add(by, start, end, Op::Sync { on: vec![R] }, Outcome::Done)
    }

    fn create(self, by: usize, start: u64, end: u64, won: bool) -> Self {
        self.add(by, start, end, Op::Create { name: 1 }, if won { Outcome::Done } else { Outcome::Exists })
    }

    fn moved(self, by: usize, start: u64, end: u64, from: u8, to: u8, found: bool) -> Self {
        let outcome = if found { Outcome::Done } else { Outcome::Absent };
        self.add(by, start, end, Op::Move { token: 0, from, to }, outcome)
    }

    fn look(self, by: usize, start: u64, end: u64, at: u8, there: bool) -> Self {
        let outcome = if there { Outcome::Present } else { Outcome::Absent };
        self.add(by, start, end, Op::Look { token: 0, at }, outcome)
    }

    fn count(self, by: usize, start: u64, end: u64, value: u64) -> Self {
        let outcome = Outcome::Counted { value, from: start + 1, to: end - 1 };
        self.add(by, start, end, Op::Count { counter: 0, lock: Lock::Flock }, outcome)
    }

    fn append(self, by: usize, start: u64, end: u64, number: u32) -> Self {
        self.add(by, start, end, Op::Append { writer: by as u32, number }, Outcome::Done)
    }

    fn lines(self, start: u64, lines: &[(u32, u32)]) -> Self {
        self.add(1, start, start + 1, Op::LogLines, Outcome::Lines(lines.to_vec()))
    }

    #[track_caller]
    fn good(self) {
        let wrong = check(self.0);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[track_caller]
    fn bad(self, word: &str) {
        let wrong = check(self.0);
        assert!(wrong.iter().any(|w| w.contains(word)), "{word:?} is not in {wrong:?}");
    }
}

#[test]
fn registers_in_order() {
    Book::new(&[])
        .write(0, 10, 20, 1)
        .read(1, 15, 30, 0)
        .read(1, 31, 40, 1)
        .write(2, 50, 60, 2)
        .read(0, 61, 62, 2)
        .good();
    // A read during the write may see either; two one after the other in that order.
    Book::new(&[]).write(0, 10, 90, 1).read(1, 20, 30, 0).read(2, 40, 50, 1).read(1, 60, 70, 1).good();
    // Two writes at once: either may be last.
    Book::new(&[]).write(0, 10, 20, 1).write(1, 12, 18, 2).read(2, 30, 31, 1).good();
    // A write without an answer: never, or late.
    Book::new(&[]).open(0, 10, Op::Write { on: R, value: 1 }).read(1, 20, 30, 0).read(1, 40, 50, 1).good();
    Book::new(&[]).open(0, 10, Op::Write { on: R, value: 1 }).read(1, 20, 30, 0).good();
}

#[test]
fn stale_and_early_reads_are_found() {
    Book::new(&[]).write(0, 10, 20, 1).read(1, 30, 40, 0).bad("Register");
    Book::new(&[]).write(0, 10, 20, 1).write(0, 30, 40, 2).read(1, 50, 60, 1).bad("Register");
    Book::new(&[]).write(0, 10, 20, 1).read(1, 2, 9, 1).bad("before it was written");
    Book::new(&[]).read(1, 2, 9, 7).bad("nobody wrote");
    // Backwards: new, then old, while the write is still under way.
    Book::new(&[]).write(0, 10, 90, 1).read(1, 20, 30, 1).read(2, 40, 50, 0).bad("Register");
    // Two writes at once, and two readers who disagree on their order.
    let two = || Book::new(&[]).write(0, 10, 20, 1).write(1, 10, 20, 2);
    two().read(2, 30, 31, 1).read(2, 32, 33, 2).bad("Register");
    // An old value comes back after a newer one was read.
    Book::new(&[]).write(0, 10, 20, 1).write(0, 25, 60, 2).read(1, 30, 31, 2).read(2, 40, 41, 1).bad("Register");
    // A backward zone within a forward one.
    Book::new(&[]).write(0, 10, 12, 1).write(1, 20, 22, 2).read(2, 30, 31, 1).bad("Register");
}

#[test]
fn a_killed_node_loses_only_what_nobody_had() {
    // Not fsynced, seen by nobody else: gone, or not.
    Book::new(&[(0, 50)]).write(0, 10, 20, 1).read(0, 21, 22, 1).read(1, 60, 61, 0).good();
    Book::new(&[(0, 50)]).write(0, 10, 20, 1).read(1, 60, 61, 1).good();
    // Fsynced by another process of the node.
    Book::new(&[(0, 50)]).write(0, 10, 20, 1).sync(0, 21, 30).read(1, 60, 61, 0).bad("Register");
    // The fsync began before the write ended: nothing is promised.
    Book::new(&[(0, 50)]).write(0, 10, 20, 1).sync(0, 15, 30).read(1, 60, 61, 0).good();
    // The fsync was answered after the death.
    Book::new(&[(0, 50)]).write(0, 10, 20, 1).sync(0, 21, 51).read(1, 60, 61, 0).good();
    // Another's fsync.
    Book::new(&[(0, 50)]).write(0, 10, 20, 1).sync(1, 21, 30).read(1, 60, 61, 0).good();
    // Another had seen it.
    Book::new(&[(0, 50)]).write(0, 10, 20, 1).read(2, 30, 31, 1).read(1, 60, 61, 0).bad("Register");
    // It comes and goes.
    Book::new(&[(0, 50)]).write(0, 10, 20, 1).read(1, 60, 61, 0).read(2, 70, 71, 1).bad("Register");
    // While it lived, it was there for all.
    Book::new(&[(0, 50)]).write(0, 10, 20, 1).read(1, 30, 31, 0).bad("Register");
    Book::new(&[(0, 50)]).write(0, 10, 20, 1).read(0, 30, 31, 0).bad("Register");
    // What a dead node answers means nothing.
    Book::new(&[(0, 50)]).write(1, 60, 61, 1).read(0, 45, 70, 0).read(2, 62, 63, 1).good();
    // A second death does not excuse the first's loss.
    Book::new(&[(0, 50), (1, 90)]).write(0, 10, 20, 1).sync(0, 21, 30).read(2, 60, 61, 0).bad("Register");
    // What another overwrote is not older than what it overwrote.
    Book::new(&[(0, 50)]).write(0, 10, 20, 1).write(1, 30, 40, 2).read(2, 60, 61, 0).bad("Register");
}

#[test]
fn counters() {
    let good = || Book::new(&[]).count(0, 10, 20, 1).count(1, 15, 30, 2);
    let peek = |b: Book, v: u64| b.add(0, 90, 91, Op::Peek { counter: 0 }, Outcome::Value(v));
    peek(Book::new(&[]).count(0, 10, 20, 1).count(1, 20, 30, 2), 2).good();
    good().bad("two holders");
    peek(Book::new(&[]).count(0, 10, 20, 1).count(1, 20, 30, 2), 1).bad("read 1");
    peek(Book::new(&[]).count(0, 10, 20, 1).count(1, 20, 30, 2), 3).bad("read 3");
    Book::new(&[]).count(0, 10, 20, 1).count(1, 30, 40, 1).bad("twice the same");
    Book::new(&[]).count(0, 10, 20, 2).count(1, 30, 40, 1).bad("went backwards");
    Book::new(&[]).count(0, 10, 20, 1).count(1, 30, 40, 3).bad("missing");
    let op = Op::Count { counter: 0, lock: Lock::Fcntl };
    // One without an answer may have counted.
    Book::new(&[(2, 25)]).count(0, 10, 20, 1).open(2, 21, op.clone()).count(1, 30, 40, 3).good();
    Book::new(&[(2, 25)]).count(0, 10, 20, 1).open(2, 21, op).count(1, 30, 40, 2).good();
    // Answered, then lost.
    Book::new(&[(0, 25)]).count(0, 10, 20, 1).count(1, 30, 40, 1).bad("twice the same");
}

#[test]
fn the_log() {
    let two = || Book::new(&[]).append(0, 10, 20, 1).append(1, 30, 40, 1);
    two().lines(90, &[(0, 1), (1, 1)]).good();
    two().lines(90, &[(1, 1), (0, 1)]).bad("out of order");
    two().lines(90, &[(0, 1)]).bad("acknowledged and lost");
    two().lines(90, &[(0, 1), (1, 1), (0, 1)]).bad("is line");
    two().lines(90, &[(0, 1), (1, 1), (2, 1)]).bad("nobody wrote");
    two().bad("nobody read it");
    two().lines(90, &[(0, 1), (1, 1)]).lines(95, &[(0, 1)]).bad("another content");
    let open = Op::Append { writer: 2, number: 1 };
    two().open(2, 25, open.clone()).lines(90, &[(0, 1), (1, 1)]).good();
    two().open(2, 25, open.clone()).lines(90, &[(0, 1), (1, 1), (2, 1)]).good();
    two().open(2, 25, open).lines(90, &[(2, 1), (0, 1), (1, 1)]).bad("out of order");
    let length =
        |b: Book, at: u64, lines: u64| b.add(2, at, at + 1, Op::LogLength, Outcome::Length(lines * LINE as u64));
    length(two().lines(90, &[(0, 1), (1, 1)]), 50, 2).good();
    length(two().lines(90, &[(0, 1), (1, 1)]), 50, 1).bad("shorter");
    length(two().lines(90, &[(0, 1), (1, 1)]), 25, 2).bad("longer");
    length(two().lines(90, &[(0, 1), (1, 1)]), 50, 3).bad("longer");
    let content =
        |b: Book, line: Vec<u8>| b.add(2, 25, 26, Op::LogContent, Outcome::Content(line.len() as u64, sum(&line)));
    content(two().lines(90, &[(0, 1), (1, 1)]), log_line(0, 1)).good();
    content(two().lines(90, &[(0, 1), (1, 1)]), log_line(1, 1)).bad("other content");
}

#[test]
fn names() {
    Book::new(&[]).create(0, 10, 20, true).create(1, 15, 30, false).create(2, 40, 50, false).good();
    Book::new(&[]).create(0, 10, 20, true).create(1, 15, 30, true).bad("created twice");
    Book::new(&[]).create(0, 10, 20, false).create(1, 30, 40, true).bad("created twice");
    Book::new(&[]).open(0, 10, Op::Create { name: 1 }).create(1, 30, 40, false).good();
    Book::new(&[]).open(0, 10, Op::Create { name: 1 }).create(1, 30, 40, true).good();
    // Lost with its node, unless it was durable or another knew.
    let first = || Book::new(&[(0, 50)]).create(0, 10, 20, true);
    first().create(1, 60, 70, true).good();
    first().create(1, 60, 70, false).good();
    first().create(1, 30, 40, false).create(1, 60, 70, true).bad("created twice");
    first().add(0, 21, 30, Op::SyncNames, Outcome::Done).create(1, 60, 70, true).bad("created twice");
    first().create(1, 30, 40, true).bad("created twice");
    first().create(1, 60, 70, true).create(2, 80, 90, true).bad("created twice");
}

#[test]
fn tokens() {
    Book::new(&[]).moved(0, 10, 20, 0, 1, true).moved(1, 15, 30, 0, 2, false).look(2, 40, 50, 1, true).good();
    Book::new(&[]).moved(0, 10, 20, 0, 1, true).moved(1, 15, 30, 0, 2, true).bad("two places");
    // The same move by two nodes at once may succeed twice, but not one after the other, nor on one node, nor elsewhere.
    Book::new(&[]).moved(0, 10, 20, 0, 1, true).moved(1, 15, 30, 0, 1, true).look(2, 40, 50, 1, true).good();
    Book::new(&[]).moved(0, 10, 20, 0, 1, true).moved(1, 21, 30, 0, 1, true).bad("two places");
    Book::new(&[]).moved(0, 10, 20, 0, 1, true).moved(0, 15, 30, 0, 1, true).bad("two places");
    Book::new(&[]).moved(0, 10, 20, 0, 1, true).moved(1, 15, 30, 2, 1, true).bad("two places");
    Book::new(&[]).moved(0, 10, 20, 0, 1, true).look(1, 30, 40, 0, true).bad("two places");
    Book::new(&[]).moved(0, 10, 20, 0, 1, true).look(1, 30, 40, 1, false).bad("two places");
    Book::new(&[]).look(1, 30, 40, 0, false).bad("two places");
    // Under way: here or there.
    let open = Op::Move { token: 0, from: 0, to: 1 };
    Book::new(&[]).open(0, 10, open.clone()).look(1, 20, 30, 0, true).look(1, 31, 40, 1, true).good();
    Book::new(&[]).open(0, 10, open.clone()).look(1, 20, 30, 1, true).look(1, 31, 40, 0, true).bad("two places");
    // A death: what was answered stays, what was not may go back, but not once another saw it.
    Book::new(&[(0, 50)]).moved(0, 10, 20, 0, 1, true).look(1, 60, 61, 0, true).bad("two places");
    let dying = || Book::new(&[(0, 50)]).open(0, 10, open.clone()).look(0, 20, 30, 1, true);
    dying().look(1, 60, 61, 0, true).good();
    dying().look(1, 60, 61, 1, true).good();
    dying().look(1, 40, 41, 1, true).look(1, 60, 61, 0, true).bad("two places");
    dying().look(1, 60, 61, 0, true).look(1, 70, 71, 1, true).bad("two places");
}

#[test]
fn rewrites_and_strange_answers() {
    let op = || Op::Rewrite { file: 0 };
    let mismatch = || Outcome::Mismatch("x".into());
    Book::new(&[]).add(0, 10, 20, op(), mismatch()).bad("without the lock");
    Book::new(&[(1, 8)]).open(1, 5, op()).add(0, 10, 20, op(), mismatch()).good();
    Book::new(&[(1, 8)])
        .open(1, 5, op())
        .add(2, 9, 10, op(), Outcome::Done)
        .add(0, 11, 20, op(), mismatch())
        .bad("without");
    let failed = || Outcome::Failed("no".into());
    Book::new(&[]).add(0, 10, 20, Op::LogLength, failed()).bad("strange answer");
    Book::new(&[(0, 15)]).add(0, 10, 20, Op::LogLength, failed()).good();
    Book::new(&[(0, 25)]).add(0, 10, 20, Op::LogLength, Outcome::Wrong("no".into())).bad("wrong content");
    let mut cut = Book::new(&[(0, 50)]);
    cut.0.incarnations[0].faulty = Some(15);
    cut.add(0, 10, 20, Op::LogLength, failed()).good();
}
