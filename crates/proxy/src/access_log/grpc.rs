//! The status of gRPC in a log line.

use sluis_http1::Known;
use sluis_rules::is_grpc_type;

use super::{record::Record, value::Value};
use crate::grpc;

/// How a status is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GrpcForm {
    /// `NotFound`
    Camel,
    /// `NOT_FOUND`
    Snake,
    /// `5`
    Number,
}

const NAMES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

impl GrpcForm {
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "CAMEL_STRING" => Self::Camel,
            "SNAKE_STRING" => Self::Snake,
            "NUMBER" => Self::Number,
            _ => return None,
        })
    }
}

/// The status of a gRPC request: from the trailers, else from the head, else what the HTTP status
/// means. Others have none.
pub(super) fn status<'r>(form: GrpcForm, record: &Record<'r>) -> Value<'r> {
    let kind = record.request.and_then(|request| request.fields.get(Known::ContentType));
    if !kind.is_some_and(is_grpc_type) {
        return Value::Absent;
    }
    let trailer = record.trailers.and_then(|trailers| trailers.get("grpc-status"));
    let said = trailer
        .map(|value| value.as_bytes())
        .or_else(|| record.response.and_then(|fields| fields.get(Known::GrpcStatus)));
    let number = match said {
        Some(said) => std::str::from_utf8(said).ok().and_then(|text| text.parse::<u64>().ok()),
        None => Some(u64::from(grpc::status(record.response_code))),
    };
    let Some(number) = number else { return Value::Absent };
    let names = usize::try_from(number).ok().and_then(|number| NAMES.get(number));
    match (form, names) {
        (GrpcForm::Number, _) => Value::Number(number),
        (GrpcForm::Camel, Some((camel, _))) => Value::text(Some(camel)),
        (GrpcForm::Snake, Some((_, snake))) => Value::text(Some(snake)),
        // As in Envoy: a status without a name is its number.
        (_, None) => Value::Number(number),
    }
}
