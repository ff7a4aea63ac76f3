//! What a store knows about its place: the control document, what may be newer, and what is in doubt.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay_core::pipeline::Place;
use mainstay_core::store::with_deadline;
use mainstay_core::{
    CollectionName, CollectionSpec, Context, Entry, Error, ErrorKind, Lsn, Op, Pipeline, PointId, Position,
    Result, StoreId,
};
use tokio::time::Instant;
use uuid::Uuid;

use crate::changes::Changes;
use crate::control::{Control, Known};
use crate::engine::Engine;

/// Held entries beyond so many bytes are not kept; the tier is asked for them again.
const MOST_HELD_BYTES: usize = 64 << 20;
/// The position in the control document is at most this old while upserts follow each other: a process that dies
/// applies so much again.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// Entries that the ceiling in the document leaves room for, so that not every run has to raise it. After a crash the
/// versions of the points that as many entries touch are looked at.
const ROOM: u64 = 4_096;

/// Entries whose writing had an unknown outcome, and all that came after them.
struct Held {
    /// The position before the first of them.
    from: Option<Position>,
    entries: Vec<Arc<Entry>>,
    bytes: usize,
    /// When a late effect is no longer expected.
    until: Instant,
}

/// A point that was written after the control document. A store that still has it was not set back to an older state
/// with the same document.
#[derive(Clone)]
struct Witness {
    /// Everything up to here was written when the point was.
    at: Position,
    collection: CollectionName,
    id: PointId,
    version: Lsn,
}

/// The place of a store, as long as nothing happened that makes it doubtful.
pub struct Session {
    pub control: Control,
    /// The position reached; the one in the control document may be older.
    pub position: Option<Position>,
    /// Proves the part of the position that is not in the document.
    witness: Option<Witness>,
    /// When this session wrote the document last.
    saved_at: Option<Instant>,
    /// Points may be as new as this entry, so the version of each is looked at before it is written by an entry up to it.
    pub newest: Lsn,
    held: Option<Held>,
    /// A restore is under way.
    pub restoring: bool,
    /// Entries that are being written; still there afterwards if the write was given up half-way.
    writing: Vec<Arc<Entry>>,
    /// The order of the runs that are being written side by side.
    pipeline: Arc<Pipeline>,
    /// Those runs. Their points may be newer than the position.
    under_way: VecDeque<UnderWay>,
}

/// A run that is being written beside others.
struct UnderWay {
    end: Position,
    entries: Vec<Arc<Entry>>,
    /// The points that it puts, by the incarnation of their collection.
    ids: HashSet<(Lsn, PointId)>,
    written: Arc<AtomicBool>,
}

/// The part of a run that is written without the session.
pub struct Part {
    /// What to write.
    pub changes: Vec<Changes>,
    /// Where it stands among the others.
    pub place: Place,
    written: Arc<AtomicBool>,
}

impl Part {
    /// Everything is written.
    pub fn written(&self) {
        self.written.store(true, Ordering::Release);
    }
}

impl Session {
    /// Reads the place of a store. A collection that the document names and the engine has not makes the store
    /// an empty one.
    ///
    /// # Errors
    /// `Corrupt` if the document cannot be read, and whatever the engine runs into.
    pub async fn open(cx: &Context, engine: &dyn Engine) -> Result<Self> {
        let mut control = match engine.control(cx).await? {
            Some(text) => Control::parse(&text)?,
            None => Control::new(),
        };
        if !control.collections.is_empty() {
            let there: BTreeSet<String> = engine.collections(cx).await?.into_iter().collect();
            if let Some(name) = control.collections.keys().find(|name| !there.contains(name.as_str())) {
                tracing::warn!(collection = %name, "a collection of the Qdrant store is gone; the store counts as empty");
                control.position = None;
            }
        }
        Ok(Self {
            position: control.position,
            newest: control.ceiling,
            control,
            witness: None,
            saved_at: None,
            held: None,
            restoring: false,
            writing: Vec::new(),
            pipeline: Arc::default(),
            under_way: VecDeque::new(),
        })
    }

    /// Whether a write was given up half-way or failed with an unknown outcome.
    pub fn is_in_doubt(&self) -> bool {
        !self.writing.is_empty() || self.pipeline.is_broken()
    }

    /// The order of the runs that are written side by side.
    pub fn pipeline(&self) -> &Arc<Pipeline> {
        &self.pipeline
    }

    /// Ends the runs under way.
    async fn end_runs(&self, cx: &Context) -> Result<()> {
        let text = "the Qdrant store is looked at again; the run is repeated";
        self.pipeline.break_off(&Error::new(ErrorKind::Unavailable, text));
        let emptied = async {
            self.pipeline.emptied().await;
            Ok(())
        };
        with_deadline(cx, emptied).await
    }

    /// The position that the next run continues: where the runs under way end.
    pub fn end(&self) -> Option<Position> {
        self.pipeline.end().or(self.position)
    }

    /// The same store read anew, after something happened: the runs under way end, and what was being written stays in
    /// doubt until a late effect is no longer expected.
    ///
    /// # Errors
    /// As [`open`](Self::open); `Timeout` if the runs do not hear of it in time.
    pub async fn reopen(&self, cx: &Context, engine: &dyn Engine, grace: Duration) -> Result<Self> {
        self.end_runs(cx).await?;
        let mut fresh = Self::open(cx, engine).await?;
        let same = fresh.position.is_some() && fresh.control.stamp == self.control.stamp;
        if let Some(witness) = &self.witness
            && same
            && self.held.is_none()
            && self.is_witnessed(cx, engine).await?
        {
            // Not the position reached: nothing proves what was written after the witness.
            (fresh.position, fresh.witness) = (Some(witness.at), Some(witness.clone()));
        }
        let until = Instant::now() + grace;
        let doubtful = !self.writing.is_empty() || !self.under_way.is_empty();
        if fresh.position.is_some() && (doubtful || self.held.is_some()) {
            // Whatever is in doubt lies after the stored position, because a held position is not moved on;
            // the tier applies it again now, and the held entries once more later.
            let until = self.held.as_ref().map_or(until, |held| if doubtful { until } else { held.until });
            fresh.held = Some(Held { from: fresh.position, entries: Vec::new(), bytes: 0, until });
        }
        Ok(fresh)
    }

    /// Whether the engine still holds the document that was read or written last, and what was written after it.
    ///
    /// # Errors
    /// Whatever the engine runs into.
    pub async fn is_current(&self, cx: &Context, engine: &dyn Engine) -> Result<bool> {
        let (stamp, witnessed) = tokio::try_join!(engine.stamp(cx), self.is_witnessed(cx, engine))?;
        let same = match stamp {
            Some(stamp) => stamp == self.control.stamp.to_string(),
            None => self.control.position.is_none() && self.control.collections.is_empty(),
        };
        Ok(same && witnessed)
    }

    async fn is_witnessed(&self, cx: &Context, engine: &dyn Engine) -> Result<bool> {
        let Some(Witness { collection, id, version, .. }) = &self.witness else { return Ok(true) };
        match engine.versions(cx, collection, &[*id]).await {
            Ok(versions) => Ok(versions.get(id).is_some_and(|stored| stored >= version)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether only a witness proves a part of the position.
    pub fn lags(&self) -> bool {
        self.witness.is_some()
    }

    /// Whether the document could say more than it does: a newer position, or a lower ceiling.
    pub fn is_unsaved(&self) -> bool {
        self.position != self.control.position || self.ceiling(0) != self.control.ceiling
    }

    /// The ceiling for a document, with room for so many entries after the position.
    fn ceiling(&self, room: u64) -> Lsn {
        let reached = self.position.map_or(Lsn::ZERO, |position| position.lsn);
        let written = self.under_way.back().map_or(reached, |run| run.end.lsn);
        let with_room = Lsn(reached.0.saturating_add(room)).max(written);
        // Only a store that holds nothing newer than its position is known to stay below a lower one.
        if self.held.is_none() && self.newest <= reached {
            with_room
        } else {
            self.control.ceiling.max(with_room)
        }
    }

    /// Whether the position may run ahead of the document over these entries: only a point that was put can be its
    /// witness, and only another put leaves the witness of the entries before where it is.
    pub fn may_lag(&self, entries: &[Arc<Entry>]) -> bool {
        self.held.is_none() && entries.iter().all(|entry| matches!(entry.op, Op::Upsert { .. }))
    }

    /// Whether it is time to write the document: a session writes it at its first run, which tells another one that it
    /// is not alone, and then now and then.
    pub fn is_due(&self) -> bool {
        self.saved_at.is_none_or(|saved| saved.elapsed() >= SAVE_EVERY)
    }

    /// Leaves the document as it is, with a witness for entries that were applied after it.
    pub fn vouch(&mut self, entries: &[Arc<Entry>]) {
        let Some(at) = self.position else { return };
        let witness = entries.iter().rev().find_map(|entry| match &entry.op {
            Op::Upsert { collection, points } if self.control.meant(collection).is_some() => {
                let id = points.last()?.id;
                Some(Witness { at, collection: collection.name.clone(), id, version: entry.lsn })
            }
            _ => None,
        });
        if witness.is_some() {
            self.witness = witness;
        }
    }

    /// Writes the control document, with room for entries that follow. With entries held, its position stays before
    /// them.
    ///
    /// # Errors
    /// Whatever the engine runs into.
    pub async fn save(&mut self, cx: &Context, engine: &dyn Engine) -> Result<()> {
        self.save_with_room(cx, engine, ROOM).await
    }

    /// Writes the control document of a store that is written to no more for now.
    ///
    /// # Errors
    /// Whatever the engine runs into.
    pub async fn save_at_rest(&mut self, cx: &Context, engine: &dyn Engine) -> Result<()> {
        self.save_with_room(cx, engine, 0).await
    }

    async fn save_with_room(&mut self, cx: &Context, engine: &dyn Engine, room: u64) -> Result<()> {
        let position = self.held.as_ref().map_or(self.position, |held| held.from);
        let ceiling = self.ceiling(room);
        self.set_control(cx, engine, Control { position, ceiling, ..self.control.clone() }).await?;
        (self.witness, self.saved_at) = (None, Some(Instant::now()));
        Ok(())
    }

    /// Replaces the control document.
    ///
    /// # Errors
    /// Whatever the engine runs into.
    pub async fn set_control(&mut self, cx: &Context, engine: &dyn Engine, control: Control) -> Result<()> {
        let control = Control { stamp: Uuid::new_v4(), ..control };
        engine.set_control(cx, &control.stamp.to_string(), &control.print()).await?;
        self.control = control;
        Ok(())
    }

    /// The document is still the one that this session knows; one that is written next replaces no other.
    ///
    /// # Errors
    /// `Unavailable` if it is not, and whatever the engine runs into.
    pub async fn prove(&self, cx: &Context, engine: &dyn Engine) -> Result<()> {
        if self.is_current(cx, engine).await? {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unavailable, "the Qdrant store was changed underneath"))
    }

    /// Says in the document which collections there are; its position stays.
    async fn set_collection(
        &mut self,
        cx: &Context,
        engine: &dyn Engine,
        name: &CollectionName,
        known: Option<Arc<Known>>,
    ) -> Result<()> {
        self.prove(cx, engine).await?;
        let mut control = self.control.clone();
        match known {
            Some(known) => control.collections.insert(name.clone(), known),
            None => control.collections.remove(name),
        };
        self.set_control(cx, engine, control).await
    }

    /// Says in the document that points may become as new as these entries, before they do. Its position stays.
    async fn raise_ceiling(
        &mut self,
        cx: &Context,
        engine: &dyn Engine,
        entries: &[Arc<Entry>],
    ) -> Result<()> {
        let Some(last) = entries.last().filter(|last| last.lsn > self.control.ceiling) else { return Ok(()) };
        self.prove(cx, engine).await?;
        let ceiling = Lsn(last.lsn.0.saturating_add(ROOM));
        self.set_control(cx, engine, Control { ceiling, ..self.control.clone() }).await
    }

    /// Applies entries that follow the position. Answers the error of the entry that can never be applied, if
    /// there is one; the position is then before it.
    ///
    /// # Errors
    /// Whatever the engine runs into; the entries are then in doubt.
    pub async fn apply(
        &mut self,
        cx: &Context,
        engine: &dyn Engine,
        before: Position,
        entries: &[Arc<Entry>],
    ) -> Result<Option<Error>> {
        self.raise_ceiling(cx, engine, entries).await?;
        self.writing = entries.to_vec();
        let (reached, refused) = self.write(cx, engine, entries).await?;
        if let Some(entry) = reached {
            self.position = Some(Position { log: before.log, lsn: entry.lsn, hash: entry.hash });
            self.hold(entries.iter().take_while(|held| held.lsn <= entry.lsn));
        }
        Ok(refused)
    }

    /// Begins a run that is written beside those under way: whole points that none of them writes, and that are not in
    /// the store in a newer version. `None` for any other run.
    ///
    /// # Errors
    /// Whatever the engine runs into; nothing has begun then.
    pub async fn begin_beside(
        &mut self,
        cx: &Context,
        engine: &dyn Engine,
        after: Position,
        entries: &[Arc<Entry>],
    ) -> Result<Option<Part>> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(None) };
        if !self.may_lag(entries) || first.lsn <= self.newest {
            return Ok(None);
        }
        let mut changes: BTreeMap<&CollectionName, Changes> = BTreeMap::new();
        let mut ids = HashSet::new();
        for entry in entries {
            let Op::Upsert { collection, .. } = &entry.op else { return Ok(None) };
            let Some(known) = self.control.meant(collection) else { continue };
            let of_it =
                changes.entry(&collection.name).or_insert_with(|| Changes::new(Arc::clone(known), None));
            if of_it.take(entry).is_err() {
                return Ok(None);
            }
            ids.extend(entry.op.ids().map(|id| (known.incarnation, id)));
        }
        if self.under_way.iter().any(|run| !run.ids.is_disjoint(&ids)) {
            return Ok(None);
        }
        let changes = changes.into_values().collect();
        self.raise_ceiling(cx, engine, entries).await?;
        let end = Position { log: after.log, lsn: last.lsn, hash: last.hash };
        let (place, written) = (self.pipeline.enter(after.lsn, end), Arc::<AtomicBool>::default());
        let under_way = UnderWay { end, entries: entries.to_vec(), ids, written: Arc::clone(&written) };
        self.under_way.push_back(under_way);
        Ok(Some(Part { changes, place, written }))
    }

    /// Moves the position over the first runs under way that are written. Answers where it is then.
    ///
    /// # Errors
    /// `Unavailable` if the store is another one than before, and whatever the engine runs into.
    pub async fn pass_written(&mut self, cx: &Context, engine: &dyn Engine) -> Result<Option<Position>> {
        let written = self.under_way.iter().take_while(|run| run.written.load(Ordering::Acquire)).count();
        // The data is there; but is it the store that we think it is?
        self.prove(cx, engine).await?;
        let Some(last) = written.checked_sub(1).and_then(|last| self.under_way.get(last)) else {
            return Ok(self.position);
        };
        self.position = Some(last.end);
        if self.is_due() {
            self.save(cx, engine).await?;
        } else {
            let entries: Vec<_> =
                self.under_way.iter().take(written).flat_map(|run| run.entries.iter().cloned()).collect();
            self.vouch(&entries);
        }
        self.under_way.drain(..written);
        Ok(self.position)
    }

    /// The entries are written and their outcome is known.
    pub fn settle(&mut self) {
        self.writing.clear();
    }

    /// Nothing that was written counts any more.
    pub fn forget_doubts(&mut self) {
        self.held = None;
        self.witness = None;
        self.writing.clear();
        self.under_way.clear();
    }

    fn hold<'a>(&mut self, entries: impl Iterator<Item = &'a Arc<Entry>>) {
        if let Some(held) = &mut self.held {
            for entry in entries {
                held.bytes += entry.size_bytes.max(64 * entry.op.points());
                held.entries.push(Arc::clone(entry));
            }
            if held.bytes > MOST_HELD_BYTES {
                held.entries = Vec::new();
            }
        }
    }

    /// Once a late effect of a write in doubt is no longer expected, applies what was held again, which changes
    /// only what came out wrong.
    ///
    /// # Errors
    /// `Unavailable` if there was too much to hold; the position is then set back to before it. Otherwise
    /// whatever the engine runs into.
    pub async fn recheck(&mut self, cx: &Context, engine: &dyn Engine) -> Result<()> {
        if self.held.as_ref().is_none_or(|held| Instant::now() < held.until) {
            return Ok(());
        }
        let Some(held) = self.held.take() else { return Ok(()) };
        // What was written after them is newer than they are.
        self.newest = self.newest.max(self.position.map_or(Lsn::ZERO, |position| position.lsn));
        if held.bytes > MOST_HELD_BYTES {
            self.position = held.from;
            return Err(Error::new(
                ErrorKind::Unavailable,
                "writes after one with an unknown outcome are applied again to be sure of them",
            ));
        }
        let until = held.until;
        let outcome = self.write(cx, engine, &held.entries).await;
        if let Err(error) = outcome {
            // Tried again with the next call.
            self.held = Some(Held { until, ..held });
            return Err(error);
        }
        Ok(())
    }

    async fn write<'a>(
        &mut self,
        cx: &Context,
        engine: &dyn Engine,
        entries: &'a [Arc<Entry>],
    ) -> Result<(Option<&'a Entry>, Option<Error>)> {
        let mut changes: BTreeMap<CollectionName, Changes> = BTreeMap::new();
        let (mut reached, mut refused) = (None, None);
        for (at, entry) in entries.iter().enumerate() {
            let taken = match &entry.op {
                Op::CreateCollection(spec) => match spec.check() {
                    Ok(()) if self.is_new(&spec.name, entry.lsn) => {
                        changes.remove(&spec.name);
                        let known = Known::new(spec.clone(), entry.lsn);
                        self.create(cx, engine, known).await?
                    }
                    // One that the document names may still lack an index, or be missing itself.
                    Ok(()) if entry.lsn <= self.newest && self.is_same(&spec.name, entry.lsn) => {
                        if !engine.collections(cx).await?.iter().any(|name| name == spec.name.as_str()) {
                            engine.create(cx, spec).await?;
                        }
                        engine.index(cx, spec).await?;
                        None
                    }
                    Ok(()) => None,
                    Err(error) => Some(Error::new(ErrorKind::Rejected, error.message())),
                },
                Op::AdoptCollection { spec, store } if self.is_there(cx, engine, spec, *store).await? => {
                    engine.index(cx, spec).await?;
                    let known = Arc::new(Known::new(spec.clone(), entry.lsn));
                    self.set_collection(cx, engine, &spec.name, Some(known)).await?;
                    None
                }
                Op::AdoptCollection { spec, .. } => {
                    let held = self.control.collections.get(&spec.name).map(|known| known.incarnation);
                    Op::check_adopted(spec, entry.lsn, held).err()
                }
                Op::DropCollection(dropped) => {
                    if self.control.meant(dropped).is_some() {
                        changes.remove(&dropped.name);
                        engine.remove(cx, &dropped.name).await?;
                        self.set_collection(cx, engine, &dropped.name, None).await?;
                    }
                    None
                }
                Op::Upsert { collection, .. }
                | Op::Delete { collection, .. }
                | Op::PatchPayload { collection, .. } => match self.control.meant(collection).cloned() {
                    Some(known) => {
                        let of_collection = match changes.remove(&collection.name) {
                            Some(changes) => changes,
                            None => self.start(cx, engine, known, &entries[at..]).await?,
                        };
                        let of_collection = changes.entry(collection.name.clone()).or_insert(of_collection);
                        of_collection.take(entry).err()
                    }
                    None => None,
                },
            };
            if let Some(error) = taken {
                refused = Some(error.with_collection(entry.op.collection()).with_lsn(entry.lsn));
                break;
            }
            reached = Some(&**entry);
        }
        for changes in changes.into_values() {
            changes.write(cx, engine).await?;
        }
        Ok((reached, refused))
    }

    fn is_new(&self, name: &CollectionName, lsn: Lsn) -> bool {
        self.control.collections.get(name).is_none_or(|known| known.incarnation < lsn)
    }

    /// Whether this is the store that holds a collection which no entry created.
    async fn is_there(
        &self,
        cx: &Context,
        engine: &dyn Engine,
        spec: &CollectionSpec,
        store: StoreId,
    ) -> Result<bool> {
        let foreign = store == self.control.id && !self.control.collections.contains_key(&spec.name);
        Ok(foreign && engine.collections(cx).await?.iter().any(|name| name == spec.name.as_str()))
    }

    fn is_same(&self, name: &CollectionName, lsn: Lsn) -> bool {
        self.control.collections.get(name).is_some_and(|known| known.incarnation == lsn)
    }

    /// Creates a collection, and says so in the document first: one that the document does not name is
    /// somebody else's. Answers why it can never be created.
    pub async fn create(&mut self, cx: &Context, engine: &dyn Engine, known: Known) -> Result<Option<Error>> {
        let name = known.spec.name.clone();
        let ours = self.control.collections.contains_key(&name);
        let there = engine.collections(cx).await?.iter().any(|there| there == name.as_str());
        if there && !ours {
            return Ok(Some(Error::new(
                ErrorKind::Rejected,
                format!(
                    "Qdrant already has a collection {name} that Mainstay did not create; adopt it with \
                     `mainstay adopt`, or choose another name"
                ),
            )));
        }
        if there {
            engine.remove(cx, &name).await?;
        }
        let spec = known.spec.clone();
        self.set_collection(cx, engine, &name, Some(Arc::new(known))).await?;
        engine.create(cx, &spec).await?;
        engine.index(cx, &spec).await?;
        Ok(None)
    }

    /// The changes to a collection, with the versions of what the entries touch if points may be newer.
    async fn start(
        &self,
        cx: &Context,
        engine: &dyn Engine,
        known: Arc<Known>,
        entries: &[Arc<Entry>],
    ) -> Result<Changes> {
        let of_it = |entry: &&Arc<Entry>| entry.op.collection() == &known.spec.name;
        let mut stored = None;
        if entries.iter().find(of_it).is_some_and(|first| first.lsn <= self.newest) {
            let ids: BTreeSet<PointId> =
                entries.iter().filter(of_it).flat_map(|entry| entry.op.ids()).collect();
            let ids: Vec<PointId> = ids.into_iter().collect();
            stored = Some(engine.versions(cx, &known.spec.name, &ids).await?);
        }
        Ok(Changes::new(known, stored))
    }
}

#[cfg(all(test, feature = "edge"))]
mod tests;
