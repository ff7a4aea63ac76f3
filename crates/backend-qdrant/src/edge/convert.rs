//! Points, payloads and filters for the engine, and back.

use std::collections::HashMap;

use mainstay_core::{
    CollectionSpec, Condition, Distance, Error, ErrorKind, FieldTest, Fields, Filter, Lsn, Match, Payload,
    PayloadPath, Point, PointId, Range, Record, Result, Scalar, Selector, SparseVector, Vector, VectorName,
    Vectors,
};
use qdrant_edge::{
    JsonPath, OperationError, PayloadSelector, PayloadSelectorInclude, PointStructPersisted, VectorInternal,
    VectorPersisted, VectorStructInternal, VectorStructPersisted, WithPayloadInterface, WithVector,
};
use serde_json::{Value, json};

use super::shard;
use crate::payload::{self, MIXED, TEXT, VERSION};

/// The engine's word for a distance.
pub fn distance(distance: Distance) -> qdrant_edge::Distance {
    match distance {
        Distance::Cosine => qdrant_edge::Distance::Cosine,
        Distance::Dot => qdrant_edge::Distance::Dot,
        Distance::Euclidean => qdrant_edge::Distance::Euclid,
        Distance::Manhattan => qdrant_edge::Distance::Manhattan,
    }
}

/// An id for the engine.
pub fn id(id: PointId) -> qdrant_edge::PointId {
    match id {
        PointId::Num(id) => qdrant_edge::PointId::NumId(id),
        PointId::Uuid(id) => qdrant_edge::PointId::Uuid(id),
    }
}

fn id_from(id: qdrant_edge::PointId) -> PointId {
    match id {
        qdrant_edge::PointId::NumId(id) => PointId::Num(id),
        qdrant_edge::PointId::Uuid(id) => PointId::Uuid(id),
    }
}

/// A path for the engine.
///
/// # Errors
/// `Rejected` for a path that it cannot read.
pub fn path(path: &str) -> Result<JsonPath> {
    path.parse().map_err(|()| {
        Error::new(ErrorKind::Rejected, format!("qdrant-edge cannot read the payload path {path}"))
    })
}

/// A sparse vector for the engine.
pub fn sparse(sparse: &SparseVector) -> qdrant_edge::SparseVector {
    qdrant_edge::SparseVector { indices: sparse.indices.clone(), values: sparse.values.clone() }
}

/// A stored payload for the engine.
pub fn payload(
    spec: &CollectionSpec,
    version: Lsn,
    user: &Payload,
    text: Option<&str>,
) -> qdrant_edge::Payload {
    qdrant_edge::Payload(payload::pack(spec, version, user, text))
}

/// A point for the engine.
pub fn point(spec: &CollectionSpec, version: Lsn, point: &Point) -> PointStructPersisted {
    let vectors: HashMap<_, _> = point
        .vectors
        .iter()
        .map(|(name, vector)| {
            let vector = match vector {
                Vector::Dense(values) => VectorPersisted::Dense(values.clone()),
                Vector::Sparse(vector) => VectorPersisted::Sparse(sparse(vector)),
            };
            (name.as_str().to_owned(), vector)
        })
        .collect();
    PointStructPersisted {
        id: id(point.id),
        vector: VectorStructPersisted::Named(vectors),
        payload: Some(payload(spec, version, &point.payload, point.text.as_deref())),
    }
}

/// Asks for the payload that fields need: the whole of it, or what is ours.
pub fn with_payload(fields: &Fields) -> Result<WithPayloadInterface, OperationError> {
    if !matches!(fields.payload, Selector::None) {
        return Ok(WithPayloadInterface::Bool(true));
    }
    let keys = if fields.text { &[VERSION, TEXT][..] } else { &[VERSION] };
    let include = keys.iter().map(|key| key.parse()).collect::<Result<_, ()>>();
    let include = include.map_err(|()| OperationError::validation_error("a reserved key is no path"))?;
    Ok(WithPayloadInterface::Selector(PayloadSelector::Include(PayloadSelectorInclude { include })))
}

/// Asks for the vectors that fields name.
pub fn with_vector(fields: &Fields) -> WithVector {
    match &fields.vectors {
        Selector::None => WithVector::Bool(false),
        // A name that the collection does not have would be an error; what is not wanted is left out later.
        Selector::All | Selector::Only(_) => WithVector::Bool(true),
    }
}

/// A record as the engine gave it.
///
/// # Errors
/// `Corrupt` or `Unsupported` for what Mainstay never wrote.
pub fn record(
    id: qdrant_edge::PointId,
    stored: Option<qdrant_edge::Payload>,
    vectors: Option<VectorStructInternal>,
) -> Result<Record> {
    let id = id_from(id);
    let unpacked = payload::unpack(id, stored.unwrap_or_default().0)?;
    let mut named = Vectors::new();
    match vectors {
        None => {}
        Some(VectorStructInternal::Single(values)) => {
            named.insert(VectorName::default(), Vector::Dense(values));
        }
        Some(VectorStructInternal::MultiDense(_)) => return Err(multi(id)),
        Some(VectorStructInternal::Named(vectors)) => {
            for (name, vector) in vectors {
                let vector = match vector {
                    VectorInternal::Dense(values) => Vector::Dense(values),
                    VectorInternal::Sparse(sparse) => {
                        Vector::Sparse(SparseVector { indices: sparse.indices, values: sparse.values })
                    }
                    VectorInternal::MultiDense(_) => return Err(multi(id)),
                };
                named.insert(VectorName::new(&name)?, vector);
            }
        }
    }
    let point = Point { id, vectors: named, payload: unpacked.payload, text: unpacked.text };
    Ok(Record { version: unpacked.version, point })
}

fn multi(id: PointId) -> Error {
    Error::new(ErrorKind::Unsupported, format!("point {id} has a multi-vector, which Mainstay does not know"))
}

/// A filter for the engine, through its JSON form, which it reads itself.
///
/// # Errors
/// `Rejected` for a filter that it cannot read.
pub fn filter(filter: &Filter) -> Result<qdrant_edge::Filter> {
    read(filter_json(filter))
}

/// Points with a value at an indexed path that is not of the index's type.
///
/// # Errors
/// As [`filter`].
pub fn mixed_at(path: &PayloadPath) -> Result<qdrant_edge::Filter> {
    read(json!({ "must": [{ "key": MIXED, "match": { "value": path.to_string() } }] }))
}

fn read(value: Value) -> Result<qdrant_edge::Filter> {
    serde_json::from_value(value)
        .map_err(|error| shard::error(OperationError::validation_error(format!("filter: {error}"))))
}

fn filter_json(filter: &Filter) -> Value {
    let clause = |conditions: &[Condition]| conditions.iter().map(condition_json).collect::<Vec<_>>();
    let mut clauses = Payload::new();
    for (name, conditions) in
        [("must", &filter.must), ("should", &filter.should), ("must_not", &filter.must_not)]
    {
        if !conditions.is_empty() {
            clauses.insert(name.into(), clause(conditions).into());
        }
    }
    Value::Object(clauses)
}

fn condition_json(condition: &Condition) -> Value {
    match condition {
        Condition::Field { path, test } => field_json(&path.to_string(), test),
        Condition::IsEmpty(path) => json!({ "is_empty": { "key": path.to_string() } }),
        Condition::IsNull(path) => json!({ "is_null": { "key": path.to_string() } }),
        Condition::HasId(ids) => {
            let ids: Vec<Value> = ids
                .iter()
                .map(|id| match id {
                    PointId::Num(id) => json!(id),
                    PointId::Uuid(id) => json!(id.to_string()),
                })
                .collect();
            json!({ "has_id": ids })
        }
        Condition::Filter(filter) => filter_json(filter),
    }
}

fn field_json(key: &str, test: &FieldTest) -> Value {
    match test {
        FieldTest::Match(Match::Value(value)) => {
            json!({ "key": key, "match": { "value": scalar_json(value) } })
        }
        FieldTest::Match(Match::Any(list)) => {
            // A list of both kinds is either kind.
            let (strings, others): (Vec<_>, Vec<_>) = list.iter().partition(|v| matches!(v, Scalar::Str(_)));
            let any = |list: &[&Scalar]| {
                let list: Vec<Value> = list.iter().map(|value| scalar_json(value)).collect();
                json!({ "key": key, "match": { "any": list } })
            };
            match (strings.is_empty(), others.is_empty()) {
                (_, true) => any(&strings),
                (true, false) => any(&others),
                (false, false) => json!({ "should": [any(&strings), any(&others)] }),
            }
        }
        FieldTest::Match(Match::Except(list)) => {
            let list: Vec<Value> = list.iter().map(scalar_json).collect();
            json!({ "key": key, "match": { "except": list } })
        }
        FieldTest::Range(Range { gt, gte, lt, lte }) => {
            json!({ "key": key, "range": { "gt": gt, "gte": gte, "lt": lt, "lte": lte } })
        }
        FieldTest::Datetime(Range { gt, gte, lt, lte }) => {
            let moment = |micros: &Option<i64>| {
                let moment = micros.and_then(chrono::DateTime::from_timestamp_micros);
                moment.map(|moment| moment.to_rfc3339_opts(chrono::SecondsFormat::Micros, true))
            };
            let (gt, gte, lt, lte) = (moment(gt), moment(gte), moment(lt), moment(lte));
            json!({ "key": key, "range": { "gt": gt, "gte": gte, "lt": lt, "lte": lte } })
        }
    }
}

fn scalar_json(scalar: &Scalar) -> Value {
    match scalar {
        Scalar::Bool(value) => json!(value),
        Scalar::Int(value) => json!(value),
        Scalar::Str(value) => json!(value),
    }
}
