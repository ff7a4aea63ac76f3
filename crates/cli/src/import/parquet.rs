//! Points from Parquet.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Schema};
use mainstay_core::json::vectors_from_json;
use mainstay_core::{Error, Payload, Point, Result, VectorName, Vectors};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde_json::Value;

use super::columns::{self, CellResult};
use super::{Format, Place, Progress, ProgressUnit, ResumePoint, Source, io_error, open_file};

/// Most rows that are decoded at once, and about how many bytes they may take.
const MAX_DECODED_ROWS: u64 = 1_024;
const MAX_DECODED_BYTES: u64 = 16 << 20;
const MAGIC: &[u8; 4] = b"PAR1";

pub(super) struct ParquetSource {
    reader: ParquetRecordBatchReader,
    path: PathBuf,
    /// For the checks of resume points.
    checked: File,
    columns: Columns,
    /// Rows decoded, and how many of them were handed out.
    decoded: Option<(RecordBatch, usize)>,
    /// Rows handed out, over all row groups.
    row: u64,
    /// Whether the last row was handed out as a point or an error, and not the end.
    read_one: bool,
    /// Rows of each row group.
    groups: Vec<u64>,
}

/// Which column is what.
struct Columns {
    id: usize,
    vector: Option<usize>,
    vectors: Option<usize>,
    payload: Option<usize>,
    text: Option<usize>,
    /// Columns that become keys of the payload.
    others: Vec<(usize, String)>,
}

impl ParquetSource {
    pub(super) fn open(path: &Path, resume: Option<&ResumePoint>) -> Result<Self> {
        let checked = open_file(path)?;
        check_ends(path, &checked)?;
        let in_file = |error: Error| error.with_context("file", path.display());
        let damaged =
            |text: String| in_file(Error::invalid(format!("the Parquet file cannot be read: {text}")));
        let file = open_file(path)?;
        let builder = guarded(|| ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| e.to_string()))
            .map_err(damaged)?;
        let columns = Columns::of(builder.schema()).map_err(in_file)?;
        let row_groups = builder.metadata().row_groups();
        let groups: Vec<u64> = row_groups.iter().map(|g| u64::try_from(g.num_rows()).unwrap_or(0)).collect();
        let total = groups.iter().fold(0_u64, |sum, rows| sum.saturating_add(*rows));
        let bytes = row_groups
            .iter()
            .fold(0_u64, |sum, g| sum.saturating_add(u64::try_from(g.total_byte_size()).unwrap_or(0)));
        let row = match resume.map(|r| r.verified(path, &checked, Format::Parquet)).transpose()? {
            Some(Place::Parquet { row }) => row,
            _ => 0,
        };
        let row_bytes = (bytes / total.max(1)).max(1);
        let at_once = (MAX_DECODED_BYTES / row_bytes).clamp(1, MAX_DECODED_ROWS);
        let (at_once, offset) = (at_once as usize, usize::try_from(row).unwrap_or(usize::MAX));
        let reader = guarded(|| {
            builder.with_batch_size(at_once).with_offset(offset).build().map_err(|e| e.to_string())
        })
        .map_err(damaged)?;
        Ok(Self {
            reader,
            path: path.to_owned(),
            checked,
            columns,
            decoded: None,
            row,
            read_one: false,
            groups,
        })
    }

    fn total(&self) -> u64 {
        self.groups.iter().fold(0, |sum, rows| sum.saturating_add(*rows))
    }

    /// The next decoded row, counted as handed out.
    fn next_row(&mut self) -> Result<Option<(RecordBatch, usize)>> {
        loop {
            if let Some((batch, at)) = &mut self.decoded {
                if *at < batch.num_rows() {
                    let row = (batch.clone(), *at);
                    *at += 1;
                    self.row += 1;
                    return Ok(Some(row));
                }
                self.decoded = None;
            }
            let reader = &mut self.reader;
            match guarded(|| reader.next().transpose().map_err(|error| error.to_string())) {
                Ok(Some(batch)) => self.decoded = Some((batch, 0)),
                Ok(None) if self.row < self.total() => {
                    self.row += 1;
                    return Err(self.here(Error::invalid("the Parquet file ends before its last row")));
                }
                Ok(None) => return Ok(None),
                Err(text) => {
                    self.row += 1;
                    let text = format!("the Parquet file is damaged at or after this row: {text}");
                    return Err(self.here(Error::invalid(text)));
                }
            }
        }
    }

    fn read_point(&mut self) -> Result<Option<Point>> {
        self.read_one = false;
        let before = self.row;
        let row = self.next_row();
        self.read_one = self.row > before;
        let Some((batch, row)) = row? else { return Ok(None) };
        self.columns.point(batch.columns(), row).map(Some).map_err(|text| self.here(Error::invalid(text)))
    }
}

impl Source for ParquetSource {
    fn next_point(&mut self) -> Option<Result<Point>> {
        self.read_point().transpose()
    }

    fn here(&self, error: Error) -> Error {
        let mut row = self.row.saturating_sub(1);
        let mut group = 0;
        for rows in &self.groups {
            if row < *rows {
                break;
            }
            row -= rows;
            group += 1;
        }
        error
            .with_context("file", self.path.display())
            .with_context("row group", group)
            .with_context("row in group", row)
            .with_context("row", self.row.saturating_sub(1))
    }

    fn resume_point(&self, before_last: bool) -> Result<ResumePoint> {
        let row = self.row - u64::from(before_last && self.read_one);
        ResumePoint::new(&self.path, &self.checked, Place::Parquet { row })
    }

    fn progress(&self) -> Progress {
        Progress { done: self.row, total: self.total(), unit: ProgressUnit::Rows }
    }
}

impl Columns {
    fn of(schema: &Schema) -> Result<Self> {
        let mut columns = Self {
            id: usize::MAX,
            vector: None,
            vectors: None,
            payload: None,
            text: None,
            others: Vec::new(),
        };
        for (at, field) in schema.fields().iter().enumerate() {
            let kind = field.data_type();
            let (fits, wants) = match field.name().as_str() {
                "id" => {
                    columns.id = at;
                    (columns::is_id(kind), "numbers, or UUIDs as text or 16 bytes")
                }
                // A list of floats, or the same JSON text as in JSONL.
                "vector" if columns::is_text(kind) => {
                    columns.vectors = Some(at);
                    (true, "")
                }
                "vector" => {
                    columns.vector = Some(at);
                    (columns::is_vector(kind), "lists of floats, or JSON text")
                }
                "vectors" => {
                    columns.vectors = Some(at);
                    (columns::is_text(kind), "JSON text")
                }
                "payload" => {
                    columns.payload = Some(at);
                    (
                        columns::is_text(kind)
                            || matches!(kind, DataType::Struct(_)) && columns::is_value(kind),
                        "JSON text, or structs of plain values",
                    )
                }
                "text" => {
                    columns.text = Some(at);
                    (columns::is_text(kind), "text")
                }
                name => {
                    columns.others.push((at, name.to_owned()));
                    (
                        columns::is_value(kind),
                        "plain values (text, numbers, booleans, or lists or structs of them)",
                    )
                }
            };
            if !fits {
                return Err(Error::invalid(format!(
                    "column `{}` has type {kind}, but must hold {wants}; convert or drop the column",
                    field.name()
                )));
            }
        }
        if columns.id == usize::MAX {
            let names: Vec<_> = schema.fields().iter().map(|field| format!("`{}`", field.name())).collect();
            return Err(Error::invalid(format!("there is no column `id`; there are {}", names.join(", "))));
        }
        Ok(columns)
    }

    fn point(&self, cells: &[ArrayRef], row: usize) -> CellResult<Point> {
        let cell = |at: usize| cells.get(at).ok_or_else(|| format!("column {at} is missing"));
        let id = columns::id(cell(self.id)?, row)?;
        let mut vectors = Vectors::new();
        if let Some(at) = self.vectors
            && let Some(text) = columns::text(cell(at)?, row)
        {
            vectors = named_vectors(text)?;
        }
        if let Some(at) = self.vector
            && let Some(vector) = columns::vector(cell(at)?, row)?
            && vectors.insert(VectorName::default(), vector).is_some()
        {
            return Err("both `vector` and `vectors` hold a default vector".to_owned());
        }
        let mut payload = match self.payload {
            Some(at) => payload(cell(at)?, row)?,
            None => Payload::new(),
        };
        for (at, name) in &self.others {
            let value = columns::value(cell(*at)?, row).map_err(|text| format!("column `{name}`: {text}"))?;
            if !value.is_null() && payload.insert(name.clone(), value).is_some() {
                return Err(format!("`{name}` is a key of the payload and a column as well"));
            }
        }
        let text = match self.text {
            Some(at) => columns::text(cell(at)?, row).map(str::to_owned),
            None => None,
        };
        Ok(Point { id, vectors, payload, text })
    }
}

/// Reads vectors from the JSON that stands as `vector` in JSONL.
fn named_vectors(text: &str) -> CellResult<Vectors> {
    vectors_from_json(&json(text, "vectors")?).map_err(|error| error.message().to_owned())
}

fn payload(column: &ArrayRef, row: usize) -> CellResult<Payload> {
    let value = match columns::text(column, row) {
        Some(text) => json(text, "payload")?,
        None => columns::value(column, row)?,
    };
    match value {
        Value::Object(payload) => Ok(payload),
        Value::Null => Ok(Payload::new()),
        _ => Err("the payload is not a JSON object".to_owned()),
    }
}

fn json(text: &str, column: &str) -> CellResult<Value> {
    serde_json::from_str(text).map_err(|error| format!("column `{column}` is not valid JSON: {error}"))
}

/// A Parquet file starts and ends with its magic; one that was cut off does not.
fn check_ends(path: &Path, file: &File) -> Result<()> {
    let fail = |error: std::io::Error| io_error(path, &error);
    let length = file.metadata().map_err(fail)?.len();
    let mut reader = file;
    let mut head = Vec::new();
    reader.take(4).read_to_end(&mut head).map_err(fail)?;
    if head != MAGIC {
        return Err(Error::invalid(format!("{} is not a Parquet file", path.display())));
    }
    let mut tail = Vec::new();
    reader.seek(SeekFrom::Start(length.saturating_sub(4).max(4))).map_err(fail)?;
    reader.take(4).read_to_end(&mut tail).map_err(fail)?;
    if tail != MAGIC {
        return Err(Error::invalid(format!(
            "{} ends without the footer of a Parquet file; it seems to be truncated",
            path.display()
        )));
    }
    Ok(())
}

/// Runs the decoder. Some damaged files make it panic, which is an error of the file's like any
/// other; the decoder is not used again after it.
fn guarded<T>(decode: impl FnOnce() -> CellResult<T>) -> CellResult<T> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| Err("its content makes no sense".to_owned()))
}
