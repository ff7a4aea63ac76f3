//! Spans with stable names, all of level debug: while nobody listens, one costs a look at a static.
//!
//! docs/operate.md lists them; a test holds the list to this file.

use mainstay_core::{CollectionName, Lsn, Operation};
use tracing::Span;
use tracing::field::Empty;

use crate::answer::MemberName;
use crate::tier::counts::WriteOperation;

macro_rules! call {
    ($name:literal, $operation:expr, $collection:expr) => {
        tracing::debug_span!(
            $name,
            operation = $operation.as_str(),
            collection = %$collection,
            member = Empty,
            lsn = Empty,
        )
    };
}

macro_rules! work {
    ($name:literal, $operation:literal, $member:expr) => {
        tracing::debug_span!($name, operation = $operation, member = %$member, lsn = Empty)
    };
}

/// A read of a caller; it gets the member that answered and its cursor as `lsn`.
pub fn read(operation: Operation, collection: &CollectionName) -> Span {
    match operation {
        Operation::Search => call!("mainstay.search", operation, collection),
        Operation::Get => call!("mainstay.get", operation, collection),
        Operation::Scroll => call!("mainstay.scroll", operation, collection),
        Operation::Count => call!("mainstay.count", operation, collection),
        _ => Span::none(),
    }
}

/// A write of a caller; it gets the LSN of its last entry.
pub fn write(operation: WriteOperation, collection: &CollectionName) -> Span {
    match operation {
        WriteOperation::CreateCollection => call!("mainstay.create_collection", operation, collection),
        WriteOperation::AdoptCollection => call!("mainstay.adopt_collection", operation, collection),
        WriteOperation::DropCollection => call!("mainstay.drop_collection", operation, collection),
        WriteOperation::Upsert => call!("mainstay.upsert", operation, collection),
        WriteOperation::Delete => call!("mainstay.delete", operation, collection),
        WriteOperation::DeleteByFilter => call!("mainstay.delete_by_filter", operation, collection),
        WriteOperation::SetPayload => call!("mainstay.set_payload", operation, collection),
        WriteOperation::DeletePayload => call!("mainstay.delete_payload", operation, collection),
        WriteOperation::OverwritePayload => call!("mainstay.overwrite_payload", operation, collection),
    }
}

/// One member is asked within a read.
pub fn ask(operation: Operation, member: &MemberName) -> Span {
    tracing::debug_span!("mainstay.ask", operation = operation.as_str(), %member)
}

/// The log takes entries; it gets the LSN of the last one.
pub fn append() -> Span {
    tracing::debug_span!("mainstay.append", operation = "append", lsn = Empty)
}

/// A store is asked where it is; it gets the LSN.
pub fn settle(member: &MemberName) -> Span {
    work!("mainstay.settle", "settle", member)
}

/// A run of entries is applied; it gets the LSN of the last one.
pub fn apply(member: &MemberName) -> Span {
    work!("mainstay.apply", "apply", member)
}

/// What was applied is made durable; it gets the LSN up to which it is.
pub fn flush(member: &MemberName) -> Span {
    work!("mainstay.flush", "flush", member)
}

/// A quiet store is looked after.
pub fn check(member: &MemberName) -> Span {
    work!("mainstay.check", "check", member)
}

/// A store is loaded from another member, `source`, and continues from this LSN.
pub fn bootstrap(member: &MemberName, source: &MemberName, lsn: Lsn) -> Span {
    tracing::debug_span!("mainstay.bootstrap", operation = "bootstrap", %member, %source, lsn = lsn.0)
}
