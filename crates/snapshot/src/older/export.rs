//! A store into a file of version 2.0.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use chrono::Utc;
use mainstay_core::json::id_to_json;
use mainstay_core::{
    CollectionInfo, CollectionSpec, Context, Distance, Error, ErrorKind, Fields, Point, Result, ScrollQuery,
    Vector, VectorName, VectorSpec, VectorStore,
};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::{Map, Value, json};
use tempfile::NamedTempFile;

use super::Version;
use super::learn::DENSE;
use crate::layout::shown_time;
use crate::work::blocking;

/// Points that are read at once.
const PAGE: usize = 512;
/// One page of the store may take so long.
const PAGE_TIMEOUT: Duration = Duration::from_secs(120);

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Collections.
    pub collections: u64,
    /// Points of all of them.
    pub points: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Writes all that a store holds to a file of version 2.0: under another name first, and under its own, in place of what
/// was there, when it is whole and durable. What is written to the store meanwhile may be in the file or not. `progress`
/// is told how many points are done, and of about how many.
///
/// # Errors
/// `Unavailable` if a collection is dropped or created again meanwhile, or the file cannot be written; `StorageFull`;
/// whatever the store runs into.
pub async fn export(
    store: &dyn VectorStore,
    to: &Path,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Exported> {
    let page = || Context::within(PAGE_TIMEOUT);
    let collections = store.collections(&page()).await?;
    let total = collections.iter().map(|info| info.points).sum::<u64>();
    let mut file = Partial::create(to).await?;
    let tool = concat!("mainstay ", env!("CARGO_PKG_VERSION"));
    let metadata = json!({ "tool": tool, "created": shown_time(Utc::now()) });
    let version = Version::V2.as_str();
    file =
        file.write(format!("{{\"version\":\"{version}\",\"metadata\":{metadata},\"collections\":{{")).await?;
    let mut exported = Exported { collections: collections.len() as u64, ..Exported::default() };
    for (at, info) in collections.iter().enumerate() {
        let comma = if at > 0 { ",\n" } else { "\n" };
        let names = Names::of(&info.spec);
        let (name, config) = (json!(info.spec.name.as_str()), names.config(&info.spec));
        file = file.write(format!("{comma}{name}:{{\"config\":{config},\"points\":[")).await?;
        let mut points = 0_u64;
        let mut query = ScrollQuery { limit: PAGE, fields: Fields::ALL, ..ScrollQuery::default() };
        loop {
            let read = store.scroll(&page(), &info.spec.name, &query).await?;
            if read.incarnation != info.incarnation {
                return Err(dropped(info));
            }
            let mut lines = Vec::new();
            for record in &read.records {
                lines.extend_from_slice(if points > 0 { b",\n" } else { b"\n" });
                names.point(&record.point, &mut lines)?;
                points += 1;
            }
            file = file.write(lines).await?;
            exported.points += read.records.len() as u64;
            progress(exported.points, total.max(exported.points));
            match read.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        file = file.write(format!("],\"metadata\":{{\"points\":{points}}}}}")).await?;
    }
    exported.bytes = file.write("\n}}\n").await?.finish(to).await?;
    Ok(exported)
}

fn dropped(info: &CollectionInfo) -> Error {
    let text = "the collection was dropped and created again while it was read; try again";
    Error::new(ErrorKind::Unavailable, text).with_collection(&info.spec.name)
}

/// By which names a collection's vectors stand in a file.
struct Names {
    /// The only vector is the default one and dense: it stands as a list.
    plain: bool,
    default: VectorName,
}

impl Names {
    fn of(spec: &CollectionSpec) -> Self {
        let unnamed = spec.vectors.get(&VectorName::default());
        let dense = matches!(unnamed, Some(VectorSpec::Dense { .. }));
        // Readers of 2.0 know these two names.
        let usual = VectorName::new(if dense { DENSE } else { "sparse" }).unwrap_or_default();
        let default = if spec.vectors.contains_key(&usual) { VectorName::default() } else { usual };
        Self { plain: dense && spec.vectors.len() == 1, default }
    }

    fn name<'a>(&'a self, name: &'a VectorName) -> &'a str {
        if name.is_default() { self.default.as_str() } else { name.as_str() }
    }

    fn config(&self, spec: &CollectionSpec) -> Value {
        let (mut dense, mut sparse) = (Map::new(), Map::new());
        for (name, vector) in &spec.vectors {
            match vector {
                VectorSpec::Dense { dimension, distance } => {
                    let vector = json!({ "size": dimension, "distance": word(*distance) });
                    dense.insert(self.name(name).to_owned(), vector);
                }
                VectorSpec::Sparse => {
                    sparse.insert(self.name(name).to_owned(), json!({}));
                }
            }
        }
        let mut config = Map::new();
        if self.plain {
            config.extend(dense.into_iter().map(|(_, vector)| ("vectors".to_owned(), vector)));
        } else {
            let default = spec.vectors.contains_key(&VectorName::default());
            config.insert("vectors".into(), dense.into());
            config.insert("sparse_vectors".into(), sparse.into());
            config.insert("default_vector".into(), json!(default.then_some(self.default.as_str())));
        }
        let indexes: Map<_, _> = spec
            .payload_indexes
            .iter()
            .map(|(path, index)| (path.to_string(), json!(index.as_str())))
            .collect();
        config.insert("payload_indexes".into(), indexes.into());
        config.into()
    }

    fn point(&self, point: &Point, out: &mut Vec<u8>) -> Result<()> {
        serde_json::to_writer(out, &FilePoint { names: self, point })
            .map_err(|e| Error::new(ErrorKind::Internal, "a point could not be written").with_source(e))
    }
}

/// Qdrant's words, which readers of 2.0 know.
fn word(distance: Distance) -> &'static str {
    match distance {
        Distance::Cosine => "Cosine",
        Distance::Dot => "Dot",
        Distance::Euclidean => "Euclid",
        Distance::Manhattan => "Manhattan",
    }
}

struct FilePoint<'a> {
    names: &'a Names,
    point: &'a Point,
}

impl Serialize for FilePoint<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { names, point } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &id_to_json(point.id))?;
        match point.vectors.get(&VectorName::default()) {
            Some(Vector::Dense(values)) if names.plain => map.serialize_entry("vector", values)?,
            _ => map.serialize_entry("vector", &FileVectors(self))?,
        }
        let Some(text) = &point.text else {
            map.serialize_entry("payload", &point.payload)?;
            return map.end();
        };
        let mut free = ["text".to_owned()].into_iter().chain((2..).map(|n| format!("text_{n}")));
        let key = free.find(|key| !point.payload.contains_key(key)).unwrap_or_default();
        let mut payload = point.payload.clone();
        payload.insert(key.clone(), text.as_str().into());
        map.serialize_entry("payload", &payload)?;
        map.serialize_entry("text_key", &key)?;
        map.end()
    }
}

struct FileVectors<'a>(&'a FilePoint<'a>);

impl Serialize for FileVectors<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Sparse<'a> {
            indices: &'a [u32],
            values: &'a [f32],
        }
        let FilePoint { names, point } = self.0;
        let mut map = serializer.serialize_map(Some(point.vectors.len()))?;
        for (name, vector) in &point.vectors {
            match vector {
                Vector::Dense(values) => map.serialize_entry(names.name(name), values)?,
                Vector::Sparse(sparse) => {
                    let sparse = Sparse { indices: &sparse.indices, values: &sparse.values };
                    map.serialize_entry(names.name(name), &sparse)?;
                }
            }
        }
        map.end()
    }
}

/// A file that is not whole yet; dropped, it is removed.
struct Partial {
    file: BufWriter<NamedTempFile>,
    shown: String,
    bytes: u64,
}

impl Partial {
    async fn create(to: &Path) -> Result<Self> {
        let (folder, shown) = (folder(to).to_owned(), to.display().to_string());
        blocking(move || {
            let file = tempfile::Builder::new().prefix(".mainstay-export-").tempfile_in(folder);
            let file = file.map_err(|error| failed(&shown, error))?;
            Ok(Self { file: BufWriter::with_capacity(1 << 20, file), shown, bytes: 0 })
        })
        .await
    }

    async fn write(mut self, bytes: impl Into<Vec<u8>>) -> Result<Self> {
        let bytes = bytes.into();
        blocking(move || {
            self.file.write_all(&bytes).map_err(|error| failed(&self.shown, error))?;
            self.bytes += bytes.len() as u64;
            Ok(self)
        })
        .await
    }

    async fn finish(self, to: &Path) -> Result<u64> {
        let to = to.to_owned();
        blocking(move || {
            let Self { file, shown, bytes } = self;
            let failed = |error| failed(&shown, error);
            let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
            file.as_file().sync_all().map_err(failed)?;
            file.persist(&to).map_err(|error| failed(error.error))?;
            // A directory cannot be opened everywhere; where it can, the name is durable too.
            if let Ok(folder) = std::fs::File::open(folder(&to)) {
                folder.sync_all().map_err(failed)?;
            }
            Ok(bytes)
        })
        .await
    }
}

/// The folder of a file.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn failed(shown: &str, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::StorageFull,
        std::io::ErrorKind::PermissionDenied => ErrorKind::Unauthorized,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("{shown} cannot be written: {error}")).with_source(error)
}
