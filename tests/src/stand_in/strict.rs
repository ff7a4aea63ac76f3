//! Strict mode, with the words of the server.

use qdrant_client::qdrant as proto;
use tonic::Status;

/// What one request asks for, as far as strict mode looks at it.
#[derive(Default)]
pub struct Asked {
    /// Points in one upsert.
    pub upserted: usize,
    /// Points in a page, or hits.
    pub limit: Option<u64>,
    /// Whether a search is exact.
    pub exact: bool,
    /// Seconds.
    pub timeout: Option<u64>,
}

/// Refuses what a collection does not allow.
pub fn check(config: &proto::CollectionConfig, asked: &Asked) -> Result<(), Status> {
    let Some(strict) = config.strict_mode_config.as_ref().filter(|strict| strict.enabled == Some(true))
    else {
        return Ok(());
    };
    let over = |value: u64, limit: Option<u64>, name: &str| match limit {
        Some(limit) if value > limit => {
            let text = format!("Limit exceeded {value} > {limit} for \"{name}\"");
            let help = format!("Reduce the \"{name}\" parameter to or below {limit}.");
            Err(Status::invalid_argument(format!("{text}. Help: {help}")))
        }
        _ => Ok(()),
    };
    over(asked.upserted as u64, strict.upsert_max_batchsize, "upsert limit")?;
    over(asked.limit.unwrap_or_default(), strict.max_query_limit.map(u64::from), "limit")?;
    over(asked.timeout.unwrap_or_default(), strict.max_timeout.map(u64::from), "timeout")?;
    if asked.exact && strict.search_allow_exact == Some(false) {
        return Err(Status::invalid_argument("Exact search disabled!. Help: Set exact=false."));
    }
    Ok(())
}

/// How many points an operation writes.
pub fn upserted(operation: &proto::PointsUpdateOperation) -> usize {
    match &operation.operation {
        Some(proto::points_update_operation::Operation::Upsert(list)) => list.points.len(),
        _ => 0,
    }
}
