//! Turns the inputs of one proxy into Envoy's messages.

use sluis_envoy::ResourceSet;

use crate::{Fault, Inputs};

/// What one proxy should hold, and what could not be carried out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rendered {
    /// The resources.
    pub set: ResourceSet,
    /// What users asked for and did not get, each with its place.
    pub faults: Vec<Fault>,
}

/// Turns the inputs of one proxy into Envoy's messages.
#[must_use]
pub fn render(inputs: &Inputs) -> Rendered {
    Rendered { set: ResourceSet::default(), faults: inputs.faults.clone() }
}
