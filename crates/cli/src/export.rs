//! Records to files that [`import`](crate::import) reads back as the same points.
//!
//! In Parquet a single dense default vector is a list of floats; any other choice of vectors is
//! the JSON text that stands as `vector` in JSONL.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{Float32Builder, ListBuilder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use mainstay_core::json::{point_to_json, vectors_to_json};
use mainstay_core::{
    CollectionSpec, Error, ErrorKind, Point, Record, Result, Vector, VectorName, VectorSpec,
};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use serde_json::Value;

use crate::import::Format;

/// Rows of a row group, and the bytes after which a smaller one is closed: what a reader holds.
const GROUP_ROWS: usize = 16_384;
const GROUP_BYTES: usize = 64 << 20;

/// A file of records that is being written.
///
/// The file gets its name when it is complete: an export that stops half-way leaves nothing that
/// could be taken for one.
pub struct Export {
    writer: Writer,
    target: Option<Target>,
    records: u64,
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export").field("records", &self.records).finish_non_exhaustive()
    }
}

type Output = Box<dyn Write + Send>;

enum Writer {
    Jsonl(Output),
    Parquet { writer: Box<ArrowWriter<Output>>, schema: SchemaRef },
}

/// A file under its name of passage; removed if it is never finished.
struct Target {
    partial: PathBuf,
    path: PathBuf,
    file: File,
    finished: bool,
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.finished {
            // What is left behind is named `.partial`; there is nobody to tell.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

impl Export {
    /// Starts a file for the points of a collection; without a format, its name tells it.
    ///
    /// # Errors
    /// `Invalid` if the name tells no format or the directory does not exist, `StorageFull` or
    /// `Unavailable` if it cannot be written.
    pub fn create(path: &Path, format: Option<Format>, spec: &CollectionSpec) -> Result<Self> {
        let format = format.or_else(|| Format::of_name(path)).ok_or_else(|| {
            Error::invalid(format!("{} names no format; end it in .jsonl or .parquet", path.display()))
        })?;
        let Some(name) = path.file_name().filter(|_| !path.is_dir()) else {
            return Err(Error::invalid(format!("{} is a directory; name a file", path.display())));
        };
        let mut partial = std::ffi::OsString::from(".");
        partial.push(name);
        partial.push(".partial");
        let partial = path.with_file_name(partial);
        let fail = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => {
                Error::invalid(format!("the directory of {} does not exist", path.display()))
            }
            _ => write_error(&error).with_context("file", path.display()),
        };
        let file = File::create(&partial).map_err(fail)?;
        let output = Box::new(BufWriter::new(file.try_clone().map_err(fail)?));
        let target = Target { partial, path: path.to_owned(), file, finished: false };
        Ok(Self { target: Some(target), ..Self::to_writer(output, format, spec)? })
    }

    /// Writes to somewhere else, such as the standard output.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn to_writer(output: Output, format: Format, spec: &CollectionSpec) -> Result<Self> {
        let writer = match format {
            Format::Jsonl => Writer::Jsonl(output),
            Format::Parquet => {
                let schema = Arc::new(schema(spec));
                let writer = ArrowWriter::try_new(output, schema.clone(), Some(properties()))
                    .map_err(|error| parquet_error(&error))?;
                Writer::Parquet { writer: Box::new(writer), schema }
            }
        };
        Ok(Self { writer, target: None, records: 0 })
    }

    /// Writes records with all their fields.
    ///
    /// # Errors
    /// `StorageFull` or `Unavailable` if the file cannot be written, `Invalid` if a record is not
    /// of the collection that the export was started for.
    pub fn write(&mut self, records: &[Record]) -> Result<()> {
        match &mut self.writer {
            Writer::Jsonl(output) => {
                for record in records {
                    let line = point_to_json(&record.point).to_string();
                    output
                        .write_all(line.as_bytes())
                        .and_then(|()| output.write_all(b"\n"))
                        .map_err(|error| write_error(&error))?;
                }
            }
            Writer::Parquet { writer, schema } => {
                if !records.is_empty() {
                    let batch = batch(records, schema)?;
                    writer.write(&batch).map_err(|error| parquet_error(&error))?;
                }
            }
        }
        self.records += records.len() as u64;
        Ok(())
    }

    /// Completes the file and gives it its name; answers how many records are in it.
    ///
    /// # Errors
    /// As [`write`](Self::write); the file is then not there.
    pub fn finish(self) -> Result<u64> {
        match self.writer {
            Writer::Jsonl(mut output) => output.flush().map_err(|error| write_error(&error))?,
            Writer::Parquet { writer, .. } => {
                let mut output = writer.into_inner().map_err(|error| parquet_error(&error))?;
                output.flush().map_err(|error| write_error(&error))?;
            }
        }
        if let Some(mut target) = self.target {
            let renamed =
                target.file.sync_all().and_then(|()| std::fs::rename(&target.partial, &target.path));
            renamed.map_err(|error| write_error(&error).with_context("file", target.path.display()))?;
            target.finished = true;
        }
        Ok(self.records)
    }
}

fn write_error(error: &io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::StorageFull,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("the export cannot be written: {error}"))
}

fn parquet_error(error: &parquet::errors::ParquetError) -> Error {
    let cause = match error {
        parquet::errors::ParquetError::External(cause) => cause.downcast_ref::<io::Error>(),
        _ => None,
    };
    cause.map_or_else(
        || Error::new(ErrorKind::Unavailable, format!("the export cannot be written: {error}")),
        write_error,
    )
}

fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_max_row_group_bytes(Some(GROUP_BYTES))
        // The numbers of vectors hardly repeat.
        .set_column_dictionary_enabled(
            ColumnPath::from(vec!["vector".into(), "list".into(), "item".into()]),
            false,
        )
        .build()
}

/// The columns that suit a collection.
fn schema(spec: &CollectionSpec) -> Schema {
    let single = spec.vectors.len() == 1
        && matches!(spec.vectors.get(&VectorName::default()), Some(VectorSpec::Dense { .. }));
    let vectors = if single {
        let item = Field::new_list_field(DataType::Float32, true);
        Field::new("vector", DataType::List(Arc::new(item)), true)
    } else {
        Field::new("vectors", DataType::Utf8, true)
    };
    Schema::new(vec![
        Field::new("id", DataType::Utf8, false),
        vectors,
        Field::new("payload", DataType::Utf8, false),
        Field::new("text", DataType::Utf8, true),
    ])
}

fn batch(records: &[Record], schema: &SchemaRef) -> Result<RecordBatch> {
    let mut ids = StringBuilder::new();
    let mut payloads = StringBuilder::new();
    let mut texts = StringBuilder::new();
    for Record { point, .. } in records {
        ids.append_value(point.id.to_string());
        payloads.append_value(Value::Object(point.payload.clone()).to_string());
        texts.append_option(point.text.as_deref());
    }
    let vectors: ArrayRef = if schema.field(1).name() == "vector" {
        let mut lists = ListBuilder::new(Float32Builder::new());
        for Record { point, .. } in records {
            match single_vector(point)? {
                Some(values) => {
                    lists.values().append_slice(values);
                    lists.append(true);
                }
                None => lists.append(false),
            }
        }
        Arc::new(lists.finish())
    } else {
        let mut column = StringBuilder::new();
        for Record { point, .. } in records {
            let json = (!point.vectors.is_empty()).then(|| vectors_to_json(&point.vectors).to_string());
            column.append_option(json);
        }
        Arc::new(column.finish())
    };
    let columns: Vec<ArrayRef> =
        vec![Arc::new(ids.finish()), vectors, Arc::new(payloads.finish()), Arc::new(texts.finish())];
    RecordBatch::try_new(schema.clone(), columns)
        .map_err(|error| Error::new(ErrorKind::Internal, format!("the columns do not fit together: {error}")))
}

/// The one dense vector of a point, if it has one.
fn single_vector(point: &Point) -> Result<Option<&[f32]>> {
    let mut vectors = point.vectors.iter();
    match (vectors.next(), vectors.next()) {
        (None, _) => Ok(None),
        (Some((name, Vector::Dense(values))), None) if name.is_default() => Ok(Some(values)),
        _ => Err(Error::invalid("the point has vectors that its collection does not declare")
            .with_context("point", point.id)),
    }
}

#[cfg(test)]
mod tests;
