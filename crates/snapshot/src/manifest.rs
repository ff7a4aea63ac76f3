//! What a snapshot is made of: the manifest, a JSON document named by its own hash.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use mainstay_core::document::{
    collection_from_json, collection_to_json, position_from_json, position_to_json,
};
use mainstay_core::{CollectionName, CollectionSpec, Error, ErrorKind, Lsn, Position, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bounded::small;
use crate::buckets::{MAX_BITS, collection_hash, snapshot_hash};
use crate::layout::{self, ContentFile, ContentHash, SnapshotId, shown_time};

/// The version of the format that this program writes and reads.
pub const FORMAT: u64 = 3;
/// Largest manifest: some millions of buckets' worth.
pub const MAX_MANIFEST_BYTES: u64 = 256 << 20;
/// Largest bucket file that is read; the points of one take twice as much memory at most.
pub const MAX_FILE_BYTES: u64 = 256 << 20;

impl From<BucketFile> for ContentFile {
    fn from(file: BucketFile) -> Self {
        Self { path: layout::bucket(file.hash), hash: file.hash, bytes: file.bytes }
    }
}

impl From<GraphFile> for ContentFile {
    fn from(file: GraphFile) -> Self {
        Self { path: layout::graph(file.hash), hash: file.hash, bytes: file.bytes }
    }
}

/// Whose state a snapshot is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The member's name, or what else names the store.
    pub member: String,
    /// The word of its backend.
    pub backend: String,
}

/// A file of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketFile {
    /// Its name.
    pub hash: ContentHash,
    /// Its length.
    pub bytes: u64,
    /// How many points are in it.
    pub points: u64,
}

/// A bucket that has points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its number.
    pub number: u32,
    /// How many points it has.
    pub points: u64,
    /// The hash of their ids and versions.
    pub hash: ContentHash,
    /// Its files; ids ascend through all of them.
    pub files: Vec<BucketFile>,
}

/// A part of a collection's graphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GraphFile {
    /// Its name.
    pub hash: ContentHash,
    /// Its length.
    pub bytes: u64,
}

/// The search graphs of a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphManifest {
    /// They hold everything up to this entry, or more.
    pub lsn: Lsn,
    /// How many points the collection had then.
    pub points: u64,
    /// What they are made of, in the words of the store that saved them.
    pub parameters: String,
    /// Their parts, in order.
    pub files: Vec<GraphFile>,
}

/// A collection in a snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionManifest {
    /// Its spec.
    pub spec: CollectionSpec,
    /// The LSN that created it.
    pub incarnation: Lsn,
    /// There are `1 << bits` buckets.
    pub bits: u32,
    /// Those that have points, numbers ascending.
    pub buckets: Vec<Bucket>,
    /// Its search graphs, if they were saved.
    pub graph: Option<GraphManifest>,
}

impl CollectionManifest {
    /// How many points it has.
    pub fn points(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.points).sum()
    }

    /// The hash of all ids and versions.
    pub fn hash(&self) -> ContentHash {
        let buckets = self.buckets.iter().map(|bucket| (bucket.number, bucket.points, bucket.hash));
        collection_hash(self.incarnation, self.bits, buckets)
    }
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Its id.
    pub id: SnapshotId,
    /// The program that made it, with its version.
    pub tool: String,
    /// Whose state it is.
    pub source: Source,
    /// When it was complete.
    pub ended: DateTime<Utc>,
    /// The position of the source before its first point was read. Replaying the log from here to `to` makes the
    /// state exact.
    pub from: Position,
    /// A position of the source after its last point was read: nothing in the files is newer.
    pub to: Position,
    /// Collections, by name.
    pub collections: BTreeMap<CollectionName, CollectionManifest>,
}

impl Manifest {
    /// How many points it has.
    pub fn points(&self) -> u64 {
        self.collections.values().map(CollectionManifest::points).sum()
    }

    /// Bytes of all its files.
    pub fn bytes(&self) -> u64 {
        self.content_files().map(|file| file.bytes).sum()
    }

    /// Every bucket file.
    pub fn files(&self) -> impl Iterator<Item = BucketFile> + '_ {
        let buckets = self.collections.values().flat_map(|collection| &collection.buckets);
        buckets.flat_map(|bucket| bucket.files.iter().copied())
    }

    /// Every file that it is made of.
    pub fn content_files(&self) -> impl Iterator<Item = ContentFile> + '_ {
        let graphs = self.collections.values().flat_map(|collection| &collection.graph);
        let parts = graphs.flat_map(|graph| graph.files.iter().copied());
        self.files().map(ContentFile::from).chain(parts.map(ContentFile::from))
    }

    /// The hash of all ids and versions: equal hashes, equal points.
    pub fn hash(&self) -> ContentHash {
        snapshot_hash(self.collections.iter().map(|(name, collection)| (name, collection.hash())))
    }

    /// The manifest as it is stored.
    ///
    /// # Errors
    /// `Internal` if it cannot be written as JSON.
    pub fn print(&self) -> Result<Vec<u8>> {
        let collections = self.collections.values().map(WireCollection::of).collect();
        let wire = Wire {
            format: FORMAT,
            id: self.id.to_string(),
            tool: self.tool.clone(),
            source: self.source.clone(),
            ended: shown_time(self.ended),
            from: position_to_json(&self.from),
            to: position_to_json(&self.to),
            collections,
            points: self.points(),
            bytes: self.bytes(),
            hash: self.hash().to_string(),
        };
        serde_json::to_vec(&wire)
            .map_err(|e| Error::new(ErrorKind::Internal, "a manifest could not be written").with_source(e))
    }

    /// Reads what [`print`](Self::print) wrote. What is in it need not be true of the files.
    ///
    /// # Errors
    /// `Corrupt` with what is wrong; `Unsupported` for a format that this program does not read.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let corrupt =
            |what: String| Error::new(ErrorKind::Corrupt, format!("the manifest is damaged: {what}"));
        #[derive(Deserialize)]
        struct Version {
            format: u64,
        }
        let Version { format } = serde_json::from_slice(bytes).map_err(|e| corrupt(e.to_string()))?;
        if format != FORMAT {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("the snapshot has format {format}; this program reads format {FORMAT}"),
            ));
        }
        let wire: Wire = serde_json::from_slice(bytes).map_err(|e| corrupt(e.to_string()))?;
        wire.into_manifest().map_err(corrupt)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    format: u64,
    id: String,
    tool: String,
    source: Source,
    ended: String,
    #[serde(deserialize_with = "small")]
    from: Value,
    #[serde(deserialize_with = "small")]
    to: Value,
    points: u64,
    bytes: u64,
    hash: String,
    collections: Vec<WireCollection>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireCollection {
    #[serde(deserialize_with = "small")]
    collection: Value,
    bits: u32,
    points: u64,
    hash: String,
    buckets: Vec<WireBucket>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    graph: Option<WireGraph>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireGraph {
    lsn: u64,
    points: u64,
    parameters: String,
    files: Vec<WirePart>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WirePart {
    hash: String,
    bytes: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireBucket {
    number: u32,
    points: u64,
    hash: String,
    files: Vec<WireFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireFile {
    hash: String,
    bytes: u64,
    points: u64,
}

impl WireCollection {
    fn of(collection: &CollectionManifest) -> Self {
        let file = |file: &BucketFile| WireFile {
            hash: file.hash.to_string(),
            bytes: file.bytes,
            points: file.points,
        };
        let bucket = |bucket: &Bucket| WireBucket {
            number: bucket.number,
            points: bucket.points,
            hash: bucket.hash.to_string(),
            files: bucket.files.iter().map(file).collect(),
        };
        Self {
            collection: collection_to_json(&collection.spec, collection.incarnation),
            bits: collection.bits,
            points: collection.points(),
            hash: collection.hash().to_string(),
            buckets: collection.buckets.iter().map(bucket).collect(),
            graph: collection.graph.as_ref().map(WireGraph::of),
        }
    }

    fn into_collection(self) -> Result<CollectionManifest, String> {
        let (spec, incarnation) =
            collection_from_json(&self.collection).ok_or("a collection in it cannot be read")?;
        let fail = |what: &str| format!("{what} of collection `{}`", spec.name);
        spec.check().map_err(|error| error.to_string())?;
        if self.bits > MAX_BITS {
            return Err(fail(&format!("{} bits, at most {MAX_BITS} make sense,", self.bits)));
        }
        if !self.buckets.windows(2).all(|pair| pair[0].number < pair[1].number)
            || self.buckets.last().is_some_and(|last| last.number >> self.bits != 0)
        {
            return Err(fail("the numbers of the buckets"));
        }
        let buckets = self.buckets.into_iter().map(WireBucket::into_bucket).collect::<Option<Vec<_>>>();
        let graph = match self.graph {
            Some(graph) => Some(graph.into_graph().ok_or_else(|| fail("the graph"))?),
            None => None,
        };
        let collection = CollectionManifest {
            graph,
            buckets: buckets.ok_or_else(|| fail("a bucket"))?,
            bits: self.bits,
            incarnation,
            spec,
        };
        let points = collection.buckets.iter().try_fold(0_u64, |sum, b| sum.checked_add(b.points));
        if points != Some(self.points) {
            return Err(format!("the number of points of collection `{}`", collection.spec.name));
        }
        if collection.hash().to_string() != self.hash {
            return Err(format!("the hash of collection `{}`", collection.spec.name));
        }
        Ok(collection)
    }
}

impl WireGraph {
    fn of(graph: &GraphManifest) -> Self {
        let part = |file: &GraphFile| WirePart { hash: file.hash.to_string(), bytes: file.bytes };
        let files = graph.files.iter().map(part).collect();
        Self { lsn: graph.lsn.0, points: graph.points, parameters: graph.parameters.clone(), files }
    }

    fn into_graph(self) -> Option<GraphManifest> {
        let file = |file: WirePart| {
            let plausible = file.bytes > 0 && file.bytes <= MAX_FILE_BYTES;
            Some(GraphFile { hash: ContentHash::parse(&file.hash)?, bytes: file.bytes }).filter(|_| plausible)
        };
        let files = self.files.into_iter().map(file).collect::<Option<_>>()?;
        Some(GraphManifest { lsn: Lsn(self.lsn), points: self.points, parameters: self.parameters, files })
    }
}

impl WireBucket {
    fn into_bucket(self) -> Option<Bucket> {
        let file = |file: WireFile| {
            let hash = ContentHash::parse(&file.hash)?;
            // However well they are packed, so many points take more.
            let plausible = file.points > 0 && file.points / 64 <= file.bytes && file.bytes <= MAX_FILE_BYTES;
            plausible.then_some(BucketFile { hash, bytes: file.bytes, points: file.points })
        };
        let files: Vec<_> = self.files.into_iter().map(file).collect::<Option<_>>()?;
        let points = files.iter().try_fold(0_u64, |sum, file| sum.checked_add(file.points))?;
        let bucket = Bucket { number: self.number, points, hash: ContentHash::parse(&self.hash)?, files };
        (points == self.points && points > 0).then_some(bucket)
    }
}

impl Wire {
    fn into_manifest(self) -> Result<Manifest, String> {
        let position =
            |value: &Value| position_from_json(value).map_err(|what| format!("a position in it: {what}"));
        let mut collections = BTreeMap::new();
        for collection in self.collections {
            let collection = collection.into_collection()?;
            if let Some(twice) = collections.insert(collection.spec.name.clone(), collection) {
                return Err(format!("it has collection `{}` twice", twice.spec.name));
            }
        }
        let manifest = Manifest {
            id: SnapshotId::parse(&self.id).map_err(|error| error.to_string())?,
            tool: self.tool,
            source: self.source,
            ended: read_time(&self.ended)?,
            from: position(&self.from)?,
            to: position(&self.to)?,
            collections,
        };
        if manifest.from.log != manifest.to.log || manifest.from.lsn > manifest.to.lsn {
            return Err("its positions are not of one log, or the wrong way round".to_owned());
        }
        let points = manifest.collections.values().try_fold(0_u64, |sum, c| sum.checked_add(c.points()));
        let bytes = manifest.content_files().try_fold(0_u64, |sum, file| sum.checked_add(file.bytes));
        if points != Some(self.points) || bytes != Some(self.bytes) {
            return Err("its sums are not what it lists".to_owned());
        }
        if manifest.hash().to_string() != self.hash {
            return Err("its hash is not that of its collections".to_owned());
        }
        Ok(manifest)
    }
}

/// Reads a time in the one spelling that is written.
fn read_time(text: &str) -> Result<DateTime<Utc>, String> {
    let time = DateTime::parse_from_rfc3339(text).map_err(|error| error.to_string())?.to_utc();
    match shown_time(time) == text {
        true => Ok(time),
        false => Err("a time in it is not in UTC to the millisecond".to_owned()),
    }
}
