//! The model: what every entry of the log means, computed apart from every store.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay::{CollectionName, CollectionSpec, Lsn, Point, PointId};
use mainstay_core::{Entry, EntryHash, Op, PayloadPatch, Record};

use crate::store::State;

/// What became of a point: its state after the entry, `None` if it was removed.
type Change<T> = (Lsn, Option<T>);
/// A collection: the entry that created it, and its spec.
type Created = (Lsn, Arc<CollectionSpec>);

/// A point with the entry that wrote it last.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The entry.
    pub version: Lsn,
    /// The point.
    pub point: Arc<Point>,
}

/// Everything that the log said so far, also what was cut.
#[derive(Default)]
pub struct Truth {
    entries: Vec<Arc<Entry>>,
    collections: BTreeMap<CollectionName, Vec<Change<Created>>>,
    /// By the incarnation of their collection.
    points: BTreeMap<Lsn, BTreeMap<PointId, Vec<Change<Written>>>>,
    tokens: BTreeMap<u64, Lsn>,
}

fn at<T: Clone>(changes: &[Change<T>], lsn: Lsn) -> Option<T> {
    let end = changes.partition_point(|(when, _)| *when <= lsn);
    changes[..end].last().and_then(|(_, state)| state.clone())
}

/// Whether something was so at some moment from `from` to `to`.
fn ever<T>(changes: &[Change<T>], from: Lsn, to: Lsn, so: impl Fn(Option<&T>) -> bool) -> bool {
    let start = changes.partition_point(|(when, _)| *when <= from);
    let before = changes[..start].last().and_then(|(_, state)| state.as_ref());
    so(before) || changes[start..].iter().take_while(|(when, _)| *when <= to).any(|(_, s)| so(s.as_ref()))
}

impl Truth {
    /// The last entry.
    pub fn end(&self) -> Lsn {
        Lsn(self.entries.len() as u64)
    }

    /// An entry.
    pub fn entry(&self, lsn: Lsn) -> Option<&Arc<Entry>> {
        self.entries.get(usize::try_from(lsn.0.checked_sub(1)?).ok()?)
    }

    /// The hash of an entry.
    pub fn hash(&self, lsn: Lsn) -> Option<EntryHash> {
        if lsn == Lsn::ZERO { Some(EntryHash::ZERO) } else { self.entry(lsn).map(|entry| entry.hash) }
    }

    /// Where a token was written.
    pub fn token(&self, token: u64) -> Option<Lsn> {
        self.tokens.get(&token).copied()
    }

    /// Takes what a reader of the log saw.
    ///
    /// # Errors
    /// What differs from what was seen before.
    pub fn see(&mut self, entry: &Arc<Entry>) -> Result<(), String> {
        if let Some(known) = self.entry(entry.lsn) {
            return match known == entry {
                true => Ok(()),
                false => Err(format!("entry {} was {known:?} and is now {entry:?}", entry.lsn)),
            };
        }
        if entry.lsn != self.end().next() {
            return Err(format!("after entry {} comes entry {}", self.end(), entry.lsn));
        }
        self.entries.push(Arc::clone(entry));
        self.take(entry);
        Ok(())
    }

    fn take(&mut self, entry: &Entry) {
        let lsn = entry.lsn;
        match &entry.op {
            Op::CreateCollection(spec) | Op::AdoptCollection { spec, .. } => {
                for path in spec.payload_indexes.keys() {
                    self.note_token(path.to_string().strip_prefix('t').and_then(|n| n.parse().ok()), lsn);
                }
                let changes = self.collections.entry(spec.name.clone()).or_default();
                changes.push((lsn, Some((lsn, Arc::new(spec.clone())))));
                self.points.insert(lsn, BTreeMap::new());
            }
            Op::DropCollection(dropped) => {
                let changes = self.collections.entry(dropped.name.clone()).or_default();
                if changes.last().is_some_and(|(_, c)| c.as_ref().is_some_and(|c| c.0 == dropped.incarnation))
                {
                    changes.push((lsn, None));
                }
            }
            Op::Upsert { collection, points } => {
                for point in points {
                    self.note_token(point.payload.get("w").and_then(|w| w.as_u64()), lsn);
                    let written = Written { version: lsn, point: Arc::clone(point) };
                    self.change(collection.incarnation, point.id, lsn, Some(written));
                }
            }
            Op::Delete { collection, ids } => {
                for id in ids {
                    if self.point(collection.incarnation, *id, lsn).is_some() {
                        self.change(collection.incarnation, *id, lsn, None);
                    }
                }
            }
            Op::PatchPayload { collection, ids, patch } => {
                if let PayloadPatch::Set(payload) | PayloadPatch::Overwrite(payload) = patch {
                    self.note_token(payload.get("w").and_then(|w| w.as_u64()), lsn);
                }
                for id in ids {
                    if let Some(before) = self.point(collection.incarnation, *id, lsn) {
                        let mut point = (*before.point).clone();
                        patch.apply_to(&mut point.payload);
                        let written = Written { version: lsn, point: Arc::new(point) };
                        self.change(collection.incarnation, *id, lsn, Some(written));
                    }
                }
            }
        }
    }

    fn note_token(&mut self, token: Option<u64>, lsn: Lsn) {
        self.tokens.extend(token.map(|token| (token, lsn)));
    }

    fn change(&mut self, incarnation: Lsn, id: PointId, lsn: Lsn, state: Option<Written>) {
        // What names a collection that was never there changes nothing.
        if let Some(points) = self.points.get_mut(&incarnation) {
            points.entry(id).or_default().push((lsn, state));
        }
    }

    /// Forgets what comes after an entry: the log lost it.
    pub fn roll_back(&mut self, end: Lsn) {
        if end >= self.end() {
            return;
        }
        let kept: Vec<_> = self.entries.drain(..).take(end.0 as usize).collect();
        *self = Self::default();
        for entry in kept {
            self.entries.push(Arc::clone(&entry));
            self.take(&entry);
        }
    }

    /// The collection of a name at an entry: incarnation and spec.
    pub fn collection(&self, name: &CollectionName, lsn: Lsn) -> Option<(Lsn, Arc<CollectionSpec>)> {
        self.collections.get(name).and_then(|changes| at(changes, lsn))
    }

    /// The collections at an entry.
    pub fn collections(&self, lsn: Lsn) -> BTreeMap<CollectionName, (Lsn, Arc<CollectionSpec>)> {
        let names = self.collections.iter();
        names.filter_map(|(name, changes)| Some((name.clone(), at(changes, lsn)?))).collect()
    }

    /// A point at an entry.
    pub fn point(&self, incarnation: Lsn, id: PointId, lsn: Lsn) -> Option<Written> {
        self.points.get(&incarnation)?.get(&id).and_then(|changes| at(changes, lsn))
    }

    /// All points at an entry.
    pub fn points(&self, incarnation: Lsn, lsn: Lsn) -> Vec<(PointId, Written)> {
        let points = self.points.get(&incarnation).into_iter().flatten();
        points.filter_map(|(id, changes)| Some((*id, at(changes, lsn)?))).collect()
    }

    /// Whether a point was so (or was not there) at some moment from `from` to `to`.
    pub fn was(&self, incarnation: Lsn, id: PointId, found: Option<&Record>, from: Lsn, to: Lsn) -> bool {
        let changes = self.points.get(&incarnation).and_then(|points| points.get(&id));
        let changes = changes.map_or(&[][..], |changes| &changes[..]);
        ever(changes, from, to, |written| match (written, found) {
            (None, None) => true,
            (Some(written), Some(found)) => {
                written.version == found.version && written.point.as_ref() == &found.point
            }
            _ => false,
        })
    }

    /// Whether a collection of this name was there, or was not, at some moment.
    pub fn was_missing(&self, name: &CollectionName, from: Lsn, to: Lsn) -> bool {
        let changes = self.collections.get(name).map_or(&[][..], |changes| &changes[..]);
        ever(changes, from, to, |there| there.is_none())
    }

    /// Checks that a store holds what its position says (P3, P5): everything exactly if its data is nowhere ahead of
    /// it, else each point as it was at some moment from its position to where the data may be.
    ///
    /// # Errors
    /// What differs.
    pub fn check(&self, state: &State) -> Result<(), String> {
        let (Some(position), false) = (state.position, state.restoring) else { return Ok(()) };
        if self.hash(position.lsn) != Some(position.hash) {
            return Err(format!("its position {} is none of this log", position.lsn));
        }
        let (from, to) = (position.lsn, state.horizon.max(position.lsn));
        for (name, changes) in &self.collections {
            let held = state.collections.get(name).map(|held| held.incarnation);
            if !ever(changes, from, to, |there| there.map(|there| there.0) == held) {
                return Err(format!("at {from}..{to} it holds `{name}` of {held:?}: {changes:?}"));
            }
        }
        if let Some(name) = state.collections.keys().find(|name| !self.collections.contains_key(*name)) {
            return Err(format!("it holds `{name}`, which was never created"));
        }
        for (name, held) in &state.collections {
            let Some(points) = self.points.get(&held.incarnation) else { continue };
            // One that was dropped while it was loaded was not loaded to its end; the replay drops it too.
            if self.collection(name, to).map(|there| there.0) != Some(held.incarnation) {
                continue;
            }
            for (id, changes) in points {
                let found =
                    held.points.get(id).and_then(|slot| slot.point.as_ref().map(|p| (slot.version, p)));
                let same = |written: Option<&Written>| match (written, &found) {
                    (None, None) => true,
                    (Some(written), Some((version, point))) => {
                        written.version == *version
                            && (Arc::ptr_eq(&written.point, point) || written.point == **point)
                    }
                    _ => false,
                };
                if !ever(changes, from, to, same) {
                    let expected = at(changes, from);
                    return Err(format!(
                        "at {from}..{to}, `{name}` point {id}: it holds {found:?}, the log says {expected:?}"
                    ));
                }
            }
            if let Some(id) = held.points.iter().find(|(id, s)| s.point.is_some() && !points.contains_key(id))
            {
                return Err(format!("`{name}` holds point {}, which nobody wrote", id.0));
            }
        }
        Ok(())
    }
}
