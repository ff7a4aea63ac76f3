//! `get`, `count` and `delete`.

use mainstay::{Fields, PointId, Result, Selector, Tier};
use serde_json::json;

use super::{existing, filter, payload_text, record_json};
use crate::output::{Output, short, table};

fn read_ids(texts: &[String]) -> Result<Vec<PointId>> {
    texts.iter().map(|text| text.parse()).collect()
}

/// Shows points.
pub async fn get(
    tier: &Tier,
    collection: &str,
    ids: &[String],
    with_vectors: bool,
    output: Output,
) -> Result<()> {
    let collection = existing(tier, collection)?;
    let vectors = if with_vectors { Selector::All } else { Selector::None };
    let fields = Fields { vectors, ..Fields::default() };
    let answer = tier.get(&collection, &read_ids(ids)?, &fields).await?;
    let value = json!({
        "points": answer.value.iter().map(|record| record_json(record, with_vectors)).collect::<Vec<_>>(),
        "served_by": answer.served_by.as_str(),
        "level": answer.level.number(),
        "lag": answer.lag,
        "partial": answer.partial,
    });
    output.print(&value, || {
        let rows = answer.value.iter().map(|record| {
            let text = record.point.text.as_deref().unwrap_or_default();
            [record.point.id.to_string(), short(&payload_text(&record.point.payload), 60), short(text, 60)]
        });
        table(["id", "payload", "text"], rows)
    });
    Ok(())
}

/// Counts points.
pub async fn count(tier: &Tier, collection: &str, text: Option<&str>, output: Output) -> Result<()> {
    let collection = existing(tier, collection)?;
    let answer = tier.count(&collection, filter(text)?.as_ref()).await?;
    let value = json!({
        "count": answer.value,
        "served_by": answer.served_by.as_str(),
        "lag": answer.lag,
        "partial": answer.partial,
    });
    output.print(&value, || {
        let more = if answer.partial { " or more: no member that has every point can answer" } else { "" };
        format!("{}{more}", answer.value)
    });
    Ok(())
}

/// Deletes points.
pub async fn delete(
    tier: &Tier,
    collection: &str,
    ids: &[String],
    text: Option<&str>,
    output: Output,
) -> Result<()> {
    let collection = existing(tier, collection)?;
    let written = match filter(text)? {
        Some(filter) => tier.delete_by_filter(&collection, &filter).await?,
        None => tier.delete(&collection, &read_ids(ids)?).await?,
    };
    let value = json!({ "points": written.points, "lsn": written.lsn.0 });
    output.print(&value, || format!("deleted {} points", written.points));
    Ok(())
}
