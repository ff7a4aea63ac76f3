//! An upsert on the wire, with fewer copies than the generated messages take.
//!
//! The same fields under the same tags, written from where the points lie: a packed list of numbers is its bytes, and a
//! map is the list of its entries.

use std::sync::Arc;

use bytes::BufMut;
use mainstay_core::point::le_bytes;
use mainstay_core::{CollectionSpec, Lsn, Point, PointId, Vector, Vectors};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use qdrant_client::qdrant as proto;
use serde_json::Value;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic_prost::ProstCodec;
use uuid::Uuid;

use super::convert;
use crate::payload;

/// `qdrant.UpsertPoints`.
pub struct Upsert {
    pub collection_name: String,
    pub wait: bool,
    pub points: Vec<NewPoint>,
    pub ordering: Option<proto::WriteOrdering>,
    pub timeout: Option<u64>,
}

/// `qdrant.PointStruct`.
pub struct NewPoint {
    point: Arc<Point>,
    /// What is stored beside the payload.
    reserved: Vec<(&'static str, Value)>,
}

impl NewPoint {
    /// A point as it is stored.
    pub fn of(spec: &CollectionSpec, version: Lsn, point: &Arc<Point>) -> Self {
        let reserved = payload::reserved(spec, version, &point.payload, point.text.as_deref());
        Self { point: Arc::clone(point), reserved }
    }
}

impl Upsert {
    fn write<B: BufMut>(&self, to: &mut Fields<'_, B>) {
        to.bytes(1, self.collection_name.as_bytes());
        to.varint(2, self.wait.into());
        for point in &self.points {
            to.message(3, |to| write_point(point, to));
        }
        if let Some(ordering) = &self.ordering {
            to.message(4, |to| to.varint(1, ordering.r#type as u64));
        }
        if let Some(seconds) = self.timeout {
            to.varint(7, seconds);
        }
    }
}

fn write_point<B: BufMut>(NewPoint { point, reserved }: &NewPoint, to: &mut Fields<'_, B>) {
    to.message(1, |to| match point.id {
        PointId::Num(id) => to.varint(1, id),
        PointId::Uuid(id) => to.bytes(2, id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes()),
    });
    let plain = payload::plain(&point.payload);
    for (key, value) in plain.chain(reserved.iter().map(|(key, value)| (*key, value))) {
        to.message(3, |to| write_entry(key, value, to));
    }
    to.message(4, |to| write_vectors(&point.vectors, to));
}

/// An entry of a payload or of `qdrant.Struct`.
fn write_entry<B: BufMut>(key: &str, value: &Value, to: &mut Fields<'_, B>) {
    to.bytes(1, key.as_bytes());
    to.message(2, |to| write_value(value, to));
}

/// `qdrant.Value`.
fn write_value<B: BufMut>(value: &Value, to: &mut Fields<'_, B>) {
    match value {
        Value::Null => to.varint(1, 0),
        Value::Bool(value) => to.varint(5, (*value).into()),
        Value::Number(number) => match convert::number_to_proto(number) {
            Ok(integer) => to.varint(3, integer.cast_unsigned()),
            Err(double) => to.double(2, double),
        },
        Value::String(text) => to.bytes(4, text.as_bytes()),
        Value::Object(map) => to.message(6, |to| {
            map.iter().for_each(|(key, value)| to.message(1, |to| write_entry(key, value, to)));
        }),
        Value::Array(values) => to.message(7, |to| {
            values.iter().for_each(|value| to.message(1, |to| write_value(value, to)));
        }),
    }
}

/// `qdrant.Vectors`: one without a name, or several by name.
fn write_vectors<B: BufMut>(vectors: &Vectors, to: &mut Fields<'_, B>) {
    let only = vectors.iter().next().filter(|(name, _)| vectors.len() == 1 && name.is_default());
    if let Some((_, vector @ Vector::Dense(_))) = only {
        return to.message(1, |to| write_vector(vector, to));
    }
    to.message(2, |to| {
        for (name, vector) in vectors {
            to.message(1, |to| {
                to.bytes(1, name.as_str().as_bytes());
                to.message(2, |to| write_vector(vector, to));
            });
        }
    });
}

/// `qdrant.Vector`.
fn write_vector<B: BufMut>(vector: &Vector, to: &mut Fields<'_, B>) {
    match vector {
        Vector::Dense(values) => to.message(101, |to| to.bytes(1, &le_bytes(values))),
        Vector::Sparse(sparse) => to.message(102, |to| {
            to.bytes(1, &le_bytes(&sparse.values));
            to.packed(2, &sparse.indices);
        }),
    }
}

/// The fields of a message: written, or only counted, because the length of a message stands before it.
struct Fields<'a, B> {
    bytes: usize,
    to: Option<&'a mut B>,
}

impl<B: BufMut> Fields<'_, B> {
    /// How many bytes fields take.
    fn count(fields: impl FnOnce(&mut Fields<'_, B>)) -> usize {
        let mut counted = Fields { bytes: 0, to: None };
        fields(&mut counted);
        counted.bytes
    }

    fn key(&mut self, tag: u32, wire_type: WireType) {
        match &mut self.to {
            Some(to) => encode_key(tag, wire_type, *to),
            None => self.bytes += key_len(tag),
        }
    }

    fn number(&mut self, number: u64) {
        match &mut self.to {
            Some(to) => encode_varint(number, *to),
            None => self.bytes += encoded_len_varint(number),
        }
    }

    fn varint(&mut self, tag: u32, number: u64) {
        self.key(tag, WireType::Varint);
        self.number(number);
    }

    fn double(&mut self, tag: u32, number: f64) {
        self.key(tag, WireType::SixtyFourBit);
        match &mut self.to {
            Some(to) => to.put_f64_le(number),
            None => self.bytes += size_of::<f64>(),
        }
    }

    fn bytes(&mut self, tag: u32, bytes: &[u8]) {
        self.key(tag, WireType::LengthDelimited);
        self.number(bytes.len() as u64);
        match &mut self.to {
            Some(to) => to.put_slice(bytes),
            None => self.bytes += bytes.len(),
        }
    }

    fn packed(&mut self, tag: u32, numbers: &[u32]) {
        self.message(tag, |to| numbers.iter().for_each(|number| to.number((*number).into())));
    }

    fn message(&mut self, tag: u32, fields: impl Fn(&mut Fields<'_, B>)) {
        self.key(tag, WireType::LengthDelimited);
        let bytes = Self::count(&fields);
        self.number(bytes as u64);
        match &mut self.to {
            Some(to) => fields(&mut Fields { bytes: 0, to: Some(*to) }),
            None => self.bytes += bytes,
        }
    }
}

/// Encodes an upsert into memory that is asked for at once, not doubled as it grows.
#[derive(Default)]
pub struct UpsertCodec;

impl Codec for UpsertCodec {
    type Encode = Upsert;
    type Decode = proto::PointsOperationResponse;
    type Encoder = Self;
    type Decoder = <ProstCodec<proto::UpsertPoints, proto::PointsOperationResponse> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        Self
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<proto::UpsertPoints, _>::raw_decoder(BufferSettings::default())
    }
}

impl Encoder for UpsertCodec {
    type Item = Upsert;
    type Error = Status;

    fn encode(&mut self, upsert: Upsert, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.reserve(Fields::<EncodeBuf<'_>>::count(|to| upsert.write(to)));
        upsert.write(&mut Fields { bytes: 0, to: Some(to) });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use mainstay_core::{CollectionName, Distance, SparseVector, VectorName};
    use prost::Message;
    use serde_json::json;

    use super::*;

    fn on_the_wire(points: &[Point]) -> proto::UpsertPoints {
        let spec = CollectionSpec::dense(CollectionName::new("docs").unwrap(), 2, Distance::Dot);
        let upsert = Upsert {
            collection_name: "docs".into(),
            wait: true,
            points: points
                .iter()
                .map(|point| NewPoint::of(&spec, Lsn(9), &Arc::new(point.clone())))
                .collect(),
            ordering: Some(proto::WriteOrdering { r#type: proto::WriteOrderingType::Strong as i32 }),
            timeout: Some(3),
        };
        let mut bytes = Vec::new();
        upsert.write(&mut Fields { bytes: 0, to: Some(&mut bytes) });
        assert_eq!(Fields::<Vec<u8>>::count(|to| upsert.write(to)), bytes.len());
        proto::UpsertPoints::decode(bytes.as_slice()).unwrap()
    }

    #[test]
    fn a_server_reads_what_the_generated_messages_would_have_said() {
        let uuid = PointId::Uuid(uuid::Uuid::from_u128(7));
        let lonely = Point::new(1, vec![0.5, -1.5]);
        let sparse = SparseVector { indices: vec![3, 70_000], values: vec![1.0, f32::MIN_POSITIVE] };
        let several = Point::new(uuid, vec![1.0, 2.0])
            .with_vector(VectorName::new("sparse").unwrap(), Vector::Sparse(sparse))
            .with_payload(json!({"": null, "a": {"b": [-1, "x", true, 0.5, {}]}, "c": 0}))
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
                        ("a".into(), convert::value_to_proto(&json!({"b": [-1, "x", true, 0.5, {}]}))),
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
