//! Some collections alone.
//!
//! A store that holds only a part of what a log wrote must not have a position of that log: a tier would take it for one that
//! has caught up, and read everything else from it as not there. So its position is of a log of its own, which is as the
//! one that was archived, but that entries of other collections have no effect.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mainstay_core::{
    CollectionName, CollectionRef, Entry, Error, ErrorKind, LogId, LogIdentity, Lsn, Op, Result,
};
use mainstay_snapshot::Manifest;
use uuid::Uuid;

/// A log that no tier has.
pub(super) fn own_log() -> LogIdentity {
    LogIdentity { id: LogId(Uuid::new_v4()), epoch: 1 }
}

/// Checks that every wanted collection is there after the last entry, of which `changes` are those that create and drop some.
///
/// # Errors
/// `NotFound` for one that is not, with those that are, and the entry that dropped it if one did; `Invalid` if none is wanted.
pub(super) fn check(
    wanted: &BTreeSet<CollectionName>,
    manifest: &Manifest,
    changes: &[Arc<Entry>],
) -> Result<()> {
    if wanted.is_empty() {
        return Err(Error::invalid("no collection is named"));
    }
    let mut there: BTreeMap<&CollectionName, Lsn> =
        manifest.collections.iter().map(|(name, collection)| (name, collection.incarnation)).collect();
    let mut dropped = BTreeMap::new();
    for entry in changes {
        match &entry.op {
            Op::CreateCollection(spec) | Op::AdoptCollection { spec, .. } => {
                let incarnation = there.entry(&spec.name).or_insert(entry.lsn);
                *incarnation = entry.lsn.max(*incarnation);
            }
            Op::DropCollection(collection)
                if there.get(&collection.name) == Some(&collection.incarnation) =>
            {
                there.remove(&collection.name);
                dropped.insert(&collection.name, entry.lsn);
            }
            Op::DropCollection(_) | Op::Upsert { .. } | Op::Delete { .. } | Op::PatchPayload { .. } => {}
        }
    }
    let Some(missing) = wanted.iter().find(|name| !there.contains_key(name)) else { return Ok(()) };
    let why = match dropped.get(missing) {
        Some(lsn) => format!("collection `{missing}` was dropped by entry {lsn}"),
        None => format!("snapshot {} has no collection `{missing}`", manifest.id),
    };
    let known: Vec<_> = there.keys().map(|name| name.as_str()).collect();
    let text = format!("{why}; there are: {}", known.join(", "));
    Err(Error::new(ErrorKind::NotFound, text).with_collection(missing))
}

/// Entries that change these collections alone. The others stay in their places, because a run has no gaps, and do nothing:
/// they delete no point of a collection that is not there.
pub(super) fn entries_of(wanted: &BTreeSet<CollectionName>, entries: &[Arc<Entry>]) -> Vec<Arc<Entry>> {
    let of_wanted = |entry: &Arc<Entry>| match entry.op.collection() {
        name if wanted.contains(name) => Arc::clone(entry),
        name => {
            let collection = CollectionRef { name: name.clone(), incarnation: entry.lsn };
            Arc::new(Entry { op: Op::Delete { collection, ids: Vec::new() }, ..**entry })
        }
    };
    entries.iter().map(of_wanted).collect()
}
