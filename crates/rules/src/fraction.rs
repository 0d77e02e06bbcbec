//! A share of requests, chosen by a number that the caller draws.

/// So many of so many requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fraction {
    numerator: u32,
    denominator: u32,
}

impl Fraction {
    /// Every request.
    pub const ALL: Self = Self { numerator: 100, denominator: 100 };

    /// No request.
    pub const NONE: Self = Self { numerator: 0, denominator: 100 };

    /// `numerator` of `denominator` requests; a denominator of 0 counts as 1.
    #[must_use]
    pub fn new(numerator: u32, denominator: u32) -> Self {
        Self { numerator, denominator: denominator.max(1) }
    }

    /// Whether a request is among them, by a number drawn uniformly from all `u64`.
    #[must_use]
    pub fn holds(self, draw: u64) -> bool {
        draw % u64::from(self.denominator) < u64::from(self.numerator)
    }

    /// Whether no request is.
    #[must_use]
    pub fn is_none(self) -> bool {
        self.numerator == 0
    }

    /// The same with at most so many: a request may ask for less than is configured, never more.
    #[must_use]
    pub fn at_most(self, numerator: u32) -> Self {
        Self { numerator: self.numerator.min(numerator), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_kept() {
        let half = Fraction::new(50, 100);
        assert_eq!((0..1000).filter(|draw| half.holds(*draw)).count(), 500);
        assert!((0..100).all(|draw| Fraction::ALL.holds(draw) && !Fraction::NONE.holds(draw)));
        assert_eq!((0..100).filter(|draw| half.at_most(10).holds(*draw)).count(), 10);
    }
}
