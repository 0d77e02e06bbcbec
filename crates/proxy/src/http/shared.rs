//! A configuration, counted within its worker.

use std::{ops::Deref, sync::Arc};

use crate::config::Config;

/// A configuration, counted within its worker.
#[derive(Debug)]
pub(super) struct Shared(pub(super) Arc<Config>);

impl Deref for Shared {
    type Target = Config;

    fn deref(&self) -> &Config {
        &self.0
    }
}
