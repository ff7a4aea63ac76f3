//! Compaction, clean-up of old versions, and vector indexes, in the background.
//!
//! Reads never wait for it. Writes wait for compaction, which rewrites small fragments only, and for
//! the removal of old versions; they go on while an index is built.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lancedb::DistanceType;
use lancedb::index::Index;
use lancedb::index::scalar::BTreeIndexBuilder;
use lancedb::index::vector::IvfSqIndexBuilder;
use lancedb::table::{CompactionOptions, OptimizeAction, OptimizeOptions};
use mainstay_core::{Distance, Result, VectorSpec};
use tokio::task::JoinHandle;

use crate::error::native;
use crate::layout::ID;
use crate::session::Session;
use crate::shared::Inner;
use crate::table::CollectionTable;

/// An index takes in new points once this part of the collection is outside of it.
const REINDEX_ONE_IN: usize = 10;

/// Starts the task. It ends when the store is closed or dropped.
pub(crate) fn spawn(inner: &Arc<Inner>) -> JoinHandle<()> {
    let (store, wake) = (Arc::downgrade(inner), inner.wake.clone());
    let interval = inner.options.maintenance_interval;
    tokio::spawn(async move {
        loop {
            let _ = tokio::time::timeout(interval, wake.notified()).await;
            let Some(inner) = store.upgrade() else { return };
            if inner.is_closed() {
                return;
            }
            if let Err(e) = Box::pin(maintain(&inner)).await {
                tracing::warn!(error = %e, "maintenance of the LanceDB store failed; it is tried again later");
            }
        }
    })
}

/// One look at every table.
pub(crate) async fn maintain(inner: &Arc<Inner>) -> Result<()> {
    let Ok(session) = inner.session() else { return Ok(()) };
    for table in session.tables() {
        if table.commits.load(Ordering::Relaxed) >= inner.options.compact_after_commits {
            compact(inner, &session, &table).await?;
        }
        let unindexed = table.unindexed_rows.load(Ordering::Relaxed);
        let least = inner.options.index_threshold_rows.max(table.index_from_rows.load(Ordering::Relaxed));
        if table.len() >= least {
            let indexed = if !table.indexed.load(Ordering::Acquire) {
                build_indexes(inner, &session, &table).await
            } else if unindexed >= table.len() / REINDEX_ONE_IN {
                extend_indexes(inner, &session, &table).await
            } else {
                Ok(())
            };
            if let Err(e) = indexed {
                // Searches stay exact without an index. What failed is not tried again with every commit.
                let next = table.len().saturating_add(table.len() / REINDEX_ONE_IN).saturating_add(1);
                table.index_from_rows.store(next, Ordering::Relaxed);
                tracing::warn!(table = table.name, error = %e, next_try_at_rows = next, "indexing failed");
            }
        }
    }
    Ok(())
}

/// Whether the session and the table are still the ones in use.
fn current(inner: &Inner, session: &Arc<Session>, table: &Arc<CollectionTable>) -> bool {
    inner.session().is_ok_and(|open| Arc::ptr_eq(&open, session))
        && session.find(&table.layout.spec.name).is_some_and(|open| Arc::ptr_eq(&open, table))
}

/// Merges small fragments, then removes the versions that nobody needs any more. A flush comes in
/// between: the version that the record speaks of must not be one that is removed.
async fn compact(inner: &Arc<Inner>, session: &Arc<Session>, table: &Arc<CollectionTable>) -> Result<()> {
    let _writer = inner.writer.lock().await;
    if !current(inner, session, table) {
        return Ok(());
    }
    let commits = table.commits.swap(0, Ordering::Relaxed);
    tracing::debug!(table = table.name, commits, "compacting");
    session.touch();
    let options = CompactionOptions {
        target_rows_per_fragment: inner.options.fragment_rows,
        ..CompactionOptions::default()
    };
    let merge = OptimizeAction::Compact { options, remap_options: None };
    Box::pin(table.native().optimize(merge)).await.map_err(native("compacting a table"))?;
    // During a restore the record names no table, and the next start removes them all.
    if session.flush().await?.is_none() && !session.progress().restoring {
        return Ok(());
    }
    // Whoever lost an object store notices here at the latest, and removes nothing.
    session.confirm().await.inspect_err(|e| inner.lose_if_ended(session, e))?;
    table.remove_old_versions(inner.options.keep_versions, session.recorded(&table.name)).await
}

async fn build_indexes(
    inner: &Arc<Inner>,
    session: &Arc<Session>,
    table: &Arc<CollectionTable>,
) -> Result<()> {
    let _indexing = inner.indexing.lock().await;
    if !current(inner, session, table) {
        return Ok(());
    }
    table.unindexed_rows.store(0, Ordering::Relaxed);
    for column in &table.layout.vectors {
        let distance = match column.spec {
            VectorSpec::Dense { distance: Distance::Cosine, .. } => DistanceType::Cosine,
            VectorSpec::Dense { distance: Distance::Dot, .. } => DistanceType::Dot,
            VectorSpec::Dense { distance: Distance::Euclidean, .. } => DistanceType::L2,
            VectorSpec::Dense { distance: Distance::Manhattan, .. } | VectorSpec::Sparse => continue,
        };
        let filled = table.native().count_rows(Some(format!("{} IS NOT NULL", column.values))).await;
        if filled.map_err(native("counting vectors"))? < inner.options.index_threshold_rows {
            continue;
        }
        tracing::info!(
            table = table.name,
            column = column.values,
            rows = table.len(),
            "building a vector index"
        );
        // Scalar quantisation without a graph: a graph loses points among many equal vectors (measured),
        // and indexed files hold many equal pieces.
        let index = Index::IvfSq(IvfSqIndexBuilder::default().distance_type(distance));
        let build = table.native().create_index(&[&column.values], index).replace(true).execute();
        Box::pin(build).await.map_err(native("building a vector index"))?;
    }
    // With as many points, finding a few of them by id is worth an index as well.
    let build = table
        .native()
        .create_index(&[ID], Index::BTree(BTreeIndexBuilder::default()))
        .replace(true)
        .execute();
    Box::pin(build).await.map_err(native("building the index of ids"))?;
    session.touch();
    table.indexed.store(true, Ordering::Release);
    Ok(())
}

async fn extend_indexes(
    inner: &Arc<Inner>,
    session: &Arc<Session>,
    table: &Arc<CollectionTable>,
) -> Result<()> {
    let _indexing = inner.indexing.lock().await;
    if !current(inner, session, table) {
        return Ok(());
    }
    table.unindexed_rows.store(0, Ordering::Relaxed);
    let extend = OptimizeAction::Index(OptimizeOptions::default());
    Box::pin(table.native().optimize(extend)).await.map_err(native("extending the indexes of a table"))?;
    session.touch();
    Ok(())
}
