//! A tier of one memory member in a temporary folder: `cargo run -p mainstay --example quickstart`.

use mainstay::{
    CollectionName, CollectionSpec, Config, Distance, Embedder, HashEmbedder, Point, SearchQuery, Tier,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    let config = format!(
        "[tier]\nmembers = [\"standby\"]\n[members.standby]\nbackend = \"memory\"\n[log]\npath = {log:?}\n"
    );
    let tier = Tier::open(Config::from_toml(&config)?).await?;

    let embedder = HashEmbedder::default();
    let docs = CollectionName::new("docs")?;
    tier.create_collection(CollectionSpec::dense(docs.clone(), embedder.dimension(), Distance::Cosine))
        .await?;
    let texts =
        ["the log is written first", "a search moves on to the next member", "points carry a version"];
    let points =
        texts.iter().zip(1_u64..).map(|(text, id)| Point::new(id, embedder.vector(text)).with_text(*text));
    let written = tier.upsert(&docs, points.collect()).await?;

    let query = SearchQuery::new(embedder.vector("which member does a search ask next?")).with_limit(2);
    let answer = tier.reader().at_least(written.lsn).search(&docs, query).await?;
    for hit in &answer.value {
        println!("{:.3} {} {}", hit.score, hit.point.id, hit.point.text.as_deref().unwrap_or_default());
    }
    println!("served by {}, level {}, lag {}", answer.served_by, answer.level, answer.lag);
    tier.close().await?;
    Ok(())
}
