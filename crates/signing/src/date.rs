//! Dates as text: strftime's letters, in UTC.
//!
//! In:    a format; a [`Moment`].
//! Out:   the date in English, whatever the machine speaks.
//! Never: reads a clock or a time zone.

use std::fmt::Write as _;

use time::OffsetDateTime;

use crate::{Moment, SignError, TemplateError};

const DAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// What a `%` and a letter may say.
const LETTERS: &str = "YmdHMSyjaAbBeFTDRsZz%";

/// A format whose every letter is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DateFormat(String);

impl DateFormat {
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let fault = |at, reason: String| TemplateError { template: text.to_owned(), at, reason };
        let mut characters = text.char_indices();
        while let Some((at, character)) = characters.next() {
            if character.is_control() {
                return Err(fault(at, "a control character cannot stand in a field".to_owned()));
            }
            if character != '%' {
                continue;
            }
            match characters.next() {
                Some((_, letter)) if LETTERS.contains(letter) => {}
                Some((_, letter)) => return Err(fault(at, format!("%{letter} says nothing"))),
                None => return Err(fault(at, "a letter is missing".to_owned())),
            }
        }
        Ok(Self(text.to_owned()))
    }

    pub(crate) fn render(&self, moment: &Moment) -> Result<String, SignError> {
        let date = date_of(moment)?;
        let mut out = String::new();
        let mut characters = self.0.chars();
        while let Some(character) = characters.next() {
            let written = match character {
                '%' => letter(characters.next().unwrap_or('%'), date, &mut out),
                other => out.write_char(other),
            };
            written.expect("a string takes all");
        }
        Ok(out)
    }
}

/// The date of a moment, if it can be written with four digits of a year.
pub(crate) fn date_of(moment: &Moment) -> Result<OffsetDateTime, SignError> {
    let date = OffsetDateTime::from_unix_timestamp(moment.unix_seconds());
    date.ok().filter(|date| (1970..=9999).contains(&date.year())).ok_or(SignError::Time)
}

fn letter(letter: char, date: OffsetDateTime, out: &mut String) -> std::fmt::Result {
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    let (hour, minute, second) = (date.hour(), date.minute(), date.second());
    let weekday = DAYS[usize::from(date.weekday().number_days_from_monday())];
    let month_name = MONTHS[usize::from(month) - 1];
    match letter {
        'Y' => write!(out, "{year:04}"),
        'y' => write!(out, "{:02}", year % 100),
        'm' => write!(out, "{month:02}"),
        'd' => write!(out, "{day:02}"),
        'e' => write!(out, "{day:2}"),
        'H' => write!(out, "{hour:02}"),
        'M' => write!(out, "{minute:02}"),
        'S' => write!(out, "{second:02}"),
        'j' => write!(out, "{:03}", date.ordinal()),
        'a' => out.write_str(&weekday[..3]),
        'A' => out.write_str(weekday),
        'b' => out.write_str(&month_name[..3]),
        'B' => out.write_str(month_name),
        'F' => write!(out, "{year:04}-{month:02}-{day:02}"),
        'D' => write!(out, "{month:02}/{day:02}/{:02}", year % 100),
        'T' => write!(out, "{hour:02}:{minute:02}:{second:02}"),
        'R' => write!(out, "{hour:02}:{minute:02}"),
        's' => write!(out, "{}", date.unix_timestamp()),
        'Z' => out.write_str("GMT"),
        'z' => out.write_str("+0000"),
        _ => out.write_char('%'),
    }
}
