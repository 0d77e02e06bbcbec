//! How verbs print: aligned tables with upper-case headers, JSON or YAML.
//!
//! In:    rows of text, or a JSON value.
//! Out:   standard output; scripts may cut on the header names.
//! Never: colour in data, or wrapped cells.

use anyhow::Result;
use clap::ValueEnum;
use serde_json::Value;

/// The form of a verb's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// Aligned columns, with those that are long.
    Wide,
    /// JSON, indented.
    Json,
    /// YAML.
    Yaml,
}

/// A table: its header, then its rows. An empty cell prints as `-`.
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with the header given.
    pub(crate) fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; it has as many cells as the header.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.header.len());
        self.rows.push(cells);
    }

    /// Whether it has no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text, with a final line end.
    pub(crate) fn render(&self) -> String {
        let mut widths: Vec<usize> = self.header.iter().map(|cell| cell.len()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(shown(cell).chars().count());
            }
        }
        let header: Vec<String> = self.header.iter().map(|&cell| cell.to_owned()).collect();
        let mut text = String::new();
        for row in std::iter::once(&header).chain(&self.rows) {
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(row) {
                line.push_str(&format!("{:<width$}   ", shown(cell)));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Prints a value as JSON or YAML.
///
/// # Errors
///
/// When standard output is closed.
pub(crate) fn print_value(value: &Value, format: Format) -> Result<()> {
    match format {
        Format::Yaml => print(&yaml(value)),
        _ => print(&format!("{}\n", serde_json::to_string_pretty(value)?)),
    }
}

/// Prints text as it is.
///
/// # Errors
///
/// When standard output is closed.
pub(crate) fn print(text: &str) -> Result<()> {
    use std::io::Write;
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn shown(cell: &str) -> &str {
    if cell.is_empty() { "-" } else { cell }
}

/// YAML of a JSON value, in block style; strings that YAML would read otherwise are quoted.
pub(crate) fn yaml(value: &Value) -> String {
    let mut text = String::new();
    write_yaml(value, 0, &mut text);
    text
}

fn write_yaml(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, inner) in fields {
                text.push_str(&format!("{indent}{}:", scalar(&Value::String(key.clone()))));
                write_inner(inner, depth + 1, text);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut inner = String::new();
                write_yaml(item, depth + 1, &mut inner);
                // The item's first line stands on the dash's line.
                text.push_str(&format!("{indent}- {}", inner.trim_start()));
            }
        }
        other => text.push_str(&format!("{indent}{}\n", scalar(other))),
    }
}

fn write_inner(value: &Value, depth: usize, text: &mut String) {
    let is_block = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if is_block {
        text.push('\n');
        write_yaml(value, depth, text);
    } else {
        text.push_str(&format!(" {}\n", scalar(value)));
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(plain) if is_plain(plain) => plain.clone(),
        // A JSON scalar is YAML too.
        other => other.to_string(),
    }
}

fn is_plain(text: &str) -> bool {
    let starts_plain = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/');
    let only_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./|@~".contains(c));
    let is_word = matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
    );
    starts_plain && only_plain && !is_word
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_aligned_and_empty_cells_show_a_dash() {
        let mut table = Table::new(&["NAME", "TYPE"]);
        table.row(vec!["outbound|443||a".to_owned(), String::new()]);
        assert_eq!(table.render(), "NAME              TYPE\noutbound|443||a   -\n");
    }

    #[test]
    fn yaml_quotes_what_yaml_would_read_otherwise() {
        let value = json!({"on": "yes", "list": [{"a": 1, "b": []}, "x: y"], "none": null});
        let text = yaml(&value);
        assert_eq!(text, "list:\n  - a: 1\n    b: []\n  - \"x: y\"\nnone: null\n\"on\": \"yes\"\n");
    }
}
