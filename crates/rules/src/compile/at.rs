//! Where in a resource we are, and what was found wrong there.

use std::cell::RefCell;

use envoy_types::pb::google::protobuf::Any;
use prost::Name;
use sluis_envoy::{Kind, unpack};

use crate::Fault;

/// Most faults kept of one resource; more tell nothing new.
const FAULTS_MAX: usize = 50;

/// The faults of one resource.
pub(super) struct Report {
    kind: Kind,
    name: String,
    faults: RefCell<Vec<Fault>>,
}

impl Report {
    pub(super) fn new(kind: Kind, name: &str) -> Self {
        Self { kind, name: name.to_owned(), faults: RefCell::default() }
    }

    /// The resource itself.
    pub(super) fn root(&self) -> At<'_> {
        At { report: self, parent: None, segment: Segment::Root }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.faults.borrow().is_empty()
    }

    pub(super) fn into_faults(self) -> Vec<Fault> {
        self.faults.into_inner()
    }
}

/// A place in a resource.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    report: &'a Report,
    parent: Option<&'a Self>,
    segment: Segment<'a>,
}

#[derive(Clone, Copy)]
enum Segment<'a> {
    Root,
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> At<'a> {
    /// A field of the message here.
    pub(super) fn field<'b>(&'b self, name: &'b str) -> At<'b>
    where
        'a: 'b,
    {
        // A raw identifier is the field's name in Rust only.
        let name = name.strip_prefix("r#").unwrap_or(name);
        At { report: self.report, parent: Some(self), segment: Segment::Field(name) }
    }

    /// An element of the list here.
    pub(super) fn nth<'b>(&'b self, index: usize) -> At<'b>
    where
        'a: 'b,
    {
        At { report: self.report, parent: Some(self), segment: Segment::Index(index) }
    }

    /// A value of the map here.
    pub(super) fn key<'b>(&'b self, key: &'b str) -> At<'b>
    where
        'a: 'b,
    {
        At { report: self.report, parent: Some(self), segment: Segment::Key(key) }
    }

    /// Rejects the resource for what is here.
    pub(super) fn fault(&self, message: impl Into<String>) {
        let mut faults = self.report.faults.borrow_mut();
        if faults.len() < FAULTS_MAX {
            faults.push(Fault {
                kind: self.report.kind,
                name: self.report.name.clone(),
                field: self.path(),
                message: message.into(),
            });
        }
    }

    /// Rejects the resource because the field here is set.
    pub(super) fn unsupported(&self) {
        self.fault("is not supported");
    }

    /// Takes a message out of an `Any`.
    pub(super) fn unpack<M: Name + Default>(&self, any: &Any) -> Option<M> {
        unpack(any).map_err(|error| self.fault(error.to_string())).ok()
    }

    fn path(&self) -> String {
        let mut path = self.parent.map(At::path).unwrap_or_default();
        match self.segment {
            Segment::Root => {}
            Segment::Field(name) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
            }
            Segment::Index(index) => path.push_str(&format!("[{index}]")),
            Segment::Key(key) => path.push_str(&format!("[{key:?}]")),
        }
        path
    }
}

/// Rejects the resource when a field differs from its default.
pub(super) fn refuse<T: Default + PartialEq>(at: &At<'_>, field: &str, value: &T) {
    if *value != T::default() {
        at.field(field).unsupported();
    }
}

/// Takes a message apart: fields to use, fields whose meaning does not concern us, and fields that
/// must not be set. A field that is in no list does not compile, so that a newer version of the
/// messages cannot bring one that nobody looked at.
macro_rules! fields {
    ($at:expr, $message:expr => $type:ident {
        use { $($used:ident),* $(,)? }
        accept { $($accepted:ident),* $(,)? }
        refuse { $($refused:ident),* $(,)? }
    }) => {
        let $type { $($used,)* $($accepted: _,)* $($refused,)* } = $message;
        $( crate::compile::at::refuse($at, stringify!($refused), $refused); )*
    };
}
pub(super) use fields;

/// The message's name in a type URL.
pub(super) fn message_of(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}
