//! A file into collections and points.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use mainstay_core::{CollectionSpec, Error, ErrorKind, Point, PointId, Result, Vector, VectorName, Vectors};

use super::learn::{Learn, Meaning, twice};
use super::point::{FilePoint, FileVectors};
use super::scan::{Failure, Found, Sink, scan};
use super::validate::{self, Check, Outcome};
use super::{Limits, Version};

/// A backup file of an older format, every point of which was found to be good.
#[derive(Debug)]
pub struct Backup<R = File> {
    shown: String,
    input: R,
    limits: Limits,
    version: Version,
    collections: Vec<Collection>,
    notes: Vec<String>,
}

/// A collection of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Collection {
    /// What it is.
    pub spec: CollectionSpec,
    /// How many points it has.
    pub points: u64,
    /// How the spec came about where the file does not declare it, and what of the file was passed over.
    pub notes: Vec<String>,
    default_vector: Option<VectorName>,
}

impl Backup<File> {
    /// Opens a file and reads it once.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn open(path: &Path, limits: Limits) -> Result<Self> {
        let shown = path.display().to_string();
        match File::open(path) {
            Ok(file) => Self::read(shown, file, limits),
            Err(error) => Err(failed(&shown, Failure::Unreadable(error))),
        }
    }
}

impl<R: Read + Seek> Backup<R> {
    /// Reads a file once, from its beginning, and checks every point; `shown` is its name in errors.
    ///
    /// # Errors
    /// What is wrong, with the file, and the collection and the index of the point where it is one: `NotFound` or
    /// `Unavailable` if the file cannot be read, `Unsupported` for another version, `Corrupt` if it fails another of the
    /// six checks, `Invalid` for a collection or a point that cannot be.
    pub fn read(shown: impl Into<String>, mut input: R, limits: Limits) -> Result<Self> {
        let shown = shown.into();
        let mut learn = Learn::new(limits.ids);
        let scanned = pass(&shown, &mut input, limits, &mut learn)?;
        let checked = Ok(scanned);
        for checked in validate::of(&checked) {
            if let Outcome::Failed(what) = checked.outcome {
                let kind = match checked.check {
                    Check::KnownVersion => ErrorKind::Unsupported,
                    _ => ErrorKind::Corrupt,
                };
                return Err(Error::new(kind, format!("{shown}: check `{}`: {what}", checked.check)));
            }
        }
        let Ok(found) = checked else { return Err(changed(&shown)) };
        let version = found.version.as_ref().and_then(Version::read).ok_or_else(|| changed(&shown))?;
        let (mut collections, mut notes) = (Vec::new(), Vec::new());
        let of_file = |error: Error| {
            Error::new(error.kind(), format!("{shown}: {}", error.message())).with_source(error)
        };
        for part in found.parts {
            let points = part.points.and_then(Result::ok).unwrap_or_default();
            let declared = part.declared.map_err(|what| {
                Error::invalid(format!("{shown}: the config of collection {:?}: {what}", part.name))
            })?;
            match learn.meaning(&part.name, declared, points).map_err(of_file)? {
                Some(Meaning { spec, mut notes, default_vector }) => {
                    if !part.ignored.is_empty() {
                        notes.push(format!("fields of points passed over: {}", part.ignored.join(", ")));
                    }
                    collections.push(Collection { spec, points, notes, default_vector });
                }
                None => notes.push(format!(
                    "collection {:?} was left out: it has no points, and its config declares no vector",
                    part.name
                )),
            }
        }
        let mut backup = Self { shown, input, limits, version, collections, notes };
        backup.check_ids()?;
        Ok(backup)
    }

    /// The version of the file.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Its collections, in the order of the file.
    pub fn collections(&self) -> &[Collection] {
        &self.collections
    }

    /// What was left out.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Reads the file again and hands out its points, batch by batch, in the order of the file; points are as a store
    /// takes them, cosine vectors normalised.
    ///
    /// # Errors
    /// Whatever `each` answers; `Unavailable` if the file is no longer what it was; as [`read`](Self::read).
    pub fn points(&mut self, each: &mut dyn FnMut(&Collection, Vec<Point>) -> Result<()>) -> Result<()> {
        let mut deliver = Deliver {
            collections: &self.collections,
            limits: self.limits,
            current: None,
            delivered: BTreeMap::new(),
            each,
        };
        pass(&self.shown, &mut self.input, self.limits, &mut deliver)?;
        let delivered = deliver.delivered;
        let whole = |(at, collection): (usize, &Collection)| {
            delivered.get(&at).copied().unwrap_or_default() == collection.points
        };
        if !self.collections.iter().enumerate().all(whole) {
            return Err(changed(&self.shown));
        }
        Ok(())
    }

    /// Looks for ids that stand twice in collections with more points than the first pass could remember.
    fn check_ids(&mut self) -> Result<()> {
        let limit = self.limits.ids.max(1) as u64;
        let large = self.collections.iter().filter(|collection| collection.points > limit);
        let names: BTreeSet<_> = large.clone().map(|collection| collection.spec.name.to_string()).collect();
        // Half as many as fit, because parts are not all of one size.
        let parts = large.map(|collection| collection.points.div_ceil(limit.div_ceil(2))).max().unwrap_or(0);
        for part in 0..parts {
            let mut ids = Ids { names: &names, part, parts, seen: HashSet::new() };
            pass(&self.shown, &mut self.input, self.limits, &mut ids)?;
        }
        Ok(())
    }
}

/// One pass from the beginning.
fn pass<R: Read + Seek>(shown: &str, input: &mut R, limits: Limits, sink: &mut dyn Sink) -> Result<Found> {
    input.rewind().map_err(|error| failed(shown, Failure::Unreadable(error)))?;
    scan(input, limits, Some(sink)).map_err(|failure| failed(shown, failure))
}

fn failed(shown: &str, failure: Failure) -> Error {
    match failure {
        Failure::Unreadable(error) => {
            let kind = match error.kind() {
                std::io::ErrorKind::NotFound => ErrorKind::NotFound,
                std::io::ErrorKind::PermissionDenied => ErrorKind::Unauthorized,
                _ => ErrorKind::Unavailable,
            };
            let text = format!("{shown}: check `{}`: {error}", Check::Readable);
            Error::new(kind, text).with_source(error)
        }
        Failure::Wrong(what) => {
            Error::new(ErrorKind::Corrupt, format!("{shown}: check `{}`: {what}", Check::Parses))
        }
        Failure::Point(what) => Error::invalid(format!("{shown}: {what}")),
        Failure::Sink(error) if error.kind() == ErrorKind::Invalid => {
            Error::invalid(format!("{shown}: {}", error.message())).with_source(error)
        }
        Failure::Sink(error) => error,
    }
}

fn changed(shown: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{shown}: the file changed while it was read"))
}

/// Looks for ids that stand twice among those of one part.
struct Ids<'a> {
    names: &'a BTreeSet<String>,
    part: u64,
    parts: u64,
    seen: HashSet<PointId>,
}

impl Sink for Ids<'_> {
    fn enter(&mut self, collection: &str) -> Result<bool> {
        self.seen = HashSet::new();
        Ok(self.names.contains(collection))
    }

    fn point(&mut self, _: u64, point: FilePoint) -> Result<()> {
        let hash = blake3::hash(&point.id.to_key());
        let hash = hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        match hash % self.parts == self.part && !self.seen.insert(point.id) {
            true => Err(twice(point.id)),
            false => Ok(()),
        }
    }

    fn leave(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Makes points what a store takes, and batches of them.
struct Deliver<'a> {
    collections: &'a [Collection],
    limits: Limits,
    current: Option<Batch>,
    delivered: BTreeMap<usize, u64>,
    each: &'a mut dyn FnMut(&Collection, Vec<Point>) -> Result<()>,
}

struct Batch {
    at: usize,
    points: Vec<Point>,
    bytes: usize,
}

impl Deliver<'_> {
    fn send(&mut self) -> Result<()> {
        let Some(batch) = &mut self.current else { return Ok(()) };
        let (points, at) = (std::mem::take(&mut batch.points), batch.at);
        batch.bytes = 0;
        match self.collections.get(at) {
            Some(collection) if !points.is_empty() => {
                *self.delivered.entry(at).or_default() += points.len() as u64;
                (self.each)(collection, points)
            }
            _ => Ok(()),
        }
    }
}

impl Sink for Deliver<'_> {
    fn enter(&mut self, name: &str) -> Result<bool> {
        let at = self.collections.iter().position(|collection| collection.spec.name.as_str() == name);
        self.current = at.map(|at| Batch { at, points: Vec::new(), bytes: 0 });
        Ok(at.is_some())
    }

    fn point(&mut self, _: u64, point: FilePoint) -> Result<()> {
        let Some(batch) = &mut self.current else { return Ok(()) };
        let Some(collection) = self.collections.get(batch.at) else { return Ok(()) };
        let point = collection.point(point)?;
        batch.bytes += point.size_bytes();
        batch.points.push(point);
        if batch.points.len() >= self.limits.batch_points || batch.bytes >= self.limits.batch_bytes {
            self.send()?;
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        let sent = self.send();
        self.current = None;
        sent
    }
}

impl Collection {
    /// A point of the file as one of the collection.
    fn point(&self, point: FilePoint) -> Result<Point> {
        let FilePoint { id, vectors, payload, text } = point;
        let vectors: Vectors = match vectors {
            FileVectors::None => Vectors::new(),
            FileVectors::Plain(values) => [(VectorName::default(), Vector::Dense(values))].into(),
            FileVectors::Named(mut vectors) => {
                if let Some(default) = self.default_vector.as_ref().and_then(|name| vectors.remove(name)) {
                    vectors.insert(VectorName::default(), default);
                }
                vectors
            }
        };
        self.spec.admit(Point { id, vectors, payload, text })
    }
}
