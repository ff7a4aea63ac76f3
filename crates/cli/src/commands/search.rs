//! `search`.

use mainstay::{
    Error, Fields, HashEmbedder, Record, Result, SearchQuery, Selector, Tier, VectorName, VectorSpec,
};
use serde_json::json;

use super::{existing, filter, payload_text, record_json};
use crate::args::SearchArgs;
use crate::output::{Output, short, table};

/// Finds the nearest points.
pub async fn run(args: SearchArgs, tier: &Tier, output: Output) -> Result<()> {
    let collection = existing(tier, &args.collection)?;
    let vector = match (&args.text, &args.vector_file) {
        (Some(text), _) => match tier.collection(&collection)?.vector(&VectorName::default())? {
            VectorSpec::Dense { dimension, .. } => HashEmbedder::new(dimension)?.vector(text),
            VectorSpec::Sparse => {
                return Err(Error::invalid("the default vector is sparse; give --vector-file"));
            }
        },
        (None, Some(path)) => read_vector(path)?,
        (None, None) => return Err(Error::invalid("give --text or --vector-file")),
    };
    let query = SearchQuery {
        limit: args.limit,
        offset: args.offset,
        score_threshold: args.threshold,
        filter: filter(args.filter.as_deref())?,
        exact: args.exact,
        fields: Fields {
            vectors: if args.with_vectors { Selector::All } else { Selector::None },
            ..Fields::default()
        },
        ..SearchQuery::new(vector)
    };
    let answer = tier.search(&collection, query).await?;
    let hits = answer.value.iter().map(|hit| {
        let record = Record { version: hit.version, point: hit.point.clone() };
        let mut value = record_json(&record, args.with_vectors);
        value["score"] = hit.score.into();
        value
    });
    let value = json!({
        "hits": hits.collect::<Vec<_>>(),
        "served_by": answer.served_by.as_str(),
        "level": answer.level.number(),
        "lag": answer.lag,
        "partial": answer.partial,
    });
    output.print(&value, || {
        let rows = answer.value.iter().map(|hit| {
            let text = hit.point.text.as_deref().unwrap_or_default();
            let place = hit.point.payload.get("path").and_then(|path| path.as_str()).map(|path| {
                let line = hit.point.payload.get("start_line").map(|line| format!(":{line}"));
                format!("{path}{}", line.unwrap_or_default())
            });
            let about = place.unwrap_or_else(|| payload_text(&hit.point.payload));
            [format!("{:.4}", hit.score), hit.point.id.to_string(), short(&about, 50), short(text, 60)]
        });
        format!(
            "{}\nserved by {} · level {} · lag {}{}",
            table(["score", "id", "payload", "text"], rows),
            answer.served_by,
            answer.level.number(),
            answer.lag,
            if answer.partial { " · partial: there may be more" } else { "" }
        )
    });
    Ok(())
}

fn read_vector(path: &std::path::Path) -> Result<Vec<f32>> {
    let fail = |what: String| Error::invalid(format!("the vector in {}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| fail(format!("a JSON list of numbers was expected: {error}")))
}
