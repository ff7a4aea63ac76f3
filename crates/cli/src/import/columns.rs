//! Arrow columns as ids, vectors, texts and payload values.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use mainstay_core::{PointId, Vector};
use serde_json::Value;
use uuid::Uuid;

/// What is wrong with a cell; the caller adds where.
pub(super) type CellResult<T> = std::result::Result<T, String>;

/// Deepest nesting of list and struct columns that become payload values.
const MAX_DEPTH: usize = 16;

pub(super) fn is_id(kind: &DataType) -> bool {
    kind.is_integer() || is_text(kind) || matches!(kind, DataType::FixedSizeBinary(16))
}

pub(super) fn is_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

pub(super) fn is_vector(kind: &DataType) -> bool {
    match kind {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            matches!(item.data_type(), DataType::Float16 | DataType::Float32 | DataType::Float64)
        }
        _ => false,
    }
}

/// Whether values of this type can become payload values.
pub(super) fn is_value(kind: &DataType) -> bool {
    fn within(kind: &DataType, depth: usize) -> bool {
        match kind {
            DataType::Null | DataType::Boolean => true,
            DataType::Float16 | DataType::Float32 | DataType::Float64 => true,
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                depth > 0 && within(item.data_type(), depth - 1)
            }
            DataType::Struct(fields) => depth > 0 && fields.iter().all(|f| within(f.data_type(), depth - 1)),
            other => other.is_integer() || is_text(other),
        }
    }
    within(kind, MAX_DEPTH)
}

/// The id in a cell.
pub(super) fn id(column: &ArrayRef, row: usize) -> CellResult<PointId> {
    if column.is_null(row) {
        return Err("the id is null".to_owned());
    }
    if let Some(text) = text(column, row) {
        return text.parse().map_err(|error: mainstay_core::Error| error.message().to_owned());
    }
    if let Some(bytes) = column.as_fixed_size_binary_opt() {
        return Uuid::from_slice(bytes.value(row)).map(PointId::Uuid).map_err(|error| error.to_string());
    }
    let number = integer(column, row).ok_or_else(|| wrong_type("id", column))?;
    let unsigned = u64::try_from(number);
    unsigned
        .map(PointId::Num)
        .map_err(|_| format!("the id {number} is negative; use an unsigned number or a UUID"))
}

/// The text in a cell; `None` if it is null or the column is no text.
pub(super) fn text(column: &ArrayRef, row: usize) -> Option<&str> {
    if column.is_null(row) {
        return None;
    }
    match column.data_type() {
        DataType::Utf8 => column.as_string_opt::<i32>().map(|texts| texts.value(row)),
        DataType::LargeUtf8 => column.as_string_opt::<i64>().map(|texts| texts.value(row)),
        DataType::Utf8View => column.as_string_view_opt().map(|texts| texts.value(row)),
        _ => None,
    }
}

/// The dense vector in a cell; `None` if it is null.
pub(super) fn vector(column: &ArrayRef, row: usize) -> CellResult<Option<Vector>> {
    if column.is_null(row) {
        return Ok(None);
    }
    let items = items(column, row).ok_or_else(|| wrong_type("vector", column))?;
    if let Some(at) = (0..items.len()).find(|at| items.is_null(*at)) {
        return Err(format!("the vector holds null at dimension {at}"));
    }
    let values = match items.data_type() {
        DataType::Float16 => {
            items.as_primitive::<Float16Type>().values().iter().map(|v| v.to_f32()).collect()
        }
        DataType::Float32 => items.as_primitive::<Float32Type>().values().to_vec(),
        DataType::Float64 => items.as_primitive::<Float64Type>().values().iter().map(|v| *v as f32).collect(),
        _ => return Err(wrong_type("vector", column)),
    };
    Ok(Some(Vector::Dense(values)))
}

/// The payload value in a cell.
pub(super) fn value(column: &ArrayRef, row: usize) -> CellResult<Value> {
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    if let Some(text) = text(column, row) {
        return Ok(Value::from(text));
    }
    if let Some(number) = integer(column, row) {
        // Every integer column fits one of the two.
        let signed = i64::try_from(number).map(Value::from);
        return signed.or_else(|_| u64::try_from(number).map(Value::from)).map_err(|error| error.to_string());
    }
    match column.data_type() {
        DataType::Null => Ok(Value::Null),
        DataType::Boolean => Ok(Value::Bool(column.as_boolean().value(row))),
        DataType::Float16 => number(f64::from(column.as_primitive::<Float16Type>().value(row).to_f32())),
        DataType::Float32 => number(f64::from(column.as_primitive::<Float32Type>().value(row))),
        DataType::Float64 => number(column.as_primitive::<Float64Type>().value(row)),
        DataType::Struct(fields) => {
            let columns = column.as_struct();
            let values = fields.iter().zip(columns.columns());
            values
                .map(|(field, inner)| Ok((field.name().clone(), value(inner, row)?)))
                .collect::<CellResult<_>>()
                .map(Value::Object)
        }
        _ => {
            let items = items(column, row).ok_or_else(|| wrong_type("payload", column))?;
            (0..items.len()).map(|at| value(&items, at)).collect::<CellResult<_>>().map(Value::Array)
        }
    }
}

fn number(number: f64) -> CellResult<Value> {
    serde_json::Number::from_f64(number)
        .map(Value::Number)
        .ok_or_else(|| format!("{number} is not a number that a payload can hold"))
}

/// The items of a list cell.
fn items(column: &ArrayRef, row: usize) -> Option<ArrayRef> {
    match column.data_type() {
        DataType::List(_) => column.as_list_opt::<i32>().map(|lists| lists.value(row)),
        DataType::LargeList(_) => column.as_list_opt::<i64>().map(|lists| lists.value(row)),
        DataType::FixedSizeList(..) => column.as_fixed_size_list_opt().map(|lists| lists.value(row)),
        _ => None,
    }
}

fn integer(column: &ArrayRef, row: usize) -> Option<i128> {
    fn of<T: ArrowPrimitiveType>(column: &ArrayRef, row: usize) -> Option<i128>
    where
        T::Native: Into<i128>,
    {
        column.as_primitive_opt::<T>().map(|numbers| numbers.value(row).into())
    }
    match column.data_type() {
        DataType::Int8 => of::<Int8Type>(column, row),
        DataType::Int16 => of::<Int16Type>(column, row),
        DataType::Int32 => of::<Int32Type>(column, row),
        DataType::Int64 => of::<Int64Type>(column, row),
        DataType::UInt8 => of::<UInt8Type>(column, row),
        DataType::UInt16 => of::<UInt16Type>(column, row),
        DataType::UInt32 => of::<UInt32Type>(column, row),
        DataType::UInt64 => of::<UInt64Type>(column, row),
        _ => None,
    }
}

fn wrong_type(what: &str, column: &ArrayRef) -> String {
    format!("a {what} cannot be read from type {}", column.data_type())
}
