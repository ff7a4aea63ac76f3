//! One store into another, exactly: ids, vectors, payloads, texts, versions and the position.

use std::time::{Duration, Instant};

use mainstay::{Error, ErrorKind, Fields, Result, ScrollQuery, VectorStore};
use mainstay_core::{CollectionRef, Context, RestoreStep};

use crate::diff::{StoreDiff, diff};

/// Points read and written at once.
const PAGE: usize = 1_000;
/// One page, read or written.
const PAGE_TIMEOUT: Duration = Duration::from_secs(120);
/// Ending a copy includes making all of it durable.
const FINISH_TIMEOUT: Duration = Duration::from_secs(3_600);

/// What a copy came to.
#[derive(Clone, Debug)]
pub struct Copied {
    /// Collections.
    pub collections: usize,
    /// Points.
    pub points: u64,
    /// How long reading and writing took, without the verification.
    pub took: Duration,
    /// What differs afterwards; empty unless somebody wrote meanwhile or a store is broken.
    pub diff: StoreDiff,
}

/// Copies everything that a store holds into another one, and compares both by the content of every point.
/// Nobody may write to them meanwhile. `replace` says that what the target holds may go.
///
/// # Errors
/// `AlreadyExists` if the target holds something and it may not go, `Invalid` if the source has no position, and
/// whatever a store runs into. The target then counts as empty; copying again starts anew.
pub async fn copy(
    from: &dyn VectorStore,
    into: &dyn VectorStore,
    replace: bool,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Copied> {
    let page = || Context::within(PAGE_TIMEOUT);
    let start = Instant::now();
    let Some(position) = from.position(&page()).await? else {
        return Err(Error::invalid(
            "the source holds no whole state: it is empty, or was never fully loaded",
        ));
    };
    let there = into.collections(&page()).await?;
    if !replace && (!there.is_empty() || into.position(&page()).await?.is_some()) {
        return Err(Error::new(
            ErrorKind::AlreadyExists,
            format!("the target holds {} collections already; --replace lets them go", there.len()),
        ));
    }
    into.restore(&page(), RestoreStep::Begin).await?;
    let collections = from.collections(&page()).await?;
    let total = collections.iter().map(|info| info.points).sum();
    let mut points = 0;
    for info in &collections {
        let collection = CollectionRef { name: info.spec.name.clone(), incarnation: info.incarnation };
        let step = RestoreStep::Collection { spec: &info.spec, incarnation: info.incarnation };
        into.restore(&page(), step).await?;
        let mut query = ScrollQuery { limit: PAGE, fields: Fields::ALL, ..ScrollQuery::default() };
        loop {
            let read = from.scroll(&page(), &collection.name, &query).await?;
            if !read.records.is_empty() {
                let step = RestoreStep::Points { collection: &collection, records: &read.records };
                into.restore(&page(), step).await?;
                points += read.records.len() as u64;
                progress(points, total);
            }
            match read.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
    }
    into.restore(&Context::within(FINISH_TIMEOUT), RestoreStep::Finish { position }).await?;
    let took = start.elapsed();
    let diff = diff(from, into, true).await?;
    Ok(Copied { collections: collections.len(), points, took, diff })
}
