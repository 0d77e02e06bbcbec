//! Serves HTTP on a connection. (Being written.)

use std::{rc::Rc, sync::Arc};

use sluis_rules::HttpManager;

use crate::{conn::Downstream, worker::Worker};

/// What HTTP keeps per worker: upstream pools, scripts.
#[derive(Debug, Default)]
pub struct WorkerState;

/// Serves a connection until it ends.
pub async fn serve(downstream: Downstream, manager: Arc<HttpManager>, worker: Rc<Worker>) {
    let _ = (downstream, manager, worker);
}
