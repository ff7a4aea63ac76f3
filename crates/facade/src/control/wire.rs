//! What a line says.

use mainstay_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Most bytes of an order.
pub const MAX_ORDER_BYTES: usize = 64 << 10;

/// What another process may ask of a tier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// Members, log and service level at this moment.
    Status {},
    /// What happens from now on.
    Events {},
    /// [`Tier::snapshot`](crate::Tier::snapshot).
    Snapshot {},
    /// [`Tier::failover`](crate::Tier::failover).
    Failover {
        /// Who is to serve first.
        member: String,
    },
    /// [`Tier::failback`](crate::Tier::failback).
    Failback {
        /// Who may serve first again.
        member: String,
    },
    /// [`Tier::quarantine`](crate::Tier::quarantine).
    Quarantine {
        /// Who is taken out of service.
        member: String,
        /// Why.
        reason: String,
    },
    /// [`Tier::release`](crate::Tier::release).
    Release {
        /// Who comes back.
        member: String,
        /// Whether it is loaded anew from another member.
        reload: bool,
    },
}

/// An order as a line.
pub fn order_line(order: &Order) -> Result<String> {
    let text = serde_json::to_string(order)
        .map_err(|error| Error::new(ErrorKind::Internal, "an order cannot be written").with_source(error))?;
    Ok(text + "\n")
}

/// Reads an order.
///
/// # Errors
/// `Invalid` for anything else.
pub fn read_order(line: &str) -> Result<Order> {
    serde_json::from_str(line).map_err(|error| Error::invalid(format!("not an order: {error}")))
}

/// An answer as a line.
pub fn answer_line(answer: &Result<Value>) -> String {
    let value = match answer {
        Ok(value) => json!({ "done": value }),
        Err(error) => json!({ "failed": { "kind": error.kind().as_str(), "text": error.to_string() } }),
    };
    format!("{value}\n")
}

/// Reads an answer; the error that it tells of is answered as one.
///
/// # Errors
/// What the tier said, or `Corrupt` for a line that is no answer.
pub fn read_answer(line: &str) -> Result<Value> {
    let strange = || Error::new(ErrorKind::Corrupt, "the process that holds the tier gave no proper answer");
    let value: Value = serde_json::from_str(line).map_err(|_| strange())?;
    if let Some(done) = value.get("done") {
        return Ok(done.clone());
    }
    let failed = value.get("failed").ok_or_else(strange)?;
    let text = failed["text"].as_str().ok_or_else(strange)?;
    let kind = ErrorKind::ALL.into_iter().find(|kind| Some(kind.as_str()) == failed["kind"].as_str());
    Err(Error::new(kind.unwrap_or(ErrorKind::Internal), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_answers_read_as_they_were_written() {
        let member = || "primary".to_owned();
        for order in [
            Order::Status {},
            Order::Events {},
            Order::Snapshot {},
            Order::Failover { member: member() },
            Order::Failback { member: member() },
            Order::Quarantine { member: member(), reason: "a \"disk\"\nis changed".into() },
            Order::Release { member: member(), reload: true },
        ] {
            let line = order_line(&order).unwrap();
            assert_eq!(line.matches('\n').count(), 1);
            assert_eq!(read_order(&line).unwrap(), order);
        }
        let done = json!({ "level": 0 });
        assert_eq!(read_answer(&answer_line(&Ok(done.clone()))).unwrap(), done);
        let failed = read_answer(&answer_line(&Err(Error::invalid("no member `x`")))).unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Invalid);
        assert!(failed.to_string().contains("no member `x`"));
    }

    #[test]
    fn whatever_is_no_order_is_refused() {
        for line in [
            "",
            "status",
            "{}",
            "{\"do\":\"dance\"}",
            "{\"do\":\"failover\"}",
            "{\"do\":\"status\",\"member\":\"a\"}",
            "{\"do\":\"failover\",\"member\":7}",
        ] {
            assert_eq!(read_order(line).unwrap_err().kind(), ErrorKind::Invalid, "{line}");
        }
        for line in ["", "{}", "{\"failed\":{}}", "[1]"] {
            assert_eq!(read_answer(line).unwrap_err().kind(), ErrorKind::Corrupt, "{line}");
        }
    }
}
