//! Get, scroll and count.

use std::collections::HashMap;

use arrow_array::{RecordBatch, StringArray};
use futures::TryStreamExt;
use lancedb::Table;
use lancedb::expr::{DfExpr, col, lit};
use mainstay_core::query::check_limit;
use mainstay_core::{Fields, Filter, PointId, Record, Result, ScrollPage, ScrollQuery};

use crate::convert::{column, id_text, keys, parse_payload};
use crate::error::{self, native};
use crate::filter::{both, push_down};
use crate::layout::{ID, PAYLOAD, VERSION};
use crate::table::{CollectionTable, scan};

/// Most ids that one step of a filtered scroll looks at.
const MAX_STEP: usize = 65_536;
/// Least ids that one step of a filtered scroll looks at.
const MIN_STEP: usize = 256;

/// The points with these ids, in their order.
pub(crate) async fn get(table: &CollectionTable, ids: &[PointId], fields: &Fields) -> Result<Vec<Record>> {
    let present = table.present(ids);
    records_in_order(table, table.native(), &present, fields).await
}

async fn records_in_order(
    table: &CollectionTable,
    snapshot: &Table,
    ids: &[PointId],
    fields: &Fields,
) -> Result<Vec<Record>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut found: HashMap<PointId, Record> =
        table.records(snapshot, ids, fields).await?.into_iter().map(|r| (r.point.id, r)).collect();
    Ok(ids.iter().filter_map(|id| found.remove(id)).collect())
}

/// A page of points by id.
pub(crate) async fn scroll(table: &CollectionTable, query: &ScrollQuery) -> Result<ScrollPage> {
    check_limit(query.limit)?;
    let snapshot = table.snapshot().await?;
    let filter = query.filter.as_ref().filter(|filter| !filter.is_empty());
    // One more than the page says whether another page follows.
    let mut ids = match filter {
        None => table.ids_after(query.after, query.limit + 1),
        Some(filter) => accepted_after(table, &snapshot, query.after, query.limit + 1, filter).await?,
    };
    let more = ids.len() > query.limit;
    ids.truncate(query.limit);
    Ok(ScrollPage {
        incarnation: table.layout.incarnation,
        next: if more { ids.last().copied() } else { None },
        records: records_in_order(table, &snapshot, &ids, &query.fields).await?,
    })
}

/// The first ids after one whose points the filter accepts, at most `limit`. Looks at ever larger
/// stretches of ids, so that neither a broad nor a selective filter reads much more than it needs.
async fn accepted_after(
    table: &CollectionTable,
    snapshot: &Table,
    after: Option<PointId>,
    limit: usize,
    filter: &Filter,
) -> Result<Vec<PointId>> {
    let (mut after, mut step, mut found) = (after, (2 * limit).max(MIN_STEP), Vec::new());
    loop {
        let ids = table.ids_after(after, step.min(MAX_STEP));
        let (Some(first), Some(last)) = (ids.first(), ids.last()) else { break };
        let stretch = col(ID).gt_eq(lit(id_text(*first))).and(col(ID).lt_eq(lit(id_text(*last))));
        let mut accepted = accepted_ids(table, snapshot, Some(stretch), filter).await?;
        accepted.sort_unstable();
        found.extend(accepted);
        if found.len() >= limit {
            found.truncate(limit);
            break;
        }
        after = Some(*last);
        step = step.saturating_mul(4);
    }
    Ok(found)
}

/// How many points the filter accepts.
pub(crate) async fn count(table: &CollectionTable, filter: Option<&Filter>) -> Result<u64> {
    match filter.filter(|filter| !filter.is_empty()) {
        None => Ok(table.len() as u64),
        Some(filter) => {
            let snapshot = table.snapshot().await?;
            Ok(accepted_ids(table, &snapshot, None, filter).await?.len() as u64)
        }
    }
}

/// The ids, in no order, of the points within a stretch that the filter accepts.
async fn accepted_ids(
    table: &CollectionTable,
    snapshot: &Table,
    stretch: Option<DfExpr>,
    filter: &Filter,
) -> Result<Vec<PointId>> {
    let predicate = both(stretch, push_down(&table.layout, filter));
    let columns = [ID, VERSION, PAYLOAD].map(str::to_owned);
    let mut batches = scan(snapshot, &columns, predicate, false).await?;
    let mut accepted = Vec::new();
    while let Some(batch) = batches.try_next().await.map_err(native("scanning a table"))? {
        let filter = filter.clone();
        let ids = tokio::task::spawn_blocking(move || accepted_in(&batch, &filter));
        accepted.extend(ids.await.map_err(error::task)??);
    }
    Ok(accepted)
}

fn accepted_in(batch: &RecordBatch, filter: &Filter) -> Result<Vec<PointId>> {
    let payloads: &StringArray = column(batch, PAYLOAD)?;
    let mut accepted = Vec::new();
    for (row, (id, _)) in keys(batch)?.into_iter().enumerate() {
        if filter.accepts(id, &parse_payload(payloads.value(row))?) {
            accepted.push(id);
        }
    }
    Ok(accepted)
}
