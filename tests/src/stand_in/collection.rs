//! A collection of the stand-in: a shard, and what it was created with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use prost::Message;
use qdrant_client::qdrant as proto;
use qdrant_edge::{
    CreateIndex, EdgeConfig, EdgeShard, EdgeSparseVectorParams, EdgeVectorParams, FieldIndexOperations,
    OperationError, PayloadFieldSchema, PayloadSchemaType, UpdateOperation, WalOptions,
};
use serde_json::{Value, json};
use tonic::Status;

use super::{Error, convert};

const DESCRIPTION: &str = "stand-in.json";
const CONFIG: &str = "stand-in.config";
/// How often removing the directory is tried again.
const MOST_TRIES: u32 = 200;

/// A collection.
pub struct Collection {
    shard: RwLock<Option<EdgeShard>>,
    path: PathBuf,
    /// Held by whoever writes.
    writer: Mutex<()>,
    /// What it was created with.
    config: RwLock<proto::CollectionConfig>,
    /// Indexed fields and their types, by Qdrant's words.
    schema: RwLock<BTreeMap<String, i32>>,
}

impl Collection {
    /// Opens what is in a directory; `None` if it is no collection.
    pub fn open(path: &Path) -> Result<Option<Self>, Error> {
        let Ok(text) = std::fs::read_to_string(path.join(DESCRIPTION)) else { return Ok(None) };
        let description: Value = serde_json::from_str(&text)?;
        let schema = serde_json::from_value(description["schema"].clone())?;
        let shard = EdgeShard::load(path, None)?;
        let config = proto::CollectionConfig::decode(&*std::fs::read(path.join(CONFIG))?)?;
        Ok(Some(Self::of(path, shard, config, schema)))
    }

    /// Creates one.
    pub fn create(path: &Path, request: &proto::CreateCollection) -> Result<Self, Status> {
        let mut shard_config = EdgeConfig::builder()
            .wal_options(WalOptions { segment_capacity: 1 << 20, ..WalOptions::default() })
            .build();
        use proto::vectors_config::Config;
        let dense: Vec<(String, proto::VectorParams)> =
            match request.vectors_config.as_ref().and_then(|config| config.config.as_ref()) {
                Some(Config::Params(params)) => vec![(String::new(), *params)],
                Some(Config::ParamsMap(map)) => map.map.clone().into_iter().collect(),
                None => Vec::new(),
            };
        for (name, params) in dense {
            if params.size == 0 || params.size > 65_536 {
                return Err(Status::invalid_argument(
                    "Validation error in body: vector size must be 1 to 65536",
                ));
            }
            let distance = convert::distance(params.distance())?;
            shard_config
                .vectors
                .insert(name, EdgeVectorParams::builder(params.size as usize, distance).build());
        }
        let sparse = request.sparse_vectors_config.iter().flat_map(|config| config.map.keys());
        for name in sparse {
            shard_config.sparse_vectors.insert(name.clone(), EdgeSparseVectorParams::default());
        }
        std::fs::create_dir_all(path).map_err(internal)?;
        let shard = EdgeShard::new(path, shard_config).map_err(failed)?;
        let params = proto::CollectionParams {
            shard_number: request.shard_number.unwrap_or(1),
            vectors_config: request.vectors_config.clone(),
            sparse_vectors_config: request.sparse_vectors_config.clone(),
            ..proto::CollectionParams::default()
        };
        let config = proto::CollectionConfig {
            params: Some(params),
            strict_mode_config: request.strict_mode_config.clone(),
            ..proto::CollectionConfig::default()
        };
        std::fs::write(path.join(CONFIG), config.encode_to_vec()).map_err(internal)?;
        let collection = Self::of(path, shard, config, BTreeMap::new());
        collection.flush()?;
        collection.describe()?;
        Ok(collection)
    }

    fn of(
        path: &Path,
        shard: EdgeShard,
        config: proto::CollectionConfig,
        schema: BTreeMap<String, i32>,
    ) -> Self {
        Self {
            shard: RwLock::new(Some(shard)),
            path: path.to_owned(),
            writer: Mutex::default(),
            config: RwLock::new(config),
            schema: RwLock::new(schema),
        }
    }

    fn describe(&self) -> Result<(), Status> {
        let text = json!({ "schema": *self.schema.read() }).to_string();
        std::fs::write(self.path.join(DESCRIPTION), text).map_err(internal)
    }

    /// Removes everything.
    pub fn remove(&self) -> Result<(), Status> {
        let _writer = self.writer.lock();
        drop(self.shard.write().take());
        // What the engine does in the background may still put a file there.
        let mut tries = 0;
        loop {
            match std::fs::remove_dir_all(&self.path) {
                Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty && tries < MOST_TRIES => {
                    tries += 1;
                    std::thread::sleep(Duration::from_millis(10));
                }
                removed => return removed.map_err(internal),
            }
        }
    }

    /// Reads.
    pub fn read<T>(&self, work: impl FnOnce(&EdgeShard) -> Result<T, OperationError>) -> Result<T, Status> {
        match &*self.shard.read() {
            Some(shard) => work(shard).map_err(failed),
            None => Err(Status::not_found("Not found: Collection was removed")),
        }
    }

    /// Writes, durably.
    pub fn write(&self, operations: Vec<UpdateOperation>) -> Result<(), Status> {
        let _writer = self.writer.lock();
        for operation in operations {
            self.read(|shard| shard.update(operation))?;
        }
        self.flush()
    }

    fn flush(&self) -> Result<(), Status> {
        self.read(|shard| {
            shard.flush();
            Ok(())
        })
    }

    /// Indexes a field.
    pub fn index(&self, field: &str, kind: proto::FieldType) -> Result<(), Status> {
        let (edge, data) = match kind {
            proto::FieldType::Keyword => (PayloadSchemaType::Keyword, proto::PayloadSchemaType::Keyword),
            proto::FieldType::Integer => (PayloadSchemaType::Integer, proto::PayloadSchemaType::Integer),
            proto::FieldType::Float => (PayloadSchemaType::Float, proto::PayloadSchemaType::Float),
            proto::FieldType::Bool => (PayloadSchemaType::Bool, proto::PayloadSchemaType::Bool),
            proto::FieldType::Datetime => (PayloadSchemaType::Datetime, proto::PayloadSchemaType::Datetime),
            _ => return Err(Status::unimplemented("the stand-in has no such index")),
        };
        let index = CreateIndex {
            field_name: convert::path(field)?,
            field_schema: Some(PayloadFieldSchema::FieldType(edge)),
        };
        self.write(vec![UpdateOperation::FieldIndexOperation(FieldIndexOperations::CreateIndex(index))])?;
        self.schema.write().insert(field.to_owned(), data as i32);
        self.describe()
    }

    /// What it was created with, for the collection's info.
    pub fn config(&self) -> proto::CollectionConfig {
        self.config.read().clone()
    }

    /// Changes what one request may do.
    pub fn set_strict_mode(&self, strict: proto::StrictModeConfig) -> Result<(), Status> {
        let mut config = self.config.write();
        config.strict_mode_config = Some(strict);
        std::fs::write(self.path.join(CONFIG), config.encode_to_vec()).map_err(internal)
    }

    /// What is indexed, for the collection's info.
    pub fn schema(&self) -> std::collections::HashMap<String, proto::PayloadSchemaInfo> {
        let info = |kind: &i32| proto::PayloadSchemaInfo { data_type: *kind, params: None, points: None };
        self.schema.read().iter().map(|(field, kind)| (field.clone(), info(kind))).collect()
    }
}

impl Drop for Collection {
    /// The engine flushes a shard that is dropped, and takes the process with it if the directory of a test is gone
    /// by then. Every write was flushed, so the shard is leaked.
    fn drop(&mut self) {
        std::mem::forget(self.shard.get_mut().take());
    }
}

fn internal(error: std::io::Error) -> Status {
    Status::internal(format!("Service internal error: {error}"))
}

/// The engine's errors, with the codes of the server.
fn failed(error: OperationError) -> Status {
    match &error {
        OperationError::WrongVectorDimension { .. }
        | OperationError::VectorNameNotExists { .. }
        | OperationError::TypeError { .. }
        | OperationError::ValidationError { .. }
        | OperationError::WrongSparse
        | OperationError::WrongMulti => Status::invalid_argument(format!("Wrong input: {error}")),
        OperationError::PointIdError { .. } => Status::not_found(format!("Not found: {error}")),
        OperationError::Timeout { .. } => Status::deadline_exceeded(format!("Timeout: {error}")),
        _ => Status::internal(format!("Service internal error: {error}")),
    }
}
