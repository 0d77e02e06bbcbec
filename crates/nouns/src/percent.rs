//! A share between 0 and 100 percent.

use std::fmt;

/// A percentage from 0 to 100 with a resolution of one part per million, as Envoy has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Percent {
    millionths: u32,
}

impl Percent {
    /// All: 100 %.
    pub const ALL: Self = Self { millionths: 1_000_000 };

    /// Makes a percentage from a number between 0 and 100, rounded to one part per million.
    ///
    /// # Errors
    ///
    /// [`PercentError`] when the number lies outside, or is not a number.
    pub fn new(percent: f64) -> Result<Self, PercentError> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(PercentError(percent.to_string()));
        }
        // At most 1_000_000, so the conversion loses only the fraction that was rounded away.
        Ok(Self { millionths: (percent * 10_000.0).round() as u32 })
    }

    /// Returns the share in parts per million, 0 to 1 000 000.
    pub fn millionths(self) -> u32 {
        self.millionths
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.millionths) / 10_000.0)
    }
}

/// A number that is not a percentage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not between 0 and 100")]
pub struct PercentError(String);

#[cfg(test)]
mod tests {
    use super::Percent;

    #[test]
    fn a_percentage_lies_between_0_and_100() {
        assert_eq!(Percent::new(100.0), Ok(Percent::ALL));
        assert_eq!(Percent::new(0.0001).unwrap().millionths(), 1);
        assert_eq!(Percent::new(12.5).unwrap().to_string(), "12.5%");
        for wrong in [-0.1, 100.1, f64::NAN, f64::INFINITY] {
            assert!(Percent::new(wrong).is_err(), "{wrong}");
        }
    }
}
