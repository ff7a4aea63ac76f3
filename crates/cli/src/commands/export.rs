//! `export`.

use std::path::Path;

use mainstay::{Fields, Result, ScrollQuery, Tier};
use mainstay_cli::export::Export;
use serde_json::json;

use super::{existing, filter};
use crate::output::Output;

/// Points read and written at once.
const PAGE: usize = 1_000;

/// Writes the points of a collection to a file.
pub async fn run(
    tier: &Tier,
    collection: &str,
    file: &Path,
    text: Option<&str>,
    output: Output,
) -> Result<()> {
    let collection = existing(tier, collection)?;
    let filter = filter(text)?;
    // Of a member that is behind, or partial, an export would lack points and not say so.
    let reader = tier.reader().at_least(tier.log_end()).whole();
    let total = reader.count(&collection, filter.as_ref()).await?.value;
    let bar = output.bar(total, "exporting");
    let mut export = Export::create(file, None, &tier.collection(&collection)?)?;
    let mut query = ScrollQuery { after: None, limit: PAGE, filter, fields: Fields::ALL };
    loop {
        let page = reader.scroll(&collection, &query).await?.value;
        export.write(&page.records)?;
        bar.inc(page.records.len() as u64);
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    let points = export.finish()?;
    bar.finish_and_clear();
    output.print(&json!({ "points": points, "file": file.display().to_string() }), || {
        format!("{points} points in {}", file.display())
    });
    Ok(())
}
