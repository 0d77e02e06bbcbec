//! Reads typed values out of a tree, and notes everything that is wrong on the way.
//!
//! In:    a node of the tree, with the path that leads to it.
//! Out:   values that are checked, or `None` with at least one fault noted.
//! Never: stops at the first fault, or leaves a field unread in silence.
//!
//! Start at [`Value::fields`]: a reader asks for each field it knows first, and builds its value
//! afterwards, so that all faults are found in one go. What nobody asked for is an unknown field.

mod basic;
mod schema;
mod suggest;

use std::cell::RefCell;
use std::sync::Arc;

use sluis_nouns::SourceRef;

use crate::fault::Fault;
use crate::yaml::{ANYTHING, Entry, Node, NodeKind, Plain, Pos, resolve};

pub use basic::{DurationError, parse_duration};
pub(crate) use basic::{OpenDuration, one_of};
pub(crate) use schema::{Field, Schema, Section, Shape, State};
pub(crate) use suggest::nearest;

/// What is common to all values of one object.
pub(crate) struct Doc {
    /// The file's name.
    pub(crate) file: Arc<str>,
    /// The object, as faults name it.
    pub(crate) resource: Option<String>,
    /// The object's namespace.
    pub(crate) namespace: String,
    /// Whether `snake_case` names of fields are taken, as protobuf's JSON reader does.
    pub(crate) snake_case: bool,
    /// Whether a field that does not exist is a warning, and not an error.
    pub(crate) lenient: bool,
    /// What the readers know, where they read [`ANYTHING`] to tell it.
    pub(crate) schema: Option<RefCell<Schema>>,
    /// What is wrong so far.
    pub(crate) faults: RefCell<Vec<Fault>>,
}

impl Doc {
    /// Makes the context of one object.
    pub(crate) fn new(file: Arc<str>) -> Self {
        let faults = RefCell::default();
        let namespace = String::new();
        let (resource, schema) = (None, None);
        Self { file, resource, namespace, snake_case: false, lenient: false, schema, faults }
    }

    /// Makes a place in this file.
    pub(crate) fn place(&self, pos: Pos) -> SourceRef {
        SourceRef::new(self.file.clone(), pos.line, pos.column)
    }

    /// Makes the context in which readers tell what they know.
    pub(crate) fn describing() -> Self {
        Self { schema: Some(RefCell::default()), ..Self::new("".into()) }
    }

    /// Notes a fault, in the name of the object.
    pub(crate) fn note(&self, mut fault: Fault) {
        if self.schema.is_some() {
            return;
        }
        fault.resource.clone_from(&self.resource);
        self.faults.borrow_mut().push(fault);
    }

    /// Returns how many errors have been noted.
    pub(crate) fn errors(&self) -> usize {
        self.faults.borrow().iter().filter(|fault| fault.is_error()).count()
    }
}

/// A type that can be read from a value.
pub(crate) trait Read: Sized {
    /// Reads the value; `None` when a fault was noted.
    fn read(value: &Value<'_>) -> Option<Self>;
}

/// One node with its path.
#[derive(Clone)]
pub(crate) struct Value<'n> {
    pub(crate) node: &'n Node,
    pub(crate) doc: &'n Doc,
    pub(crate) path: String,
}

impl<'n> Value<'n> {
    /// Makes the value at the top of a document.
    pub(crate) fn root(node: &'n Node, doc: &'n Doc) -> Self {
        Self { node, doc, path: String::new() }
    }

    /// Returns the place.
    pub(crate) fn at(&self) -> SourceRef {
        self.doc.place(self.node.at)
    }

    /// Notes an error here and returns `None`.
    pub(crate) fn fault<T>(&self, message: impl Into<String>) -> Option<T> {
        self.doc.note(Fault::error(self.at(), message).field(&self.path));
        None
    }

    /// Notes an error here with advice, and returns `None`.
    pub(crate) fn fault_help<T>(&self, message: impl Into<String>, help: &str) -> Option<T> {
        self.doc.note(Fault::error(self.at(), message).field(&self.path).help(help));
        None
    }

    /// Notes a warning here.
    pub(crate) fn warn(&self, message: impl Into<String>) {
        self.doc.note(Fault::warning(self.at(), message).field(&self.path));
    }

    /// Returns whether readers tell what they know, and there is no text.
    pub(crate) fn is_described(&self) -> bool {
        self.doc.schema.is_some()
    }

    /// Returns whether the value is null, which counts as not written.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.node.kind, NodeKind::Plain(text) if resolve(text) == Plain::Null)
    }

    /// Returns the text of a string; anything else is a fault.
    pub(crate) fn text(&self) -> Option<&'n str> {
        match &self.node.kind {
            NodeKind::Quoted(text) | NodeKind::Literal { text, .. } => Some(text),
            NodeKind::Plain(text) if resolve(text) == Plain::Text => Some(text),
            NodeKind::Anything => Some("anything"),
            NodeKind::Plain(text) => self.fault_help(
                format!("a text is expected, and {text:?} without quotes is {}", self.what()),
                "write it in quotes",
            ),
            _ => self.expected("a text"),
        }
    }

    /// Returns whether the value is a text, quoted where its look says otherwise.
    pub(crate) fn is_text(&self) -> bool {
        match &self.node.kind {
            NodeKind::Quoted(_) | NodeKind::Literal { .. } | NodeKind::Anything => true,
            NodeKind::Plain(text) => resolve(text) == Plain::Text,
            _ => false,
        }
    }

    /// Returns whether the value is other than protobuf's default: an empty text, list or map, 0,
    /// false or null.
    pub(crate) fn is_set(&self) -> bool {
        match &self.node.kind {
            NodeKind::Quoted(text) | NodeKind::Literal { text, .. } => !text.is_empty(),
            NodeKind::Plain(text) => {
                !matches!(resolve(text), Plain::Null | Plain::Bool(false) | Plain::Int(0))
            }
            NodeKind::List(items) => !items.is_empty(),
            NodeKind::Map(entries) => !entries.is_empty(),
            NodeKind::Anything => true,
        }
    }

    /// Reads the fields of a type, and tells them where that is asked for.
    pub(crate) fn section<T>(
        &self,
        read: impl FnOnce(&mut Fields<'n, '_>) -> Option<T>,
    ) -> Option<T> {
        let Some(schema) = &self.doc.schema else { return self.fields(read) };
        let section = schema.borrow_mut().enter(std::any::type_name::<T>(), &self.path)?;
        self.described(section, read)
    }

    /// Lets a reader tell its fields.
    pub(crate) fn described<T>(
        &self,
        section: usize,
        read: impl FnOnce(&mut Fields<'n, '_>) -> Option<T>,
    ) -> Option<T> {
        let mut fields = Fields { section: Some(section), ..Fields::new(self, &[]) };
        read(&mut fields)
    }

    /// Reads a map whose fields are known.
    ///
    /// The reader asks for all fields it knows before it returns; each other one is a fault.
    pub(crate) fn fields<T>(
        &self,
        read: impl FnOnce(&mut Fields<'n, '_>) -> Option<T>,
    ) -> Option<T> {
        let entries = match &self.node.kind {
            NodeKind::Map(entries) => entries.as_slice(),
            NodeKind::Anything => &[],
            _ => return self.expected("a map of fields"),
        };
        let mut fields = Fields::new(self, entries);
        let result = read(&mut fields);
        if !fields.rest_ignored {
            fields.report_unknown();
        }
        result
    }

    /// Returns the values of a list; anything else is a fault.
    pub(crate) fn items(&self) -> Option<Vec<Self>> {
        if let NodeKind::Anything = &self.node.kind {
            return Some(vec![Self { path: format!("{}[]", self.path), ..self.clone() }]);
        }
        let NodeKind::List(items) = &self.node.kind else { return self.expected("a list") };
        let item =
            |(index, node)| Self { node, doc: self.doc, path: format!("{}[{index}]", self.path) };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// Returns the entries of a map with free keys; anything else is a fault.
    pub(crate) fn entries(&self) -> Option<Vec<(&'n str, Self)>> {
        if let NodeKind::Anything = &self.node.kind {
            let path = format!("{}.{{key}}", self.path);
            return Some(vec![("anything", Self { path, ..self.clone() })]);
        }
        let NodeKind::Map(entries) = &self.node.kind else { return self.expected("a map") };
        Some(entries.iter().map(|entry| (entry.key.as_str(), self.child(entry))).collect())
    }

    /// Reads another type here.
    pub(crate) fn read<T: Read>(&self) -> Option<T> {
        T::read(self)
    }

    /// Notes that another type is expected.
    pub(crate) fn expected<T>(&self, what: &str) -> Option<T> {
        self.fault(format!("{what} is expected, and this is {}", self.what()))
    }

    fn child(&self, entry: &'n Entry) -> Self {
        Self { node: &entry.value, doc: self.doc, path: self.path_of(&entry.key) }
    }

    fn path_of(&self, name: &str) -> String {
        let dot = if self.path.is_empty() { "" } else { "." };
        format!("{}{dot}{name}", self.path)
    }

    /// Names the type that the value has.
    fn what(&self) -> &'static str {
        match &self.node.kind {
            NodeKind::Anything => "anything",
            NodeKind::List(_) => "a list",
            NodeKind::Map(_) => "a map",
            NodeKind::Quoted(_) | NodeKind::Literal { .. } => "a text",
            NodeKind::Plain(text) => match resolve(text) {
                Plain::Null => "null",
                Plain::Bool(_) => "a boolean",
                Plain::Int(_) | Plain::Float(_) => "a number",
                Plain::Text => "a text",
            },
        }
    }
}

/// The fields of a map, while they are being read.
pub(crate) struct Fields<'n, 'v> {
    value: &'v Value<'n>,
    entries: &'n [Entry],
    known: Vec<&'static str>,
    rest_ignored: bool,
    /// The section that is told.
    section: Option<usize>,
}

impl<'n, 'v> Fields<'n, 'v> {
    fn new(value: &'v Value<'n>, entries: &'n [Entry]) -> Self {
        Self { value, entries, known: Vec::new(), rest_ignored: false, section: None }
    }

    /// Tells what becomes of a field, where that is asked for.
    fn tell(&self, name: &'static str, state: State, why: Option<&str>) {
        if let (Some(schema), Some(section)) = (&self.value.doc.schema, self.section) {
            schema.borrow_mut().mark(section, name, state, why);
        }
    }

    /// Returns the place of the map.
    pub(crate) fn at(&self) -> SourceRef {
        self.value.at()
    }

    /// Returns the map itself, for faults.
    pub(crate) fn value(&self) -> &Value<'n> {
        self.value
    }

    /// Returns a field, when it is written and not null.
    pub(crate) fn get(&mut self, name: &'static str) -> Option<Value<'n>> {
        self.known.push(name);
        if let Some(schema) = &self.value.doc.schema {
            let path = self.value.path_of(name);
            if let Some(section) = self.section {
                schema.borrow_mut().ask(section, name, path.clone());
            }
            return Some(Value { node: &ANYTHING, doc: self.value.doc, path });
        }
        let snake = self.value.doc.snake_case;
        let is = |key: &str| key == name || (snake && key == suggest::snake_case(name));
        let entry = self.entries.iter().find(|entry| is(&entry.key))?;
        Some(self.value.child(entry)).filter(|value| !value.is_null())
    }

    /// Reads a field that may be missing.
    pub(crate) fn opt<T: Read>(&mut self, name: &'static str) -> Option<T> {
        self.get(name)?.read()
    }

    /// Reads a field; missing means the type's default.
    pub(crate) fn or_default<T: Read + Default>(&mut self, name: &'static str) -> T {
        self.opt(name).unwrap_or_default()
    }

    /// Reads a field that must be there.
    pub(crate) fn req<T: Read>(&mut self, name: &'static str) -> Option<T> {
        match self.get(name) {
            Some(value) => value.read(),
            None => {
                self.missing(name);
                None
            }
        }
    }

    /// Notes that a field must be there.
    pub(crate) fn missing(&self, name: &str) {
        self.fault_at(name, "this field is required and missing");
    }

    /// Notes an error of a field that is not there, at the map's place.
    pub(crate) fn fault_at(&self, name: &str, message: impl Into<String>) {
        let dot = if self.value.path.is_empty() { "" } else { "." };
        let path = format!("{}{dot}{name}", self.value.path);
        self.value.doc.note(Fault::error(self.value.at(), message).field(path));
    }

    /// Returns whether a field is written and not null.
    pub(crate) fn has(&mut self, name: &'static str) -> bool {
        self.get(name).is_some()
    }

    /// Notes an error when more than one of the fields is written.
    pub(crate) fn at_most_one(&mut self, names: &[&'static str]) {
        let written: Vec<_> = names.iter().copied().filter(|name| self.has(name)).collect();
        if written.len() > 1
            && let Some(value) = self.get(written[1])
        {
            value.fault::<()>(format!("only one of {} can be set", written.join(" and ")));
        }
    }

    /// Refuses fields that Istio knows and this program does not obey.
    pub(crate) fn unsupported(&mut self, names: &[&'static str]) {
        for name in names {
            if let Some(value) = self.get(name) {
                value.fault::<()>("this field is known, but not supported");
                self.tell(name, State::Refused, None);
            }
        }
    }

    /// Takes fields that change nothing here, with a warning.
    pub(crate) fn without_effect(&mut self, names: &[&'static str]) {
        for name in names {
            if let Some(value) = self.get(name) {
                value.warn("this field is known, and has no effect here");
                self.tell(name, State::NoEffect, None);
            }
        }
    }

    /// Takes fields that are read and checked, and that nothing carries out yet, with a warning: what
    /// works without them only works less well.
    pub(crate) fn not_carried_out(&mut self, names: &[&'static str]) {
        for name in names {
            if let Some(value) = self.get(name) {
                value.warn("this field is known, and not carried out yet");
                self.tell(name, State::NotYet, None);
            }
        }
    }

    /// Takes fields that never have an effect, with a warning that says why.
    pub(crate) fn never_used(&mut self, names: &[&'static str], why: &str) {
        self.useless(names, why);
        for name in names {
            self.tell(name, State::NoEffect, Some(why));
        }
    }

    /// Takes fields that another field makes useless, with a warning that says so.
    pub(crate) fn useless(&mut self, names: &[&'static str], why: &str) {
        for name in names {
            if let Some(value) = self.get(name) {
                value.warn(format!("this has no effect: {why}"));
            }
        }
    }

    /// Takes fields that are rightly of no interest.
    pub(crate) fn ignore(&mut self, names: &[&'static str]) {
        self.known.extend(names);
        for name in names {
            self.tell(name, State::Ignored, None);
        }
    }

    /// Leaves all other fields unread: what they belong to has been refused as a whole.
    pub(crate) fn ignore_rest(&mut self) {
        self.rest_ignored = true;
        if let (Some(schema), Some(section)) = (&self.value.doc.schema, self.section) {
            schema.borrow_mut().sections[section].is_open = true;
        }
    }

    fn report_unknown(self) {
        let doc = self.value.doc;
        for entry in self.entries {
            let known = |name: &&str| {
                **name == entry.key || (doc.snake_case && suggest::snake_case(name) == entry.key)
            };
            if self.known.iter().any(known) {
                continue;
            }
            let (at, message) = (doc.place(entry.key_at), "there is no such field");
            let make = if doc.lenient { Fault::warning } else { Fault::error };
            let mut fault = make(at, message.to_owned()).field(self.value.child(entry).path);
            if let Some(name) = nearest(&entry.key, &self.known) {
                fault = fault.help(format!("did you mean {name:?}?"));
            }
            doc.note(fault);
        }
    }
}
