//! Points into a file.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, FixedSizeBinaryArray, Float32Array, ListArray, RecordBatch, StringArray, StructArray,
    UInt32Array, UInt64Array,
};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow_schema::{ArrowError, DataType, Field};
use mainstay_core::{
    CollectionSpec, Error, ErrorKind, Record, Result, SparseVector, Vector, VectorName, VectorSpec,
};

use super::schema::{ID_BYTES, schema, sparse_fields};

/// The file of these points, whose ids should ascend.
///
/// # Errors
/// `Invalid` for a point that has a vector which the collection does not declare so; `Internal` if there are too many for
/// a file.
pub fn encode(spec: &CollectionSpec, records: &[Record]) -> Result<Vec<u8>> {
    check(spec, records)?;
    let schema = schema(spec)?;
    let failed = |e: ArrowError| Error::new(ErrorKind::Internal, "points could not be packed").with_source(e);
    let keys: Vec<u8> = records.iter().flat_map(|record| record.point.id.to_key()).collect();
    let payload = |record: &Record| match record.point.payload.is_empty() {
        true => Ok(None),
        false => serde_json::to_string(&record.point.payload).map(Some),
    };
    let payloads: Vec<Option<String>> = records
        .iter()
        .map(payload)
        .collect::<Result<_, _>>()
        .map_err(|e| Error::new(ErrorKind::Internal, "a payload could not be written").with_source(e))?;
    let bytes: usize = payloads.iter().flatten().map(String::len).sum();
    let texts: usize = records.iter().filter_map(|record| record.point.text.as_ref()).map(String::len).sum();
    if bytes.max(texts) > i32::MAX as usize {
        return Err(Error::new(ErrorKind::Internal, "the payloads are too large for one file"));
    }
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(FixedSizeBinaryArray::try_new(ID_BYTES, Buffer::from_vec(keys), None).map_err(failed)?),
        Arc::new(UInt64Array::from_iter_values(records.iter().map(|record| record.version.0))),
        Arc::new(StringArray::from(payloads)),
        Arc::new(records.iter().map(|record| record.point.text.as_deref()).collect::<StringArray>()),
    ];
    for ((name, vector), field) in spec.vectors.iter().zip(schema.fields().iter().skip(4)) {
        let column = match vector {
            VectorSpec::Dense { dimension, .. } => dense(records, name, *dimension, field),
            VectorSpec::Sparse => sparse(records, name),
        };
        columns.push(column.map_err(failed)?);
    }
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(failed)?;
    let write = || {
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::ZSTD))?;
        let mut writer = StreamWriter::try_new_with_options(Vec::new(), &schema, options)?;
        writer.write(&batch)?;
        writer.into_inner()
    };
    write().map_err(failed)
}

/// What a spec would refuse would be lost in its columns.
fn check(spec: &CollectionSpec, records: &[Record]) -> Result<()> {
    for record in records {
        for (name, vector) in &record.point.vectors {
            let fits = match (spec.vectors.get(name), vector) {
                (Some(VectorSpec::Dense { dimension, .. }), Vector::Dense(values)) => {
                    values.len() == *dimension
                }
                (Some(VectorSpec::Sparse), Vector::Sparse(sparse)) => {
                    sparse.indices.len() == sparse.values.len()
                }
                _ => false,
            };
            if !fits {
                return Err(Error::invalid(format!(
                    "point {} has a vector {name:?} that its collection does not declare",
                    record.point.id
                ))
                .with_collection(&spec.name));
            }
        }
    }
    Ok(())
}

fn dense(
    records: &[Record],
    name: &VectorName,
    dimension: usize,
    field: &Field,
) -> Result<ArrayRef, ArrowError> {
    let mut planes = [const { Vec::<u8>::new() }; 4];
    planes.iter_mut().for_each(|plane| plane.resize(records.len() * dimension, 0));
    let mut there = Vec::with_capacity(records.len());
    let [a, b, c, d] = &mut planes;
    let rows = a
        .chunks_exact_mut(dimension)
        .zip(b.chunks_exact_mut(dimension))
        .zip(c.chunks_exact_mut(dimension).zip(d.chunks_exact_mut(dimension)));
    for (record, ((a, b), (c, d))) in records.iter().zip(rows) {
        let Some(Vector::Dense(values)) = record.point.vectors.get(name) else {
            there.push(false);
            continue;
        };
        there.push(true);
        for ((value, (a, b)), (c, d)) in values.iter().zip(a.iter_mut().zip(b)).zip(c.iter_mut().zip(d)) {
            [*a, *b, *c, *d] = value.to_le_bytes();
        }
    }
    let width = i32::try_from(dimension).map_err(|e| ArrowError::InvalidArgumentError(e.to_string()))?;
    let columns = planes
        .into_iter()
        .map(|plane| {
            let array = FixedSizeBinaryArray::try_new(width, Buffer::from_vec(plane), None)?;
            Ok(Arc::new(array) as ArrayRef)
        })
        .collect::<Result<_, ArrowError>>()?;
    let DataType::Struct(fields) = field.data_type() else {
        return Err(ArrowError::SchemaError("a dense vector is a struct".to_owned()));
    };
    Ok(Arc::new(StructArray::try_new(fields.clone(), columns, nulls(there))?))
}

fn sparse(records: &[Record], name: &VectorName) -> Result<ArrayRef, ArrowError> {
    let empty = SparseVector::default();
    let mut there = Vec::with_capacity(records.len());
    let vectors: Vec<_> = records
        .iter()
        .map(|record| match record.point.vectors.get(name) {
            Some(Vector::Sparse(sparse)) => {
                there.push(true);
                sparse
            }
            _ => {
                there.push(false);
                &empty
            }
        })
        .collect();
    let offsets = OffsetBuffer::from_lengths(vectors.iter().map(|sparse| sparse.indices.len()));
    let indices: UInt32Array = vectors.iter().flat_map(|sparse| sparse.indices.iter().copied()).collect();
    let values: Float32Array = vectors.iter().flat_map(|sparse| sparse.values.iter().copied()).collect();
    let fields = sparse_fields();
    let columns = [Arc::new(indices) as ArrayRef, Arc::new(values) as ArrayRef]
        .into_iter()
        .zip(&fields)
        .map(|(items, field)| {
            let DataType::List(item) = field.data_type() else {
                return Err(ArrowError::SchemaError("a sparse vector is made of lists".to_owned()));
            };
            let list = ListArray::try_new(Arc::clone(item), offsets.clone(), items, None)?;
            Ok(Arc::new(list) as ArrayRef)
        })
        .collect::<Result<_, ArrowError>>()?;
    Ok(Arc::new(StructArray::try_new(fields, columns, nulls(there))?))
}

fn nulls(there: Vec<bool>) -> Option<NullBuffer> {
    Some(NullBuffer::from(there)).filter(|nulls| nulls.null_count() > 0)
}
