//! What a simulated store holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay::{CollectionName, CollectionSpec, Lsn, Point, PointId};
use mainstay_core::{CollectionRef, Entry, Error, Op, Position, Record, RestoreStep, Result};

/// A point, or the mark that one was removed. Marks fence late requests: what is older changes nothing.
#[derive(Clone, Debug)]
pub struct Slot {
    /// The entry that wrote or removed it.
    pub version: Lsn,
    /// The point; `None` if it was removed.
    pub point: Option<Arc<Point>>,
}

/// A collection in a store.
#[derive(Clone, Debug)]
pub struct Held {
    /// Its spec.
    pub spec: Arc<CollectionSpec>,
    /// The entry that created it.
    pub incarnation: Lsn,
    /// Its points.
    pub points: BTreeMap<PointId, Slot>,
}

impl Held {
    /// Its points that are there, ids ascending.
    pub fn records(&self) -> impl Iterator<Item = (PointId, Lsn, &Arc<Point>)> {
        self.points.iter().filter_map(|(id, slot)| Some((*id, slot.version, slot.point.as_ref()?)))
    }
}

/// Everything that a store holds at one moment.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The position beside the data.
    pub position: Option<Position>,
    /// The data may hold effects of entries up to this one, which may be beyond the position.
    pub horizon: Lsn,
    /// A load is under way.
    pub restoring: bool,
    /// The collections.
    pub collections: BTreeMap<CollectionName, Arc<Held>>,
    /// The last entry that dropped a collection of a name.
    pub dropped: BTreeMap<CollectionName, Lsn>,
}

impl State {
    fn meant(&mut self, collection: &CollectionRef) -> Option<&mut Held> {
        let held = self.collections.get_mut(&collection.name)?;
        (held.incarnation == collection.incarnation).then(|| Arc::make_mut(held))
    }

    fn create(&mut self, spec: &CollectionSpec, incarnation: Lsn) {
        let newer = self.collections.get(&spec.name).is_some_and(|held| held.incarnation >= incarnation);
        let gone = self.dropped.get(&spec.name).is_some_and(|dropped| *dropped > incarnation);
        if !newer && !gone {
            let held = Held { spec: Arc::new(spec.clone()), incarnation, points: BTreeMap::new() };
            self.collections.insert(spec.name.clone(), Arc::new(held));
        }
    }

    /// Applies the effects of an entry, of its first `most` points if they are not all; the position stays.
    ///
    /// # Errors
    /// `LogGap` for an adopted collection.
    pub fn take(&mut self, entry: &Entry, most: usize) -> Result<()> {
        let lsn = entry.lsn;
        self.horizon = self.horizon.max(lsn);
        match &entry.op {
            Op::CreateCollection(spec) => self.create(spec, lsn),
            Op::AdoptCollection { spec, .. } => {
                let held = self.collections.get(&spec.name).map(|held| held.incarnation);
                Op::check_adopted(spec, lsn, held)?;
            }
            Op::DropCollection(dropped) => {
                if self.meant(dropped).is_some() {
                    self.collections.remove(&dropped.name);
                }
                let last = self.dropped.entry(dropped.name.clone()).or_default();
                *last = lsn.max(*last);
            }
            Op::Upsert { collection, points } => {
                let Some(held) = self.meant(collection) else { return Ok(()) };
                for point in points.iter().take(most) {
                    let slot = Slot { version: lsn, point: Some(Arc::clone(point)) };
                    if held.points.get(&point.id).is_none_or(|known| known.version < lsn) {
                        held.points.insert(point.id, slot);
                    }
                }
            }
            Op::Delete { collection, ids } => {
                let Some(held) = self.meant(collection) else { return Ok(()) };
                for id in ids.iter().take(most) {
                    if held.points.get(id).is_none_or(|known| known.version < lsn) {
                        held.points.insert(*id, Slot { version: lsn, point: None });
                    }
                }
            }
            Op::PatchPayload { collection, ids, patch } => {
                let Some(held) = self.meant(collection) else { return Ok(()) };
                for id in ids.iter().take(most) {
                    if let Some(slot) = held.points.get_mut(id).filter(|slot| slot.version < lsn)
                        && let Some(point) = &slot.point
                    {
                        let mut point = (**point).clone();
                        patch.apply_to(&mut point.payload);
                        *slot = Slot { version: lsn, point: Some(Arc::new(point)) };
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes a step of a load; the source may be as far as `horizon`.
    ///
    /// # Errors
    /// `Invalid` for a step out of order.
    pub fn restore(&mut self, step: &RestoreStep<'_>, horizon: Lsn) -> Result<()> {
        step.check(self.restoring, self.position)?;
        match step {
            RestoreStep::Begin => *self = Self { restoring: true, ..Self::default() },
            RestoreStep::Collection { spec, incarnation } => self.create(spec, *incarnation),
            RestoreStep::Points { collection, records } => {
                let held = self.meant(collection);
                let held = held.ok_or_else(|| Error::invalid("points came before their collection"))?;
                for Record { version, point } in records {
                    let slot = Slot { version: *version, point: Some(Arc::new(point.clone())) };
                    held.points.insert(point.id, slot);
                }
            }
            RestoreStep::Save => {}
            RestoreStep::Resume => self.restoring = true,
            RestoreStep::Finish { position } => {
                self.position = Some(*position);
                self.restoring = false;
                self.horizon = horizon.max(position.lsn);
            }
        }
        Ok(())
    }

    /// The last entry that its position speaks of.
    pub fn reached(&self) -> Option<Lsn> {
        self.position.filter(|_| !self.restoring).map(|position| position.lsn)
    }
}
