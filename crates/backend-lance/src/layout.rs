//! The columns of a collection's table, and the spec inside the table's metadata.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use mainstay_core::{
    CollectionSpec, Fields, Lsn, PayloadIndex, PayloadPath, Result, Selector, VectorName, VectorSpec,
    document,
};
use serde_json::Value;

use crate::error;

pub(crate) const ID: &str = "id";
pub(crate) const VERSION: &str = "version";
pub(crate) const PAYLOAD: &str = "payload";
pub(crate) const TEXT: &str = "text";
const METADATA_KEY: &str = "mainstay";

/// Where a named vector is kept.
pub(crate) struct VectorColumn {
    pub name: VectorName,
    pub spec: VectorSpec,
    /// The dense vector, or the values of the sparse one.
    pub values: String,
    /// The indices of the sparse one.
    pub indices: String,
}

/// Where a declared payload index is kept. `value` holds the one value at the path if it is of the
/// declared type. `other` is true if what is at the path does not fit into `value`: several values,
/// or one of another type. Nothing or null at the path leaves `value` null and `other` false.
pub(crate) struct IndexColumn {
    pub path: PayloadPath,
    pub index: PayloadIndex,
    pub value: String,
    pub other: String,
}

/// The columns of a collection.
pub(crate) struct Layout {
    pub spec: CollectionSpec,
    pub incarnation: Lsn,
    pub vectors: Vec<VectorColumn>,
    pub indexes: Vec<IndexColumn>,
    pub schema: SchemaRef,
}

impl Layout {
    pub(crate) fn new(spec: &CollectionSpec, incarnation: Lsn) -> Self {
        let vectors: Vec<_> = spec
            .vectors
            .iter()
            .enumerate()
            .map(|(i, (name, vector))| VectorColumn {
                name: name.clone(),
                spec: *vector,
                values: format!("v{i}"),
                indices: format!("v{i}_indices"),
            })
            .collect();
        let indexes: Vec<_> = spec
            .payload_indexes
            .iter()
            .enumerate()
            .map(|(i, (path, index))| IndexColumn {
                path: path.clone(),
                index: *index,
                value: format!("p{i}"),
                other: format!("p{i}_other"),
            })
            .collect();
        let mut fields = vec![
            Field::new(ID, DataType::Utf8, false),
            Field::new(VERSION, DataType::UInt64, false),
            Field::new(PAYLOAD, DataType::Utf8, false),
            Field::new(TEXT, DataType::Utf8, true),
        ];
        for column in &vectors {
            match column.spec {
                VectorSpec::Dense { dimension, .. } => {
                    let item = Arc::new(Field::new("item", DataType::Float32, true));
                    let width = i32::try_from(dimension).unwrap_or(i32::MAX);
                    fields.push(Field::new(&column.values, DataType::FixedSizeList(item, width), true));
                }
                VectorSpec::Sparse => {
                    for (name, kind) in
                        [(&column.indices, DataType::UInt32), (&column.values, DataType::Float32)]
                    {
                        let item = Arc::new(Field::new("item", kind, true));
                        fields.push(Field::new(name, DataType::List(item), true));
                    }
                }
            }
        }
        for column in &indexes {
            let kind = match column.index {
                PayloadIndex::Keyword => DataType::Utf8,
                PayloadIndex::Integer | PayloadIndex::Datetime => DataType::Int64,
                PayloadIndex::Float => DataType::Float64,
                PayloadIndex::Bool => DataType::Boolean,
            };
            fields.push(Field::new(&column.value, kind, true));
            fields.push(Field::new(&column.other, DataType::Boolean, false));
        }
        let metadata = HashMap::from([(
            METADATA_KEY.to_owned(),
            document::collection_to_json(spec, incarnation).to_string(),
        )]);
        let schema = Arc::new(Schema::new(fields).with_metadata(metadata));
        Self { spec: spec.clone(), incarnation, vectors, indexes, schema }
    }

    /// Reads the layout back from a table's schema.
    pub(crate) fn read(table: &str, schema: &Schema) -> Result<Self> {
        let text = schema
            .metadata()
            .get(METADATA_KEY)
            .ok_or_else(|| error::corrupt(format!("table {table} does not say which collection it holds")))?;
        let (spec, incarnation) = serde_json::from_str::<Value>(text)
            .ok()
            .and_then(|value| document::collection_from_json(&value))
            .ok_or_else(|| {
                error::corrupt(format!("the collection's spec in table {table} cannot be read"))
            })?;
        Ok(Self::new(&spec, incarnation))
    }

    /// The name of the table: no two incarnations share one.
    pub(crate) fn table_name(&self) -> String {
        format!("t{}-{}", self.incarnation, self.spec.name)
    }

    /// The columns that these fields need, with id and version.
    pub(crate) fn columns(&self, fields: &Fields) -> Vec<String> {
        let mut columns = vec![ID.to_owned(), VERSION.to_owned()];
        if fields.payload != Selector::None {
            columns.push(PAYLOAD.to_owned());
        }
        if fields.text {
            columns.push(TEXT.to_owned());
        }
        for column in self.vectors.iter().filter(|column| fields.wants_vector(&column.name)) {
            columns.push(column.values.clone());
            if column.spec == VectorSpec::Sparse {
                columns.push(column.indices.clone());
            }
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use mainstay_core::{CollectionName, Distance};

    use super::*;

    #[test]
    fn a_spec_reads_back_from_the_schema() {
        let mut spec = CollectionSpec::dense(CollectionName::new("c.d-e").unwrap(), 3, Distance::Manhattan)
            .with_vector(VectorName::new("words").unwrap(), VectorSpec::Sparse);
        for (path, index) in [
            ("a", PayloadIndex::Keyword),
            ("a.b[].c", PayloadIndex::Integer),
            ("\"x.y\"", PayloadIndex::Float),
            ("z", PayloadIndex::Bool),
            ("when", PayloadIndex::Datetime),
        ] {
            spec = spec.with_payload_index(path.parse().unwrap(), index);
        }
        let layout = Layout::new(&spec, Lsn(u64::MAX));
        let read = Layout::read("t", &layout.schema).unwrap();
        assert_eq!((read.spec, read.incarnation), (spec, Lsn(u64::MAX)));
        assert_eq!(read.schema, layout.schema);
    }
}
