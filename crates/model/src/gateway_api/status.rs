//! The status of a resource of the Gateway API: conditions, listeners, parents.

use sluis_nouns::SourceRef;
use sluis_resources::{ObjectReference, ParentRef};

/// What is said of a resource of the Gateway API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiStatus {
    /// `conditions`, by type.
    pub conditions: Vec<ApiCondition>,
    /// `listeners` of a Gateway.
    pub listeners: Vec<ListenerStatus>,
    /// `parents` of a route, or `ancestors` of a policy.
    pub parents: Vec<ParentStatus>,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiCondition {
    /// `type`.
    pub kind: &'static str,
    /// `status`.
    pub holds: bool,
    /// `reason`.
    pub reason: &'static str,
    /// `message`.
    pub message: String,
}

impl ApiCondition {
    /// Whether the condition tells of something wrong.
    #[must_use]
    pub fn is_trouble(&self) -> bool {
        self.holds == (self.kind == "Conflicted")
    }
}

/// The status of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerStatus {
    /// Place of the listener.
    pub at: SourceRef,
    /// `name`.
    pub name: String,
    /// `attachedRoutes`.
    pub attached_routes: usize,
    /// The kinds in `supportedKinds`.
    pub supported_kinds: Vec<&'static str>,
    /// `conditions`, by type.
    pub conditions: Vec<ApiCondition>,
}

/// The status of one `parentRef` of a route, or of one target of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentStatus {
    /// The parent as written.
    pub parent: ParentRef,
    /// `conditions`, by type.
    pub conditions: Vec<ApiCondition>,
}

impl ApiStatus {
    /// Every condition, with the place that it speaks of; `at` is that of the resource.
    pub fn all<'a>(
        &'a self,
        at: &'a SourceRef,
    ) -> impl Iterator<Item = (&'a SourceRef, &'a ApiCondition)> {
        let own = self.conditions.iter().map(move |one| (at, one));
        let of_listeners = self
            .listeners
            .iter()
            .flat_map(|listener| listener.conditions.iter().map(|one| (&listener.at, one)));
        let of_parents = self
            .parents
            .iter()
            .flat_map(|parent| parent.conditions.iter().map(|one| (&parent.parent.object.at, one)));
        own.chain(of_listeners).chain(of_parents)
    }
}

/// Why something is refused: reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Why {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Why {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// Both, under the first reason.
    pub(super) fn and(mut self, other: Option<Self>) -> Self {
        if let Some(other) = other {
            self.message += "; ";
            self.message += &other.message;
        }
        self
    }
}

/// A condition that holds unless there is a reason why not.
pub(super) fn unless(kind: &'static str, message: &str, why: Option<&Why>) -> ApiCondition {
    match why {
        None => ApiCondition { kind, holds: true, reason: kind, message: message.to_owned() },
        Some(why) => refused(kind, why),
    }
}

/// A condition that does not hold.
pub(super) fn refused(kind: &'static str, why: &Why) -> ApiCondition {
    ApiCondition { kind, holds: false, reason: why.reason, message: why.message.clone() }
}

/// The two of `first` and `second` that there are, put together.
pub(super) fn joined(first: Option<Why>, second: Option<Why>) -> Option<Why> {
    match first {
        Some(first) => Some(first.and(second)),
        None => second,
    }
}

/// Names a reference as messages do: `group/kind/name.namespace`.
pub(super) fn named(reference: &ObjectReference) -> String {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    let (group, kind) = (text(&reference.group), text(&reference.kind));
    format!("{group}/{kind}/{}.{}", reference.name, text(&reference.namespace))
}
