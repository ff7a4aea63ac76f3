//! Points to and from Arrow.

use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, FixedSizeListBuilder, Float32Builder, Float64Builder, Int64Builder, ListBuilder,
    StringBuilder, UInt32Builder, UInt64Builder,
};
use arrow_array::{
    Array, ArrayRef, FixedSizeListArray, Float32Array, ListArray, RecordBatch, StringArray, UInt32Array,
    UInt64Array,
};
use mainstay_core::filter::parse_datetime;
use mainstay_core::{
    Error, Fields, Lsn, Payload, PayloadIndex, Point, PointId, Record, Result, SparseVector, Vector,
    VectorSpec, Vectors,
};
use serde_json::Value;

use crate::error;
use crate::layout::{ID, IndexColumn, Layout, PAYLOAD, TEXT, VERSION};

/// The id as text whose byte order is the order of ids: a tag digit, then hex of fixed length.
pub(crate) fn id_text(id: PointId) -> String {
    match id {
        PointId::Num(n) => format!("0{n:016x}"),
        PointId::Uuid(u) => format!("1{:032x}", u.as_u128()),
    }
}

/// Reads what [`id_text`] wrote.
pub(crate) fn parse_id(text: &str) -> Result<PointId> {
    let parsed = match (text.get(..1), text.get(1..)) {
        (Some("0"), Some(hex)) if hex.len() == 16 => u64::from_str_radix(hex, 16).ok().map(PointId::Num),
        (Some("1"), Some(hex)) if hex.len() == 32 => {
            u128::from_str_radix(hex, 16).ok().map(|n| PointId::Uuid(uuid::Uuid::from_u128(n)))
        }
        _ => None,
    };
    parsed.ok_or_else(|| error::corrupt(format!("{text:?} in a table is no point id")))
}

/// The text of a payload column.
pub(crate) fn parse_payload(text: &str) -> Result<Payload> {
    // Most points of some collections have none; that needs no parser.
    if text == "{}" {
        return Ok(Payload::new());
    }
    serde_json::from_str(text)
        .map_err(|e| error::corrupt(format!("a payload in a table is no JSON object: {e}")))
}

/// The rows of these points.
pub(crate) fn to_batch<'a>(
    layout: &Layout,
    rows: impl Iterator<Item = (&'a Point, Lsn)> + Clone,
) -> Result<RecordBatch> {
    let (mut ids, mut versions) = (StringBuilder::new(), UInt64Builder::new());
    let (mut payloads, mut texts) = (StringBuilder::new(), StringBuilder::new());
    for (point, version) in rows.clone() {
        ids.append_value(id_text(point.id));
        versions.append_value(version.0);
        let payload = serde_json::to_string(&point.payload)
            .map_err(|e| Error::invalid(format!("the payload of point {} is no JSON: {e}", point.id)))?;
        payloads.append_value(payload);
        texts.append_option(point.text.as_deref());
    }
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(ids.finish()),
        Arc::new(versions.finish()),
        Arc::new(payloads.finish()),
        Arc::new(texts.finish()),
    ];
    for column in &layout.vectors {
        let vectors = rows.clone().map(|(point, _)| point.vectors.get(&column.name));
        match column.spec {
            VectorSpec::Dense { dimension, .. } => columns.push(dense_column(dimension, vectors)),
            VectorSpec::Sparse => columns.extend(sparse_columns(vectors)),
        }
    }
    for column in &layout.indexes {
        let payloads = rows.clone().map(|(point, _)| &point.payload);
        columns.extend(index_columns(column, payloads));
    }
    RecordBatch::try_new(layout.schema.clone(), columns).map_err(|e| {
        Error::new(mainstay_core::ErrorKind::Internal, format!("points do not fit the table: {e}"))
    })
}

fn dense_column<'a>(dimension: usize, vectors: impl Iterator<Item = Option<&'a Vector>>) -> ArrayRef {
    let width = i32::try_from(dimension).unwrap_or(i32::MAX);
    let mut builder = FixedSizeListBuilder::new(Float32Builder::new(), width);
    let zeros = vec![0.0; dimension];
    for vector in vectors {
        let values = match vector {
            Some(Vector::Dense(values)) if values.len() == dimension => Some(values),
            _ => None,
        };
        builder.values().append_slice(values.unwrap_or(&zeros));
        builder.append(values.is_some());
    }
    Arc::new(builder.finish())
}

/// Indices and values, in the order of the schema.
fn sparse_columns<'a>(vectors: impl Iterator<Item = Option<&'a Vector>>) -> [ArrayRef; 2] {
    let mut indices = ListBuilder::new(UInt32Builder::new());
    let mut values = ListBuilder::new(Float32Builder::new());
    for vector in vectors {
        let sparse = match vector {
            Some(Vector::Sparse(sparse)) => Some(sparse),
            _ => None,
        };
        if let Some(sparse) = sparse {
            indices.values().append_slice(&sparse.indices);
            values.values().append_slice(&sparse.values);
        }
        indices.append(sparse.is_some());
        values.append(sparse.is_some());
    }
    [Arc::new(indices.finish()), Arc::new(values.finish())]
}

/// The value and the `other` column of a declared index.
fn index_columns<'a>(column: &IndexColumn, payloads: impl Iterator<Item = &'a Payload>) -> [ArrayRef; 2] {
    let mut others = BooleanBuilder::new();
    /// Appends the fitting value of each payload to a builder and answers its array.
    macro_rules! build {
        ($builder:ty, $fit:expr) => {{
            let mut builder = <$builder>::new();
            for payload in payloads {
                let (value, other) = one_value(&column.path.each(payload), $fit);
                builder.append_option(value);
                others.append_value(other);
            }
            Arc::new(builder.finish()) as ArrayRef
        }};
    }
    let values = match column.index {
        PayloadIndex::Keyword => build!(StringBuilder, Value::as_str),
        PayloadIndex::Integer => build!(Int64Builder, Value::as_i64),
        // Adding 0 turns −0 into 0: Arrow tells them apart, filters do not.
        PayloadIndex::Float => build!(Float64Builder, |value| value.as_f64().map(|n| n + 0.0)),
        PayloadIndex::Bool => build!(BooleanBuilder, Value::as_bool),
        PayloadIndex::Datetime => build!(Int64Builder, |value| value.as_str().and_then(parse_datetime)),
    };
    [values, Arc::new(others.finish())]
}

fn one_value<'a, T>(each: &[&'a Value], fit: impl Fn(&'a Value) -> Option<T>) -> (Option<T>, bool) {
    match each {
        [] => (None, false),
        values if values.iter().all(|value| value.is_null()) => (None, false),
        [value] => {
            let fitting = fit(value);
            let other = fitting.is_none();
            (fitting, other)
        }
        _ => (None, true),
    }
}

/// The columns of a batch by name and type.
pub(crate) fn column<'a, T: 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a T> {
    batch
        .column_by_name(name)
        .and_then(|column| column.as_any().downcast_ref())
        .ok_or_else(|| error::corrupt(format!("column {name} of a table is missing or of another type")))
}

/// Ids and versions of a batch.
pub(crate) fn keys(batch: &RecordBatch) -> Result<Vec<(PointId, Lsn)>> {
    let ids: &StringArray = column(batch, ID)?;
    let versions: &UInt64Array = column(batch, VERSION)?;
    (0..batch.num_rows()).map(|row| Ok((parse_id(ids.value(row))?, Lsn(versions.value(row))))).collect()
}

/// The records of a batch with these fields.
pub(crate) fn to_records(layout: &Layout, batch: &RecordBatch, fields: &Fields) -> Result<Vec<Record>> {
    let mut records: Vec<Record> = keys(batch)?
        .into_iter()
        .map(|(id, version)| {
            let point = Point { id, vectors: Vectors::new(), payload: Payload::new(), text: None };
            Record { version, point }
        })
        .collect();
    if fields.payload != mainstay_core::Selector::None {
        let payloads: &StringArray = column(batch, PAYLOAD)?;
        for (row, record) in records.iter_mut().enumerate() {
            let payload = parse_payload(payloads.value(row))?;
            record.point.payload = match fields.payload {
                mainstay_core::Selector::All => payload,
                _ => fields.select_payload(&payload),
            };
        }
    }
    if fields.text {
        let texts: &StringArray = column(batch, TEXT)?;
        for (row, record) in records.iter_mut().enumerate() {
            record.point.text = texts.is_valid(row).then(|| texts.value(row).to_owned());
        }
    }
    for vector in layout.vectors.iter().filter(|vector| fields.wants_vector(&vector.name)) {
        match vector.spec {
            VectorSpec::Dense { .. } => {
                let dense = DenseColumn::of(batch, &vector.values)?;
                for (row, record) in records.iter_mut().enumerate() {
                    if let Some(values) = dense.get(row) {
                        record.point.vectors.insert(vector.name.clone(), Vector::Dense(values.to_vec()));
                    }
                }
            }
            VectorSpec::Sparse => {
                let indices: &ListArray = column(batch, &vector.indices)?;
                let values: &ListArray = column(batch, &vector.values)?;
                for (row, record) in records.iter_mut().enumerate() {
                    if indices.is_valid(row) {
                        let sparse = sparse_row(indices, values, row)?;
                        record.point.vectors.insert(vector.name.clone(), Vector::Sparse(sparse));
                    }
                }
            }
        }
    }
    Ok(records)
}

fn sparse_row(indices: &ListArray, values: &ListArray, row: usize) -> Result<SparseVector> {
    let (indices, values) = (indices.value(row), values.value(row));
    match (indices.as_any().downcast_ref::<UInt32Array>(), values.as_any().downcast_ref::<Float32Array>()) {
        (Some(indices), Some(values)) if indices.len() == values.len() => {
            Ok(SparseVector { indices: indices.values().to_vec(), values: values.values().to_vec() })
        }
        _ => Err(error::corrupt("a sparse vector in a table has unequal numbers of indices and values")),
    }
}

/// The rows of a dense vector column.
pub(crate) struct DenseColumn<'a> {
    list: &'a FixedSizeListArray,
    values: &'a [f32],
    width: usize,
}

impl<'a> DenseColumn<'a> {
    pub(crate) fn of(batch: &'a RecordBatch, name: &str) -> Result<Self> {
        let list: &FixedSizeListArray = column(batch, name)?;
        let values: &Float32Array = list
            .values()
            .as_any()
            .downcast_ref()
            .ok_or_else(|| error::corrupt(format!("column {name} of a table does not hold f32")))?;
        let width = usize::try_from(list.value_length()).unwrap_or(0);
        Ok(Self { list, values: values.values(), width })
    }

    /// The vector of a row; `None` if the point lacks it.
    pub(crate) fn get(&self, row: usize) -> Option<&'a [f32]> {
        let start = usize::try_from(self.list.value_offset(row)).ok()?;
        self.list.is_valid(row).then(|| self.values.get(start..start + self.width)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_core::{CollectionName, CollectionSpec, Distance, VectorName};

    fn layout() -> Layout {
        let mut spec = CollectionSpec::dense(CollectionName::new("c").unwrap(), 2, Distance::Dot)
            .with_vector(VectorName::new("s").unwrap(), VectorSpec::Sparse);
        for (path, index) in [
            ("k", PayloadIndex::Keyword),
            ("i", PayloadIndex::Integer),
            ("f", PayloadIndex::Float),
            ("b", PayloadIndex::Bool),
            ("d", PayloadIndex::Datetime),
        ] {
            spec = spec.with_payload_index(path.parse().unwrap(), index);
        }
        Layout::new(&spec, Lsn(1))
    }

    #[test]
    fn points_survive_the_way_there_and_back_to_the_bit() {
        let layout = layout();
        let sparse = |indices: Vec<u32>, values| Vector::Sparse(SparseVector { indices, values });
        let s = VectorName::new("s").unwrap();
        let points = [
            Point::new(u64::MAX, vec![f32::MIN_POSITIVE / 2.0, -0.0])
                .with_payload(serde_json::json!({"k": "a'\"\\\u{0}", "f": 0.1, "n": 5e-324, "u": u64::MAX}))
                .with_text("text"),
            Point { vectors: Vectors::new(), ..Point::new(uuid::Uuid::from_u128(5), vec![]) },
            Point::new(0, vec![1.0, 2.0]).with_vector(s.clone(), sparse(vec![], vec![])).with_text(""),
            Point::new(1, vec![1.0, 2.0]).with_vector(s, sparse(vec![0, u32::MAX], vec![-1.5, f32::MAX])),
        ];
        let batch = to_batch(&layout, points.iter().zip(1..).map(|(point, n)| (point, Lsn(n)))).unwrap();
        let records = to_records(&layout, &batch, &Fields::ALL).unwrap();
        for ((record, point), n) in records.iter().zip(&points).zip(1..) {
            assert_eq!((&record.point, record.version), (point, Lsn(n)));
        }
        let Some(Vector::Dense(values)) = records[0].point.vectors.values().next() else {
            panic!("a vector")
        };
        assert!(values[1].is_sign_negative());
    }

    #[test]
    fn a_value_that_does_not_fit_its_index_is_marked() {
        let layout = layout();
        let point = Point::new(1, vec![1.0, 2.0])
            .with_payload(serde_json::json!({"k": 5, "i": ["1", 2], "f": null, "b": [true], "d": "no date"}));
        let batch = to_batch(&layout, [(&point, Lsn(1))].into_iter()).unwrap();
        let marks: Vec<_> = layout
            .indexes
            .iter()
            .map(|index| {
                let other = column::<arrow_array::BooleanArray>(&batch, &index.other).unwrap().value(0);
                (index.path.to_string(), other, batch.column_by_name(&index.value).unwrap().is_valid(0))
            })
            .collect();
        let expected = [
            ("b", false, true),
            ("d", true, false),
            ("f", false, false),
            ("i", true, false),
            ("k", true, false),
        ];
        assert_eq!(marks, expected.map(|(path, other, value)| (path.to_owned(), other, value)));
    }

    #[test]
    fn the_text_of_ids_keeps_their_order() {
        let mut ids = [
            PointId::Num(0),
            PointId::Num(255),
            PointId::Num(256),
            PointId::Num(u64::MAX),
            PointId::Uuid(uuid::Uuid::nil()),
            PointId::Uuid(uuid::Uuid::max()),
        ];
        ids.sort();
        let texts = ids.map(id_text);
        assert!(texts.is_sorted());
        for (id, text) in ids.iter().zip(&texts) {
            assert_eq!(parse_id(text).unwrap(), *id);
        }
        for bad in ["", "0", "2abc", "0zzzzzzzzzzzzzzzz", "é"] {
            assert!(parse_id(bad).is_err());
        }
    }
}
