//! Points into a file.

use arrow_ipc::writer::StreamWriter;
use arrow_schema::ArrowError;
use mainstay_core::{
    CollectionSpec, Error, ErrorKind, Record, Result, SparseVector, Vector, VectorName, VectorSpec,
};

use super::body::Body;
use super::schema::{ID_BYTES, schema};

/// The file of these points, whose ids should ascend.
///
/// # Errors
/// `Invalid` for a point that has a vector which the collection does not declare so; `Internal` if there are too many for
/// a file.
pub fn encode(spec: &CollectionSpec, records: &[Record]) -> Result<Vec<u8>> {
    check(spec, records)?;
    let described = |e: ArrowError| internal("points could not be described").with_source(e);
    let mut file = {
        // It writes the schema at once, and is not asked to write more.
        let writer = StreamWriter::try_new(Vec::new(), schema(spec)?.as_ref()).map_err(described)?;
        writer.get_ref().clone()
    };
    let packed = |e: std::io::Error| internal("points could not be packed").with_source(e);
    let mut body = Body::new(records.len()).map_err(packed)?;
    columns(&mut body, spec, records).map_err(packed)?;
    body.finish(&mut file);
    Ok(file)
}

fn internal(text: &str) -> Error {
    Error::new(ErrorKind::Internal, text.to_owned())
}

fn columns(body: &mut Body, spec: &CollectionSpec, records: &[Record]) -> std::io::Result<()> {
    let mut column = Vec::with_capacity(records.len() * ID_BYTES as usize);
    column.extend(records.iter().flat_map(|record| record.point.id.to_key()));
    body.values(records.len(), &column)?;
    column.clear();
    column.extend(records.iter().flat_map(|record| record.version.0.to_le_bytes()));
    body.values(records.len(), &column)?;
    column.clear();
    let mut ends = Vec::with_capacity(records.len());
    for record in records {
        let there = !record.point.payload.is_empty();
        if there {
            serde_json::to_writer(&mut column, &record.point.payload)?;
        }
        ends.push((there, column.len()));
    }
    body.texts(&ends, &column)?;
    column.clear();
    ends.clear();
    for record in records {
        let text = record.point.text.as_deref();
        column.extend(text.unwrap_or_default().as_bytes());
        ends.push((text.is_some(), column.len()));
    }
    body.texts(&ends, &column)?;
    for (name, vector) in &spec.vectors {
        match vector {
            VectorSpec::Dense { dimension, .. } => dense(body, records, name, *dimension),
            VectorSpec::Sparse => sparse(body, records, name),
        }?;
    }
    Ok(())
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

fn dense(body: &mut Body, records: &[Record], name: &VectorName, dimension: usize) -> std::io::Result<()> {
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
    body.structs(&there)?;
    planes.iter().try_for_each(|plane| body.values(records.len(), plane))
}

fn sparse(body: &mut Body, records: &[Record], name: &VectorName) -> std::io::Result<()> {
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
    body.structs(&there)?;
    let lengths: Vec<_> = vectors.iter().map(|sparse| sparse.indices.len()).collect();
    let indices: Vec<u8> =
        vectors.iter().flat_map(|sparse| &sparse.indices).flat_map(|index| index.to_le_bytes()).collect();
    let values: Vec<u8> =
        vectors.iter().flat_map(|sparse| &sparse.values).flat_map(|value| value.to_le_bytes()).collect();
    body.lists(&lengths, &indices)?;
    body.lists(&lengths, &values)
}
