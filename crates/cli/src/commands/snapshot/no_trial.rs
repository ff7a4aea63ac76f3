//! What stands for trial restores in a build without a store in memory.

use std::sync::Arc;

use mainstay::snapshot::{Manifest, Repository};
use mainstay::{Error, ErrorKind, Result, VectorStore};

/// There is none.
pub async fn load(_: &Repository, _: &Manifest) -> Result<Vec<Error>> {
    Err(missing("a trial restore"))
}

/// There is none.
pub fn scratch() -> Result<Arc<dyn VectorStore>> {
    Err(missing("an export"))
}

fn missing(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{what} needs the cargo feature `memory`"))
}
