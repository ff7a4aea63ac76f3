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

use futures::StreamExt;
use mainstay_core::graphs::MAX_PART_BYTES;
use mainstay_core::{CollectionInfo, CollectionRef, Context, Error, ErrorKind, Lsn, Result, VectorStore};

use crate::bounded::unpack;
use crate::layout::{self, ContentFile, ContentHash};
use crate::manifest::{CollectionManifest, GraphFile, GraphManifest};
use crate::repository::Repository;
use crate::take::Written;
use crate::work::{Priority, blocking};

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
/// Parts that are read at once, and so may be in memory before they turn out to be too many.
const AT_ONCE: usize = 4;

/// Whether graphs that were saved at an earlier snapshot are still worth listing, of a collection that now has so many
/// points, of which so many are newer than the graphs.
fn are_fresh(saved: &GraphManifest, points: u64, newer: u64) -> bool {
    let known = points.saturating_sub(newer);
    let gone = saved.points.saturating_sub(known);
    newer.max(gone).saturating_mul(STALE) <= points
}

/// What was found of a collection while its points were taken.
pub(crate) struct Found<'a> {
    /// The collection.
    pub info: &'a CollectionInfo,
    /// An entry whose effects are in the store.
    pub from: Lsn,
    /// How many points there are.
    pub points: u64,
    /// How many of them are newer than the graphs of the snapshot before.
    pub newer: u64,
    /// Those graphs, if all their files are there.
    pub before: Option<&'a GraphManifest>,
}

/// Saves the graphs of a collection, if the store has any, or lists those of the snapshot before again. Without an error
/// but with `None` if they cannot be had just now. They are packed with this priority.
///
/// # Errors
/// Whatever the repository runs into.
pub(crate) async fn save(
    repository: &Repository,
    store: &dyn VectorStore,
    found: Found<'_>,
    priority: Priority,
) -> Result<(Option<GraphManifest>, Written)> {
    let Found { info, from, points, newer, before } = found;
    let collection = CollectionRef { name: info.spec.name.clone(), incarnation: info.incarnation };
    let saved = store.graphs().and_then(|graphs| graphs.save(&collection));
    let parameters = saved.as_ref().map(|saved| saved.parameters.as_str());
    let is_like = |before: &&GraphManifest| parameters.is_none_or(|now| now == before.parameters);
    if let Some(before) = before.filter(is_like).filter(|before| are_fresh(before, points, newer)) {
        let written = Written { reused: before.files.len() as u64, ..Written::default() };
        return Ok((Some(before.clone()), written));
    }
    let mut written = Written::default();
    let Some(saved) = saved else { return Ok((None, written)) };
    let (mut parts, mut files) = (saved.parts, Vec::new());
    loop {
        // Not with a low priority: writers of the store wait meanwhile.
        let (rest, next) = blocking(move || {
            let next = parts.next();
            Ok((parts, next))
        })
        .await?;
        parts = rest;
        let Some(part) = next else { break };
        let encoded = |part: Vec<u8>| encode(&part).map(|bytes| (ContentHash::of(&bytes), bytes));
        let (hash, bytes) = match priority.run(move || Ok(part.and_then(encoded))).await? {
            Ok(encoded) => encoded,
            Err(error) => {
                tracing::info!(collection = %collection.name, %error, "a snapshot without graphs");
                return Ok((None, written));
            }
        };
        let file = GraphFile { hash, bytes: bytes.len() as u64 };
        repository.write(&layout::graph(hash), bytes.into()).await?;
        written.files += 1;
        written.bytes += file.bytes;
        files.push(file);
    }
    let graph = GraphManifest { lsn: from, points, parameters: saved.parameters, files };
    Ok(((!graph.files.is_empty()).then_some(graph), written))
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
    let told = |error: Error| {
        tracing::warn!(collection = %collection.name, %error, "graphs cannot be loaded and are built anew");
    };
    let parts = match read(repository, saved, from.points()).await {
        Ok(parts) => parts,
        Err(error) => {
            told(error);
            return Ok(());
        }
    };
    match graphs.load(cx, &collection, from.points(), parts).await {
        Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Invalid) => Err(error),
        Err(error) => {
            told(error);
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// The parts of graphs.
async fn read(repository: &Repository, saved: &GraphManifest, points: u64) -> Result<Vec<Vec<u8>>> {
    let most = points.saturating_mul(MOST_PER_POINT).saturating_add(SPARE_BYTES);
    let (mut parts, mut bytes) = (Vec::new(), 0);
    let reading: Vec<_> = saved.files.iter().map(|file| part(repository, *file)).collect();
    let mut reading =
        futures::stream::iter(reading).buffered(AT_ONCE).zip(futures::stream::iter(&saved.files));
    while let Some((part, file)) = reading.next().await {
        let part = part?;
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
    unpack(packed, size, MAX_PART_BYTES)
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
