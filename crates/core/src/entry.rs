//! Log entries, positions and runs.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::id::{Lsn, PointId};
use crate::name::CollectionName;
use crate::path::PayloadPath;
use crate::point::{Payload, Point};
use crate::spec::CollectionSpec;

/// Names one log for all time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogId(pub Uuid);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A log and its epoch. The epoch grows when a log continues from something other than its own
/// last entry, so that two histories of one log are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogIdentity {
    /// The log.
    pub id: LogId,
    /// Its epoch, from 1.
    pub epoch: u64,
}

/// The BLAKE3 hash of an entry and, through the hash before it, of all entries up to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntryHash(pub [u8; 32]);

impl EntryHash {
    /// The hash before the first entry.
    pub const ZERO: Self = Self([0; 32]);
}

impl fmt::Display for EntryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for EntryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// How far a store holds the effects of a log; the store keeps it beside the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The log and its epoch.
    pub log: LogIdentity,
    /// Everything up to this entry is in the store.
    pub lsn: Lsn,
    /// The hash of that entry; [`EntryHash::ZERO`] at LSN 0.
    pub hash: EntryHash,
}

impl Position {
    /// Before the first entry of a log.
    pub const fn start(log: LogIdentity) -> Self {
        Self { log, lsn: Lsn::ZERO, hash: EntryHash::ZERO }
    }
}

/// A collection and its incarnation: the LSN of the entry that created it. A collection that is
/// dropped and created again under the same name is another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollectionRef {
    /// The name.
    pub name: CollectionName,
    /// The LSN of the entry that created it.
    pub incarnation: Lsn,
}

/// Names the place of one store for as long as it is not wiped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoreId(pub Uuid);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A change of a payload that leaves the rest of the point alone.
#[derive(Clone, Debug, PartialEq)]
pub enum PayloadPatch {
    /// Puts these top-level keys in place of the ones there.
    Set(Payload),
    /// Removes the values at these paths (plain keys and nested keys).
    Delete(Vec<PayloadPath>),
    /// Puts this payload in place of the whole.
    Overwrite(Payload),
}

impl PayloadPatch {
    /// Changes a payload.
    pub fn apply_to(&self, payload: &mut Payload) {
        match self {
            Self::Set(new) => payload.extend(new.iter().map(|(k, v)| (k.clone(), v.clone()))),
            Self::Delete(paths) => paths.iter().for_each(|path| path.remove_from(payload)),
            Self::Overwrite(new) => payload.clone_from(new),
        }
    }
}

/// What an entry does. Effects are by id: what a filter meant was decided before the log.
///
/// The result of an entry depends on the entries before it alone, and applying a suffix of the log
/// again, in order, changes nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Creates a collection; its incarnation is the entry's own LSN.
    CreateCollection(CollectionSpec),
    /// Takes over a collection that one store holds already, with points that no entry wrote; their version is 0.
    /// What is in it cannot be replayed: every other store answers `LogGap` and has to be loaded from that one.
    AdoptCollection {
        /// What it is; its incarnation is the entry's own LSN.
        spec: CollectionSpec,
        /// The store that holds it.
        store: StoreId,
    },
    /// Drops a collection with all its points.
    DropCollection(CollectionRef),
    /// Writes whole points in place of the ones with the same ids. Ids are unique in an entry.
    Upsert {
        /// Where.
        collection: CollectionRef,
        /// What, already admitted by the collection's spec.
        points: Vec<Arc<Point>>,
    },
    /// Removes points; ids that are not there are passed over.
    Delete {
        /// Where.
        collection: CollectionRef,
        /// Which.
        ids: Vec<PointId>,
    },
    /// Changes the payload of points; ids that are not there are passed over.
    PatchPayload {
        /// Where.
        collection: CollectionRef,
        /// Which.
        ids: Vec<PointId>,
        /// How.
        patch: PayloadPatch,
    },
}

impl Op {
    /// What a store answers to the adoption of a collection of which it holds this incarnation, if any: it passes
    /// the entry over if that is the adopted one or a later one.
    ///
    /// # Errors
    /// `LogGap` otherwise: what is in the collection cannot be replayed.
    pub fn check_adopted(spec: &CollectionSpec, lsn: Lsn, held: Option<Lsn>) -> Result<()> {
        if held >= Some(lsn) {
            return Ok(());
        }
        let text =
            "the collection was taken over from another store; this one has to be loaded from a member";
        Err(Error::new(ErrorKind::LogGap, text).with_collection(&spec.name).with_lsn(lsn))
    }

    /// The name of the collection that this changes.
    pub fn collection(&self) -> &CollectionName {
        match self {
            Self::CreateCollection(spec) | Self::AdoptCollection { spec, .. } => &spec.name,
            Self::DropCollection(collection)
            | Self::Upsert { collection, .. }
            | Self::Delete { collection, .. }
            | Self::PatchPayload { collection, .. } => &collection.name,
        }
    }

    /// Whether this creates, takes over or drops a collection, and so touches no point by its id.
    pub fn is_of_collections(&self) -> bool {
        match self {
            Self::CreateCollection(_) | Self::AdoptCollection { .. } | Self::DropCollection(_) => true,
            Self::Upsert { .. } | Self::Delete { .. } | Self::PatchPayload { .. } => false,
        }
    }

    /// The ids of the points that this touches, in order; none for a change of collections.
    pub fn ids(&self) -> impl Iterator<Item = PointId> + Send + '_ {
        let (points, ids): (&[Arc<Point>], &[PointId]) = match self {
            Self::CreateCollection(_) | Self::AdoptCollection { .. } | Self::DropCollection(_) => (&[], &[]),
            Self::Upsert { points, .. } => (points, &[]),
            Self::Delete { ids, .. } | Self::PatchPayload { ids, .. } => (&[], ids),
        };
        points.iter().map(|point| point.id).chain(ids.iter().copied())
    }

    /// How many points this touches (1 for a change of collections).
    pub fn points(&self) -> usize {
        match self {
            Self::CreateCollection(_) | Self::AdoptCollection { .. } | Self::DropCollection(_) => 1,
            Self::Upsert { points, .. } => points.len(),
            Self::Delete { ids, .. } | Self::PatchPayload { ids, .. } => ids.len(),
        }
    }
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its place.
    pub lsn: Lsn,
    /// Its hash, which covers the hash of the entry before it.
    pub hash: EntryHash,
    /// What it does.
    pub op: Op,
    /// How many bytes it takes in the log.
    pub size_bytes: usize,
}

/// A contiguous run of entries with the position that it continues from.
#[derive(Clone, Debug)]
pub struct Run {
    after: Position,
    entries: Vec<Arc<Entry>>,
}

impl Run {
    /// A run of entries that continue `after`, without gaps.
    ///
    /// # Errors
    /// `LogGap` if the entries do not continue `after` one by one.
    pub fn new(after: Position, entries: Vec<Arc<Entry>>) -> Result<Self> {
        let mut expected = after.lsn.next();
        for entry in &entries {
            if entry.lsn != expected {
                return Err(Error::new(
                    ErrorKind::LogGap,
                    format!("entry {expected} is missing before entry {}", entry.lsn),
                )
                .with_lsn(entry.lsn));
            }
            expected = expected.next();
        }
        Ok(Self { after, entries })
    }

    /// The position before the first entry.
    pub fn after(&self) -> Position {
        self.after
    }

    /// The position that a store reaches by this run.
    pub fn end(&self) -> Position {
        match self.entries.last() {
            Some(last) => Position { log: self.after.log, lsn: last.lsn, hash: last.hash },
            None => self.after,
        }
    }

    /// All entries.
    pub fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }

    /// The entries that a store at `position` still has to apply: an already applied prefix is
    /// skipped. Every store calls this first in `apply`. A store without a position holds
    /// nothing, and takes runs from the first entry only.
    ///
    /// # Errors
    /// `LogGap` if the store holds another log's position, if entries between the position and
    /// the run are missing, or if the position's hash is not that of the entry in the run.
    pub fn remaining(&self, position: Option<&Position>) -> Result<&[Arc<Entry>]> {
        let start = Position::start(self.after.log);
        let position = position.unwrap_or(&start);
        let gap = |text: String| Err(Error::new(ErrorKind::LogGap, text).with_lsn(position.lsn));
        if position.log != self.after.log {
            return gap(format!(
                "the store follows log {} epoch {}, the run is of log {} epoch {}",
                position.log.id, position.log.epoch, self.after.log.id, self.after.log.epoch
            ));
        }
        if position.lsn < self.after.lsn {
            return gap(format!(
                "the store is at entry {}, the run starts after entry {}",
                position.lsn, self.after.lsn
            ));
        }
        let skipped = usize::try_from(position.lsn.0 - self.after.lsn.0).unwrap_or(usize::MAX);
        let known = match skipped.checked_sub(1) {
            None => Some(self.after.hash),
            Some(last) => self.entries.get(last).map(|entry| entry.hash),
        };
        if known.is_some_and(|hash| hash != position.hash) {
            return gap(format!(
                "entry {} in the store is not entry {} of the log (their hashes differ): the histories parted",
                position.lsn, position.lsn
            ));
        }
        Ok(self.entries.get(skipped..).unwrap_or(&[]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(n: u128) -> LogIdentity {
        LogIdentity { id: LogId(Uuid::from_u128(n)), epoch: 1 }
    }

    fn entry(lsn: u64) -> Arc<Entry> {
        let collection = CollectionRef { name: CollectionName::new("c").unwrap(), incarnation: Lsn(1) };
        let op = Op::Delete { collection, ids: vec![] };
        Arc::new(Entry { lsn: Lsn(lsn), hash: hash(lsn), op, size_bytes: 0 })
    }

    fn hash(lsn: u64) -> EntryHash {
        EntryHash([lsn as u8; 32])
    }

    fn at(lsn: u64) -> Position {
        Position { log: identity(1), lsn: Lsn(lsn), hash: hash(lsn) }
    }

    fn run(from: u64, to: u64) -> Run {
        Run::new(at(from - 1), (from..=to).map(entry).collect()).unwrap()
    }

    #[test]
    fn an_operation_says_which_points_it_touches() {
        let collection = CollectionRef { name: CollectionName::new("c").unwrap(), incarnation: Lsn(1) };
        let ids = vec![PointId::Num(3), PointId::Num(1)];
        let points = ids.iter().map(|id| Arc::new(Point::new(*id, vec![1.0]))).collect();
        let patch = PayloadPatch::Set(Payload::new());
        for op in [
            Op::Upsert { collection: collection.clone(), points },
            Op::Delete { collection: collection.clone(), ids: ids.clone() },
            Op::PatchPayload { collection: collection.clone(), ids: ids.clone(), patch },
        ] {
            assert_eq!((op.ids().collect::<Vec<_>>(), op.is_of_collections()), (ids.clone(), false));
            assert_eq!(op.ids().count(), op.points());
        }
        let drop = Op::DropCollection(collection);
        assert_eq!((drop.ids().count(), drop.is_of_collections()), (0, true));
    }

    #[test]
    fn an_applied_prefix_is_skipped() {
        for (position, left) in [(2, 3), (3, 2), (5, 0), (9, 0)] {
            assert_eq!(run(3, 5).remaining(Some(&at(position))).unwrap().len(), left);
        }
        assert_eq!(run(1, 2).remaining(None).unwrap().len(), 2);
    }

    #[test]
    fn a_gap_is_an_error() {
        assert_eq!(run(3, 5).remaining(Some(&at(1))).unwrap_err().kind(), ErrorKind::LogGap);
        assert_eq!(run(3, 5).remaining(None).unwrap_err().kind(), ErrorKind::LogGap);
        assert!(Run::new(at(0), vec![entry(1), entry(3)]).is_err());
    }

    #[test]
    fn another_history_is_noticed() {
        let other_log = Position { log: identity(2), ..at(4) };
        assert!(run(3, 5).remaining(Some(&other_log)).is_err());
        for lsn in [2, 4] {
            let other_entry = Position { hash: hash(99), ..at(lsn) };
            assert!(run(3, 5).remaining(Some(&other_entry)).is_err());
        }
    }
}
