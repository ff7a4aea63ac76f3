//! What a member is about to be given by a replay, counted in the log before it begins.

use std::collections::BTreeMap;

use mainstay_core::expected::Survey;
use mainstay_core::{CollectionSpec, Expected, Lsn, Op, Result};

use crate::log::{Log, scan};

/// The collections at the end of a log, and the points that a replay from its start brings.
///
/// # Errors
/// Whatever reading the log runs into.
pub async fn of_log(log: &dyn Log) -> Result<Vec<Expected>> {
    let checkpoint = log.checkpoint();
    let mut surveys: BTreeMap<Lsn, (CollectionSpec, Survey)> = BTreeMap::new();
    scan(log, checkpoint.position.lsn, log.bounds().last, |entry| match &entry.op {
        Op::CreateCollection(spec) => {
            surveys.insert(entry.lsn, (spec.clone(), Survey::default()));
        }
        Op::DropCollection(collection) => {
            surveys.remove(&collection.incarnation);
        }
        Op::Upsert { collection, points } => {
            if let Some((_, survey)) = surveys.get_mut(&collection.incarnation) {
                points.iter().for_each(|point| survey.add(point));
            }
        }
        Op::Delete { collection, ids } => {
            if let Some((_, survey)) = surveys.get_mut(&collection.incarnation) {
                ids.iter().for_each(|id| survey.remove(*id));
            }
        }
        // A store that replays this is loaded from another member, and hears of its points then.
        Op::AdoptCollection { .. } | Op::PatchPayload { .. } => {}
    })
    .await?;
    Ok(surveys.into_values().map(|(spec, survey)| survey.expected(spec)).collect())
}
