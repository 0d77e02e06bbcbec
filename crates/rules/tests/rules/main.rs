//! What the compiled rules decide, from configurations as Envoy reads them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod chains;
mod compiling;
mod credentials;
mod page;
mod rbac;
mod routing;
mod support;
mod total;
