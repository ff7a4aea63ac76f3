//! The one mapping of Qdrant's errors.

use mainstay_core::{Effect, Error, ErrorKind};
use tonic::{Code, Status};

/// Marks `ResourceExhausted` as a full disk instead of a rate limit.
const STORAGE_MARKER: &str = "qdrant-insufficient-storage";
const RETRY_AFTER: &str = "retry-after";

/// What a status means, by its code. Texts are passed on, and decide only where Qdrant has no code of its own.
pub fn of_status(status: Status) -> Error {
    let kind = match status.code() {
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::InvalidArgument | Code::OutOfRange => ErrorKind::Invalid,
        Code::Unauthenticated | Code::PermissionDenied => ErrorKind::Unauthorized,
        Code::DeadlineExceeded => ErrorKind::Timeout,
        Code::ResourceExhausted if status.metadata().contains_key(STORAGE_MARKER) => ErrorKind::StorageFull,
        Code::ResourceExhausted => ErrorKind::Overloaded,
        Code::Unimplemented => ErrorKind::Unsupported,
        Code::DataLoss => ErrorKind::Corrupt,
        // A shard that is down, a connection that broke, a locked server: another try may go better.
        Code::Unavailable
        | Code::Cancelled
        | Code::Aborted
        | Code::FailedPrecondition
        | Code::Unknown
        | Code::Internal
        | Code::Ok => ErrorKind::Unavailable,
    };
    let retry_after =
        status.metadata().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut error = Error::new(kind, format!("Qdrant: {}", brief(&status)));
    if let Some(seconds) = retry_after {
        error = error.with_context("retry after seconds", seconds);
    }
    error.with_source(status)
}

/// The text of a status, and its cause if the text alone says little.
fn brief(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = if text.is_empty() { more } else { format!("{text}: {more}") };
        }
        cause = error.source();
    }
    if text.is_empty() { format!("{:?}", status.code()) } else { text }
}

/// The error of a read. The caller's mistakes were found before, so what the server does not accept is something that
/// it declines, such as what its strict mode does not allow; another member may answer.
pub fn of_read(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Invalid => {
            Error::new(ErrorKind::Unsupported, error.message().to_owned()).with_source(error)
        }
        _ => error,
    }
}

/// What strict mode says of a collection or a machine that is full.
const FULL: [&str; 2] = ["reached!", "exceeding the configured limit"];

/// The error of a write. What the server will never take is rejected; of a write that got no answer nobody
/// knows whether it landed.
pub fn of_write(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Invalid if FULL.iter().any(|text| error.message().contains(text)) => {
            Error::new(ErrorKind::StorageFull, error.message().to_owned()).with_source(error)
        }
        ErrorKind::Invalid | ErrorKind::Unsupported => {
            Error::new(ErrorKind::Rejected, error.message().to_owned()).with_source(error)
        }
        ErrorKind::Unavailable | ErrorKind::Timeout => error.with_effect(Effect::Unknown),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_a_rate_limit() {
        let mut full = Status::resource_exhausted("no space");
        full.metadata_mut().insert(STORAGE_MARKER, "1".parse().unwrap());
        assert_eq!(of_status(full).kind(), ErrorKind::StorageFull);
        let mut limited = Status::resource_exhausted("slow down");
        limited.metadata_mut().insert(RETRY_AFTER, "3".parse().unwrap());
        let error = of_status(limited);
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        assert!(error.to_string().contains('3'), "{error}");
    }

    #[test]
    fn every_code_has_a_kind_and_what_a_server_never_takes_is_rejected() {
        for (code, kind, write) in [
            (Code::InvalidArgument, ErrorKind::Invalid, ErrorKind::Rejected),
            (Code::NotFound, ErrorKind::NotFound, ErrorKind::NotFound),
            (Code::Unauthenticated, ErrorKind::Unauthorized, ErrorKind::Unauthorized),
            (Code::PermissionDenied, ErrorKind::Unauthorized, ErrorKind::Unauthorized),
            (Code::DeadlineExceeded, ErrorKind::Timeout, ErrorKind::Timeout),
            (Code::Unavailable, ErrorKind::Unavailable, ErrorKind::Unavailable),
            (Code::Internal, ErrorKind::Unavailable, ErrorKind::Unavailable),
            (Code::DataLoss, ErrorKind::Corrupt, ErrorKind::Corrupt),
            (Code::Unimplemented, ErrorKind::Unsupported, ErrorKind::Rejected),
        ] {
            let error = of_status(Status::new(code, "text"));
            assert_eq!(error.kind(), kind, "{code:?}");
            assert_eq!(of_write(error).kind(), write, "{code:?}");
        }
        assert_eq!(of_write(of_status(Status::unavailable("x"))).effect(), Effect::Unknown);
        assert_eq!(of_read(of_status(Status::invalid_argument("x"))).kind(), ErrorKind::Unsupported);
        for text in [
            "Wrong input: Max points count limit of 5 reached! Help: …",
            "Wrong input: Disk usage is at 91% of total capacity, exceeding the configured limit of 90%",
        ] {
            assert_eq!(of_write(of_status(Status::invalid_argument(text))).kind(), ErrorKind::StorageFull);
        }
    }
}
