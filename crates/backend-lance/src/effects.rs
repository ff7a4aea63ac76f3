//! A run of entries folded into one change per point, so that a long run costs few commits.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_core::{
    CollectionName, CollectionSpec, Entry, Error, ErrorKind, Fields, Lsn, Op, PayloadPatch, Point, PointId,
    Result,
};

use crate::session::Session;
use crate::table::CollectionTable;

/// What becomes of a point.
enum Change {
    Put(Arc<Point>, Lsn),
    /// Patches of the point as it is stored, in order, and the version of the last one.
    Patch(Vec<PayloadPatch>, Lsn),
    Delete,
}

/// The changes to one table, not yet written.
pub(crate) struct Changes {
    table: Arc<CollectionTable>,
    points: BTreeMap<PointId, Change>,
}

impl Changes {
    pub(crate) fn new(table: Arc<CollectionTable>) -> Self {
        Self { table, points: BTreeMap::new() }
    }

    /// Takes an entry that changes points of this table.
    ///
    /// # Errors
    /// `Rejected` if a point does not fit the collection; nothing of the entry is taken then.
    pub(crate) fn take(&mut self, entry: &Entry) -> Result<()> {
        let lsn = entry.lsn;
        match &entry.op {
            Op::CreateCollection(_) | Op::AdoptCollection { .. } | Op::DropCollection(_) => {}
            Op::Upsert { points, .. } => {
                for point in points {
                    check_point(&self.table.layout.spec, point).map_err(|e| e.with_lsn(lsn))?;
                }
                for point in points {
                    if self.version_of(point.id).is_none_or(|version| version < lsn) {
                        self.points.insert(point.id, Change::Put(point.clone(), lsn));
                    }
                }
            }
            Op::Delete { ids, .. } => {
                for id in ids {
                    if self.version_of(*id).is_some_and(|version| version < lsn) {
                        match self.table.version_of(*id) {
                            Some(_) => self.points.insert(*id, Change::Delete),
                            None => self.points.remove(id),
                        };
                    }
                }
            }
            Op::PatchPayload { ids, patch, .. } => {
                for id in ids {
                    if self.version_of(*id).is_some_and(|version| version < lsn) {
                        self.patch(*id, patch, lsn);
                    }
                }
            }
        }
        Ok(())
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

    /// The version of a point as the changes so far leave it.
    fn version_of(&self, id: PointId) -> Option<Lsn> {
        match self.points.get(&id) {
            Some(Change::Put(_, version) | Change::Patch(_, version)) => Some(*version),
            Some(Change::Delete) => None,
            None => self.table.version_of(id),
        }
    }

    /// Writes the changes.
    pub(crate) async fn write(self) -> Result<()> {
        let Self { table, mut points } = self;
        let patched: Vec<PointId> = points
            .iter()
            .filter(|(_, change)| matches!(change, Change::Patch(..)))
            .map(|(id, _)| *id)
            .collect();
        if !patched.is_empty() {
            for mut record in table.records(table.native(), &patched, &Fields::ALL).await? {
                if let Some(Change::Patch(patches, version)) = points.remove(&record.point.id) {
                    patches.iter().for_each(|patch| patch.apply_to(&mut record.point.payload));
                    points.insert(record.point.id, Change::Put(Arc::new(record.point), version));
                }
            }
        }
        let (mut puts, mut deletes) = (Vec::new(), Vec::new());
        for (id, change) in &points {
            match change {
                Change::Put(point, version) => puts.push((&**point, *version)),
                Change::Delete => deletes.push(*id),
                Change::Patch(..) => {
                    return Err(Error::new(ErrorKind::Corrupt, format!("point {id} cannot be read back"))
                        .with_collection(&table.layout.spec.name));
                }
            }
        }
        table.write(&puts, &deletes).await
    }
}

/// Applies entries in order and answers the last one applied, and the error of the entry after it
/// if that one can never be applied.
pub(crate) async fn apply_entries<'a>(
    session: &Session,
    entries: &'a [Arc<Entry>],
) -> Result<(Option<&'a Entry>, Option<Error>)> {
    let mut changes: BTreeMap<CollectionName, Changes> = BTreeMap::new();
    let (mut reached, mut refused) = (None, None);
    for entry in entries {
        let taken = match &entry.op {
            Op::CreateCollection(spec) => match check_spec(spec) {
                Ok(()) => {
                    if session.find(&spec.name).is_none_or(|table| table.layout.incarnation < entry.lsn) {
                        changes.remove(&spec.name);
                        session.create(spec, entry.lsn).await?;
                    }
                    Ok(())
                }
                Err(e) => Err(e.with_lsn(entry.lsn)),
            },
            Op::AdoptCollection { spec, .. } => {
                let held = session.find(&spec.name).map(|table| table.layout.incarnation);
                Op::check_adopted(spec, entry.lsn, held)
            }
            Op::DropCollection(collection) => {
                if let Some(table) = session.table_of(collection) {
                    changes.remove(&collection.name);
                    session.remove(&table).await?;
                }
                Ok(())
            }
            Op::Upsert { collection, .. }
            | Op::Delete { collection, .. }
            | Op::PatchPayload { collection, .. } => match session.table_of(collection) {
                Some(table) => {
                    changes.entry(collection.name.clone()).or_insert_with(|| Changes::new(table)).take(entry)
                }
                None => Ok(()),
            },
        };
        if let Err(e) = taken {
            refused = Some(e);
            break;
        }
        reached = Some(&**entry);
    }
    for changes in changes.into_values() {
        changes.write().await?;
    }
    Ok((reached, refused))
}

/// Refuses a point that the table cannot hold.
pub(crate) fn check_point(spec: &CollectionSpec, point: &Point) -> Result<()> {
    for (name, vector) in &point.vectors {
        spec.check_vector(name, vector).map_err(|e| {
            Error::new(ErrorKind::Rejected, e.message())
                .with_context("point", point.id)
                .with_collection(&spec.name)
        })?;
    }
    Ok(())
}

/// Refuses a collection that no table can hold, or that would not read back as it was.
pub(crate) fn check_spec(spec: &CollectionSpec) -> Result<()> {
    let rejected = |text: &str| Error::new(ErrorKind::Rejected, text.to_owned()).with_collection(&spec.name);
    spec.check().map_err(|e| rejected(e.message()))?;
    for path in spec.payload_indexes.keys() {
        if path.to_string().parse().ok().as_ref() != Some(path) {
            return Err(rejected(&format!(
                "the payload index on {path} names a key that cannot be written down"
            )));
        }
    }
    Ok(())
}
