//! Room within `max_memory`: what is held, what may be added, and what gives way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mainstay_core::{CollectionName, Error, ErrorKind, PayloadPatch, Point, Result, Vector};
use parking_lot::Mutex;

use crate::collection::Collection;
use crate::estimate::mebibytes;
use crate::heap;
use crate::options::{MemoryOptions, WhenFull};
use crate::recency::Clock;

/// A node of a graph, in usearch's steps of 64 bytes; its tables are counted with the graph.
const NODE: u64 = 240;
/// A slot and an id in their tables, and the slot's body.
const SLOT: u64 = 320;
/// A partial store lets go this share of its points at once, so that it does not look for the oldest at each write.
const LET_GO: usize = 8;

/// What a store knows of its room.
#[derive(Debug, Default)]
pub struct Room {
    /// Bytes as of the last measurement, and what was added since.
    held: AtomicU64,
    /// Bytes kept free for a rebuild in a store that may become partial.
    reserved: AtomicU64,
    /// Whether points were let go.
    partial: AtomicBool,
    /// Whether buried slots wait for a rebuild that there is no room for.
    cramped: AtomicBool,
    /// How the store holds what it was told to expect.
    notice: Mutex<Option<String>>,
    /// Bytes of each collection that the store was told to expect.
    expected: Mutex<BTreeMap<CollectionName, u64>>,
    clock: Arc<Clock>,
}

impl Room {
    /// The clock of the store's collections, if they need one.
    pub fn clock(&self, options: &MemoryOptions) -> Option<Arc<Clock>> {
        (options.when_full == WhenFull::Partial).then(|| Arc::clone(&self.clock))
    }

    /// Whether points were let go.
    pub fn is_partial(&self) -> bool {
        self.partial.load(Ordering::Relaxed)
    }

    /// Notes what the store was told to expect, in bytes, and how it holds that.
    pub fn note(&self, expected: BTreeMap<CollectionName, u64>, notice: Option<String>) {
        *self.notice.lock() = notice;
        *self.expected.lock() = expected;
    }

    /// About how many bytes a collection takes that was announced; none if it was not.
    pub fn expected(&self, collection: &CollectionName) -> u64 {
        self.expected.lock().get(collection).copied().unwrap_or(0)
    }

    /// What an operator should know.
    pub fn notice(&self) -> Option<String> {
        let cramped = "max_memory leaves no room for the rebuild that would free what replaced and deleted points take; \
                       raise it";
        let partial = "partial: the points used last are kept";
        let notes = [
            self.notice.lock().clone(),
            self.cramped.load(Ordering::Relaxed).then(|| cramped.to_owned()),
            self.is_partial().then(|| partial.to_owned()),
        ];
        let notes: Vec<_> = notes.into_iter().flatten().collect();
        (!notes.is_empty()).then(|| notes.join("; "))
    }

    /// The store is empty again.
    pub fn clear(&self) {
        self.held.store(0, Ordering::Relaxed);
        self.reserved.store(0, Ordering::Relaxed);
        self.partial.store(false, Ordering::Relaxed);
        self.cramped.store(false, Ordering::Relaxed);
    }

    /// Measures what is held.
    pub fn measure(&self, collections: &[Arc<Collection>]) -> u64 {
        let bytes = collections.iter().map(|collection| collection.bytes()).sum();
        self.held.store(bytes, Ordering::Relaxed);
        bytes
    }

    /// Takes room for so many bytes; a store that may become partial makes it if need be.
    ///
    /// # Errors
    /// `StorageFull` with the numbers.
    pub fn take(&self, options: &MemoryOptions, collections: &[Arc<Collection>], added: u64) -> Result<()> {
        let Some(max) = options.max_memory else { return Ok(()) };
        let fits = |held: u64| held.saturating_add(added) <= max;
        if options.when_full == WhenFull::Partial && !self.make_room(max, collections, added) {
            let text = "the room is taken until a rebuild frees it";
            return Err(Error::new(ErrorKind::StorageFull, text));
        }
        let held = self.held.load(Ordering::Relaxed);
        let held = if fits(held) { held } else { self.measure(collections) };
        if fits(held) {
            self.held.fetch_add(added, Ordering::Relaxed);
            return Ok(());
        }
        let text = format!(
            "a write would take the memory member to {}; max_memory allows {}: raise it, give the member fewer points, \
             or set when_full = \"partial\"",
            mebibytes(held.saturating_add(added)),
            mebibytes(max)
        );
        Err(Error::new(ErrorKind::StorageFull, text))
    }

    /// Lets go what was not used for longest, until what is added, and a rebuild after it, fit. False if a rebuild frees
    /// what is wanted, because too much was let go already or it is about to end: it is better waited for.
    fn make_room(&self, max: u64, collections: &[Arc<Collection>], added: u64) -> bool {
        // What is added is added to a rebuild too.
        let added = added.saturating_mul(2);
        let known = self.held.load(Ordering::Relaxed).saturating_add(self.reserved.load(Ordering::Relaxed));
        if known.saturating_add(added) <= max {
            self.reserved.fetch_add(added / 2, Ordering::Relaxed);
            return true;
        }
        let is_freeing = || collections.iter().any(|collection| collection.freeing.load(Ordering::Acquire));
        loop {
            // What is freed is still counted, and letting points go would not change that.
            let freeing = is_freeing();
            let wanted = self.reserve(collections);
            if wanted.saturating_add(added) <= max {
                return true;
            }
            if freeing || is_freeing() {
                return false;
            }
            if wanted <= max && collections.iter().any(|collection| collection.is_half_buried()) {
                return false;
            }
            let mut moments: Vec<u64> = collections.iter().flat_map(|c| c.moments()).collect();
            if moments.is_empty() {
                return true;
            }
            let last = moments.len().div_ceil(LET_GO) - 1;
            let (_, until, _) = moments.select_nth_unstable(last);
            let until = *until;
            let gone: u64 = collections.iter().map(|collection| collection.evict(until)).sum();
            self.partial.store(true, Ordering::Relaxed);
            tracing::debug!(gone, "points that were not used for longest are let go");
        }
    }

    /// Measures what is held and what a rebuild of the largest collection wants beside it.
    fn reserve(&self, collections: &[Arc<Collection>]) -> u64 {
        let wanted = collections.iter().map(|collection| collection.rebuild_bytes()).max().unwrap_or(0);
        self.reserved.store(wanted, Ordering::Relaxed);
        self.measure(collections).saturating_add(wanted)
    }

    /// The collections to build anew now: those that want it, as far as there is room.
    pub fn rebuilds(&self, options: &MemoryOptions, collections: &[Arc<Collection>]) -> Vec<Arc<Collection>> {
        let mut wanting: Vec<_> =
            collections.iter().filter(|collection| collection.wants_rebuild()).collect();
        if wanting.is_empty() {
            self.cramped.store(false, Ordering::Relaxed);
            return Vec::new();
        }
        let max = options.max_memory.unwrap_or(u64::MAX);
        let mut held = self.measure(collections);
        wanting.retain(|collection| {
            let after = held.saturating_add(collection.rebuild_bytes());
            let fits = after <= max;
            if fits {
                held = after;
            }
            fits
        });
        self.cramped.store(wanting.is_empty(), Ordering::Relaxed);
        wanting.into_iter().cloned().collect()
    }
}

/// What a point takes at most, until it is measured with all the others.
pub fn most_bytes(point: &Point) -> u64 {
    // The numbers themselves, and beside them a graph of f16.
    let dense = dense(point).map(|numbers| NODE + numbers * 6);
    dense.sum::<u64>() + body_bytes(point)
}

/// The same without its dense vectors.
pub fn body_bytes(point: &Point) -> u64 {
    let all = (heap::payload_bytes(&point.payload) + point.size_bytes()) as u64;
    all.saturating_sub(dense(point).sum::<u64>() * 4) + SLOT
}

/// How many numbers each dense vector of a point has.
fn dense(point: &Point) -> impl Iterator<Item = u64> {
    point.vectors.values().filter_map(|vector| match vector {
        Vector::Dense(values) => Some(values.len() as u64),
        Vector::Sparse(_) => None,
    })
}

/// What a patch adds to one payload at most.
pub fn patch_bytes(patch: &PayloadPatch) -> u64 {
    match patch {
        // A payload that had nothing gets a body, and its table may double.
        PayloadPatch::Set(payload) | PayloadPatch::Overwrite(payload) => {
            2 * heap::payload_bytes(payload) as u64 + SLOT
        }
        PayloadPatch::Delete(_) => 0,
    }
}
