//! One store into another, exactly: ids, vectors, payloads, texts, versions and the position.

use std::time::{Duration, Instant};

use mainstay::{Error, ErrorKind, Fields, PointId, Record, Result, ScrollQuery, VectorStore};
use mainstay_core::{CollectionRef, Context, RestoreStep};

use crate::diff::{PointsDiff, StoreDiff, diff};

/// Points read and written at once.
const PAGE: usize = 2_000;
/// What was copied is made durable at least every so many points.
const SAVE_EVERY: u64 = 50_000;
/// One page, read or written.
const PAGE_TIMEOUT: Duration = Duration::from_secs(120);
/// Ending a copy includes making all of it durable.
const FINISH_TIMEOUT: Duration = Duration::from_secs(3_600);

/// What a copy came to.
#[derive(Clone, Debug)]
pub struct Copied {
    /// Collections.
    pub collections: usize,
    /// Points copied by this run.
    pub points: u64,
    /// Points that an earlier run had copied.
    pub resumed: u64,
    /// How long reading and writing took, without the verification.
    pub took: Duration,
    /// What differs afterwards; empty unless somebody wrote meanwhile or a store is broken.
    pub diff: StoreDiff,
}

/// Copies everything that a store holds into another one, and compares both by the content of every point.
/// Nobody may write to them meanwhile. A copy that was cut short goes on where it stopped. `replace` says that what
/// the target holds may go.
///
/// # Errors
/// `AlreadyExists` if the target holds something else and it may not go, `Invalid` if the source has no position,
/// and whatever a store runs into. The target then counts as empty; copying again goes on.
pub async fn copy(
    from: &dyn VectorStore,
    into: &dyn VectorStore,
    replace: bool,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Copied> {
    let start = Instant::now();
    let Some(position) = from.position(&page()).await? else {
        return Err(Error::invalid(
            "the source holds no whole state: it is empty, or was never fully loaded",
        ));
    };
    let collections = from.collections(&page()).await?;
    let there = into.collections(&page()).await?;
    let is_whole = into.position(&page()).await?.is_some();
    let kept = if replace || (there.is_empty() && !is_whole) {
        into.restore(&page(), RestoreStep::Begin).await?;
        None
    } else if is_whole {
        return Err(taken(format!("the target holds {} collections already", there.len())));
    } else {
        into.restore(&page(), RestoreStep::Resume).await?;
        Some(kept(from, into).await?)
    };
    let total = collections.iter().map(|info| info.points).sum();
    let already = kept.as_ref().map_or(0, |kept| kept.counts.1);
    let mut copying = Copying { from, into, progress, done: already, total, saved: already };
    for info in &collections {
        let (name, incarnation) = (info.spec.name.clone(), info.incarnation);
        let collection = CollectionRef { name, incarnation };
        let missing = kept.as_ref().map(|kept| kept.points.get(&collection.name));
        match missing {
            Some(missing) if there.iter().any(|known| known.spec.name == collection.name) => {
                copying.some(&collection, missing.map_or(&[], |missing| &missing.only_in_a)).await?;
            }
            _ => {
                let step = RestoreStep::Collection { spec: &info.spec, incarnation };
                into.restore(&page(), step).await?;
                copying.all(&collection).await?;
            }
        }
    }
    let points = copying.done - already;
    into.restore(&Context::within(FINISH_TIMEOUT), RestoreStep::Finish { position }).await?;
    let took = start.elapsed();
    let diff = diff(from, into, true).await?;
    Ok(Copied { collections: collections.len(), points, resumed: already, took, diff })
}

/// What a copy that was cut short left, and what of it is still to come. It is part of this source, or the target is
/// not touched.
async fn kept(from: &dyn VectorStore, into: &dyn VectorStore) -> Result<StoreDiff> {
    let kept = diff(from, into, false).await?;
    let other = |points: &PointsDiff| !points.only_in_b.is_empty() || !points.changed.is_empty();
    if !kept.only_in_b.is_empty() || !kept.other_incarnation.is_empty() || kept.points.values().any(other) {
        return Err(taken(
            "the target holds a part of another store, or of an older state of this one".into(),
        ));
    }
    Ok(kept)
}

fn taken(what: String) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("{what}; --replace lets it go"))
}

fn page() -> Context {
    Context::within(PAGE_TIMEOUT)
}

/// A copy under way.
struct Copying<'a> {
    from: &'a dyn VectorStore,
    into: &'a dyn VectorStore,
    progress: &'a (dyn Fn(u64, u64) + Sync),
    done: u64,
    total: u64,
    /// How many points there were at the last save.
    saved: u64,
}

impl Copying<'_> {
    /// Every point of a collection; the next page is read while one is written.
    async fn all(&mut self, collection: &CollectionRef) -> Result<()> {
        let from = self.from;
        let mut query = ScrollQuery { limit: PAGE, fields: Fields::ALL, ..ScrollQuery::default() };
        let mut read = from.scroll(&page(), &collection.name, &query).await?;
        loop {
            let next = read.next;
            query.after = next;
            let ahead = async {
                match next {
                    Some(_) => from.scroll(&page(), &collection.name, &query).await.map(Some),
                    None => Ok(None),
                }
            };
            let (written, ahead) = tokio::join!(self.write(collection, read.records), ahead);
            written?;
            match ahead? {
                Some(page) => read = page,
                None => return Ok(()),
            }
        }
    }

    /// The points of a collection with these ids.
    async fn some(&mut self, collection: &CollectionRef, ids: &[PointId]) -> Result<()> {
        for ids in ids.chunks(PAGE) {
            let records = self.from.get(&page(), &collection.name, ids, &Fields::ALL).await?;
            self.write(collection, records).await?;
        }
        Ok(())
    }

    async fn write(&mut self, collection: &CollectionRef, records: Vec<Record>) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let written = records.len() as u64;
        self.into.restore(&page(), RestoreStep::Points { collection, records }).await?;
        self.done += written;
        (self.progress)(self.done, self.total);
        if self.done - self.saved >= SAVE_EVERY {
            self.into.restore(&page(), RestoreStep::Save).await?;
            self.saved = self.done;
        }
        Ok(())
    }
}
