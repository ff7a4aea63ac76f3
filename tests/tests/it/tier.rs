//! A tier from a TOML file in a directory: LanceDB first if it is compiled in, then memory.

use std::path::Path;
use std::time::Duration;

use mainstay::{CollectionName, CollectionSpec, Config, Distance, Point, Tier};

/// Numbers in a vector.
pub const DIMENSION: usize = 8;
/// Longer than any test on a busy machine should take.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// The config in TOML, as a user would write it.
pub fn toml(directory: &Path, extra: &str) -> String {
    let log = directory.join("log");
    let lance = format!("[members.primary]\nbackend = \"lance\"\nuri = {:?}\n", directory.join("lance"));
    let (names, primary) = if cfg!(feature = "lance") {
        ("\"primary\", \"standby\"", lance.as_str())
    } else {
        ("\"standby\"", "")
    };
    format!(
        "[tier]\nmembers = [{names}]\ndeadline = \"60s\"\n{primary}[members.standby]\nbackend = \"memory\"\n\
         [log]\npath = {log:?}\n{extra}"
    )
}

/// Opens the tier of a directory and its collection.
pub async fn open(directory: &Path, extra: &str) -> Tier {
    let file = directory.join("mainstay.toml");
    std::fs::write(&file, toml(directory, extra)).unwrap();
    let tier = Tier::open(Config::load(&file).unwrap()).await.unwrap();
    if tier.collection(&docs()).is_err() {
        tier.create_collection(docs_spec()).await.unwrap();
    }
    tier
}

/// What the collection of these tests is.
pub fn docs_spec() -> CollectionSpec {
    CollectionSpec::dense(docs(), DIMENSION, Distance::Cosine)
}

/// The collection of these tests.
pub fn docs() -> CollectionName {
    CollectionName::new("docs").unwrap()
}

/// A point whose vector follows from its id and whose text is its content.
pub fn point(id: u64, content: &str) -> Point {
    let vector = (0..DIMENSION as u64).map(|i| ((id * 31 + i * 17) % 13) as f32 + 1.0).collect();
    Point::new(id, vector).with_text(content).with_payload(serde_json::json!({ "content": content }))
}
