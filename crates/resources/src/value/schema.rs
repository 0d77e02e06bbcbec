//! What the readers know, found out by letting them read a value that has every field.
//!
//! In:    the fields that readers ask for, and what they say of them.
//! Out:   sections (one for each type that is read), with their fields and states.
//! Never: holds what a user wrote.
//!
//! So the table of supported fields needs no list beside the readers, and cannot differ from them.

use std::collections::BTreeMap;

/// What becomes of a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// It is carried out.
    #[default]
    Supported,
    /// It is read, and a warning says that nothing carries it out yet.
    NotYet,
    /// It is read, and a warning says that it has no effect here.
    NoEffect,
    /// It is an error.
    Refused,
    /// It is read over.
    Ignored,
}

/// What a field holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A text, a number, or a list or map of these.
    #[default]
    Plain,
    /// One of these names.
    Names(Vec<&'static str>),
    /// The fields of a section.
    Section(usize),
}

/// One field of a section.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) state: State,
    /// What a warning says beyond the state.
    pub(crate) why: Option<String>,
    pub(crate) shape: Shape,
}

/// The fields of one type.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    /// The kind it was first met in.
    pub(crate) kind: String,
    /// Where it was first met, such as `spec.servers[].tls`; empty for the kind itself.
    pub(crate) path: String,
    /// In the order asked for.
    pub(crate) fields: Vec<Field>,
    /// Whether other fields are read over.
    pub(crate) is_open: bool,
}

/// What has been found out so far.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    pub(crate) sections: Vec<Section>,
    /// The kind that is being read.
    kind: String,
    /// Sections by the name of the type that is read from them.
    by_type: BTreeMap<&'static str, usize>,
    /// The section and field at a path of the kind.
    owners: BTreeMap<String, (usize, usize)>,
}

impl Schema {
    /// Starts another kind.
    pub(crate) fn start(&mut self, kind: &str) -> usize {
        kind.clone_into(&mut self.kind);
        self.owners.clear();
        self.add(String::new())
    }

    fn add(&mut self, path: String) -> usize {
        let (kind, fields) = (self.kind.clone(), Vec::new());
        self.sections.push(Section { kind, path, fields, is_open: false });
        self.sections.len() - 1
    }

    /// Comes to the section of a type at a path. `None` when it is known already.
    pub(crate) fn enter(&mut self, name: &'static str, path: &str) -> Option<usize> {
        let known = self.by_type.get(name).copied();
        let section = known.unwrap_or_else(|| self.add(path.to_owned()));
        self.by_type.insert(name, section);
        if let Some(field) = self.owner(path) {
            field.shape = Shape::Section(section);
        }
        if known.is_none() { Some(section) } else { None }
    }

    /// Notes that a field was asked for.
    pub(crate) fn ask(&mut self, section: usize, name: &'static str, path: String) {
        let index = self.index(section, name);
        self.owners.insert(path, (section, index));
    }

    /// Notes what becomes of a field.
    pub(crate) fn mark(
        &mut self,
        section: usize,
        name: &'static str,
        state: State,
        why: Option<&str>,
    ) {
        let index = self.index(section, name);
        let field = &mut self.sections[section].fields[index];
        field.state = state;
        field.why = why.map(str::to_owned);
    }

    /// Notes which names the value at a path can have.
    pub(crate) fn names(&mut self, path: &str, names: Vec<&'static str>) {
        if let Some(field) = self.owner(path) {
            field.shape = Shape::Names(names);
        }
    }

    fn index(&mut self, section: usize, name: &'static str) -> usize {
        let fields = &mut self.sections[section].fields;
        if let Some(index) = fields.iter().position(|field| field.name == name) {
            return index;
        }
        let (state, why, shape) = (State::default(), None, Shape::default());
        fields.push(Field { name, state, why, shape });
        fields.len() - 1
    }

    /// Finds the field that a value belongs to: its own, or that of the list or map it is in.
    fn owner(&mut self, path: &str) -> Option<&mut Field> {
        let path = path.trim_end_matches("[]").trim_end_matches(".{key}").trim_end_matches("[]");
        let (section, field) = *self.owners.get(path)?;
        Some(&mut self.sections[section].fields[field])
    }
}
