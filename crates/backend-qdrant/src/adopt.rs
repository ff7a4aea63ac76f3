//! Collections that Mainstay did not create.
//!
//! Such a collection is taken over in two steps. First it is prepared while nobody writes to it: it gets our
//! payload indexes, and points whose payload an index would answer wrongly are marked. Then an
//! [`AdoptCollection`](mainstay_core::Op::AdoptCollection) entry makes it part of the store. Points that Mainstay
//! did not write have version 0; the vectors are never written again.

use mainstay_core::{
    CollectionName, CollectionSpec, Context, Error, ErrorKind, Fields, Lsn, Result, Selector, StoreId,
};

use crate::QdrantStore;
use crate::engine::{Batch, NewPayload, Scroll};
use crate::payload;
use crate::store::{SCAN_PAGE, successor};

/// A collection that Mainstay did not create.
#[derive(Clone, Debug, PartialEq)]
pub struct ForeignCollection {
    /// Its name in Qdrant.
    pub name: String,
    /// How many points it holds.
    pub points: u64,
    /// What it is to Mainstay, or why it cannot be adopted and what to do.
    pub spec: Result<CollectionSpec, String>,
}

impl QdrantStore {
    /// The collections on the server that are not part of this store, by name.
    ///
    /// # Errors
    /// `Unavailable` if the server cannot be reached, `Unsupported` for an embedded store that holds such.
    pub async fn foreign_collections(&self, cx: &Context) -> Result<Vec<ForeignCollection>> {
        let ours = self.catalog(cx).await?;
        let mut names = self.engine.collections(cx).await?;
        names.retain(|name| !ours.keys().any(|known| known.as_str() == name));
        names.sort();
        let mut foreign = Vec::new();
        for name in names {
            let description = self.engine.describe(cx, &name).await?;
            foreign.push(ForeignCollection { name, points: description.points, spec: description.spec });
        }
        Ok(foreign)
    }

    /// Prepares a collection for its adoption, and answers what an
    /// [`AdoptCollection`](mainstay_core::Op::AdoptCollection) entry needs. Reads the payload of every point;
    /// `progress` is told how many were read. Nobody may write to the collection meanwhile. Preparing again
    /// changes nothing.
    ///
    /// # Errors
    /// `NotFound` if there is no such collection, `AlreadyExists` if it is part of this store, `Unsupported` with
    /// the reason if it cannot be adopted, and whatever the engine runs into.
    pub async fn prepare_adoption(
        &self,
        name: &CollectionName,
        call: impl Fn() -> Context,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(CollectionSpec, StoreId)> {
        let engine = &*self.engine;
        if self.catalog(&call()).await?.contains_key(name) {
            return Err(Error::new(ErrorKind::AlreadyExists, "the collection is part of this store already")
                .with_collection(name));
        }
        if !engine.collections(&call()).await?.iter().any(|there| there == name.as_str()) {
            return Err(Error::collection_not_found(name));
        }
        let spec = engine.describe(&call(), name.as_str()).await?.spec.map_err(|why| {
            Error::new(ErrorKind::Unsupported, format!("the collection {name} cannot be adopted: {why}"))
                .with_collection(name)
        })?;
        engine.index(&call(), &spec).await?;
        let fields = Fields { payload: Selector::All, text: true, ..Fields::NONE };
        let (mut from, mut read) = (None, 0);
        loop {
            let scroll = Scroll { from, limit: SCAN_PAGE, filter: None, fields: &fields };
            let page = engine.scroll(&call(), &spec, &scroll).await?;
            let (full, last) = (page.len() == SCAN_PAGE, page.last().map(|record| record.point.id));
            read += page.len() as u64;
            // A version is one of another log; a mark says that an index does not know the value.
            let marked = page.into_iter().filter(|record| {
                record.version > Lsn::ZERO || !payload::mixed(&spec, &record.point.payload).is_empty()
            });
            let payloads = marked.map(|record| NewPayload {
                id: record.point.id,
                version: Lsn::ZERO,
                payload: record.point.payload,
                text: record.point.text,
            });
            let batch = Batch { payloads: payloads.collect(), ..Batch::default() };
            if !batch.is_empty() {
                engine.write(&call(), &spec, batch).await?;
            }
            progress(read);
            from = last.and_then(successor);
            if !full || from.is_none() {
                break;
            }
        }
        Ok((spec, self.id(&call()).await?))
    }
}
