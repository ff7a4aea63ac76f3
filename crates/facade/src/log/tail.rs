//! The newest entries in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use mainstay_core::{Entry, Lsn};

/// A bounded ring of the newest entries, contiguous.
#[derive(Debug)]
pub struct Tail {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    max_bytes: usize,
}

impl Tail {
    /// A ring that holds at most this many bytes of entries, and at least one entry.
    pub fn new(max_bytes: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, max_bytes }
    }

    /// Adds the next entry and lets old ones go.
    pub fn push(&mut self, entry: Arc<Entry>) {
        self.bytes += entry.size_bytes;
        self.entries.push_back(entry);
        while self.bytes > self.max_bytes && self.entries.len() > 1 {
            if let Some(old) = self.entries.pop_front() {
                self.bytes -= old.size_bytes;
            }
        }
    }

    /// Forgets all entries up to `lsn`.
    pub fn cut(&mut self, lsn: Lsn) {
        while self.entries.front().is_some_and(|entry| entry.lsn <= lsn) {
            if let Some(old) = self.entries.pop_front() {
                self.bytes -= old.size_bytes;
            }
        }
    }

    /// The entry `lsn`, if it is here.
    pub fn get(&self, lsn: Lsn) -> Option<&Arc<Entry>> {
        let first = self.entries.front()?.lsn;
        self.entries.get(usize::try_from(lsn.0.checked_sub(first.0)?).ok()?)
    }

    /// Entries after `after` up to `end`, as far as `max_bytes` go; `None` if the first is not here.
    pub fn read(&self, after: Lsn, end: Lsn, max_bytes: usize) -> Option<Vec<Arc<Entry>>> {
        let start = self.get(after.next())?;
        let first = self.entries.front()?.lsn;
        let from = usize::try_from(start.lsn.0 - first.0).ok()?;
        let mut bytes = 0;
        let read = self.entries.range(from..).take_while(|entry| {
            let before = bytes;
            bytes += entry.size_bytes;
            entry.lsn <= end && (before == 0 || bytes <= max_bytes)
        });
        Some(read.cloned().collect())
    }
}
