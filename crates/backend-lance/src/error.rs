//! LanceDB's errors as kinds; nothing else looks at them.

use std::error::Error as StdError;
use std::io;

use lance_core::Error as LanceError;
use lancedb::Error as NativeError;
use mainstay_core::{Error, ErrorKind};
use object_store::Error as ObjectError;

/// What helps against damage.
pub(crate) const RESTORE_OR_EMPTY: &str =
    "restore the store from a backup, or empty it to have it filled again";

/// An error of LanceDB while doing `what`.
pub(crate) fn native(what: &'static str) -> impl Fn(NativeError) -> Error {
    move |error| {
        let kind = kind_of(&error);
        Error::new(kind, format!("{what}: {error}")).with_source(error)
    }
}

/// An error of the file system while doing `what`.
pub(crate) fn io(what: &str, error: io::Error) -> Error {
    Error::new(io_kind(error.kind()), format!("{what}: {error}")).with_source(error)
}

/// An error of the object store while doing `what`.
pub(crate) fn object(what: &str) -> impl Fn(ObjectError) -> Error {
    move |error| Error::new(object_kind(&error), format!("{what}: {error}")).with_source(error)
}

/// An error of a batch that does not have the columns it was asked for.
pub(crate) fn corrupt(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, message)
}

/// A task of ours that panicked or was cancelled.
pub(crate) fn task(error: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Internal, format!("a task of the store ended early: {error}"))
}

fn io_kind(kind: io::ErrorKind) -> ErrorKind {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            ErrorKind::StorageFull
        }
        io::ErrorKind::TimedOut => ErrorKind::Timeout,
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => ErrorKind::Corrupt,
        // A missing file or directory, missing rights, a device that went away: somebody else's to mend.
        _ => ErrorKind::Unavailable,
    }
}

/// What an object store says. It tries again by itself what may pass.
fn object_kind(error: &ObjectError) -> ErrorKind {
    match error {
        ObjectError::PermissionDenied { .. } | ObjectError::Unauthenticated { .. } => ErrorKind::Unauthorized,
        ObjectError::NotSupported { .. } | ObjectError::NotImplemented { .. } => ErrorKind::Unsupported,
        ObjectError::InvalidPath { .. } | ObjectError::UnknownConfigurationKey { .. } => ErrorKind::Invalid,
        // A server that does not answer or answers with an error, an object or a bucket that is gone, one that
        // somebody else wrote first.
        _ => ErrorKind::Unavailable,
    }
}

/// Looks down the chain of causes; what the file system says goes before what LanceDB makes of it.
fn kind_of(error: &(dyn StdError + 'static)) -> ErrorKind {
    let mut kind = None;
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            // An `io::Error` of kind `Other` wraps the real one, which comes later in the chain.
            if error.kind() != io::ErrorKind::Other {
                return io_kind(error.kind());
            }
        } else if let Some(error) = error.downcast_ref::<ObjectError>() {
            return object_kind(error);
        } else if let Some(error) = error.downcast_ref::<LanceError>() {
            kind = lance_kind(error).or(kind);
        } else if let Some(error) = error.downcast_ref::<NativeError>() {
            kind = native_kind(error).or(kind);
        }
        cause = cause_of(error);
    }
    kind.unwrap_or(ErrorKind::Internal)
}

/// The cause of an error. Wrappers that speak for what they wrap answer with the cause of that as
/// their own, so they are opened by hand.
fn cause_of<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return error.get_ref().map(|inner| inner as _);
    }
    if let Some(NativeError::External { source }) = error.downcast_ref() {
        return Some(source.as_ref());
    }
    match error.downcast_ref() {
        Some(LanceError::External { source }) => Some(source.as_ref()),
        Some(LanceError::Wrapped { error, .. }) => Some(error.as_ref()),
        _ => error.source(),
    }
}

fn lance_kind(error: &LanceError) -> Option<ErrorKind> {
    Some(match error {
        LanceError::CorruptFile { .. } | LanceError::VersionNotFound { .. } => ErrorKind::Corrupt,
        LanceError::DatasetNotFound { .. } | LanceError::NotFound { .. } | LanceError::IO { .. } => {
            ErrorKind::Unavailable
        }
        LanceError::CommitConflict { .. }
        | LanceError::RetryableCommitConflict { .. }
        | LanceError::TooMuchWriteContention { .. }
        | LanceError::VersionConflict { .. } => ErrorKind::Unavailable,
        LanceError::Timeout { .. } => ErrorKind::Timeout,
        LanceError::DiskCapExceeded { .. } => ErrorKind::StorageFull,
        LanceError::Backpressure { .. } => ErrorKind::Overloaded,
        _ => return None,
    })
}

fn native_kind(error: &NativeError) -> Option<ErrorKind> {
    Some(match error {
        NativeError::TableCorrupted { .. } => ErrorKind::Corrupt,
        NativeError::TableNotFound { .. }
        | NativeError::DatabaseNotFound { .. }
        | NativeError::CreateDir { .. }
        | NativeError::ObjectStore { .. } => ErrorKind::Unavailable,
        NativeError::Timeout { .. } => ErrorKind::Timeout,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_has_the_last_word() {
        for (io_kind, kind) in [
            (io::ErrorKind::NotFound, ErrorKind::Unavailable),
            (io::ErrorKind::StorageFull, ErrorKind::StorageFull),
            (io::ErrorKind::UnexpectedEof, ErrorKind::Corrupt),
            (io::ErrorKind::PermissionDenied, ErrorKind::Unavailable),
        ] {
            let inner = io::Error::from(io_kind);
            let wrapped = NativeError::CreateDir { path: "x".into(), source: inner };
            assert_eq!(native("test")(wrapped).kind(), kind);
            let outer = io::Error::other(io::Error::from(io_kind));
            let wrapped = NativeError::External { source: Box::new(outer) };
            assert_eq!(native("test")(wrapped).kind(), kind, "{io_kind:?}");
        }
    }

    #[test]
    fn what_nobody_expected_is_internal() {
        let error = NativeError::Runtime { message: "?".into() };
        assert_eq!(native("test")(error).kind(), ErrorKind::Internal);
    }
}
