//! What the log says of some points, as far back as it goes.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_core::{CollectionRef, Lsn, Op, PayloadPatch, PointId, Record, Result};

use super::judge::Logged;
use crate::log::{Hold, Log, scan};

/// Patches of one point since it was written whole that are put together; of a point with more, what members hold counts.
const MOST_PATCHES: usize = 256;

/// The last thing that the log did to a point.
#[derive(Clone, Debug)]
enum Touch {
    Deleted,
    /// Written whole, then patched.
    Written {
        at: Lsn,
        patches: Vec<Lsn>,
    },
    /// Patched, by this entry last; what was patched is not known.
    Patched(Lsn),
}

/// What the log did to some points of a collection. The log is not cut meanwhile.
pub(super) struct History {
    collection: CollectionRef,
    ids: BTreeSet<PointId>,
    touches: BTreeMap<PointId, Touch>,
    to: Lsn,
    /// The LSN before the first entry that was looked at.
    pub cut: Lsn,
    _hold: Hold,
}

impl History {
    /// Nothing yet, of these points.
    pub fn of(collection: CollectionRef, ids: BTreeSet<PointId>, log: &dyn Log) -> Self {
        // Nothing after it is cut from now on.
        let hold = log.hold(log.checkpoint().position.lsn);
        let cut = hold.after();
        Self { collection, ids, touches: BTreeMap::new(), to: cut, cut, _hold: hold }
    }

    /// Takes the entries up to `end` into account.
    ///
    /// # Errors
    /// `Corrupt` if the log is damaged.
    pub async fn read_to(&mut self, log: &dyn Log, end: Lsn) -> Result<()> {
        let after = self.to;
        scan(log, after, end, |entry| {
            self.to = entry.lsn;
            self.take(entry.lsn, &entry.op);
        })
        .await
        .map(drop)
    }

    fn take(&mut self, lsn: Lsn, op: &Op) {
        match op {
            Op::Upsert { collection, points } if *collection == self.collection => {
                for point in points.iter().filter(|point| self.ids.contains(&point.id)) {
                    self.touches.insert(point.id, Touch::Written { at: lsn, patches: Vec::new() });
                }
            }
            Op::Delete { collection, ids } if *collection == self.collection => {
                for id in ids.iter().filter(|id| self.ids.contains(id)) {
                    self.touches.insert(*id, Touch::Deleted);
                }
            }
            Op::PatchPayload { collection, ids, .. } if *collection == self.collection => {
                for id in ids.iter().filter(|id| self.ids.contains(id)) {
                    match self.touches.get_mut(id) {
                        // A patch of a point that is not there does nothing.
                        Some(Touch::Deleted) => {}
                        Some(Touch::Written { patches, .. }) if patches.len() < MOST_PATCHES => {
                            patches.push(lsn);
                        }
                        _ => {
                            self.touches.insert(*id, Touch::Patched(lsn));
                        }
                    }
                }
            }
            _ => {}
        }
    }

    /// The last entry that was taken into account.
    pub fn end(&self) -> Lsn {
        self.to
    }

    /// What the log makes of a point.
    ///
    /// # Errors
    /// `Corrupt` if the log is damaged.
    pub async fn logged(&self, log: &dyn Log, id: PointId) -> Result<Logged> {
        Ok(match self.touches.get(&id) {
            None => Logged::Silent,
            Some(Touch::Deleted) => Logged::Deleted,
            Some(Touch::Patched(lsn)) => Logged::Patched(*lsn),
            Some(Touch::Written { at, patches }) => {
                let Some(mut record) = written(log, *at, id).await? else { return Ok(Logged::Silent) };
                for lsn in patches {
                    if let Some(patch) = patch(log, *lsn).await? {
                        patch.apply_to(&mut record.point.payload);
                        record.version = *lsn;
                    }
                }
                Logged::Written(record)
            }
        })
    }
}

async fn written(log: &dyn Log, lsn: Lsn, id: PointId) -> Result<Option<Record>> {
    Ok(match entry(log, lsn).await? {
        Some(Op::Upsert { points, .. }) => points
            .iter()
            .find(|point| point.id == id)
            .map(|point| Record { version: lsn, point: (**point).clone() }),
        _ => None,
    })
}

async fn patch(log: &dyn Log, lsn: Lsn) -> Result<Option<PayloadPatch>> {
    Ok(match entry(log, lsn).await? {
        Some(Op::PatchPayload { patch, .. }) => Some(patch),
        _ => None,
    })
}

async fn entry(log: &dyn Log, lsn: Lsn) -> Result<Option<Op>> {
    let entries = log.read(Lsn(lsn.0.saturating_sub(1)), 1).await?;
    Ok(entries.first().filter(|entry| entry.lsn == lsn).map(|entry| entry.op.clone()))
}
