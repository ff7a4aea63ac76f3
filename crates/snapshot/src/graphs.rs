//! The search graphs of a collection, beside its points.
//!
//! ```text
//! file     = "MSTAYGRF" | 1 (u8) | unpacked bytes u64, big-endian | zstd
//! unpacked = a part, as the store that saved it wrote it
//! ```
//!
//! Graphs save the time to build them and say nothing about points, so whatever is wrong with them costs that time and
//! no more. They are listed again from one snapshot to the next until too many points changed: what a store finds in them in
//! another version it adds anew.

use mainstay_core::graphs::MAX_PART_BYTES;
use mainstay_core::{CollectionInfo, CollectionRef, Context, Error, ErrorKind, Lsn, Result, VectorStore};

use crate::layout::{self, ContentFile, ContentHash};
use crate::manifest::{CollectionManifest, GraphFile, GraphManifest};
use crate::repository::{Repository, blocking};
use crate::take::Written;

const MAGIC: &[u8; 8] = b"MSTAYGRF";
const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 17;
/// The level of zstd: there is little to be found in the links of a graph.
const LEVEL: i32 = 1;
/// Graphs are saved again when more than one point in so many changed since.
const STALE: u64 = 50;
/// Unpacked bytes that the links of a point may take; some hundred are usual.
const MOST_PER_POINT: u64 = 16 << 10;
const SPARE_BYTES: u64 = 64 << 20;

/// Whether graphs that were saved at an earlier snapshot are still worth listing, of a collection with so many points, of
/// which so many are newer.
pub fn are_fresh(before: &CollectionManifest, points: u64, newer: u64) -> bool {
    let gone = before.points().saturating_sub(points);
    newer.saturating_add(gone).saturating_mul(STALE) <= points
}

/// Saves the graphs of a collection, if the store has any. `from` is an entry whose effects they hold. Without an error but
/// with `None` if they cannot be had just now.
///
/// # Errors
/// Whatever the repository runs into.
pub async fn save(
    repository: &Repository,
    store: &dyn VectorStore,
    info: &CollectionInfo,
    from: Lsn,
    written: &mut Written,
) -> Result<Option<GraphManifest>> {
    let collection = CollectionRef { name: info.spec.name.clone(), incarnation: info.incarnation };
    let Some(saved) = store.graphs().and_then(|graphs| graphs.save(&collection)) else { return Ok(None) };
    let (mut parts, mut files) = (saved.parts, Vec::new());
    loop {
        let (rest, next) = blocking(move || {
            let next = parts.next().map(|part| part.and_then(|part| encode(&part)));
            Ok((parts, next.map(|bytes| bytes.map(|bytes| (ContentHash::of(&bytes), bytes)))))
        })
        .await?;
        parts = rest;
        let (hash, bytes) = match next {
            Some(Ok(part)) => part,
            Some(Err(error)) => {
                tracing::info!(collection = %collection.name, %error, "a snapshot without graphs");
                return Ok(None);
            }
            None => break,
        };
        let file = GraphFile { hash, bytes: bytes.len() as u64 };
        repository.write(&layout::graph(hash), bytes.into()).await?;
        written.files += 1;
        written.bytes += file.bytes;
        files.push(file);
    }
    Ok((!files.is_empty()).then_some(GraphManifest { lsn: from, parameters: saved.parameters, files }))
}

/// Gives a store the graphs of a collection that it is about to be given the points of, if it has a use for them.
///
/// # Errors
/// Whatever the store runs into. That the graphs cannot be read is only told.
pub async fn load(
    repository: &Repository,
    from: &CollectionManifest,
    into: &dyn VectorStore,
    cx: &Context,
) -> Result<()> {
    let (Some(saved), Some(graphs)) = (&from.graph, into.graphs()) else { return Ok(()) };
    let collection = CollectionRef { name: from.spec.name.clone(), incarnation: from.incarnation };
    if graphs.parameters(&from.spec).as_ref() != Some(&saved.parameters) {
        tracing::info!(collection = %collection.name, "graphs of other parameters are left alone");
        return Ok(());
    }
    let loaded = match read(repository, saved, from.points()).await {
        Ok(parts) => graphs.load(cx, &collection, from.points(), parts).await,
        Err(error) => Err(error),
    };
    match loaded {
        Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Invalid) => Err(error),
        Err(error) => {
            tracing::warn!(collection = %collection.name, %error, "graphs cannot be loaded and are built anew");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// The parts of graphs.
async fn read(repository: &Repository, saved: &GraphManifest, points: u64) -> Result<Vec<Vec<u8>>> {
    let most = points.saturating_mul(MOST_PER_POINT).saturating_add(SPARE_BYTES);
    let (mut parts, mut bytes) = (Vec::new(), 0);
    for file in &saved.files {
        let part = part(repository, *file).await?;
        bytes += part.len() as u64;
        if bytes > most {
            return Err(
                repository.damaged(layout::graph(file.hash).as_ref(), "it is too large for its points")
            );
        }
        parts.push(part);
    }
    Ok(parts)
}

/// Reads a part back.
///
/// # Errors
/// `Corrupt` with the file's name if it is gone or not what it was.
pub(crate) async fn part(repository: &Repository, file: GraphFile) -> Result<Vec<u8>> {
    let file = ContentFile::from(file);
    let bytes = repository.content(&file).await?;
    let unpacked = blocking(move || Ok(decode(&bytes))).await?;
    unpacked.map_err(|what| repository.damaged(file.path.as_ref(), &what))
}

fn encode(part: &[u8]) -> Result<Vec<u8>> {
    let internal = |text: &str| Error::new(ErrorKind::Internal, text.to_owned());
    if part.len() > MAX_PART_BYTES {
        return Err(internal("a part of a graph is too large"));
    }
    let packed = zstd::bulk::compress(part, LEVEL)
        .map_err(|error| internal("a part of a graph could not be packed").with_source(error))?;
    let mut bytes = Vec::with_capacity(HEAD_BYTES + packed.len());
    bytes.extend(MAGIC);
    bytes.push(FORMAT);
    bytes.extend((part.len() as u64).to_be_bytes());
    bytes.extend(packed);
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let (head, packed) = bytes.split_at_checked(HEAD_BYTES).ok_or("it is too short")?;
    if head[..8] != *MAGIC {
        return Err("it is no part of a graph".to_owned());
    }
    if head[8] != FORMAT {
        return Err(format!("its format is {}, this program reads {FORMAT}", head[8]));
    }
    let size = u64::from_be_bytes(head[9..].try_into().unwrap_or_default());
    let fits = usize::try_from(size).ok().filter(|size| *size <= MAX_PART_BYTES);
    let fits = fits.ok_or_else(|| format!("unpacked it would take {size} bytes"))?;
    let part = zstd::bulk::decompress(packed, fits).map_err(|error| error.to_string())?;
    if part.len() == fits { Ok(part) } else { Err("it is shorter than it says".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_reads_back_and_a_damaged_one_is_refused() {
        let part: Vec<u8> = (0..50_000_u32).flat_map(|n| (n % 977).to_le_bytes()).collect();
        let bytes = encode(&part).unwrap();
        assert_eq!(decode(&bytes).unwrap(), part);
        for cut in [0, 8, 16, 17, bytes.len() - 1] {
            assert!(decode(&bytes[..cut]).is_err(), "{cut}");
        }
        for at in 0..HEAD_BYTES {
            let mut other = bytes.clone();
            other[at] ^= 0x81;
            assert!(decode(&other).is_err(), "{at}");
        }
        let mut bomb = bytes;
        bomb[9..HEAD_BYTES].copy_from_slice(&u64::MAX.to_be_bytes());
        assert!(decode(&bomb).unwrap_err().contains("would take"));
    }
}
