//! Points and filters as JSON.
//!
//! Core types carry no serde; this is the one home of the forms that people and programs write by hand and keep in
//! files.

mod filter;
mod point;
#[cfg(test)]
mod tests;

use serde_json::Value;

pub use filter::filter_from_json;
pub use point::{point_from_json, point_to_json, vectors_from_json, vectors_to_json};

use crate::error::{Error, Result};
use crate::id::PointId;

/// Reads a point id: a number, or a string with a UUID. A number in quotes is refused, as Qdrant does: it is
/// neither, and whoever takes it for one writes over the other.
///
/// # Errors
/// `Invalid` with what was found.
pub fn id_from_json(value: &Value) -> Result<PointId> {
    const USE: &str = "is not a point id: use an unsigned whole number or a UUID";
    match value {
        Value::Number(number) => {
            number.as_u64().map(PointId::Num).ok_or_else(|| Error::invalid(format!("{number} {USE}")))
        }
        Value::String(text) => match text.parse()? {
            PointId::Num(_) => {
                Err(Error::invalid(format!("\"{text}\" is a number in quotes; write {text}, or a UUID")))
            }
            id @ PointId::Uuid(_) => Ok(id),
        },
        other => Err(Error::invalid(format!("{} {USE}", shown(other)))),
    }
}

/// Writes a point id as [`id_from_json`] reads it.
pub fn id_to_json(id: PointId) -> Value {
    match id {
        PointId::Num(n) => n.into(),
        PointId::Uuid(uuid) => uuid.to_string().into(),
    }
}

/// What was found, for a message: a list or an object only by its kind, as writing one out recurses.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        scalar => scalar.to_string(),
    }
}
