//! A trial restore into memory, with searches.

use std::sync::Arc;

use mainstay::memory::{MemoryOptions, MemoryStore};
use mainstay::snapshot::load;
use mainstay::snapshot::manifest::CollectionManifest;
use mainstay::{Distance, ErrorKind, Fields, SearchQuery, VectorName, VectorSpec};
use mainstay_core::RestoreStep;

use mainstay::snapshot::{Manifest, Repository};
use mainstay::{Error, Result, VectorStore};
use mainstay_core::Context;

use super::CLOSE;

/// Points of a collection that are searched for.
const SAMPLE: usize = 100;

/// A store that is thrown away.
pub fn scratch() -> Result<Arc<dyn VectorStore>> {
    let options = MemoryOptions { allow_red_zone: true, ..MemoryOptions::default() };
    Ok(Arc::new(MemoryStore::new(options)?))
}

/// What a load into memory and searches for some points by their own vectors find wrong.
pub async fn load(repository: &Repository, manifest: &Manifest) -> Result<Vec<Error>> {
    let step = || Context::within(CLOSE);
    let store = scratch()?;
    load::load(repository, manifest, &*store, None, &|_, _| {}).await.map_err(Error::from)?;
    store.restore(&step(), RestoreStep::Finish { position: manifest.from }).await?;
    let mut problems = Vec::new();
    for collection in manifest.collections.values() {
        problems.extend(search(repository, collection, &*store).await?);
    }
    store.close(&step()).await?;
    Ok(problems)
}

async fn search(
    repository: &Repository,
    collection: &CollectionManifest,
    store: &dyn VectorStore,
) -> Result<Vec<Error>> {
    let name = &collection.spec.name;
    let step = || Context::within(CLOSE);
    let held = store.count(&step(), name, None).await?;
    if held != collection.points() {
        let text = format!("{held} points were loaded of {}", collection.points());
        return Ok(vec![Error::new(ErrorKind::Corrupt, text).with_collection(name)]);
    }
    let vector = VectorName::default();
    let Some(VectorSpec::Dense { distance, .. }) = collection.spec.vectors.get(&vector) else {
        return Ok(Vec::new());
    };
    // A point need not be the nearest to itself by the dot product.
    if *distance == Distance::Dot {
        return Ok(Vec::new());
    }
    let buckets = collection.buckets.len().max(1);
    let (mut problems, mut searched) = (Vec::new(), 0);
    for bucket in collection.buckets.iter().step_by(buckets.div_ceil(SAMPLE)) {
        let records = load::records(repository, collection, bucket).await?;
        for record in records.iter().take(SAMPLE.div_ceil(buckets)) {
            let Some(mainstay::Vector::Dense(values)) = record.point.vectors.get(&vector) else {
                continue;
            };
            let mut query = SearchQuery::new(values.clone()).exact();
            (query.limit, query.fields) = (1, Fields::NONE);
            let hits = store.search(&step(), name, &query).await?;
            searched += 1;
            let best = hits.first().map(|hit| hit.score);
            let found = best.is_some_and(|score| match distance {
                Distance::Cosine => score >= 1.0 - 1e-4,
                _ => score <= 1e-3,
            });
            if !found {
                let text = format!("point {} is not found by its own vector", record.point.id);
                problems.push(Error::new(ErrorKind::Corrupt, text).with_collection(name));
            }
        }
    }
    tracing::info!(collection = %name, searched, "points were found by their own vectors");
    Ok(problems)
}
