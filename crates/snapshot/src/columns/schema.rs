//! The columns of a collection.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use mainstay_core::{CollectionSpec, Error, ErrorKind, Result, VectorName, VectorSpec};

/// Bytes of an id.
pub(super) const ID_BYTES: i32 = 17;
/// The names of the four bytes of a number.
pub(super) const BYTES: [&str; 4] = ["b0", "b1", "b2", "b3"];

/// The columns for points of a collection.
pub(super) fn schema(spec: &CollectionSpec) -> Result<SchemaRef> {
    let mut fields = vec![
        Field::new("id", DataType::FixedSizeBinary(ID_BYTES), false),
        Field::new("version", DataType::UInt64, false),
        Field::new("payload", DataType::Utf8, true),
        Field::new("text", DataType::Utf8, true),
    ];
    for (name, vector) in &spec.vectors {
        fields.push(match vector {
            VectorSpec::Dense { dimension, .. } => {
                let dimension = i32::try_from(*dimension)
                    .map_err(|_| Error::new(ErrorKind::Internal, "the dimension is too large"))?;
                let plane = |name: &&str| Field::new(*name, DataType::FixedSizeBinary(dimension), false);
                Field::new(dense(name), DataType::Struct(BYTES.iter().map(plane).collect()), true)
            }
            VectorSpec::Sparse => Field::new(sparse(name), DataType::Struct(sparse_fields()), true),
        });
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// The columns of a sparse vector.
pub(super) fn sparse_fields() -> Fields {
    let list = |name: &str, of: DataType| {
        Field::new(name, DataType::List(Arc::new(Field::new("item", of, false))), false)
    };
    Fields::from(vec![list("indices", DataType::UInt32), list("values", DataType::Float32)])
}

fn dense(name: &VectorName) -> String {
    format!("dense:{}", name.as_str())
}

fn sparse(name: &VectorName) -> String {
    format!("sparse:{}", name.as_str())
}
