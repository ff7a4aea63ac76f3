//! What a collection is: what its `config` declares, and what its points show.

use std::collections::{BTreeMap, HashSet};

use mainstay_core::spec::{MAX_DIMENSION, MAX_PAYLOAD_INDEXES, MAX_VECTORS};
use mainstay_core::{
    CollectionName, CollectionSpec, Distance, Error, PayloadIndex, PointId, Result, Vector, VectorName,
    VectorSpec,
};
use serde_json::{Map, Value};

use super::point::{FilePoint, FileVectors};
use super::scan::Sink;

/// The name by which older files call the default vector.
pub(super) const DENSE: &str = "dense";

/// What a `config` declares.
#[derive(Clone, Debug, Default)]
pub(super) struct Declared {
    /// By the names of the file; empty for the one without a name.
    pub(super) vectors: BTreeMap<VectorName, DeclaredVector>,
    pub(super) indexes: BTreeMap<mainstay_core::PayloadPath, PayloadIndex>,
    /// Which vector of the file is the default one, if it says so; `Some(None)` is none.
    pub(super) default_vector: Option<Option<VectorName>>,
    pub(super) notes: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum DeclaredVector {
    Dense { dimension: usize, distance: Option<Distance> },
    Sparse,
}

impl Declared {
    /// Reads a `config` of one of the usual shapes; one that declares nothing is no error.
    pub(super) fn read(config: &Value) -> Result<Self, String> {
        let mut declared = Self::default();
        let params = &config["params"];
        let inner = &config["config"]["params"];
        for place in [config, params, inner].into_iter().filter_map(Value::as_object) {
            for key in ["vectors", "vectors_config"] {
                declared.dense(place.get(key).unwrap_or(&Value::Null))?;
            }
            for key in ["sparse_vectors", "sparse_vectors_config"] {
                declared.sparse(place.get(key).unwrap_or(&Value::Null))?;
            }
            if declared.vectors.is_empty()
                && let Some(size) =
                    ["vector_size", "dimension", "size"].iter().find_map(|key| place.get(*key))
            {
                let vector = dense(size, place)?;
                declared.vectors.insert(VectorName::default(), vector);
            }
            for key in ["payload_indexes", "payload_schema"] {
                declared.indexes(place.get(key).and_then(Value::as_object))?;
            }
        }
        declared.default_vector = match config.get("default_vector") {
            None => None,
            Some(Value::Null) => Some(None),
            Some(Value::String(name)) => Some(Some(vector_name(name)?)),
            Some(_) => return Err("its `default_vector` is no name".to_owned()),
        };
        Ok(declared)
    }

    fn insert(&mut self, name: VectorName, vector: DeclaredVector) -> Result<(), String> {
        if self.vectors.len() == MAX_VECTORS && !self.vectors.contains_key(&name) {
            return Err(format!("it declares more than {MAX_VECTORS} vectors"));
        }
        self.vectors.entry(name).or_insert(vector);
        Ok(())
    }

    fn dense(&mut self, vectors: &Value) -> Result<(), String> {
        let Some(vectors) = vectors.as_object() else { return Ok(()) };
        match vectors.get("size") {
            Some(size @ Value::Number(_)) => self.insert(VectorName::default(), dense(size, vectors)?),
            _ => vectors.iter().try_for_each(|(name, vector)| {
                let wrong = || format!("vector {name:?} has no `size`");
                let vector = vector.as_object().ok_or_else(wrong)?;
                self.insert(vector_name(name)?, dense(vector.get("size").ok_or_else(wrong)?, vector)?)
            }),
        }
    }

    fn sparse(&mut self, vectors: &Value) -> Result<(), String> {
        let mut insert = |name: &str| self.insert(vector_name(name)?, DeclaredVector::Sparse);
        match vectors {
            Value::Object(vectors) => vectors.keys().try_for_each(|name| insert(name)),
            Value::Array(names) => names.iter().filter_map(Value::as_str).try_for_each(insert),
            _ => Ok(()),
        }
    }

    fn indexes(&mut self, indexes: Option<&Map<String, Value>>) -> Result<(), String> {
        for (path, index) in indexes.into_iter().flatten() {
            let word = index.as_str().or_else(|| index["data_type"].as_str()).unwrap_or_default();
            match (path.parse(), PayloadIndex::parse(word)) {
                (Ok(path), Ok(index)) if self.indexes.len() < MAX_PAYLOAD_INDEXES => {
                    self.indexes.insert(path, index);
                }
                _ if self.notes.len() < MAX_PAYLOAD_INDEXES => {
                    let (path, word): (String, String) =
                        (path.chars().take(128).collect(), word.chars().take(64).collect());
                    self.notes.push(format!("no index of the payload at {path:?} of type {word:?}"));
                }
                _ => return Err("it declares too many indexes of the payload".to_owned()),
            }
        }
        Ok(())
    }
}

fn vector_name(name: &str) -> Result<VectorName, String> {
    VectorName::new(name).map_err(|error| error.message().to_owned())
}

fn dense(size: &Value, of: &Map<String, Value>) -> Result<DeclaredVector, String> {
    let dimension = size.as_u64().and_then(|size| usize::try_from(size).ok());
    let dimension = dimension.filter(|size| (1..=MAX_DIMENSION).contains(size)).ok_or_else(|| {
        let shown: String = size.to_string().chars().take(64).collect();
        format!("a dimension is {shown}, not a number from 1 to {MAX_DIMENSION}")
    })?;
    let distance = match of.get("distance").or_else(|| of.get("metric")) {
        None | Some(Value::Null) => None,
        Some(Value::String(word)) => Some(
            Distance::parse(word).map_err(|error| error.message().chars().take(256).collect::<String>())?,
        ),
        Some(_) => return Err("a distance is no word".to_owned()),
    };
    Ok(DeclaredVector::Dense { dimension, distance })
}

/// A kind of vector that points have under a name, with the first point that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    /// `None` for a sparse vector.
    dimension: Option<usize>,
    first: u64,
}

/// What the points of a collection show.
#[derive(Debug, Default)]
struct Shown {
    /// At most [`SHAPES`] under a name: the second is an error already.
    shapes: BTreeMap<VectorName, Vec<Shape>>,
    /// The first point whose vector has no direction.
    zero: BTreeMap<VectorName, u64>,
    /// Some vector stands as a list.
    plain: bool,
    /// Some vector stands under the empty name.
    nameless: bool,
}

const SHAPES: usize = 3;

/// Learns from all points, and checks what can be checked before a spec is known.
#[derive(Default)]
pub(super) struct Learn {
    max_ids: usize,
    current: Option<(String, Shown)>,
    ids: HashSet<PointId>,
    all_ids: bool,
    learned: BTreeMap<String, Shown>,
}

impl Learn {
    pub(super) fn new(max_ids: usize) -> Self {
        Self { max_ids, ..Self::default() }
    }
}

impl Sink for Learn {
    fn enter(&mut self, collection: &str) -> Result<bool, Error> {
        self.current = Some((collection.to_owned(), Shown::default()));
        (self.ids, self.all_ids) = (HashSet::new(), true);
        Ok(true)
    }

    fn point(&mut self, index: u64, point: FilePoint) -> Result<(), Error> {
        // If there are too many ids, others passes look for the same ones.
        if self.all_ids {
            if self.ids.len() == self.max_ids {
                (self.ids, self.all_ids) = (HashSet::new(), false);
            } else if !self.ids.insert(point.id) {
                return Err(twice(point.id));
            }
        }
        if let Some((_, shown)) = &mut self.current {
            shown.see(index, &point)?;
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Error> {
        self.ids = HashSet::new();
        self.learned.extend(self.current.take());
        Ok(())
    }
}

/// The error of an id that an earlier point has too.
pub(super) fn twice(id: PointId) -> Error {
    Error::invalid(format!("an earlier point has the id {id} too"))
}

impl Shown {
    fn see(&mut self, index: u64, point: &FilePoint) -> Result<(), Error> {
        match &point.vectors {
            FileVectors::None => {}
            FileVectors::Plain(values) => {
                self.plain = true;
                self.shape(index, &VectorName::default(), Some(values))?;
            }
            FileVectors::Named(vectors) => {
                for (name, vector) in vectors {
                    self.nameless |= name.is_default();
                    let values = match vector {
                        Vector::Dense(values) => Some(values),
                        Vector::Sparse(_) => None,
                    };
                    self.shape(index, name, values)?;
                }
            }
        }
        Ok(())
    }

    fn shape(&mut self, index: u64, name: &VectorName, values: Option<&Vec<f32>>) -> Result<(), Error> {
        if self.shapes.len() > MAX_VECTORS {
            return Err(Error::invalid(format!("the collection has more than {MAX_VECTORS} vectors")));
        }
        if values.is_some_and(|values| values.iter().all(|value| *value == 0.0)) {
            self.zero.entry(name.clone()).or_insert(index);
        }
        if !self.shapes.contains_key(name) {
            self.shapes.insert(name.clone(), Vec::new());
        }
        let dimension = values.map(Vec::len);
        if let Some(shapes) = self.shapes.get_mut(name)
            && shapes.len() < SHAPES
            && !shapes.iter().any(|shape| shape.dimension == dimension)
        {
            shapes.push(Shape { dimension, first: index });
        }
        Ok(())
    }
}

/// What a collection of a file is.
pub(super) struct Meaning {
    pub(super) spec: CollectionSpec,
    /// How the spec came about, and what was passed over.
    pub(super) notes: Vec<String>,
    /// The name in the file of what is the default vector, other than as a list.
    pub(super) default_vector: Option<VectorName>,
}

impl Learn {
    /// What a collection is; `None` if neither its config nor a point tells.
    ///
    /// # Errors
    /// `Invalid` with the collection and the point that does not fit.
    pub(super) fn meaning(&mut self, name: &str, declared: Declared, points: u64) -> Result<Option<Meaning>> {
        let fail = |what: &str| Error::invalid(format!("collection {name:?}: {what}"));
        let collection = CollectionName::new(name).map_err(|error| fail(error.message()))?;
        let shown = self.learned.remove(name).unwrap_or_default();
        let Declared { vectors: mut wanted, indexes, default_vector: said, mut notes } = declared;
        let default_vector = match said {
            Some(said) => said,
            None => guess(&wanted, &shown),
        };
        if default_vector.as_ref().is_some_and(|name| !name.is_default())
            && wanted.contains_key(&VectorName::default())
            && default_vector.as_ref().is_some_and(|name| wanted.contains_key(name))
        {
            return Err(fail("its config declares a vector without a name and another as the default one"));
        }
        let renamed = |name: &VectorName| match &default_vector {
            Some(default) if default == name => VectorName::default(),
            _ => name.clone(),
        };
        wanted = wanted.into_iter().map(|(name, vector)| (renamed(&name), vector)).collect();
        let mut learned = Vec::new();
        for (file_name, shapes) in &shown.shapes {
            if let Some(first) = shapes.first()
                && !wanted.contains_key(&renamed(file_name))
            {
                let vector = match first.dimension {
                    Some(dimension) => DeclaredVector::Dense { dimension, distance: None },
                    None => DeclaredVector::Sparse,
                };
                wanted.insert(renamed(file_name), vector);
                learned.push(format!("{:?}", file_name.as_str()));
            }
        }
        if wanted.is_empty() {
            return match points {
                0 => Ok(None),
                _ => Err(fail("neither its config nor its points have a vector")),
            };
        }
        if !learned.is_empty() {
            notes.insert(0, format!("what vector {} is was taken from the first point", learned.join(", ")));
        }
        let mut vectors = BTreeMap::new();
        for (name, vector) in wanted {
            let spec = match vector {
                DeclaredVector::Sparse => VectorSpec::Sparse,
                DeclaredVector::Dense { dimension, distance } => {
                    if distance.is_none() {
                        notes.push(format!("nothing tells the distance of vector {name:?}; it is cosine"));
                    }
                    VectorSpec::Dense { dimension, distance: distance.unwrap_or(Distance::Cosine) }
                }
            };
            vectors.insert(name, spec);
        }
        if let Some(default) = default_vector.as_ref().filter(|name| !name.is_default()) {
            notes.push(format!("vector {default:?} is the default vector"));
        }
        let spec = CollectionSpec { name: collection, vectors, payload_indexes: indexes };
        spec.check().map_err(|error| fail(error.message()))?;
        fits(&spec, &shown, &renamed)
            .map_err(|(point, what)| Error::invalid(format!("collection {name:?}, point {point}: {what}")))?;
        Ok(Some(Meaning { spec, notes, default_vector }))
    }
}

/// Which name stands for the default vector when the file does not say: `dense`, if no other dense vector has a name.
fn guess(wanted: &BTreeMap<VectorName, DeclaredVector>, shown: &Shown) -> Option<VectorName> {
    let declared = wanted
        .iter()
        .filter(|(_, vector)| matches!(vector, DeclaredVector::Dense { .. }))
        .map(|(name, _)| name.as_str());
    let pointed = shown
        .shapes
        .iter()
        .filter(|(_, shapes)| shapes.iter().any(|shape| shape.dimension.is_some()))
        .map(|(name, _)| name.as_str());
    let mut names: Vec<_> = declared.chain(pointed).collect();
    names.sort_unstable();
    names.dedup();
    let both =
        wanted.contains_key(&VectorName::default()) && wanted.keys().any(|name| name.as_str() == DENSE);
    let only = names.contains(&DENSE) && names.iter().all(|name| [DENSE, ""].contains(name));
    (only && !shown.nameless && !both).then(|| VectorName::new(DENSE).ok()).flatten()
}

/// Whether all that was seen fits the spec; if not, the first point that does not and why.
fn fits(
    spec: &CollectionSpec,
    shown: &Shown,
    renamed: &impl Fn(&VectorName) -> VectorName,
) -> Result<(), (u64, String)> {
    for (file_name, shapes) in &shown.shapes {
        let name = renamed(file_name);
        let Some(wanted) = spec.vectors.get(&name) else { continue };
        for shape in shapes {
            let problem = match (wanted, shape.dimension) {
                (VectorSpec::Sparse, None) => None,
                (VectorSpec::Sparse, Some(_)) => Some("is dense, the collection's is sparse".to_owned()),
                (VectorSpec::Dense { .. }, None) => Some("is sparse, the collection's is dense".to_owned()),
                (VectorSpec::Dense { dimension, .. }, Some(found)) => (*dimension != found)
                    .then(|| format!("has {found} dimensions; the collection has {dimension}")),
            };
            if let Some(problem) = problem {
                return Err((shape.first, format!("vector {file_name:?} {problem}")));
            }
        }
        let cosine = matches!(wanted, VectorSpec::Dense { distance: Distance::Cosine, .. });
        if let Some(first) = shown.zero.get(file_name).filter(|_| cosine) {
            let text = format!("vector {file_name:?} has length zero, which has no direction under cosine");
            return Err((*first, text));
        }
    }
    Ok(())
}
