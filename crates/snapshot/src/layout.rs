//! What lies where in a repository.
//!
//! ```text
//! repository.json                                     what this is, and its format
//! snapshots/<id>.<hash>.json                          a manifest
//! buckets/<first 2 digits>/<hash>.arrows              points
//! graphs/<first 2 digits>/<hash>.graph                a part of a collection's search graphs
//! log/<log id>.<epoch>/<first>-<last>.<hash>.log      entries of the log, LSNs in 20 digits
//! uses/<id>.<uuid>                                    a snapshot that is being restored
//! garbage/<hash>                                      a file of points or graphs that nothing needed when this was written
//! ```
//!
//! A hash is the BLAKE3 of the bytes of the file, as 64 hexadecimal digits. Whatever else is in a repository is left
//! alone. Names are read strictly and never taken from the contents of a file, so no file can name another place.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use mainstay_core::entry::{LogId, LogIdentity};
use mainstay_core::{Error, Lsn, Result};
use object_store::path::Path;
use uuid::Uuid;

/// The folder of manifests.
pub const SNAPSHOTS: &str = "snapshots";
/// The folder of bucket files.
pub const BUCKETS: &str = "buckets";
/// The folder of parts of graphs.
pub const GRAPHS: &str = "graphs";
/// The folder of log segments.
pub const LOG: &str = "log";
/// The folder of marks of restores under way.
pub const USES: &str = "uses";
/// The folder of marks of files that nothing needed.
pub const GARBAGE: &str = "garbage";
/// The file that says what a repository is.
pub const REPOSITORY: &str = "repository.json";

/// The BLAKE3 hash of a file's bytes; shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Of a hash that is known already.
    pub const fn new(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// Its bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads 64 lower-case hexadecimal digits; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let lower = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
        if text.len() != 64 || !text.bytes().all(lower) {
            return None;
        }
        blake3::Hash::from_hex(text).ok().map(|hash| Self(*hash.as_bytes()))
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The id of a snapshot: when it was begun, in UTC to the millisecond, and the LSN it stands at. Ids sort by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId {
    time: DateTime<Utc>,
    lsn: Lsn,
}

impl SnapshotId {
    /// Of a moment, whose parts below a millisecond are dropped, and an LSN.
    pub fn new(time: DateTime<Utc>, lsn: Lsn) -> Self {
        Self { time: to_millis(time), lsn }
    }

    /// When the snapshot was begun.
    pub fn time(&self) -> DateTime<Utc> {
        self.time
    }

    /// How long ago that was; zero if a clock went back.
    pub fn age(&self) -> std::time::Duration {
        (Utc::now() - self.time).to_std().unwrap_or_default()
    }

    /// The LSN that it stands at.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Reads what `Display` wrote.
    ///
    /// # Errors
    /// `Invalid` with the form of an id.
    pub fn parse(text: &str) -> Result<Self> {
        let parsed = text.split_once('-').and_then(|(time, lsn)| {
            let time = chrono::NaiveDateTime::parse_from_str(time, FORMAT).ok()?.and_utc();
            Some(Self::new(time, Lsn(lsn.parse().ok()?)))
        });
        match parsed {
            // Only one spelling is a name.
            Some(id) if id.to_string() == text => Ok(id),
            _ => Err(Error::invalid(format!(
                "{text:?} is not the id of a snapshot, which looks like 20260131T120000.000Z-1234"
            ))),
        }
    }
}

const FORMAT: &str = "%Y%m%dT%H%M%S%.3fZ";

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.time.format(FORMAT), self.lsn)
    }
}

/// A time as names, manifests and segments keep it.
pub fn to_millis(time: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(time.timestamp_millis()).unwrap_or(time)
}

/// A time as RFC 3339 in UTC, to the millisecond.
pub fn shown_time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Which entries a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentName {
    /// The first entry.
    pub first: Lsn,
    /// The last entry, not before the first.
    pub last: Lsn,
    /// The hash of the file.
    pub hash: ContentHash,
}

impl SegmentName {
    /// How many entries it holds.
    pub fn entries(&self) -> u64 {
        (self.last.0 - self.first.0).saturating_add(1)
    }
}

/// Where the manifest of a snapshot is.
pub fn manifest(id: SnapshotId, hash: ContentHash) -> Path {
    Path::from_iter([SNAPSHOTS.to_owned(), format!("{id}.{hash}.json")])
}

/// Where a bucket file is.
pub fn bucket(hash: ContentHash) -> Path {
    let name = hash.to_string();
    Path::from_iter([BUCKETS, &name[..2], &format!("{name}.arrows")])
}

/// Where a part of graphs is.
pub fn graph(hash: ContentHash) -> Path {
    let name = hash.to_string();
    Path::from_iter([GRAPHS, &name[..2], &format!("{name}.graph")])
}

/// A file whose name is the hash of its bytes: points, or a part of graphs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentFile {
    /// Where it is.
    pub path: Path,
    /// Its hash.
    pub hash: ContentHash,
    /// Its length.
    pub bytes: u64,
}

/// The folder of the segments of a log.
pub fn log(log: LogIdentity) -> Path {
    Path::from_iter([LOG.to_owned(), format!("{}.{}", log.id, log.epoch)])
}

/// Where a segment is.
pub fn segment(of: LogIdentity, name: SegmentName) -> Path {
    let SegmentName { first, last, hash } = name;
    log(of).join(format!("{:020}-{:020}.{hash}.log", first.0, last.0))
}

/// Where the mark of a restore is.
pub fn in_use(id: SnapshotId, by: Uuid) -> Path {
    Path::from_iter([USES.to_owned(), format!("{id}.{by}")])
}

/// Where the mark of a file of points or graphs that nothing needs is.
pub fn garbage(hash: ContentHash) -> Path {
    Path::from_iter([GARBAGE.to_owned(), hash.to_string()])
}

/// Reads the name of a manifest.
pub fn read_manifest(path: &Path) -> Option<(SnapshotId, ContentHash)> {
    let (id, hash) = path.filename()?.strip_suffix(".json")?.rsplit_once('.')?;
    let read = (SnapshotId::parse(id).ok()?, ContentHash::parse(hash)?);
    (manifest(read.0, read.1).filename() == path.filename()).then_some(read)
}

/// Reads the name of a bucket file.
pub fn read_bucket(path: &Path) -> Option<ContentHash> {
    ContentHash::parse(path.filename()?.strip_suffix(".arrows")?)
}

/// Reads the name of a part of graphs.
pub fn read_graph(path: &Path) -> Option<ContentHash> {
    ContentHash::parse(path.filename()?.strip_suffix(".graph")?)
}

/// Reads the name of a segment.
pub fn read_segment(path: &Path) -> Option<SegmentName> {
    let (lsns, hash) = path.filename()?.strip_suffix(".log")?.split_once('.')?;
    let (first, last) = lsns.split_once('-')?;
    let lsn = |text: &str| text.parse().ok().map(Lsn);
    let name = SegmentName { first: lsn(first)?, last: lsn(last)?, hash: ContentHash::parse(hash)? };
    let spelled = format!("{:020}-{:020}.{hash}.log", name.first.0, name.last.0);
    (name.first <= name.last && Some(spelled.as_str()) == path.filename()).then_some(name)
}

/// Reads the name of a log's folder.
pub fn read_log(folder: &str) -> Option<LogIdentity> {
    let (id, epoch) = folder.split_once('.')?;
    let identity =
        LogIdentity { id: LogId(Uuid::try_parse(id).ok()?), epoch: epoch.parse().ok().filter(|e| *e > 0)? };
    (log(identity).filename() == Some(folder)).then_some(identity)
}

/// Reads the name of the mark of a restore.
pub fn read_use(path: &Path) -> Option<SnapshotId> {
    let (id, by) = path.filename()?.rsplit_once('.')?;
    Uuid::try_parse(by).ok()?;
    SnapshotId::parse(id).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_in_no_other_spelling() {
        let hash = ContentHash::of(b"x");
        let id = SnapshotId::new(DateTime::from_timestamp_millis(1_700_000_000_123).unwrap(), Lsn(42));
        assert_eq!(id.to_string(), "20231114T221320.123Z-42");
        assert_eq!(SnapshotId::parse(&id.to_string()).unwrap(), id);
        assert_eq!(read_manifest(&manifest(id, hash)), Some((id, hash)));
        assert_eq!(read_bucket(&bucket(hash)), Some(hash));
        assert_eq!((read_graph(&graph(hash)), read_graph(&bucket(hash))), (Some(hash), None));
        let name = SegmentName { first: Lsn(1), last: Lsn(20), hash };
        let of = LogIdentity { id: LogId(Uuid::from_u128(7)), epoch: 3 };
        assert_eq!(read_segment(&segment(of, name)), Some(name));
        assert_eq!(read_log(log(of).filename().unwrap()), Some(of));
        for bad in ["20231114T221320.123Z-042", "20231114T221320.123Z", "../x-1", "20231114T221320Z-1", ""] {
            assert!(SnapshotId::parse(bad).is_err(), "{bad}");
        }
        for bad in ["1-2.log", "x.log", &format!("{:020}-{:020}.{hash}.log", 2, 1)] {
            assert_eq!(read_segment(&Path::from(bad)), None, "{bad}");
        }
        assert_eq!(ContentHash::parse(&hash.to_string().to_uppercase()), None);
    }
}
