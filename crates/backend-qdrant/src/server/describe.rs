//! Collections that somebody else made, as Mainstay would have made them.

use mainstay_core::{CollectionName, CollectionSpec, Distance, PayloadIndex, VectorName, VectorSpec};
use qdrant_client::qdrant::{
    self as proto, CollectionInfo, Datatype, PayloadSchemaType, ShardingMethod, VectorParams,
};

/// What a collection is to Mainstay, or why it cannot be that and what to do.
pub fn spec(name: &str, info: &CollectionInfo) -> Result<CollectionSpec, String> {
    let name = CollectionName::new(name).map_err(|error| error.message().to_owned())?;
    let params = info.config.as_ref().and_then(|config| config.params.as_ref());
    let params = params.ok_or("the server does not say what its vectors are")?;
    if params.sharding_method == Some(ShardingMethod::Custom as i32) {
        return Err("its shards are chosen by a key with each write, which Mainstay does not do".into());
    }
    let mut spec = CollectionSpec { name, vectors: Default::default(), payload_indexes: Default::default() };
    for (name, vector) in dense(params)? {
        spec.vectors.insert(name, vector);
    }
    for (name, sparse) in params.sparse_vectors_config.iter().flat_map(|config| &config.map) {
        whole_numbers(name, sparse.index.as_ref().and_then(|index| index.datatype))?;
        spec.vectors.insert(vector_name(name)?, VectorSpec::Sparse);
    }
    for (path, schema) in &info.payload_schema {
        let index = match PayloadSchemaType::try_from(schema.data_type) {
            Ok(PayloadSchemaType::Keyword) => PayloadIndex::Keyword,
            Ok(PayloadSchemaType::Integer) => PayloadIndex::Integer,
            Ok(PayloadSchemaType::Float) => PayloadIndex::Float,
            Ok(PayloadSchemaType::Bool) => PayloadIndex::Bool,
            Ok(PayloadSchemaType::Datetime) => PayloadIndex::Datetime,
            // It answers tests of texts, and takes two ways to write a UUID for one.
            Ok(PayloadSchemaType::Uuid) => {
                return Err(format!(
                    "its payload index on `{path}` is of type uuid; make it one of type keyword"
                ));
            }
            // They answer tests that Mainstay does not have.
            Ok(PayloadSchemaType::Geo | PayloadSchemaType::Text | PayloadSchemaType::UnknownType)
            | Err(_) => continue,
        };
        if crate::payload::is_reserved(path) {
            continue;
        }
        let path = path
            .parse()
            .map_err(|_| format!("its payload index on {path:?} names no path that Mainstay knows"))?;
        spec.payload_indexes.insert(path, index);
    }
    spec.check().map_err(|error| error.message().to_owned())?;
    Ok(spec)
}

fn dense(params: &proto::CollectionParams) -> Result<Vec<(VectorName, VectorSpec)>, String> {
    use proto::vectors_config::Config;
    match params.vectors_config.as_ref().and_then(|config| config.config.as_ref()) {
        None => Ok(Vec::new()),
        Some(Config::Params(params)) => Ok(vec![(VectorName::default(), dense_vector("", params)?)]),
        Some(Config::ParamsMap(map)) => map
            .map
            .iter()
            .map(|(name, params)| Ok((vector_name(name)?, dense_vector(name, params)?)))
            .collect(),
    }
}

fn dense_vector(name: &str, params: &VectorParams) -> Result<VectorSpec, String> {
    if params.multivector_config.is_some() {
        return Err(format!("its vector {name:?} is a multi-vector, which Mainstay does not know"));
    }
    whole_numbers(name, params.datatype)?;
    let distance = match params.distance() {
        proto::Distance::Cosine => Distance::Cosine,
        proto::Distance::Dot => Distance::Dot,
        proto::Distance::Euclid => Distance::Euclidean,
        proto::Distance::Manhattan => Distance::Manhattan,
        proto::Distance::UnknownDistance => {
            return Err(format!("its vector {name:?} has an unknown distance"));
        }
    };
    let dimension = usize::try_from(params.size).map_err(|_| format!("its vector {name:?} is too long"))?;
    Ok(VectorSpec::Dense { dimension, distance })
}

/// Numbers of less than 32 bits would not come back as they were written.
fn whole_numbers(name: &str, datatype: Option<i32>) -> Result<(), String> {
    match Datatype::try_from(datatype.unwrap_or_default()) {
        Ok(Datatype::Default | Datatype::Float32) => Ok(()),
        _ => Err(format!(
            "its vector {name:?} is kept in numbers of less than 32 bits, which come back changed"
        )),
    }
}

fn vector_name(name: &str) -> Result<VectorName, String> {
    VectorName::new(name).map_err(|error| error.message().to_owned())
}
