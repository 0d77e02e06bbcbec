//! Envoy's xDS resources as values: what one proxy should hold, by kind and name.
//!
//! In:    Envoy v3 messages, from the translation (control plane) or off the wire (data plane).
//! Out:   a [`ResourceSet`]; its encoded form with content hashes; `Any` packing.
//! Never: does I/O, reads a clock, or knows an Istio or Kubernetes resource.
//!
//! This is the contract between the control plane and the data plane. Start at [`ResourceSet`].

mod any;
mod canonical;
pub mod credentials;
mod encoded;
mod kind;
mod names;
mod set;

pub use any::{UnpackError, pack, type_url, unpack};
pub use encoded::{Difference, Encoded, EncodedSet, KindSet, WeakKindSet, mark};
pub use kind::Kind;
pub use names::{NameInfo, NameTable};
pub use set::{NAME_TABLE, RejectedResource, ResourceSet};
