//! Point ids and log sequence numbers.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::error::{Error, Result};

/// The id of a point: an unsigned number or a UUID, as in Qdrant.
///
/// Numbers sort before UUIDs, and this order is the order of a scroll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PointId {
    /// A number.
    Num(u64),
    /// A UUID of any version.
    Uuid(Uuid),
}

impl PointId {
    /// The id as 17 bytes whose byte order is the order of ids: a tag (0 number, 1 UUID), then
    /// the number in the last eight bytes big-endian, or the UUID's sixteen bytes.
    pub fn to_key(self) -> [u8; 17] {
        let mut key = [0; 17];
        match self {
            Self::Num(n) => key[9..].copy_from_slice(&n.to_be_bytes()),
            Self::Uuid(u) => {
                key[0] = 1;
                key[1..].copy_from_slice(u.as_bytes());
            }
        }
        key
    }

    /// Reads what [`to_key`](Self::to_key) wrote; `None` if these bytes are no key.
    pub fn from_key(key: &[u8]) -> Option<Self> {
        let (tag, rest) = key.split_first()?;
        let rest: [u8; 16] = rest.try_into().ok()?;
        match tag {
            0 => {
                let wide = u128::from_be_bytes(rest);
                u64::try_from(wide).ok().map(Self::Num)
            }
            1 => Some(Self::Uuid(Uuid::from_bytes(rest))),
            _ => None,
        }
    }
}

impl From<u64> for PointId {
    fn from(n: u64) -> Self {
        Self::Num(n)
    }
}

impl From<Uuid> for PointId {
    fn from(u: Uuid) -> Self {
        Self::Uuid(u)
    }
}

impl fmt::Display for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Num(n) => write!(f, "{n}"),
            Self::Uuid(u) => write!(f, "{u}"),
        }
    }
}

impl FromStr for PointId {
    type Err = Error;

    /// Reads a decimal number or a UUID.
    ///
    /// # Errors
    /// `Invalid` if the text is neither.
    fn from_str(text: &str) -> Result<Self> {
        // First, because 32 digits with many zeros before them are a UUID and would pass for a number.
        if let Ok(uuid) = Uuid::try_parse(text) {
            return Ok(Self::Uuid(uuid));
        }
        text.parse().map(Self::Num).map_err(|_| {
            Error::invalid(format!(
                "`{text}` is not a point id: use an unsigned number (0 to {}) or a UUID",
                u64::MAX
            ))
        })
    }
}

/// Log sequence number: the place of an entry in the log, from 1, without gaps.
///
/// [`Lsn::ZERO`] stands before the first entry: a cursor of 0 holds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before the first entry.
    pub const ZERO: Self = Self(0);

    /// The LSN after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// How many entries this LSN is behind `end` (0 if it is not behind).
    pub const fn lag_behind(self, end: Self) -> u64 {
        end.0.saturating_sub(self.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_the_order_of_ids() {
        let mut ids = [
            PointId::Uuid(Uuid::from_u128(u128::MAX)),
            PointId::Num(u64::MAX),
            PointId::Uuid(Uuid::from_u128(0)),
            PointId::Num(0),
            PointId::Num(256),
            PointId::Num(255),
        ];
        ids.sort();
        let keys: Vec<_> = ids.iter().map(|id| id.to_key()).collect();
        assert!(keys.is_sorted());
        assert_eq!(
            keys.iter().map(|k| PointId::from_key(k)).collect::<Vec<_>>(),
            ids.iter().map(|id| Some(*id)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_uuid_of_digits_alone_is_no_number() {
        let text = "00000000000000000000000000000042";
        assert_eq!(text.parse::<PointId>().unwrap(), PointId::Uuid(Uuid::from_u128(0x42)));
        assert_eq!("00000000000000000042".parse::<PointId>().unwrap(), PointId::Num(42));
    }

    #[test]
    fn a_bad_id_is_named_in_its_error() {
        for bad in ["", "-1", "1.5", "18446744073709551616", "not-a-uuid"] {
            let error = bad.parse::<PointId>().unwrap_err();
            assert!(error.to_string().contains(&format!("`{bad}`")), "{error}");
        }
        assert_eq!(PointId::from_key(&[2; 17]), None);
        assert_eq!(PointId::from_key(&[0; 3]), None);
    }
}
