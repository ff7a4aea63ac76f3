//! One pass through a file.

use std::collections::BTreeSet;
use std::io::Read;

use mainstay_core::{Error, ErrorKind};
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess};
use serde_json::Value;

use super::Limits;
use super::learn::Declared;
use super::point::{FilePoint, PointSeed};
use super::walk::{Budget, Kind, Part, Walk};
use crate::bounded::Bounded;

/// What takes the points of a file.
pub(super) trait Sink {
    /// The points of a collection come next; `false` if they are not wanted.
    fn enter(&mut self, collection: &str) -> Result<bool, Error>;
    /// The next point, from 0.
    fn point(&mut self, index: u64, point: FilePoint) -> Result<(), Error>;
    /// These were all points of the collection.
    fn leave(&mut self) -> Result<(), Error>;
}

/// What a pass found. Kinds are words for what stands where an object or a list should.
#[derive(Default)]
pub(super) struct Found {
    pub(super) version: Option<Value>,
    pub(super) metadata: Option<&'static str>,
    pub(super) collections: Option<&'static str>,
    pub(super) parts: Vec<FoundCollection>,
}

pub(super) struct FoundCollection {
    pub(super) name: String,
    /// The collection itself.
    pub(super) kind: &'static str,
    pub(super) declared: Result<Declared, String>,
    pub(super) points: Option<Result<u64, &'static str>>,
    /// Fields of points that were passed over.
    pub(super) ignored: Vec<String>,
}

/// Why a pass broke off.
pub(super) enum Failure {
    /// The file cannot be read.
    Unreadable(std::io::Error),
    /// It is not what it should be, with where.
    Wrong(String),
    /// A point is wrong, with where.
    Point(String),
    /// What took the points failed.
    Sink(Error),
}

pub(super) struct Scan<'a> {
    sink: Option<&'a mut dyn Sink>,
    budget: Budget,
    limits: Limits,
    found: Found,
    /// The collection and point that is being read.
    at: Option<(String, Option<u64>)>,
    failed: Option<Error>,
}

/// Goes through a file. Without something that takes the points, they are only counted.
pub(super) fn scan<R: Read>(
    reader: R,
    limits: Limits,
    sink: Option<&mut dyn Sink>,
) -> Result<Found, Failure> {
    let budget = Budget::new(limits.value_bytes);
    let mut deserializer = serde_json::Deserializer::from_reader(budget.meter(reader));
    let mut scan = Scan { sink, budget, limits, found: Found::default(), at: None, failed: None };
    let read = Walk(Top(&mut scan)).deserialize(&mut deserializer);
    let read = read.and_then(|kind| {
        scan.at = None;
        scan.budget.renew();
        deserializer.end()?;
        match kind {
            "an object" => Ok(()),
            kind => Err(serde_json::Error::custom(format!("it is not an object but {kind}"))),
        }
    });
    match read {
        Ok(()) => Ok(scan.found),
        Err(error) => Err(scan.failure(error)),
    }
}

impl Scan<'_> {
    /// What a value may take in memory.
    fn memory(&self) -> u64 {
        self.limits.value_bytes.saturating_mul(8)
    }

    fn failure(self, error: serde_json::Error) -> Failure {
        if let Some(failed) = self.failed {
            return Failure::Sink(failed);
        }
        let what = match error.is_io() {
            true if self.budget.is_spent() => {
                format!("a value takes more than the {} bytes that one may", self.limits.value_bytes)
            }
            true => return Failure::Unreadable(error.into()),
            false => error.to_string(),
        };
        let grammar = error.is_syntax() || error.is_eof();
        match self.at {
            None => Failure::Wrong(what),
            Some((name, None)) => Failure::Wrong(format!("collection {name:?}: {what}")),
            Some((name, Some(index))) => {
                let text = format!("collection {name:?}, point {index}: {what}");
                if grammar { Failure::Wrong(text) } else { Failure::Point(text) }
            }
        }
    }

    /// An error of what takes the points stops the pass.
    fn pass<T, E: serde::de::Error>(&mut self, answer: Result<T, Error>) -> Result<T, E> {
        answer.map_err(|error| {
            let text = E::custom(error.message());
            self.failed = Some(error);
            text
        })
    }

    /// An error of a point as one that says where it is.
    fn of_point(&self, error: Error) -> Error {
        let Some((name, Some(index))) = &self.at else { return error };
        if error.kind() != ErrorKind::Invalid {
            return error;
        }
        let text = format!("collection {name:?}, point {index}: {}", error.message());
        Error::new(ErrorKind::Invalid, text).with_source(error)
    }
}

/// The whole document.
struct Top<'s, 'a>(&'s mut Scan<'a>);

impl<'de> Part<'de> for Top<'_, '_> {
    type Out = &'static str;

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<&'static str, A::Error> {
        let scan = self.0;
        while let Some(key) = object.next_key::<String>()? {
            scan.budget.renew();
            let twice = match key.as_str() {
                "version" => {
                    let version = object.next_value_seed(Bounded(&mut scan.memory()))?;
                    scan.found.version.replace(version).is_some()
                }
                "metadata" => scan.found.metadata.replace(object.next_value_seed(Walk(Kind))?).is_some(),
                "collections" => {
                    let kind = object.next_value_seed(Walk(Collections(scan)))?;
                    scan.at = None;
                    scan.found.collections.replace(kind).is_some()
                }
                _ => {
                    object.next_value::<IgnoredAny>()?;
                    false
                }
            };
            if twice {
                return Err(A::Error::custom(format!("`{key}` stands there twice")));
            }
            scan.budget.renew();
        }
        Ok("an object")
    }

    fn other(self, kind: &'static str) -> &'static str {
        kind
    }
}

struct Collections<'s, 'a>(&'s mut Scan<'a>);

impl<'de> Part<'de> for Collections<'_, '_> {
    type Out = &'static str;

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<&'static str, A::Error> {
        let scan = self.0;
        let mut names = BTreeSet::new();
        while let Some(name) = object.next_key::<String>()? {
            if names.len() == scan.limits.collections {
                let text = format!("more than {} collections", scan.limits.collections);
                return Err(A::Error::custom(text));
            }
            if name.len() > MAX_SHOWN {
                return Err(A::Error::custom(format!("a collection has a name of {} bytes", name.len())));
            }
            scan.at = Some((name.clone(), None));
            scan.budget.renew();
            let found = FoundCollection {
                name: name.clone(),
                kind: "an object",
                declared: Ok(Declared::default()),
                points: None,
                ignored: Vec::new(),
            };
            let found = object.next_value_seed(Walk(One { scan: &mut *scan, found }))?;
            scan.found.parts.push(found);
            if !names.insert(name) {
                return Err(A::Error::custom("the collection stands there twice"));
            }
        }
        Ok("an object")
    }

    fn other(self, kind: &'static str) -> &'static str {
        kind
    }
}

/// Longest name that is kept: many times what a collection may be called.
const MAX_SHOWN: usize = 1_024;

struct One<'s, 'a> {
    scan: &'s mut Scan<'a>,
    found: FoundCollection,
}

impl<'de> Part<'de> for One<'_, '_> {
    type Out = FoundCollection;

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<FoundCollection, A::Error> {
        let Self { scan, mut found } = self;
        let mut configs = 0;
        while let Some(key) = object.next_key::<String>()? {
            scan.budget.renew();
            match key.as_str() {
                "config" => {
                    configs += 1;
                    found.declared = Declared::read(&object.next_value_seed(Bounded(&mut scan.memory()))?);
                }
                "points" if found.points.is_none() => {
                    let ignored = &mut found.ignored;
                    let points = object.next_value_seed(Walk(Points { scan: &mut *scan, ignored }))?;
                    found.points = Some(points);
                    scan.at = Some((found.name.clone(), None));
                }
                "points" => return Err(A::Error::custom("it has `points` twice")),
                _ => {
                    object.next_value::<IgnoredAny>()?;
                }
            }
            if configs > 1 {
                return Err(A::Error::custom("it has `config` twice"));
            }
            scan.budget.renew();
        }
        Ok(found)
    }

    fn other(mut self, kind: &'static str) -> FoundCollection {
        self.found.kind = kind;
        self.found
    }
}

struct Points<'s, 'a> {
    scan: &'s mut Scan<'a>,
    ignored: &'s mut Vec<String>,
}

impl<'de> Part<'de> for Points<'_, '_> {
    type Out = Result<u64, &'static str>;

    fn list<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Out, A::Error> {
        let Self { scan, ignored } = self;
        let name = scan.at.take().map(|(name, _)| name).unwrap_or_default();
        let entered = scan.sink.as_mut().map_or(Ok(false), |sink| sink.enter(&name));
        let wanted = scan.pass(entered)?;
        let memory = scan.memory();
        let mut count = 0;
        scan.at = Some((name, Some(count)));
        loop {
            scan.budget.renew();
            if wanted {
                let Some(point) = list.next_element_seed(PointSeed { ignored: &mut *ignored, memory })?
                else {
                    break;
                };
                let taken = scan.sink.as_mut().map_or(Ok(()), |sink| sink.point(count, point));
                let taken = taken.map_err(|error| scan.of_point(error));
                scan.pass(taken)?;
            } else if list.next_element::<IgnoredAny>()?.is_none() {
                break;
            }
            count += 1;
            if let Some((_, index)) = &mut scan.at {
                *index = Some(count);
            }
        }
        if wanted {
            let left = scan.sink.as_mut().map_or(Ok(()), |sink| sink.leave());
            scan.pass(left)?;
        }
        Ok(Ok(count))
    }

    fn other(self, kind: &'static str) -> Self::Out {
        Err(kind)
    }
}
