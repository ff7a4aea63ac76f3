//! Points, ids and payloads for the wire, and back.

use std::collections::HashMap;

use mainstay_core::parts::parts;
use mainstay_core::{
    CollectionSpec, Context, Error, ErrorKind, Fields, Payload, PayloadIndex, Point, PointId, Record, Result,
    Selector, SparseVector, Vector, VectorName, Vectors,
};
use qdrant_client::qdrant::payload_index_params::IndexParams;
use qdrant_client::qdrant::point_id::PointIdOptions;
use qdrant_client::qdrant::points_selector::PointsSelectorOneOf;
use qdrant_client::qdrant::points_update_operation::{self as update, Operation};
use qdrant_client::qdrant::value::Kind;
use qdrant_client::qdrant::vectors_output::VectorsOptions as Output;
use qdrant_client::qdrant::{self as proto, CreateFieldIndexCollection, FieldType, KeywordIndexParams};
use serde_json::{Number, Value};
use uuid::Uuid;

use super::upsert::NewPoint;
use super::wants_payload;
use crate::engine::{Batch, NewPayload};
use crate::payload::{self, TEXT, VERSION};

/// The seconds that the server may work on a request; at least one, its smallest unit.
pub fn timeout(cx: &Context) -> Option<u64> {
    Some(cx.remaining().as_secs_f64().ceil().max(1.0) as u64)
}

/// An id for the wire.
pub fn id_to_proto(id: PointId) -> proto::PointId {
    let options = match id {
        PointId::Num(id) => PointIdOptions::Num(id),
        PointId::Uuid(id) => PointIdOptions::Uuid(id.to_string()),
    };
    proto::PointId { point_id_options: Some(options) }
}

fn id_from_proto(id: Option<proto::PointId>) -> Result<PointId> {
    match id.and_then(|id| id.point_id_options) {
        Some(PointIdOptions::Num(id)) => Ok(PointId::Num(id)),
        Some(PointIdOptions::Uuid(text)) => Uuid::try_parse(&text)
            .map(PointId::Uuid)
            .map_err(|_| Error::new(ErrorKind::Corrupt, format!("Qdrant answered the id {text:?}"))),
        None => Err(Error::new(ErrorKind::Corrupt, "Qdrant answered a point without an id")),
    }
}

/// A number for the wire. Integers beyond i64 become doubles; the exact payload is kept beside them.
pub fn number_to_proto(number: &Number) -> Result<i64, f64> {
    number.as_i64().ok_or_else(|| number.as_f64().unwrap_or_default())
}

pub fn value_to_proto(value: &Value) -> proto::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(number) => match number_to_proto(number) {
            Ok(integer) => Kind::IntegerValue(integer),
            Err(double) => Kind::DoubleValue(double),
        },
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(values) => {
            Kind::ListValue(proto::ListValue { values: values.iter().map(value_to_proto).collect() })
        }
        Value::Object(map) => Kind::StructValue(proto::Struct {
            fields: payload_to_proto(map.iter().map(|(key, value)| (key.as_str(), value))),
        }),
    };
    proto::Value { kind: Some(kind) }
}

fn payload_to_proto<'a>(
    payload: impl IntoIterator<Item = (&'a str, &'a Value)>,
) -> HashMap<String, proto::Value> {
    payload.into_iter().map(|(key, value)| (key.to_owned(), value_to_proto(value))).collect()
}

fn value_from_proto(value: proto::Value) -> Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::IntegerValue(value)) => Value::Number(value.into()),
        Some(Kind::DoubleValue(value)) => Number::from_f64(value).map_or(Value::Null, Value::Number),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::ListValue(list)) => Value::Array(list.values.into_iter().map(value_from_proto).collect()),
        Some(Kind::StructValue(map)) => Value::Object(payload_from_proto(map.fields)),
    }
}

fn payload_from_proto(fields: HashMap<String, proto::Value>) -> Payload {
    let mut fields: Vec<_> = fields.into_iter().collect();
    // The wire has no order; the same payload always comes back in the same one.
    fields.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    fields.into_iter().map(|(key, value)| (key, value_from_proto(value))).collect()
}

/// Asks for some keys of the payload.
pub fn payload_keys(keys: &[&str]) -> proto::WithPayloadSelector {
    use proto::with_payload_selector::SelectorOptions;
    let fields = keys.iter().map(|key| (*key).to_owned()).collect();
    let include = SelectorOptions::Include(proto::PayloadIncludeSelector { fields });
    proto::WithPayloadSelector { selector_options: Some(include) }
}

/// Asks for the payload that fields need: the whole of it, or what is ours.
pub fn with_payload(fields: &Fields) -> proto::WithPayloadSelector {
    use proto::with_payload_selector::SelectorOptions;
    match (wants_payload(fields), fields.text) {
        (true, _) => proto::WithPayloadSelector { selector_options: Some(SelectorOptions::Enable(true)) },
        (false, true) => payload_keys(&[VERSION, TEXT]),
        (false, false) => payload_keys(&[VERSION]),
    }
}

/// Asks for the vectors that fields name.
pub fn with_vectors(spec: &CollectionSpec, fields: &Fields) -> proto::WithVectorsSelector {
    use proto::with_vectors_selector::SelectorOptions;
    let options = match &fields.vectors {
        Selector::None => SelectorOptions::Enable(false),
        Selector::All => SelectorOptions::Enable(true),
        Selector::Only(names) => {
            let names = names.iter().filter(|name| spec.vectors.contains_key(*name));
            let names: Vec<String> = names.map(|name| name.as_str().to_owned()).collect();
            if names.is_empty() {
                SelectorOptions::Enable(false)
            } else {
                SelectorOptions::Include(proto::VectorsSelector { names })
            }
        }
    };
    proto::WithVectorsSelector { selector_options: Some(options) }
}

/// A record as it came over the wire.
pub fn record(
    id: Option<proto::PointId>,
    payload: HashMap<String, proto::Value>,
    vectors: Option<proto::VectorsOutput>,
) -> Result<Record> {
    let id = id_from_proto(id)?;
    let unpacked = payload::unpack(id, payload_from_proto(payload))?;
    let mut named = Vectors::new();
    match vectors.and_then(|vectors| vectors.vectors_options) {
        None => {}
        Some(Output::Vector(vector)) => {
            named.insert(VectorName::default(), vector_from_proto(id, vector)?);
        }
        Some(Output::Vectors(vectors)) => {
            for (name, vector) in vectors.vectors {
                // A vector that the collection has under a name of its own is not one of ours.
                if let Ok(name) = VectorName::new(&name) {
                    named.insert(name, vector_from_proto(id, vector)?);
                }
            }
        }
    }
    let point = Point { id, vectors: named, payload: unpacked.payload, text: unpacked.text };
    Ok(Record { version: unpacked.version, point })
}

fn vector_from_proto(id: PointId, vector: proto::VectorOutput) -> Result<Vector> {
    use proto::vector_output::Vector as Wire;
    match vector.into_vector() {
        Wire::Dense(dense) => Ok(Vector::Dense(dense.data)),
        Wire::Sparse(sparse) => {
            Ok(Vector::Sparse(SparseVector { indices: sparse.indices, values: sparse.values }))
        }
        Wire::MultiDense(_) => Err(Error::new(
            ErrorKind::Unsupported,
            format!("point {id} has a multi-vector, which Mainstay does not know"),
        )),
    }
}

/// The query for the points nearest to a vector.
pub fn nearest(vector: &Vector) -> proto::Query {
    use proto::vector_input::Variant;
    let variant = match vector {
        Vector::Dense(values) => Variant::Dense(proto::DenseVector { data: values.clone() }),
        Vector::Sparse(sparse) => Variant::Sparse(proto::SparseVector {
            indices: sparse.indices.clone(),
            values: sparse.values.clone(),
        }),
    };
    let input = proto::VectorInput { variant: Some(variant) };
    proto::Query { variant: Some(proto::query::Variant::Nearest(input)) }
}

fn selector(ids: Vec<proto::PointId>) -> proto::PointsSelector {
    let ids = proto::PointsIdsList { ids };
    proto::PointsSelector { points_selector_one_of: Some(PointsSelectorOneOf::Points(ids)) }
}

fn of(operation: Operation) -> proto::PointsUpdateOperation {
    proto::PointsUpdateOperation { operation: Some(operation) }
}

/// A request that changes points.
pub enum Update {
    Upsert(Vec<NewPoint>),
    Batch(Vec<proto::PointsUpdateOperation>),
}

/// A batch as requests, each within the limits as long as one point is.
pub fn updates(spec: &CollectionSpec, batch: &Batch, most_points: usize, most_bytes: usize) -> Vec<Update> {
    let Batch { puts, payloads, deletes } = batch;
    let mut updates = Vec::new();
    for deletes in deletes.chunks(most_points) {
        let ids = deletes.iter().map(|id| id_to_proto(*id)).collect();
        let delete = update::DeletePoints { points: Some(selector(ids)), shard_key_selector: None };
        updates.push(Update::Batch(vec![of(Operation::DeletePoints(delete))]));
    }
    let sized = puts.iter().map(|put| (put.1.size_bytes(), put));
    for part in parts(sized, most_points, most_bytes) {
        let points = part.into_iter().map(|(version, point)| NewPoint::of(spec, *version, point));
        updates.push(Update::Upsert(points.collect()));
    }
    let sized = payloads.iter().map(|new| {
        let text = new.text.as_ref().map_or(0, String::len);
        (mainstay_core::point::payload_bytes(&new.payload) + text, new)
    });
    for part in parts(sized, most_points, most_bytes) {
        let overwrites = part.into_iter().map(|NewPayload { id, version, payload, text }| {
            let reserved = payload::reserved(spec, *version, payload, text.as_deref());
            of(Operation::OverwritePayload(update::OverwritePayload {
                payload: payload_to_proto(
                    payload::plain(payload).chain(reserved.iter().map(|(key, value)| (*key, value))),
                ),
                points_selector: Some(selector(vec![id_to_proto(*id)])),
                ..update::OverwritePayload::default()
            }))
        });
        updates.push(Update::Batch(overwrites.collect()));
    }
    updates
}

/// The requests that create the indexes of a collection: the declared ones, and our own if there are any. Versions have
/// none: it would cost each upsert a quarter.
pub fn indexes(
    spec: &CollectionSpec,
    ordering: Option<proto::WriteOrdering>,
    timeout: Option<u64>,
) -> Vec<CreateFieldIndexCollection> {
    let declared = spec.payload_indexes.iter().map(|(path, index)| {
        let kind = match index {
            PayloadIndex::Keyword => FieldType::Keyword,
            PayloadIndex::Integer => FieldType::Integer,
            PayloadIndex::Float => FieldType::Float,
            PayloadIndex::Bool => FieldType::Bool,
            PayloadIndex::Datetime => FieldType::Datetime,
        };
        (path.to_string(), kind, None)
    });
    // Nobody searches by our own keys, so the graph of the vectors needs no links for them: with some, it takes longer to
    // build and to walk.
    let mixed = IndexParams::KeywordIndexParams(KeywordIndexParams {
        enable_hnsw: Some(false),
        ..Default::default()
    });
    let ours = payload::own_index(spec).map(|key| (key.to_owned(), FieldType::Keyword, Some(mixed)));
    ours.into_iter()
        .chain(declared)
        .map(|(field_name, kind, params)| CreateFieldIndexCollection {
            collection_name: spec.name.as_str().to_owned(),
            wait: Some(true),
            field_name,
            field_type: Some(kind as i32),
            field_index_params: params.map(|params| proto::PayloadIndexParams { index_params: Some(params) }),
            ordering,
            timeout,
        })
        .collect()
}

/// The vectors of a collection for the wire: one without a name, or several by name.
pub fn vectors_config(
    single: Option<proto::VectorParams>,
    named: HashMap<String, proto::VectorParams>,
) -> proto::VectorsConfig {
    use proto::vectors_config::Config;
    let config = match single {
        Some(params) => Config::Params(params),
        None => Config::ParamsMap(proto::VectorParamsMap { map: named }),
    };
    proto::VectorsConfig { config: Some(config) }
}

/// One vector without a name, which nobody searches.
pub fn single_vector(size: u64) -> proto::VectorsConfig {
    let distance = proto::Distance::Dot as i32;
    vectors_config(Some(proto::VectorParams { size, distance, ..Default::default() }), HashMap::new())
}

#[cfg(test)]
mod tests {
    use mainstay_core::{CollectionName, Distance, PayloadPath};

    use super::*;

    #[test]
    fn only_indexes_that_somebody_declared_add_links_to_the_graph() {
        let spec = CollectionSpec::dense(CollectionName::new("docs").unwrap(), 2, Distance::Dot)
            .with_payload_index(PayloadPath::key("lang"), PayloadIndex::Keyword);
        for index in indexes(&spec, None, None) {
            let links = match index.field_index_params.and_then(|params| params.index_params) {
                Some(IndexParams::IntegerIndexParams(params)) => params.enable_hnsw,
                Some(IndexParams::KeywordIndexParams(params)) => params.enable_hnsw,
                _ => None,
            };
            assert_eq!(links, (index.field_name != "lang").then_some(false), "{}", index.field_name);
        }
    }
}
