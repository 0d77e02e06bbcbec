//! What a check found, and how it is shown: as `linkerd check` does, which users know.
//!
//! In:    categories of checks.
//! Out:   text with marks and hints, or JSON of the same fields.
//! Never: colour.

use serde_json::{Value, json};

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// Well.
    Success,
    /// Doubtful: it works, but not as it should, or not for long.
    Warning,
    /// Wrong.
    Error,
}

/// One thing that should be so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    /// What should be so.
    pub description: String,
    /// Whether it is.
    pub outcome: Outcome,
    /// What is instead.
    pub error: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Check {
    /// A check that went well, so far.
    pub(super) fn new(description: impl Into<String>) -> Self {
        Self { description: description.into(), outcome: Outcome::Success, error: None, hint: None }
    }

    /// It is not so.
    pub(super) fn error(self, error: impl Into<String>) -> Self {
        Self { outcome: Outcome::Error, error: Some(error.into()), ..self }
    }

    /// It is not quite so.
    pub(super) fn warning(self, error: impl Into<String>) -> Self {
        Self { outcome: Outcome::Warning, error: Some(error.into()), ..self }
    }

    /// What to do; told only where something is not well.
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// Checks that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Category {
    /// Its title.
    pub name: &'static str,
    /// Its checks.
    pub checks: Vec<Check>,
}

impl Category {
    pub(super) fn new(name: &'static str, checks: Vec<Check>) -> Self {
        Self { name, checks }
    }
}

/// The worst outcome of all.
pub(super) fn worst(categories: &[Category]) -> Outcome {
    let all = categories.iter().flat_map(|category| &category.checks);
    all.map(|check| check.outcome).max().unwrap_or(Outcome::Success)
}

/// The text for people.
pub(super) fn text(categories: &[Category], is_utf8: bool) -> String {
    let mark = |outcome| match (outcome, is_utf8) {
        (Outcome::Success, true) => "√",
        (Outcome::Warning, true) => "‼",
        (Outcome::Error, true) => "×",
        (Outcome::Success, false) => "ok  ",
        (Outcome::Warning, false) => "warn",
        (Outcome::Error, false) => "FAIL",
    };
    let mut text = String::new();
    for category in categories {
        text.push_str(&format!("{}\n{}\n", category.name, "-".repeat(category.name.len())));
        for check in &category.checks {
            text.push_str(&format!("{} {}\n", mark(check.outcome), check.description));
            if check.outcome != Outcome::Success {
                for line in check.error.iter().flat_map(|error| error.lines()) {
                    text.push_str(&format!("    {line}\n"));
                }
                if let Some(hint) = &check.hint {
                    text.push_str(&format!("    hint: {hint}\n"));
                }
            }
        }
        text.push('\n');
    }
    text.push_str(&format!("Status check results are {}\n", mark(worst(categories)).trim_end()));
    text
}

/// The same for programs.
pub(super) fn value(categories: &[Category]) -> Value {
    let word = |outcome| match outcome {
        Outcome::Success => "success",
        Outcome::Warning => "warning",
        Outcome::Error => "error",
    };
    let categories_shown: Vec<Value> = categories
        .iter()
        .map(|category| {
            let checks: Vec<Value> = category
                .checks
                .iter()
                .map(|check| {
                    let is_well = check.outcome == Outcome::Success;
                    json!({
                        "description": check.description,
                        "result": word(check.outcome),
                        "error": check.error,
                        "hint": check.hint.as_ref().filter(|_| !is_well),
                    })
                })
                .collect();
            json!({"categoryName": category.name, "checks": checks})
        })
        .collect();
    json!({"success": worst(categories) != Outcome::Error, "categories": categories_shown})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Vec<Category> {
        vec![
            Category::new("machine", vec![Check::new("one").hint("never told")]),
            Category::new(
                "mesh",
                vec![
                    Check::new("two").warning("nearly").hint("do this"),
                    Check::new("three").error("not\nat all"),
                ],
            ),
        ]
    }

    #[test]
    fn what_is_not_well_is_told_with_its_hint() {
        let expected = "machine\n-------\n√ one\n\nmesh\n----\n‼ two\n    nearly\n    hint: do this\n\
                        × three\n    not\n    at all\n\nStatus check results are ×\n";
        assert_eq!(text(&found(), true), expected);
        assert!(text(&found(), false).ends_with("Status check results are FAIL\n"));
        assert!(text(&found(), false).contains("warn two\n"));
    }

    #[test]
    fn programs_get_the_same() {
        let value = value(&found());
        assert_eq!(value["success"], false);
        assert_eq!(value["categories"][0]["checks"][0]["hint"], Value::Null);
        assert_eq!(value["categories"][1]["checks"][0]["result"], "warning");
        assert_eq!(worst(&found()[..1]), Outcome::Success);
        assert_eq!(worst(&[]), Outcome::Success);
    }
}
