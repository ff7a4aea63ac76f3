//! An upsert on the wire, with fewer copies than the generated messages take.
//!
//! The same fields under the same tags: a packed list of numbers is its bytes, and a map is the list of its entries.

use bytes::Bytes;
use mainstay_core::point::le_bytes;
use mainstay_core::{CollectionSpec, Lsn, Point, Vector, Vectors};
use prost::{Message, Oneof};
use qdrant_client::qdrant as proto;
use serde_json::Value;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic_prost::ProstCodec;

use super::convert;
use crate::payload;

/// `qdrant.UpsertPoints`.
#[derive(Clone, PartialEq, Message)]
pub struct Upsert {
    #[prost(string, tag = "1")]
    pub collection_name: String,
    #[prost(bool, tag = "2")]
    pub wait: bool,
    #[prost(message, repeated, tag = "3")]
    pub points: Vec<NewPoint>,
    #[prost(message, optional, tag = "4")]
    pub ordering: Option<proto::WriteOrdering>,
    #[prost(uint64, optional, tag = "7")]
    pub timeout: Option<u64>,
}

/// `qdrant.PointStruct`.
#[derive(Clone, PartialEq, Message)]
pub struct NewPoint {
    #[prost(message, optional, tag = "1")]
    id: Option<proto::PointId>,
    #[prost(message, repeated, tag = "3")]
    payload: Vec<Entry>,
    #[prost(message, optional, tag = "4")]
    vectors: Option<NewVectors>,
}

/// An entry of a payload.
#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<proto::Value>,
}

/// `qdrant.Vectors`.
#[derive(Clone, PartialEq, Message)]
struct NewVectors {
    #[prost(oneof = "OneOrNamed", tags = "1, 2")]
    vectors: Option<OneOrNamed>,
}

#[derive(Clone, PartialEq, Oneof)]
enum OneOrNamed {
    #[prost(message, tag = "1")]
    One(NewVector),
    #[prost(message, tag = "2")]
    Named(NamedVectors),
}

/// `qdrant.NamedVectors`.
#[derive(Clone, PartialEq, Message)]
struct NamedVectors {
    #[prost(message, repeated, tag = "1")]
    vectors: Vec<NamedVector>,
}

/// An entry of named vectors.
#[derive(Clone, PartialEq, Message)]
struct NamedVector {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    vector: Option<NewVector>,
}

/// `qdrant.Vector`.
#[derive(Clone, PartialEq, Message)]
struct NewVector {
    #[prost(oneof = "Numbers", tags = "101, 102")]
    numbers: Option<Numbers>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Numbers {
    #[prost(message, tag = "101")]
    Dense(Dense),
    #[prost(message, tag = "102")]
    Sparse(Sparse),
}

/// `qdrant.DenseVector`.
#[derive(Clone, PartialEq, Message)]
struct Dense {
    #[prost(bytes = "bytes", tag = "1")]
    values: Bytes,
}

/// `qdrant.SparseVector`.
#[derive(Clone, PartialEq, Message)]
struct Sparse {
    #[prost(bytes = "bytes", tag = "1")]
    values: Bytes,
    #[prost(uint32, repeated, tag = "2")]
    indices: Vec<u32>,
}

impl NewPoint {
    /// A point as it is stored.
    pub fn of(spec: &CollectionSpec, version: Lsn, point: &Point) -> Self {
        let reserved = payload::reserved(spec, version, &point.payload, point.text.as_deref());
        let plain = payload::plain(&point.payload).map(|(key, value)| Entry::of(key, value));
        let reserved = reserved.iter().map(|(key, value)| Entry::of(key, value));
        Self {
            id: Some(convert::id_to_proto(point.id)),
            payload: plain.chain(reserved).collect(),
            vectors: Some(NewVectors { vectors: Some(OneOrNamed::of(&point.vectors)) }),
        }
    }
}

impl Entry {
    fn of(key: &str, value: &Value) -> Self {
        Self { key: key.to_owned(), value: Some(convert::value_to_proto(value)) }
    }
}

impl OneOrNamed {
    fn of(vectors: &Vectors) -> Self {
        let only = vectors.iter().next().filter(|(name, _)| vectors.len() == 1 && name.is_default());
        if let Some((_, vector @ Vector::Dense(_))) = only {
            return Self::One(NewVector::of(vector));
        }
        let named = vectors.iter().map(|(name, vector)| NamedVector {
            name: name.as_str().to_owned(),
            vector: Some(NewVector::of(vector)),
        });
        Self::Named(NamedVectors { vectors: named.collect() })
    }
}

impl NewVector {
    fn of(vector: &Vector) -> Self {
        let packed = |values| Bytes::from(le_bytes(values).into_owned());
        let numbers = match vector {
            Vector::Dense(values) => Numbers::Dense(Dense { values: packed(values) }),
            Vector::Sparse(sparse) => {
                Numbers::Sparse(Sparse { values: packed(&sparse.values), indices: sparse.indices.clone() })
            }
        };
        Self { numbers: Some(numbers) }
    }
}

/// Encodes an upsert into memory that is asked for at once, not doubled as it grows.
#[derive(Default)]
pub struct UpsertCodec;

impl Codec for UpsertCodec {
    type Encode = Upsert;
    type Decode = proto::PointsOperationResponse;
    type Encoder = Self;
    type Decoder = <ProstCodec<Upsert, proto::PointsOperationResponse> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        Self
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<Upsert, _>::raw_decoder(BufferSettings::default())
    }
}

impl Encoder for UpsertCodec {
    type Item = Upsert;
    type Error = Status;

    fn encode(&mut self, upsert: Upsert, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.reserve(upsert.encoded_len());
        upsert.encode(to).map_err(|error| Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use mainstay_core::{CollectionName, Distance, PointId, SparseVector, VectorName};
    use serde_json::json;

    use super::*;

    fn on_the_wire(points: &[Point]) -> proto::UpsertPoints {
        let spec = CollectionSpec::dense(CollectionName::new("docs").unwrap(), 2, Distance::Dot);
        let upsert = Upsert {
            collection_name: "docs".into(),
            wait: true,
            points: points.iter().map(|point| NewPoint::of(&spec, Lsn(9), point)).collect(),
            ordering: Some(proto::WriteOrdering { r#type: proto::WriteOrderingType::Strong as i32 }),
            timeout: Some(3),
        };
        proto::UpsertPoints::decode(upsert.encode_to_vec().as_slice()).unwrap()
    }

    #[test]
    fn a_server_reads_what_the_generated_messages_would_have_said() {
        let uuid = PointId::Uuid(uuid::Uuid::from_u128(7));
        let lonely = Point::new(1, vec![0.5, -1.5]);
        let sparse = SparseVector { indices: vec![3, 70_000], values: vec![1.0, f32::MIN_POSITIVE] };
        let several = Point::new(uuid, vec![1.0, 2.0])
            .with_vector(VectorName::new("sparse").unwrap(), Vector::Sparse(sparse))
            .with_payload(json!({"": null, "a": {"b": [1, "x", true]}, "c": 0}))
            .with_text("text");
        let bare = Point { vectors: Vectors::new(), ..Point::new(2, Vec::new()) };
        let read = on_the_wire(&[lonely.clone(), several.clone(), bare]);

        let dense = |values: &[f32]| proto::Vector::new_dense(values.to_vec());
        let version = (payload::VERSION.to_owned(), proto::Value::from(9));
        let named = |vectors: Vec<(&str, proto::Vector)>| proto::Vectors {
            vectors_options: Some(proto::vectors::VectorsOptions::Vectors(proto::NamedVectors {
                vectors: vectors.into_iter().map(|(name, vector)| (name.to_owned(), vector)).collect(),
            })),
        };
        let expected = proto::UpsertPoints {
            collection_name: "docs".into(),
            wait: Some(true),
            points: vec![
                proto::PointStruct {
                    id: Some(1.into()),
                    payload: [version.clone()].into(),
                    vectors: Some(proto::Vectors {
                        vectors_options: Some(proto::vectors::VectorsOptions::Vector(dense(&[0.5, -1.5]))),
                    }),
                },
                proto::PointStruct {
                    id: Some(uuid.to_string().into()),
                    payload: [
                        (String::new(), proto::Value { kind: Some(proto::value::Kind::NullValue(0)) }),
                        ("a".into(), convert::value_to_proto(&json!({"b": [1, "x", true]}))),
                        ("c".into(), 0.into()),
                        (payload::TEXT.to_owned(), "text".into()),
                        version.clone(),
                    ]
                    .into(),
                    vectors: Some(named(vec![
                        ("", dense(&[1.0, 2.0])),
                        ("sparse", proto::Vector::new_sparse(vec![3, 70_000], vec![1.0, f32::MIN_POSITIVE])),
                    ])),
                },
                proto::PointStruct {
                    id: Some(2.into()),
                    payload: HashMap::from([version]),
                    vectors: Some(named(Vec::new())),
                },
            ],
            ordering: Some(proto::WriteOrdering { r#type: proto::WriteOrderingType::Strong as i32 }),
            timeout: Some(3),
            ..proto::UpsertPoints::default()
        };
        assert_eq!(read, expected);
    }
}
