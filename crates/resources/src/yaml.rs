//! Turns YAML text into small trees whose keys and values know their place.
//!
//! In:    a text of several documents (JSON is a subset), and how its lines map to a file's.
//! Out:   one [`Document`] each, a syntax fault costing only the document it is in.
//! Never: expands without bounds, merges keys (`<<`), or keeps the first of two equal keys quietly.
//!
//! Start at [`documents`].

mod scalar;

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput, Tag};
use sluis_nouns::SourceRef;

use crate::fault::Fault;
pub(crate) use scalar::{Plain, resolve};

/// Largest text that is read: several thousand objects, and far above what an editor is used for.
pub const TEXT_BYTES_MAX: usize = 4 << 20;

/// Most documents in one text, in proportion to [`TEXT_BYTES_MAX`].
const DOCUMENTS_MAX: usize = 10_000;

/// Deepest nesting. The deepest resource, an EnvoyFilter with Envoy's own nesting, stays under 40.
const DEPTH_MAX: usize = 64;

/// Most nodes that aliases may add to one document, so that a "billion laughs" stays small.
const ALIAS_NODES_MAX: usize = 20_000;

/// A line and a column of the file, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pos {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// A key or value with its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) at: Pos,
    pub(crate) kind: NodeKind,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum NodeKind {
    /// Unquoted: its type follows from its text.
    Plain(String),
    /// Quoted or folded: a string.
    Quoted(String),
    /// A `|` block: a string whose lines are those of the file.
    Literal {
        text: String,
        /// Place of the text's first character.
        first: Pos,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Everything that is asked for: what readers are shown to find out what they know.
    Anything,
}

/// See [`NodeKind::Anything`].
pub(crate) static ANYTHING: Node =
    Node { at: Pos { line: 1, column: 1 }, kind: NodeKind::Anything };

/// One key with its value. Keys of a map are unique.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: Pos,
    pub(crate) value: Node,
}

/// How the lines of a text map to those of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// The text's first character stands at this place of the file; its lines are the file's, each
    /// indented alike.
    From(Pos),
    /// The text was folded or escaped: everything is said to be here.
    Fixed(Pos),
}

impl Place {
    /// The text is the file.
    pub(crate) const WHOLE: Self = Self::From(Pos { line: 1, column: 1 });

    /// Maps a line and a column of the text, both from 0.
    fn pos(self, line: usize, column: usize) -> Pos {
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        match self {
            Self::Fixed(pos) => pos,
            Self::From(first) => Pos {
                line: first.line.saturating_add(small(line)),
                column: first.column.saturating_add(small(column)),
            },
        }
    }
}

/// One document of a text.
pub(crate) struct Document {
    /// The tree; `None` when the document is empty or cannot be read.
    pub(crate) root: Option<Node>,
    /// Syntax errors and equal keys.
    pub(crate) faults: Vec<Fault>,
}

/// Reads all documents of a text.
pub(crate) fn documents(file: &Arc<str>, text: &str, place: Place) -> Vec<Document> {
    let refuse = |message: String| {
        let at = place.pos(0, 0);
        let fault = Fault::error(SourceRef::new(file.clone(), at.line, at.column), message);
        vec![Document { root: None, faults: vec![fault] }]
    };
    if text.len() > TEXT_BYTES_MAX {
        return refuse(format!("the text is larger than {} MiB", TEXT_BYTES_MAX >> 20));
    }
    let chunks = split(text);
    if chunks.len() > DOCUMENTS_MAX {
        return refuse(format!("there are more than {DOCUMENTS_MAX} documents in one file"));
    }
    let read = |(line, chunk): (usize, &str)| Builder::new(file, chunk, place, line).document();
    chunks.into_iter().map(read).collect()
}

/// Cuts a text before each line that starts a document, with the number of each piece's first line.
///
/// YAML 1.2.2 §9.1.2: a line that starts with `---` ends the document before it wherever it stands,
/// also inside of block and quoted scalars.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut chunks = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let marks = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        // Directives (`%YAML`) belong to the document behind the marker.
        let before = &text[start..offset];
        if marks && !before.lines().all(|line| line.starts_with('%') || line.trim().is_empty()) {
            chunks.push((start_line, before));
            (start, start_line) = (offset, number);
        }
        offset += line.len();
    }
    chunks.push((start_line, &text[start..]));
    chunks
}

/// Builds the tree of one document from the parser's events.
struct Builder<'t> {
    parser: Parser<'t, StrInput<'t>>,
    /// Lines of the whole text before this document.
    lines_before: usize,
    place: Place,
    file: &'t Arc<str>,
    faults: Vec<Fault>,
    /// Where the builder is, for faults: keys and `[0]`.
    path: Vec<String>,
    anchors: BTreeMap<usize, Node>,
    alias_nodes: usize,
}

/// The document cannot be read further; the fault has been noted.
struct Broken;

impl<'t> Builder<'t> {
    fn new(file: &'t Arc<str>, text: &'t str, place: Place, lines_before: usize) -> Self {
        Self {
            parser: Parser::new_from_str(text),
            lines_before,
            place,
            file,
            faults: Vec::new(),
            path: Vec::new(),
            anchors: BTreeMap::new(),
            alias_nodes: 0,
        }
    }

    fn document(mut self) -> Document {
        let root = self.root().unwrap_or(None);
        Document { root, faults: self.faults }
    }

    fn root(&mut self) -> Result<Option<Node>, Broken> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::Nothing
                | Event::StreamStart
                | Event::DocumentStart(_)
                | Event::DocumentEnd => {}
                event if root.is_none() => root = Some(self.node(event, span, 0)?),
                // A document behind `...` without its own `---`.
                _ => return Err(self.broken(span.start, "a new document must start with '---'")),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), Broken> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                Err(self.broken(*error.marker(), &format!("this is not YAML: {}", error.info())))
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Broken> {
        if depth > DEPTH_MAX {
            let message = format!("values are nested deeper than {DEPTH_MAX} levels");
            return Err(self.broken(span.start, &message));
        }
        let at = self.pos(span.start);
        let (anchor, kind) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (anchor, self.scalar(text.into_owned(), style, tag.as_deref(), span))
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), &["seq"], span.start);
                (anchor, self.list(depth)?)
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), &["map"], span.start);
                (anchor, self.map(depth)?)
            }
            Event::Alias(id) => return self.alias(id, span, depth),
            _ => return Err(self.broken(span.start, "a value is expected here")),
        };
        let node = Node { at, kind };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<NodeKind, Broken> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(NodeKind::List(items));
            }
            self.path.push(format!("[{}]", items.len()));
            let item = self.node(event, span, depth + 1)?;
            items.push(self.with_final_colon(item));
            self.path.pop();
        }
    }

    /// Undoes YAML 1.2's reading of `[2001:db8::]` as a list with the map `{"2001:db8:": null}`:
    /// kubectl reads a text, and so does whoever writes addresses.
    fn with_final_colon(&self, item: Node) -> Node {
        let NodeKind::Map(entries) = &item.kind else { return item };
        let [Entry { key, key_at, value }] = entries.as_slice() else { return item };
        let NodeKind::Plain(nothing) = &value.kind else { return item };
        // A map in braces starts before its key; one over several lines is no address.
        let address = format!("{key}:");
        if nothing.is_empty() && item.at == *key_at && address.parse::<Ipv6Addr>().is_ok() {
            return Node { at: item.at, kind: NodeKind::Plain(address) };
        }
        item
    }

    fn map(&mut self, depth: usize) -> Result<NodeKind, Broken> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut places: BTreeMap<String, Pos> = BTreeMap::new();
        loop {
            let (event, span) = self.next()?;
            let key = match event {
                Event::MappingEnd => return Ok(NodeKind::Map(entries)),
                Event::Scalar(text, _, _, _) => text.into_owned(),
                _ => return Err(self.broken(span.start, "a key must be a plain text")),
            };
            let key_at = self.pos(span.start);
            self.path.push(key.clone());
            let (event, value_span) = self.next()?;
            let value = self.node(event, value_span, depth + 1)?;
            if key == "<<" {
                self.fault(key_at, "merge keys ('<<') are not supported");
            } else if let Some(first) = places.get(&key) {
                let message = format!("this key is written twice, first in line {}", first.line);
                self.fault(key_at, &message);
            } else {
                places.insert(key.clone(), key_at);
                entries.push(Entry { key, key_at, value });
            }
            self.path.pop();
        }
    }

    fn scalar(
        &mut self,
        text: String,
        style: ScalarStyle,
        tag: Option<&Tag>,
        span: Span,
    ) -> NodeKind {
        if let Some(tag) = tag {
            self.refuse_tag(Some(tag), &["str", "int", "bool", "null", "float"], span.start);
            if tag.suffix == "str" {
                return NodeKind::Quoted(text);
            }
        }
        match style {
            ScalarStyle::Plain => NodeKind::Plain(text),
            ScalarStyle::Literal => {
                let first = self.literal_start(&text, span.start);
                NodeKind::Literal { text, first }
            }
            _ => NodeKind::Quoted(text),
        }
    }

    /// Finds the place of the first character of a `|` block. The parser's mark stands at the first
    /// line that is not empty, behind the indentation.
    fn literal_start(&self, text: &str, start: Marker) -> Pos {
        let empty = text.bytes().take_while(|b| *b == b'\n').count();
        let line = start.line().saturating_sub(1).saturating_sub(empty);
        self.place.pos(self.lines_before + line, start.col())
    }

    fn alias(&mut self, id: usize, span: Span, depth: usize) -> Result<Node, Broken> {
        let Some(target) = self.anchors.get(&id) else {
            return Err(self.broken(span.start, "this alias names no anchor before it"));
        };
        let (nodes, levels) = measure(target);
        let target = target.clone();
        self.alias_nodes += nodes;
        if self.alias_nodes > ALIAS_NODES_MAX || depth + levels > DEPTH_MAX {
            return Err(self.broken(span.start, "aliases expand to too many values"));
        }
        Ok(target)
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, known: &[&str], mark: Marker) {
        if let Some(tag) = tag
            && !(tag.is_yaml_core_schema() && known.contains(&tag.suffix.as_str()))
        {
            let at = self.pos(mark);
            self.fault(at, &format!("the tag {}{} is not supported", tag.handle, tag.suffix));
        }
    }

    fn pos(&self, mark: Marker) -> Pos {
        self.place.pos(self.lines_before + mark.line().saturating_sub(1), mark.col())
    }

    fn fault(&mut self, at: Pos, message: &str) {
        let path = self.path.join(".").replace(".[", "[");
        let at = SourceRef::new(self.file.clone(), at.line, at.column);
        self.faults.push(Fault::error(at, message).field(path));
    }

    fn broken(&mut self, mark: Marker, message: &str) -> Broken {
        let at = self.pos(mark);
        self.fault(at, message);
        Broken
    }
}

/// Counts the nodes of a tree and its levels.
fn measure(node: &Node) -> (usize, usize) {
    let total = |children: &mut dyn Iterator<Item = &Node>| {
        children
            .map(measure)
            .fold((1, 1), |(nodes, levels), (more, deep)| (nodes + more, levels.max(deep + 1)))
    };
    match &node.kind {
        NodeKind::List(items) => total(&mut items.iter()),
        NodeKind::Map(entries) => total(&mut entries.iter().map(|entry| &entry.value)),
        _ => (1, 1),
    }
}

#[cfg(test)]
mod tests;
