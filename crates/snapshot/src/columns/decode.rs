//! A file back into points.

use std::borrow::Cow;
use std::ops::Range;

use mainstay_core::spec::check_payload_depth;
use mainstay_core::{
    CollectionSpec, Error, ErrorKind, Lsn, Payload, Point, PointId, Record, Result, SparseVector, Vector,
    VectorName, VectorSpec, Vectors,
};
use serde_json::Value;

use super::framing::{self, Batch};
use super::memory::{MAX_MEMORY_BYTES, VECTORS_BYTES};
use super::schema::{ID_BYTES, schema};
use crate::bounded;

/// The points of a file.
///
/// # Errors
/// `Corrupt` with what is wrong, also for a point that the collection would not have taken.
pub fn decode(spec: &CollectionSpec, bytes: &[u8]) -> Result<Vec<Record>> {
    let mut batch = framing::open(bytes, &schema(spec)?, MAX_MEMORY_BYTES).map_err(|what| corrupt(&what))?;
    let mut records = rows(&mut batch)?;
    for (name, vector) in &spec.vectors {
        match vector {
            VectorSpec::Dense { dimension, .. } => dense(&mut batch, &mut records, name, *dimension),
            VectorSpec::Sparse => sparse(&mut batch, &mut records, name),
        }
        .map_err(|what| corrupt(&format!("vector {name:?}: {what}")))?;
    }
    batch.end().map_err(|what| corrupt(&what))?;
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
fn rows(batch: &mut Batch<'_>) -> Result<Vec<Record>> {
    let count = batch.rows;
    let damaged = |what: String| corrupt(&what);
    let ids = fixed(batch, count, ID_BYTES as usize).map_err(damaged)?;
    let versions = fixed(batch, count, 8).map_err(damaged)?;
    let payloads = texts(batch, count).map_err(damaged)?;
    let texts = texts(batch, count).map_err(damaged)?;
    let points =
        ids.chunks_exact(ID_BYTES as usize).zip(versions.as_chunks::<8>().0).zip(payloads).zip(texts);
    let mut records = Vec::with_capacity(count);
    for (((key, version), payload), text) in points {
        let id = PointId::from_key(key).ok_or_else(|| corrupt("an id is none"))?;
        let of_point = |error: Error| corrupt(&format!("the payload of point {id}")).with_source(error);
        let payload = match payload {
            None => Payload::new(),
            Some(text) => match bounded::parse(&text, &mut batch.left) {
                Ok(Value::Object(payload)) => payload,
                Ok(_) => return Err(of_point(Error::invalid("it is no JSON object"))),
                Err(e) => return Err(of_point(Error::invalid("it is no JSON object").with_source(e))),
            },
        };
        check_payload_depth(&payload).map_err(of_point)?;
        let version = Lsn(u64::from_le_bytes(*version));
        records.push(Record { version, point: Point { id, vectors: Vectors::new(), payload, text } });
    }
    Ok(records)
}

/// A column of values of one width, none of them null.
fn fixed<'a>(batch: &mut Batch<'a>, rows: usize, width: usize) -> Result<Cow<'a, [u8]>, String> {
    if batch.array(rows)? != 0 {
        return Err("a value is missing".to_owned());
    }
    batch.buffer(0)?;
    let bytes = rows.checked_mul(width).ok_or("a column is too long")?;
    batch.buffer(bytes)
}

/// A column of texts.
fn texts(batch: &mut Batch<'_>, rows: usize) -> Result<Vec<Option<String>>, String> {
    let nulls = batch.array(rows)?;
    let there = batch.validity(rows, nulls)?;
    let ranges = offsets(batch, rows)?;
    let bytes = batch.buffer(0)?;
    let text = |(range, there): (Range<usize>, bool)| {
        if !there {
            return Ok(None);
        }
        let bytes = bytes.get(range).ok_or("a text reaches beyond its column")?;
        std::str::from_utf8(bytes).map(|text| Some(text.to_owned())).map_err(|_| "a text is no UTF-8")
    };
    Ok(ranges.into_iter().zip(there).map(text).collect::<Result<_, &str>>()?)
}

/// Where the values of each row are.
fn offsets(batch: &mut Batch<'_>, rows: usize) -> Result<Vec<Range<usize>>, String> {
    if rows == 0 {
        batch.buffer(0)?;
        return Ok(Vec::new());
    }
    let bytes = batch.buffer((rows + 1).checked_mul(4).ok_or("a column is too long")?)?;
    let offsets: Vec<_> =
        bytes.as_chunks::<4>().0.iter().take(rows + 1).map(|o| i32::from_le_bytes(*o)).collect();
    let range = |pair: &[i32]| match (usize::try_from(pair[0]), usize::try_from(pair[1])) {
        (Ok(start), Ok(end)) if start <= end => Ok(start..end),
        _ => Err("the offsets of a column do not ascend".to_owned()),
    };
    offsets.windows(2).map(range).collect()
}

fn dense(
    batch: &mut Batch<'_>,
    records: &mut [Record],
    name: &VectorName,
    dimension: usize,
) -> Result<(), String> {
    let nulls = batch.array(records.len())?;
    let there = batch.validity(records.len(), nulls)?;
    let mut plane = || fixed(batch, records.len(), dimension);
    let planes = [plane()?, plane()?, plane()?, plane()?];
    let [a, b, c, d] = planes.each_ref().map(|plane| plane.chunks_exact(dimension));
    let rows = a.zip(b).zip(c.zip(d));
    for ((record, there), ((a, b), (c, d))) in records.iter_mut().zip(there).zip(rows) {
        if there {
            let bytes = a.iter().zip(b).zip(c.iter().zip(d));
            first_vector(batch, record)?;
            let values = bytes.map(|((a, b), (c, d))| f32::from_le_bytes([*a, *b, *c, *d])).collect();
            record.point.vectors.insert(name.clone(), Vector::Dense(values));
        }
    }
    Ok(())
}

/// The first vector of a point takes room for more.
fn first_vector(batch: &mut Batch<'_>, record: &Record) -> Result<(), String> {
    if record.point.vectors.len().is_multiple_of(6) { batch.take(VECTORS_BYTES) } else { Ok(()) }
}

fn sparse(batch: &mut Batch<'_>, records: &mut [Record], name: &VectorName) -> Result<(), String> {
    let nulls = batch.array(records.len())?;
    let there = batch.validity(records.len(), nulls)?;
    let (index_ranges, indices) = list(batch, records.len())?;
    let (value_ranges, values) = list(batch, records.len())?;
    let ranges = index_ranges.into_iter().zip(value_ranges);
    for ((record, there), (index_range, value_range)) in records.iter_mut().zip(there).zip(ranges) {
        if !there {
            continue;
        }
        first_vector(batch, record)?;
        const BEYOND: &str = "a list reaches beyond its column";
        let indices =
            indices.get(index_range).ok_or(BEYOND)?.iter().map(|i| u32::from_le_bytes(*i)).collect();
        let values = values.get(value_range).ok_or(BEYOND)?.iter().map(|v| f32::from_le_bytes(*v)).collect();
        record.point.vectors.insert(name.clone(), Vector::Sparse(SparseVector { indices, values }));
    }
    Ok(())
}

type Items = Vec<[u8; 4]>;

/// Where the items of each row are, and the items, 4 bytes each.
fn list(batch: &mut Batch<'_>, rows: usize) -> Result<(Vec<Range<usize>>, Items), String> {
    if batch.array(rows)? != 0 {
        return Err("a list is missing".to_owned());
    }
    batch.buffer(0)?;
    let ranges = offsets(batch, rows)?;
    let items = ranges.last().map_or(0, |last| last.end);
    let bytes = fixed(batch, items, 4)?;
    Ok((ranges, bytes.as_chunks::<4>().0.to_vec()))
}
