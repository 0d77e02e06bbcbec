//! The forms in which most readers are written.

use crate::value::{Read, Value};

/// Implements [`Read`] for types whose readers are functions of their fields.
macro_rules! read_fields {
    ($($type:ty => $reader:path),+ $(,)?) => {
        $(impl $crate::value::Read for $type {
            fn read(value: &$crate::value::Value<'_>) -> Option<Self> {
                value.section($reader)
            }
        })+
    };
}

/// Implements [`Read`] for an enum by the names of its variants.
macro_rules! read_names {
    ($($type:ty { $($name:literal => $variant:expr),+ $(,)? })+) => {
        $(impl $crate::value::Read for $type {
            fn read(value: &$crate::value::Value<'_>) -> Option<Self> {
                $crate::value::one_of(value, &[$(($name, $variant)),+])
            }
        })+
    };
}

pub(crate) use {read_fields, read_names};

/// Reads a text and turns it into a value, or notes why that is not possible.
pub(super) fn checked<T>(
    value: &Value<'_>,
    check: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    let text: String = Read::read(value)?;
    check(&text).map_or_else(|message| value.fault(message), Some)
}
