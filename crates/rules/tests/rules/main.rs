//! What the compiled rules decide, from configurations as Envoy reads them.

mod chains;
mod compiling;
mod routing;
mod support;
mod total;
