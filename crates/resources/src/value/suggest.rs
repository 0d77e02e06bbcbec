//! Finds the name that somebody probably meant.

/// Most edits between a misspelled name and the one that was meant, per length of the name.
fn edits_max(name: &str) -> usize {
    (name.len() / 3).clamp(1, 3)
}

/// Returns the nearest of the known names, when one is near enough.
pub(crate) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let lower = |text: &str| text.to_ascii_lowercase().replace(['_', '-'], "");
    let wanted = lower(name);
    known
        .iter()
        .map(|candidate| (distance(&wanted, &lower(candidate)), *candidate))
        .filter(|(edits, _)| *edits <= edits_max(name))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Returns the `snake_case` form of a `camelCase` name, as protobuf has it.
pub(crate) fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// Counts the letters to insert, remove or replace (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, l) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, r) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(l != *r);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest, snake_case};

    #[test]
    fn the_nearest_name_is_suggested_when_it_is_near() {
        let known = ["number", "protocol", "name", "targetPort"];
        assert_eq!(nearest("numer", &known), Some("number"));
        assert_eq!(nearest("target_port", &known), Some("targetPort"));
        assert_eq!(nearest("Protocol", &known), Some("protocol"));
        assert_eq!(nearest("completely", &known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(snake_case("accessLogFile"), "access_log_file");
    }
}
