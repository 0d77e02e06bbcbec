//! Calendar times, without a time zone database.

use std::time::{SystemTime, UNIX_EPOCH};

/// A format of `%START_TIME(…)%`, compiled.
#[derive(Clone, Debug)]
pub(super) struct TimeFormat(Box<[Piece]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(u8),
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    /// Digits behind the decimal point, 1 to 9.
    Fraction(u32),
    /// Seconds since 1970.
    Epoch,
}

/// What Envoy prints without a format.
const DEFAULT: &str = "%Y-%m-%dT%H:%M:%S.%3fZ";

impl TimeFormat {
    /// Compiles a format of `strftime` letters (`%Y %m %d %H %M %S %s %T %F %f %3f %%`); the empty
    /// one is ISO 8601 with milliseconds. `None` when a letter is not known.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = if text.is_empty() { DEFAULT } else { text };
        let mut pieces = Vec::new();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            if byte != b'%' {
                pieces.push(Piece::Literal(byte));
                continue;
            }
            match bytes.next()? {
                b'Y' => pieces.push(Piece::Year),
                b'm' => pieces.push(Piece::Month),
                b'd' => pieces.push(Piece::Day),
                b'H' => pieces.push(Piece::Hour),
                b'M' => pieces.push(Piece::Minute),
                b'S' => pieces.push(Piece::Second),
                b's' => pieces.push(Piece::Epoch),
                b'f' => pieces.push(Piece::Fraction(9)),
                b'%' => pieces.push(Piece::Literal(b'%')),
                b'F' => pieces.extend([
                    Piece::Year,
                    Piece::Literal(b'-'),
                    Piece::Month,
                    Piece::Literal(b'-'),
                    Piece::Day,
                ]),
                b'T' => pieces.extend([
                    Piece::Hour,
                    Piece::Literal(b':'),
                    Piece::Minute,
                    Piece::Literal(b':'),
                    Piece::Second,
                ]),
                digit @ b'1'..=b'9' if bytes.next() == Some(b'f') => {
                    pieces.push(Piece::Fraction(u32::from(digit - b'0')));
                }
                _ => return None,
            }
        }
        Some(Self(pieces.into()))
    }

    /// Appends the time in this format, UTC.
    pub(super) fn write(&self, time: SystemTime, out: &mut Vec<u8>) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs();
        let (year, month, day) = civil(seconds / 86_400);
        let of_day = seconds % 86_400;
        for piece in &self.0 {
            match piece {
                Piece::Literal(byte) => out.push(*byte),
                Piece::Year => digits(year, 4, out),
                Piece::Month => digits(month, 2, out),
                Piece::Day => digits(day, 2, out),
                Piece::Hour => digits(of_day / 3600, 2, out),
                Piece::Minute => digits(of_day / 60 % 60, 2, out),
                Piece::Second => digits(of_day % 60, 2, out),
                Piece::Fraction(width) => {
                    let value = u64::from(since.subsec_nanos()) / 10_u64.pow(9 - width);
                    digits(value, *width as usize, out);
                }
                Piece::Epoch => {
                    out.extend_from_slice(itoa::Buffer::new().format(seconds).as_bytes());
                }
            }
        }
    }
}

/// The `Date` header's form of a time (RFC 9110 §5.6.7).
pub(crate) fn http_date(seconds: u64) -> [u8; 29] {
    const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
    const MONTHS: [&[u8; 3]; 12] = [
        b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov",
        b"Dec",
    ];
    let days = seconds / 86_400;
    let (year, month, day) = civil(days);
    let of_day = seconds % 86_400;
    let mut out = Vec::with_capacity(29);
    out.extend_from_slice(DAYS[(days % 7) as usize]);
    out.extend_from_slice(b", ");
    digits(day, 2, &mut out);
    out.push(b' ');
    out.extend_from_slice(MONTHS[(month - 1) as usize]);
    out.push(b' ');
    digits(year, 4, &mut out);
    for (separator, value) in [(b' ', of_day / 3600), (b':', of_day / 60 % 60), (b':', of_day % 60)]
    {
        out.push(separator);
        digits(value, 2, &mut out);
    }
    out.extend_from_slice(b" GMT");
    out.try_into().unwrap_or([b' '; 29])
}

/// Appends the last `width` digits of a number.
fn digits(value: u64, width: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + width, b'0');
    let mut left = value;
    for slot in out[start..].iter_mut().rev() {
        *slot = b'0' + (left % 10) as u8;
        left /= 10;
    }
}

/// Year, month and day of a day since 1970 (Howard Hinnant's `civil_from_days`, for years from
/// 1970 on).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}
