//! What a run begins with, and what it leaves beside changed headers and bodies.

use std::{fmt, rc::Rc};

use crate::{Facts, HeaderRefused};

/// Names in lower case and values, in order.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Which function of the script runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Side {
    /// `envoy_on_request`.
    #[default]
    Request,
    /// `envoy_on_response`.
    Response,
}

/// What follows the head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyIs {
    /// Nothing: the message ends with its head.
    #[default]
    Absent,
    /// A body, which may turn out to be empty.
    Follows,
    /// Bytes of another protocol, in both directions: they are not for scripts.
    Tunnel,
}

/// What a run begins with.
pub struct Begin {
    /// Which function runs.
    pub side: Side,
    /// What follows the head.
    pub body: BodyIs,
    /// What the script may ask.
    pub facts: Rc<dyn Facts>,
}

/// A response that a script makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// 200 to 599.
    pub status: u16,
    /// Names in lower case and values, sorted by name.
    pub headers: Pairs,
    /// May be empty.
    pub body: Vec<u8>,
}

/// What a script wants besides changes of headers and body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Whether it has changed the head.
    pub has_changed_head: bool,
    /// Whether the route is to be chosen anew: `clearRouteCache()`.
    pub clears_route: bool,
    /// The endpoint that the request is to go to, and whether to no other.
    pub override_host: Option<(String, bool)>,
    /// Whether the client's connection ends with this exchange.
    pub drains: bool,
}

/// Why a run failed. The client must get a 500: the stream is as it was, not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The script raised an error.
    #[error("script {name} failed: {message}")]
    Script {
        /// The filter's name.
        name: String,
        /// Lua's message, with the line.
        message: String,
    },
    /// The stream cannot have what the script made of it; some changes may have been carried out.
    #[error(transparent)]
    Header(#[from] HeaderRefused),
}

impl fmt::Debug for Begin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Begin").field("side", &self.side).field("body", &self.body).finish()
    }
}
