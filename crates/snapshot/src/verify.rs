//! Every checksum and count of a snapshot.

use std::collections::HashSet;

use futures::StreamExt;
use mainstay_core::{Error, Result};

use crate::graphs;
use crate::layout::ContentHash;
use crate::load;
use crate::manifest::{CollectionManifest, Manifest};
use crate::repository::{Listed, Repository};

/// Buckets that are looked at side by side.
const AHEAD: usize = 2;

/// What a verification found.
#[derive(Debug, Default)]
pub struct Verified {
    /// Files of points and graphs that were read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Points in them.
    pub points: u64,
    /// What is wrong, each with the name of a file; empty if the snapshot is good.
    pub problems: Vec<Error>,
}

impl Verified {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Reads everything that a snapshot is made of and checks it against its names, its counts and its hashes. `progress` is
/// told how many points are done, and of how many.
///
/// # Errors
/// Whatever the place runs into, other than what is wrong with the snapshot.
pub async fn verify(
    repository: &Repository,
    listed: Listed,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Verified> {
    let mut verified = Verified::default();
    let manifest = match repository.manifest(listed).await {
        Ok(manifest) => manifest,
        Err(error) if is_damage(&error) => {
            verified.problems.push(error);
            return Ok(verified);
        }
        Err(error) => return Err(error),
    };
    for collection in manifest.collections.values() {
        check(repository, &manifest, collection, &mut verified, progress).await?;
    }
    Ok(verified)
}

/// Reads the files of a snapshot back and checks that they are what their names say, but for those that are known to
/// be. What is in them was checked when they were written.
///
/// # Errors
/// `Corrupt` with the name of the first file that is not; whatever the place runs into.
pub async fn read_back(
    repository: &Repository,
    manifest: &Manifest,
    known: &HashSet<ContentHash>,
) -> Result<()> {
    for file in manifest.content_files().filter(|file| !known.contains(&file.hash)) {
        repository.content(&file).await?;
    }
    Ok(())
}

async fn check(
    repository: &Repository,
    manifest: &Manifest,
    collection: &CollectionManifest,
    verified: &mut Verified,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<()> {
    let total = manifest.points();
    let reading = futures::stream::iter(0..collection.buckets.len()).map(|at| async move {
        let bucket = &collection.buckets[at];
        (bucket, load::records(repository, collection, bucket).await.map(|records| records.len() as u64))
    });
    let mut reading = reading.buffered(AHEAD);
    while let Some((bucket, read)) = reading.next().await {
        match read {
            Ok(points) => {
                verified.files += bucket.files.len() as u64;
                verified.bytes += bucket.files.iter().map(|file| file.bytes).sum::<u64>();
                verified.points += points;
                progress(verified.points, total);
            }
            Err(error) if is_damage(&error) => verified.problems.push(error),
            Err(error) => return Err(error),
        }
    }
    for file in collection.graph.iter().flat_map(|graph| &graph.files) {
        match graphs::part(repository, *file).await {
            Ok(_) => {
                verified.files += 1;
                verified.bytes += file.bytes;
            }
            Err(error) if is_damage(&error) => verified.problems.push(error),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_damage(error: &Error) -> bool {
    use mainstay_core::ErrorKind::{Corrupt, Unsupported};
    matches!(error.kind(), Corrupt | Unsupported)
}
