//! A run of entries folded into one change per point, so that a long run costs few requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_core::{
    Context, Entry, Error, ErrorKind, Fields, Lsn, Op, PayloadPatch, Point, PointId, Record, Result,
};

use crate::control::Known;
use crate::engine::{Batch, Engine, NewPayload};
use crate::payload;

/// What becomes of a point.
enum Change {
    Put(Arc<Point>, Lsn),
    /// Patches of the point as it is stored, in order, and the version of the last one.
    Patch(Vec<PayloadPatch>, Lsn),
    Delete,
}

/// The changes to one collection, not yet written.
pub struct Changes {
    collection: Arc<Known>,
    /// Versions of the stored points, if points may be newer than the entries. Without them every stored
    /// point is older.
    stored: Option<BTreeMap<PointId, Lsn>>,
    points: BTreeMap<PointId, Change>,
}

impl Changes {
    /// No changes yet. `stored` are the versions of all points that the entries touch.
    pub fn new(collection: Arc<Known>, stored: Option<BTreeMap<PointId, Lsn>>) -> Self {
        Self { collection, stored, points: BTreeMap::new() }
    }

    /// Takes an entry that changes points of this collection.
    ///
    /// # Errors
    /// `Rejected` if a point does not fit the collection; nothing of the entry is taken then.
    pub fn take(&mut self, entry: &Entry) -> Result<()> {
        let lsn = entry.lsn;
        match &entry.op {
            Op::CreateCollection(_) | Op::AdoptCollection { .. } | Op::DropCollection(_) => {}
            Op::Upsert { points, .. } => {
                points.iter().try_for_each(|point| self.check(point).map_err(|e| e.with_lsn(lsn)))?;
                for point in points {
                    if self.is_older(point.id, lsn, true) {
                        self.points.insert(point.id, Change::Put(Arc::clone(point), lsn));
                    }
                }
            }
            Op::Delete { ids, .. } => {
                for id in ids {
                    if self.is_older(*id, lsn, false) {
                        self.points.insert(*id, Change::Delete);
                    }
                }
            }
            Op::PatchPayload { ids, patch, .. } => {
                for id in ids {
                    if self.is_older(*id, lsn, false) {
                        self.patch(*id, patch, lsn);
                    }
                }
            }
        }
        Ok(())
    }

    fn check(&self, point: &Point) -> Result<()> {
        let spec = &self.collection.spec;
        for (name, vector) in &point.vectors {
            spec.check_vector(name, vector).map_err(|error| {
                Error::new(ErrorKind::Rejected, error.message())
                    .with_context("point", point.id)
                    .with_collection(&spec.name)
            })?;
        }
        Ok(())
    }

    /// Whether an entry changes a point: the point as the changes so far leave it is older. `absent` is the
    /// answer for a point that is not there.
    fn is_older(&self, id: PointId, lsn: Lsn, absent: bool) -> bool {
        match (self.points.get(&id), &self.stored) {
            (Some(Change::Put(_, version) | Change::Patch(_, version)), _) => *version < lsn,
            (Some(Change::Delete), _) => absent,
            (None, Some(stored)) => stored.get(&id).map_or(absent, |version| *version < lsn),
            (None, None) => true,
        }
    }

    fn patch(&mut self, id: PointId, patch: &PayloadPatch, lsn: Lsn) {
        match self.points.get_mut(&id) {
            Some(Change::Put(point, version)) => {
                patch.apply_to(&mut Arc::make_mut(point).payload);
                *version = lsn;
            }
            Some(Change::Patch(patches, version)) => {
                patches.push(patch.clone());
                *version = lsn;
            }
            Some(Change::Delete) => {}
            None => {
                self.points.insert(id, Change::Patch(vec![patch.clone()], lsn));
            }
        }
    }

    /// Writes the changes.
    ///
    /// # Errors
    /// Whatever the engine runs into.
    pub async fn write(self, cx: &Context, engine: &dyn Engine) -> Result<()> {
        let Self { collection, mut points, .. } = self;
        let spec = &collection.spec;
        let patched: Vec<PointId> =
            points.iter().filter(|(_, c)| matches!(c, Change::Patch(..))).map(|(id, _)| *id).collect();
        let mut batch = Batch::default();
        if !patched.is_empty() {
            let fields = Fields { vectors: mainstay_core::Selector::None, ..Fields::ALL };
            for Record { version: stored, mut point } in engine.get(cx, spec, &patched, &fields).await? {
                if let Some(Change::Patch(patches, version)) = points.remove(&point.id)
                    && stored < version
                {
                    patches.iter().for_each(|patch| patch.apply_to(&mut point.payload));
                    batch.payloads.push(NewPayload {
                        id: point.id,
                        version,
                        payload: point.payload,
                        text: point.text,
                    });
                }
            }
        }
        for (id, change) in points {
            match change {
                Change::Put(point, version) => batch.puts.push((version, point)),
                Change::Delete => batch.deletes.push(id),
                // The point is not there.
                Change::Patch(..) => {}
            }
        }
        if batch.is_empty() { Ok(()) } else { write(cx, engine, &collection, batch).await }
    }
}

/// Writes a batch, and forgets what was counted of values that are not of an index's type if it has some.
///
/// # Errors
/// Whatever the engine runs into.
pub async fn write(cx: &Context, engine: &dyn Engine, known: &Known, batch: Batch) -> Result<()> {
    let mut payloads = batch.puts.iter().map(|(_, point)| &point.payload);
    let mut patched = batch.payloads.iter().map(|payload| &payload.payload);
    let mixed = |payload| !payload::mixed(&known.spec, payload).is_empty();
    let forget = payloads.any(mixed) || patched.any(mixed);
    engine.write(cx, &known.spec, batch).await?;
    if forget {
        known.mixed.lock().clear();
    }
    Ok(())
}
