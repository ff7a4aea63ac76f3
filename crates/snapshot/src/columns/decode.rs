//! A file back into points.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, UInt32Type, UInt64Type};
use arrow_array::{Array, RecordBatch, StructArray};
use bytes::Bytes;
use mainstay_core::{
    CollectionSpec, Error, ErrorKind, Lsn, Payload, Point, PointId, Record, Result, SparseVector, Vector,
    VectorName, VectorSpec, Vectors,
};

use super::framing;
use super::schema::schema;
use crate::manifest::MAX_FILE_BYTES;

/// The points of a file.
///
/// # Errors
/// `Corrupt` with what is wrong, also for a point that the collection would not have taken.
pub fn decode(spec: &CollectionSpec, bytes: Bytes) -> Result<Vec<Record>> {
    let batch = framing::read(bytes, &schema(spec)?, MAX_FILE_BYTES).map_err(|what| corrupt(&what))?;
    let mut records = rows(&batch).ok_or_else(|| corrupt("its columns are not of their types"))??;
    for ((name, vector), column) in spec.vectors.iter().zip(batch.columns().iter().skip(4)) {
        let column = column.as_struct_opt().ok_or_else(|| corrupt("a vector is no struct"))?;
        match vector {
            VectorSpec::Dense { dimension, .. } => dense(&mut records, name, *dimension, column),
            VectorSpec::Sparse => sparse(&mut records, name, column),
        }
        .ok_or_else(|| corrupt("a vector is not of its shape"))?;
    }
    for record in &records {
        for (name, vector) in &record.point.vectors {
            spec.check_vector(name, vector)
                .map_err(|error| corrupt(&format!("point {}", record.point.id)).with_source(error))?;
        }
    }
    Ok(records)
}

fn corrupt(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("a file of points is damaged: {what}"))
}

/// The points without their vectors.
fn rows(batch: &RecordBatch) -> Option<Result<Vec<Record>>> {
    let [ids, versions, payloads, texts, ..] = batch.columns() else { return None };
    let (ids, versions) = (ids.as_fixed_size_binary_opt()?, versions.as_primitive_opt::<UInt64Type>()?);
    let (payloads, texts) = (payloads.as_string_opt::<i32>()?, texts.as_string_opt::<i32>()?);
    let row = |at: usize| {
        let id = PointId::from_key(ids.value(at)).ok_or_else(|| corrupt("an id is none"))?;
        let payload = match payloads.is_null(at) {
            true => Payload::new(),
            false => serde_json::from_str(payloads.value(at))
                .map_err(|e| corrupt(&format!("the payload of point {id}")).with_source(e))?,
        };
        mainstay_core::spec::check_payload_depth(&payload)
            .map_err(|e| corrupt(&format!("the payload of point {id}")).with_source(e))?;
        let text = (!texts.is_null(at)).then(|| texts.value(at).to_owned());
        let point = Point { id, vectors: Vectors::new(), payload, text };
        Ok(Record { version: Lsn(versions.value(at)), point })
    };
    Some((0..batch.num_rows()).map(row).collect())
}

fn dense(records: &mut [Record], name: &VectorName, dimension: usize, column: &StructArray) -> Option<()> {
    let mut planes = column.columns().iter().map(|plane| plane.as_fixed_size_binary_opt());
    let [a, b, c, d] = [planes.next()??, planes.next()??, planes.next()??, planes.next()??];
    for (at, record) in records.iter_mut().enumerate() {
        if column.is_null(at) {
            continue;
        }
        let (a, b, c, d) = (a.value(at), b.value(at), c.value(at), d.value(at));
        if [a, b, c, d].iter().any(|plane| plane.len() != dimension) {
            return None;
        }
        let bytes = a.iter().zip(b).zip(c.iter().zip(d));
        let values = bytes.map(|((a, b), (c, d))| f32::from_le_bytes([*a, *b, *c, *d])).collect();
        record.point.vectors.insert(name.clone(), Vector::Dense(values));
    }
    Some(())
}

fn sparse(records: &mut [Record], name: &VectorName, column: &StructArray) -> Option<()> {
    let (indices, values) = (column.column(0).as_list_opt::<i32>()?, column.column(1).as_list_opt::<i32>()?);
    for (at, record) in records.iter_mut().enumerate() {
        if column.is_null(at) {
            continue;
        }
        let (indices, values) = (indices.value(at), values.value(at));
        let indices = indices.as_primitive_opt::<UInt32Type>()?.values().to_vec();
        let values = values.as_primitive_opt::<Float32Type>()?.values().to_vec();
        record.point.vectors.insert(name.clone(), Vector::Sparse(SparseVector { indices, values }));
    }
    Some(())
}
