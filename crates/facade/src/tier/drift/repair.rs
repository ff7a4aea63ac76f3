//! Entries that make points right, and that never come after a write they do not know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::{CollectionRef, Error, ErrorKind, Lsn, Op, Point, PointId, Result};
use tokio::time::timeout;

use super::motion::Motion;
use crate::log::{scan, split_points};
use crate::tier::Shared;
use crate::tier::read::closing;

/// Writers wait while a repair is on its way into the log, and a repair for them; neither does so for longer.
const WAIT: Duration = Duration::from_secs(10);

/// What makes some points of a collection right.
pub(super) struct Repair {
    pub collection: CollectionRef,
    /// Points as they should be.
    pub upserts: BTreeMap<PointId, Arc<Point>>,
    /// Points that should not be.
    pub deletes: BTreeSet<PointId>,
    /// What the log did to these points since they were looked at.
    pub motion: Motion,
}

/// Appends a repair; answers the ids that it repairs. The others were written meanwhile.
///
/// # Errors
/// Whatever the log says to an append; `Timeout` if writers hold it up.
pub(super) async fn repair(shared: &Shared, repair: Repair) -> Result<BTreeSet<PointId>> {
    let Repair { collection, mut upserts, mut deletes, mut motion } = repair;
    let ids: BTreeSet<PointId> = upserts.keys().chain(&deletes).copied().collect();
    let log = &*shared.log;
    // Most of what came since is read while writers go on.
    motion.read_to(log, log.bounds().last, &|id| ids.contains(&id)).await?;
    let slow = |_| Error::new(ErrorKind::Timeout, "a repair waited too long for the log");
    let alone = timeout(WAIT, shared.order.write()).await.map_err(slow)?;
    let append = async {
        let end = log.bounds().last;
        motion.read_to(log, end, &|id| ids.contains(&id)).await?;
        if motion.collection {
            return Ok(BTreeSet::new());
        }
        upserts.retain(|id, _| !motion.ids.contains(id));
        deletes.retain(|id| !motion.ids.contains(id));
        let repaired: BTreeSet<PointId> = upserts.keys().chain(&deletes).copied().collect();
        let mut ops: Vec<Op> = split_points(upserts.into_values().collect())
            .into_iter()
            .map(|points| Op::Upsert { collection: collection.clone(), points })
            .collect();
        if !deletes.is_empty() {
            ops.push(Op::Delete { collection: collection.clone(), ids: deletes.into_iter().collect() });
        }
        if ops.is_empty() {
            return Ok(repaired);
        }
        if shared.is_closing() {
            return Err(closing());
        }
        let appended = log.append(ops).await?;
        let again = slipped(shared, (end, appended.first), &collection, &repaired).await?;
        if !again.is_empty() {
            log.append(again).await?;
        }
        Ok(repaired)
    };
    let repaired = timeout(WAIT, append).await.map_err(slow)?;
    drop(alone);
    repaired
}

/// What writers that had given up waiting still brought into the log between `after` and `before`, for these ids: it is
/// to be done once more after the repair, which did not know of it.
async fn slipped(
    shared: &Shared,
    (after, before): (Lsn, Lsn),
    collection: &CollectionRef,
    ids: &BTreeSet<PointId>,
) -> Result<Vec<Op>> {
    let (last, mut again) = (Lsn(before.0.saturating_sub(1)), Vec::new());
    scan(&*shared.log, after, last, |entry| again.extend(part(&entry.op, collection, ids))).await?;
    Ok(again)
}

/// The part of an operation that touches these ids.
fn part(op: &Op, of: &CollectionRef, wanted: &BTreeSet<PointId>) -> Option<Op> {
    let chosen = |ids: &[PointId]| ids.iter().copied().filter(|id| wanted.contains(id)).collect::<Vec<_>>();
    let part = match op {
        Op::Upsert { collection, points } if collection == of => Op::Upsert {
            collection: of.clone(),
            points: points.iter().filter(|point| wanted.contains(&point.id)).cloned().collect(),
        },
        Op::Delete { collection, ids } if collection == of => {
            Op::Delete { collection: of.clone(), ids: chosen(ids) }
        }
        Op::PatchPayload { collection, ids, patch } if collection == of => {
            Op::PatchPayload { collection: of.clone(), ids: chosen(ids), patch: patch.clone() }
        }
        _ => return None,
    };
    (part.points() > 0).then_some(part)
}

#[cfg(test)]
mod tests {
    use mainstay_core::CollectionName;

    use super::*;

    #[test]
    fn of_a_write_that_slipped_in_only_the_part_of_the_repaired_points_is_done_again() {
        let name = CollectionName::new("docs").unwrap();
        let collection = CollectionRef { name: name.clone(), incarnation: Lsn(1) };
        let other = CollectionRef { name, incarnation: Lsn(9) };
        let wanted = BTreeSet::from([PointId::Num(1), PointId::Num(3)]);
        let ids: Vec<PointId> = vec![1.into(), 2.into()];
        let delete = |collection: &CollectionRef, ids: Vec<PointId>| Op::Delete {
            collection: collection.clone(),
            ids,
        };
        assert_eq!(
            part(&delete(&collection, ids.clone()), &collection, &wanted),
            Some(delete(&collection, vec![1.into()]))
        );
        assert_eq!(part(&delete(&collection, vec![2.into()]), &collection, &wanted), None);
        assert_eq!(part(&delete(&other, ids), &collection, &wanted), None);
        let upsert = |ids: &[u64]| Op::Upsert {
            collection: collection.clone(),
            points: ids.iter().map(|id| Arc::new(Point::new(*id, vec![1.0]))).collect(),
        };
        assert_eq!(part(&upsert(&[2, 3]), &collection, &wanted), Some(upsert(&[3])));
    }
}
